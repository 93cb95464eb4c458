"""The id that a folder's run has in W&B, kept beside what it describes."""

import secrets
from pathlib import Path

from anomalib_rd.results.files import write_atomically

WANDB_ID = "wandb-id.txt"


def kept_id(folder: Path, again: bool) -> str:
    """The id kept in a folder, or a new one, which is kept there.

    Drawn and not computed: W&B refuses the id of a run that was deleted, and a removed folder
    is a new start.

    Args:
        folder: made if it does not exist.
        again: whether to go on with the run whose id is there, if one is.
    """
    path = folder / WANDB_ID
    if again and path.is_file():
        return path.read_text().strip()
    made = secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(f"{made}\n".encode()))
    return made
