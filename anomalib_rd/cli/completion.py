"""Tab completion: Hydra's, which knows nothing of verbs."""

import os


def run(words: list[str]) -> int:
    """Answer the shell's query, with the verb taken out of the line before Hydra sees it."""
    from anomalib_rd.cli import COMMANDS
    from anomalib_rd.cli.train import run as train

    line = os.environ.get("COMP_LINE", "")
    typed = line.split(" ")
    if len(typed) == 2:
        print("\n".join(verb for verb in COMMANDS if verb.startswith(typed[1])))
        return 0
    if typed[1] != "train":
        return 0
    os.environ["COMP_LINE"] = " ".join([typed[0], *typed[2:]])
    return train(words)
