"""Tab completion: of the commands, and of overrides by Hydra."""

import os


def run(arguments: list[str]) -> int:
    """Answer the shell's query; Hydra gets the line without the name of the command."""
    from anomalib_rd.cli import COMMANDS
    from anomalib_rd.cli.train import run as train

    program, typed, *rest = [*os.environ.get("COMP_LINE", "").split(" "), ""]
    if len(rest) == 1:
        print("\n".join(command for command in COMMANDS if command.startswith(typed)))
    if len(rest) < 2 or typed != "train":
        return 0
    os.environ["COMP_LINE"] = " ".join([program, *rest[:-1]])
    return train(arguments)
