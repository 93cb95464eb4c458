"""Does the validation on held-out images rank the variants as the test does?"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from anomalib_rd.results.record import read_record
from anomalib_rd.results.statistics import RESAMPLES, SEED
from anomalib_rd.results.table import MEAN_ALL, metric_columns, without_repeats

VALIDATION = "val/"
FEWEST = 3
COLUMNS = ("data", "category", "metric", "rho", "p", "n", "n_runs")


def validations(runs: pd.DataFrame) -> pd.DataFrame:
    """The metrics of the runs' validation.

    Args:
        runs: of `load_runs`; their records are read again.

    Returns:
        A row for each run, with its index; a column ``val/<metric>`` for each metric that some
        run's validation has, NaN where a run has none. No column where no run was validated.

    Raises:
        UserError: a record that cannot be read.
    """
    found = [read_record(run).get("validation") or {} for run in runs["run"]]
    table = pd.DataFrame(found, index=runs.index, dtype=float)
    return table.add_prefix(VALIDATION)


def rank_agreement(runs: pd.DataFrame, validated: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation over the variants, of validation and test, for each metric.

    A variant's value is the mean over the categories of its means over the seeds, and for each
    category the mean over the seeds. Only the categories and seeds count in which every variant
    has both values; variants that never have both are left out.

    Args:
        runs: of `load_runs`.
        validated: of `validations`, of the same runs.

    Returns:
        One row for each data x category x metric, the mean over the categories (``mean all``)
        first where there are several. Columns: ``rho``, ``p`` (see `spearman`), ``n`` (variants)
        and ``n_runs`` (of a variant).
    """
    metrics = [m for m in metric_columns(runs) if f"{VALIDATION}{m}" in validated]
    both = without_repeats(runs.join(validated))
    rows: list[dict[str, Any]] = []
    for data, part in both.groupby("data", sort=False):
        names = sorted(part["category"].unique())
        groups = {MEAN_ALL: names} if len(names) > 1 else {}
        for label, wanted in (groups | {name: [name] for name in names}).items():
            own = part[part["category"].isin(wanted)]
            for metric in metrics:
                means, n_runs = _variant_means(own, [metric, f"{VALIDATION}{metric}"])
                row = {"data": data, "category": label, "metric": metric}
                rows.append(row | spearman(*means.to_numpy().T) | {"n_runs": n_runs})
    return pd.DataFrame(rows, columns=COLUMNS)


def spearman(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Spearman's rank correlation, and its two-sided permutation p-value.

    All pairings are counted for up to 7 values (exact), else 9999 random ones of a fixed seed.
    The least p that n values can give is 2 / n!: a third for 3, a twelfth for 4.

    Args:
        x: (n,), ties share their mean rank.
        y: (n,); a pair with a NaN is left out.

    Returns:
        ``rho, p, n`` (of the pairs that are left); both are NaN for fewer than 3 pairs, and
        where all values of one side are equal.
    """
    kept = ~(np.isnan(x) | np.isnan(y))
    ranks = [stats.rankdata(values[kept]) for values in (x, y)]
    n = int(kept.sum())
    if n < FEWEST or any(np.ptp(rank) == 0 for rank in ranks):
        return {"rho": np.nan, "p": np.nan, "n": n}
    first, second = ((rank - rank.mean()) / np.linalg.norm(rank - rank.mean()) for rank in ranks)
    result = stats.permutation_test(
        (first,),
        lambda permuted, axis: np.sum(permuted * second, axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return {"rho": float(result.statistic), "p": float(result.pvalue), "n": n}


def _variant_means(runs: pd.DataFrame, columns: list[str]) -> tuple[pd.DataFrame, int]:
    """Mean of each column for each variant, over the runs' places that all variants have.

    Returns:
        Variants x columns, and the number of places (category and seed).
    """
    values = runs.dropna(subset=columns).set_index(["variant", "category", "seed"])[columns]
    by_place = pd.DataFrame(values.unstack(["category", "seed"])).dropna(axis=1)
    # A place counts where both columns are there for all variants; they were dropped together.
    by_category = by_place.T.groupby(level=[0, 1]).mean()
    means = by_category.groupby(level=0).mean().T.reindex(columns=columns)
    return means, by_place.shape[1] // len(columns)
