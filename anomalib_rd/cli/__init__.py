"""The command line: a verb, then what the verb takes. Heavy imports are inside the verbs."""

import os
import sys
from collections.abc import Callable
from importlib import import_module

from anomalib_rd import __version__
from anomalib_rd.cli.common import protect_output
from anomalib_rd.cli.errors import explain

VERBS = {
    "train": "train and judge a model; Hydra overrides, -m for many, --from RESULT to repeat one",
    "evaluate": "judge a run's checkpoint again, or on other data",
    "predict": "judge images by a run or an exported file: scores, verdicts, heatmaps, maps",
    "export": "a run to one file for ONNX Runtime, OpenVINO or torch, checked against torch",
    "status": "what a sweep has done, is doing and lacks, and the time left",
    "report": "tables, statistics and heatmap sheet of the runs in folders",
    "study": "list the jobs of a study; write its results, summary and figure",
    "dashboard": "serve the reports of a folder on this machine, refreshed as runs finish",
    "workspace": "save the W&B view of a project: categories, ablations, curves, images",
    "data": "list or check a data set, download MVTec AD, show or clear the cache",
}

USAGE = "\n".join(
    [
        "usage: anomalib-rd VERB ... [--debug]",
        "",
        "Unsupervised industrial anomaly detection by reverse knowledge distillation.",
        "",
        *(f"  {verb:9} {what}" for verb, what in VERBS.items()),
        "",
        "  anomalib-rd VERB --help   what the verb takes",
        "  --debug                   show the traceback of an error",
        "  --version                 print the version",
    ]
)


def main(arguments: list[str] | None = None) -> int:
    """Run a verb.

    Returns:
        The exit status: 0, 1 if something failed, 2 for a mistake the user can mend.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    protect_output()
    debug = "--debug" in words or os.environ.get("HYDRA_FULL_ERROR") == "1"
    words = [word for word in words if word != "--debug"]
    if words and words[0] in ("-sc", "--shell-completion"):
        return verb("completion")(words)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"anomalib-rd {__version__}")
        return 0
    if words[0] not in VERBS:
        print(f"anomalib-rd: no verb '{words[0]}'; choose {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        return verb(words[0])(words[1:])
    except KeyboardInterrupt as stop:
        print(
            f"\nanomalib-rd: {'; '.join(filter(None, ['interrupted', str(stop)]))}", file=sys.stderr
        )
        return 130
    except Exception as error:
        line = explain(error)
        if debug or line is None:
            raise
        print(f"anomalib-rd: {line}", file=sys.stderr)
        return 2


def verb(name: str) -> Callable[[list[str]], int]:
    """The function behind a verb."""
    run: Callable[[list[str]], int] = import_module(f"anomalib_rd.cli.{name}").run
    return run
