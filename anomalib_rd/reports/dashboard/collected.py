"""All that the page shows, read from the runs' folders once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from anomalib_rd.reports.dashboard.runs import Group, Run, read_runs
from anomalib_rd.reports.dashboard.sweeps import Sweep, find_sweeps
from anomalib_rd.results.statistics import choose_baselines, compare_variants
from anomalib_rd.results.table import category_table, load_runs


@dataclass(frozen=True)
class Collected:
    """The tables of `load_runs`, `category_table` and `compare_variants`, and what they lack."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    compared: pd.DataFrame
    baselines: dict[str, str]
    read: list[Run]
    groups: list[Group]
    sweeps: list[Sweep]


def collect(folders: Sequence[Path], baseline: str | None) -> Collected:
    """Read the folders; errors as for `build_page`."""
    runs = load_runs(folders)
    baselines = choose_baselines(runs, baseline)
    against = runs["data"].map(baselines) == runs["variant"]
    # The baseline comes first among the variants of its data.
    runs = pd.concat([runs[against], runs[~against]], ignore_index=True)
    read, groups = read_runs(runs)
    return Collected(
        runs=runs,
        summary=category_table(runs),
        compared=compare_variants(runs, baseline),
        baselines=baselines,
        read=read,
        groups=groups,
        sweeps=find_sweeps(folders),
    )
