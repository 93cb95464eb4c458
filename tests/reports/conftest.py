import sys
from pathlib import Path

# The made-up runs of tests/results serve here too.
sys.path.append(str(Path(__file__).parents[1] / "results"))
