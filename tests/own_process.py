"""Runs each module marked ``own_process`` in its own process, in any order with other tests.

Libraries such as ONNX Runtime, OpenVINO and NNCF change the state of the process that loads them.
The child process sends its reports, and the plugin passes them on like those of other tests.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

REPORTS = "ANOMALIB_RD_TEST_REPORTS"  # set in the child: the file for its reports


class OwnProcessPlugin:
    """In the main process: runs the child. In the child: writes the reports."""

    def __init__(self, config):
        self.config = config
        self.file = os.environ.get(REPORTS)
        self.reports = {}  # node ID -> reports

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Run the module with the first of its tests; report one test per call."""
        if self.file or self.config.option.usepdb or not item.get_closest_marker("own_process"):
            return None
        if item.nodeid not in self.reports:
            self.run([other.nodeid for other in item.session.items if other.path == item.path])
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports[item.nodeid]:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # The test before this one left the fixtures of this one's folder in place.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def run(self, nodeids):
        """Run tests in a child; those without a report, as after a crash, fail."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        with TemporaryDirectory() as folder:
            file = Path(folder, "reports.pickle")
            file.touch()
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *nodeids],
                cwd=self.config.rootpath,
                env={**environment, REPORTS: str(file)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            reports = read_reports(file)
        self.reports |= {nodeid: [] for nodeid in nodeids}
        for data in reports:
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            self.reports[report.nodeid].append(report)
        for nodeid in nodeids:
            if not any(report.when == "teardown" for report in self.reports[nodeid]):
                text = f"no report; the process ended with status {done.returncode}\n{done.stdout}"
                location = (nodeid.partition("::")[0], None, nodeid)
                failure = pytest.TestReport(nodeid, location, {}, "failed", text, "call")
                self.reports[nodeid].append(failure)

    def pytest_runtest_logreport(self, report):
        """Write the report to the file that the main process reads."""
        if self.file:
            data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
            with Path(self.file).open("ab") as stream:
                pickle.dump(data, stream)


def read_reports(file):
    """All reports in a file."""
    reports = []
    with file.open("rb") as stream:
        while stream.peek():
            reports.append(pickle.load(stream))
    return reports
