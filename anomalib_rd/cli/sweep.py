"""What happens by itself at the end of a multirun."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from anomalib_rd.errors import UserError


class ReportAtEnd(Callback):
    """Prints the table of the sweep and exits with status 1 if a job failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra after the last job, in the process that launched them."""
        from anomalib_rd.reports.report import report
        from anomalib_rd.results.record import find_failures

        folder = Path(config.hydra.sweep.dir)
        failed = find_failures(folder)
        try:
            report([folder])
        except UserError as error:  # not one run is complete
            print(f"anomalib-rd: {error}", file=sys.stderr)
        if failed:
            raise SystemExit(1)
