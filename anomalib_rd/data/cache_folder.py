"""Where what can be made again is kept between runs: demo data, decoded images."""

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """``ANOMALIB_RD_CACHE``, else the platform's cache folder for this program."""
    return Path(os.environ.get("ANOMALIB_RD_CACHE") or user_cache_dir("anomalib_rd")).expanduser()
