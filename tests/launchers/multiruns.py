"""Commands as a user types them, in real processes."""

import os
import subprocess
import sys
from pathlib import Path

PROBE = Path(__file__).with_name("probe.py")
JOBS = [
    *("data=mvtec", "data.image_size=[64,64]", "data.num_workers=1", "trainer=cpu"),
    *("model.teacher.name=test_efficientnet.r160_in1k", "model.teacher.weights=random"),
    *("trainer.max_epochs=1", "logger=none", "report.heatmaps=0", "report.html=false"),
]


def start(cwd, words, env=None):
    """Run a command in a folder, made if missing, with one thread per process."""
    cwd.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", **(env or {})}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=280,
    )
