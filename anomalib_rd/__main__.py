"""``python -m anomalib_rd`` is ``anomalib-rd``."""

import sys

from anomalib_rd.cli import main

sys.exit(main())
