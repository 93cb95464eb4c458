"""The command line. Each command has a module; heavy imports are inside its functions."""

import os
import sys
from importlib import import_module

from anomalib_rd import __version__
from anomalib_rd.cli.common import Parser, protect_output

COMMANDS = {
    "train": "train and evaluate a model, or with -m several; configured by Hydra overrides",
    "evaluate": "evaluate the checkpoint of a run again, or on other data",
    "predict": "score images with a run or an exported file; draw heatmaps",
    "export": "export a run to ONNX, OpenVINO or torch, verified against torch",
    "status": "show which runs of a sweep are complete, running, failed or missing",
    "report": "compare runs: tables, statistics, figures, report page",
    "study": "list the jobs of a study, or write its results and figure",
    "dashboard": "serve the report pages of a folder to the browser",
    "workspace": "save a Weights & Biases workspace view of a project",
    "data": "list, check or download data sets; manage the image cache",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and report user errors as one line.

    Returns:
        The exit status: 0; 1 if something failed; 2 for a user error; 130 if interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    protect_output()
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        return run_command([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt as stop:
        reason = "; ".join(filter(None, ["interrupted", str(stop)]))
        print(f"\nanomalib-rd: {reason}", file=sys.stderr)
        return 130
    except Exception as error:
        from anomalib_rd.cli.errors import explain

        line = explain(error)
        if debug or line is None:
            raise
        print(f"anomalib-rd: {line}", file=sys.stderr)
        return 2


def run_command(arguments: list[str]) -> int:
    """Parse the arguments and run their command; returns the exit status.

    Raises:
        UserError: unknown command or option, or an error of the command.
    """
    command = arguments[0] if arguments else None
    if command in ("-sc", "--shell-completion"):
        return int(import_module("anomalib_rd.cli.completion").run(arguments))
    if command == "train":  # Hydra parses what follows
        return int(import_module("anomalib_rd.cli.train").run(arguments[1:]))
    parser = make_parser(command)
    if command is None:
        parser.print_help()
        return 2
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a list of positional arguments only in one piece, not around options.
    listed = next((name for name in ("overrides", "images", "folders") if name in options), None)
    unknown = [word for word in rest if listed is None or word.startswith("-")]
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if listed is not None:
        setattr(options, listed, [*getattr(options, listed), *rest])
    return int(options.run_action(options))


def make_parser(command: str | None) -> Parser:
    """The parser of all commands; only the given one has its options."""
    parser = Parser(
        prog="anomalib-rd",
        description="Unsupervised industrial anomaly detection by reverse knowledge distillation.",
        epilog="Run `anomalib-rd COMMAND --help` for the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"anomalib-rd {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog=parser.prog
    )
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary)
        if name == command:
            subparser.set_defaults(parser=subparser)
            import_module(f"anomalib_rd.cli.{name}").add_arguments(subparser)
    return parser
