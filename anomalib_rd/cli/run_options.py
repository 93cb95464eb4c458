"""What `evaluate`, `predict` and `export` share: which run, on which device, with which teacher."""

import argparse

from anomalib_rd.cli import arguments


class Parser(arguments.Parser):
    """Takes a run, and unless told otherwise a device."""

    def __init__(self, verb: str, description: str, device: bool = True) -> None:
        super().__init__(prog=f"anomalib-rd {verb}", description=description)
        self.add_argument("run", metavar="RUN", help="a run's folder, or its checkpoints/last.ckpt")
        if device:
            self.add_argument(
                "--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)"
            )
        self.add_argument(
            "--teacher-weights", metavar="FILE", help="where the teacher's weights are now"
        )
        self.add_argument(
            "--other-teacher",
            action="store_true",
            help="take a teacher that is not the one of the training; scores and threshold suffer",
        )
        self.add_argument(
            "--trust",
            action="store_true",
            help="run code from outside of anomalib-rd that the run's config names",
        )

    def parsed(self, words: list[str]) -> argparse.Namespace:
        """Parse; the run may be said as ``run=RUN`` too."""
        said = [word for word in words if word.startswith("run=")]
        others = [word for word in words if word not in said]
        return self.parse_intermixed_args([*(word[len("run=") :] for word in said), *others])
