"""Statistics over seeds, categories and variants.

They answer three questions: is a variant better across categories (`compare_variants`: bootstrap
and permutation), would other seeds confirm it (`seed_statistics`: t-tests), and do validation and
test rank the variants in the same order (`rank_agreement`)?
"""

import warnings
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special, stats

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record
from anomalib_rd.results.runs_table import MEAN_ALL, drop_repeats, metric_columns
from anomalib_rd.results.variants import matching_labels, short_labels

BASELINE_MODEL = "rd4ad"
LEVEL, ALPHA, POWER = 0.95, 0.05, 0.8
RESAMPLES, SEED = 9999, 0
# With fewer units every sign-flip p-value is above 0.05: the lowest is 2 ** (1 - n).
MIN_UNITS_FOR_P = 6
MIN_VARIANTS = 3  # for a rank correlation
MOST_SEEDS = 1000
VALIDATION = "val/"
_ROUNDING = 1e-12  # a smaller std of fractions is a rounding error
COLUMNS = (
    "data",
    "baseline",
    "variant",
    "metric",
    "unit",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "resampled",
    "n_resampled",
    "paired",
    "n_pairs",
    "n_left_out",
    "n_categories",
    "n_seeds",
    "std",
    "p_seeds",
    "p_seeds_holm",
    "smallest",
    "needed_seeds",
)
AGREEMENT_COLUMNS = ("data", "category", "metric", "rho", "p", "n", "n_runs")


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap confidence interval of the mean, 95 %.

    BCa (Efron, Better bootstrap confidence intervals, JASA 82, 1987), or the percentile interval
    where BCa is undefined, for example for equal values. It is too narrow for few values: on
    normal data it covers the true mean in about 72 % of the cases for 3 values, 84 % for 5
    and 92 % for 15 (simulated).

    Args:
        values: (n,), independent of each other, without NaN.

    Returns:
        Lower and upper end, both NaN for fewer than 2 values.
    """
    if len(values) < 2:
        return np.nan, np.nan
    low, high = _bootstrap(values, "BCa")
    if np.isnan(low) or np.isnan(high):
        low, high = _bootstrap(values, "percentile")
    return low, high


def _bootstrap(values: np.ndarray, method: str) -> tuple[float, float]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (values,),
            np.mean,
            vectorized=True,
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            method=method,
            rng=np.random.default_rng(SEED),
        )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high)


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided permutation p-value of "the values are symmetric about 0".

    Exact (all sign flips) for up to 13 values, else from 9999 random flips with a fixed seed
    (Phipson and Smyth, Permutation p-values should never be zero, 2010). The lowest p-value of n
    values is 2 ** (1 - n).

    Args:
        values: (n,) differences, independent of each other, without NaN.

    Returns:
        The p-value; NaN for fewer than 2 values.
    """
    return _permute(values, np.mean, "samples")[1] if len(values) > 1 else np.nan


def _permute(
    values: np.ndarray, statistic: Callable[..., Any], kind: Literal["samples", "pairings"]
) -> tuple[float, float]:
    """The statistic of the values, and its two-sided permutation p-value."""
    result = stats.permutation_test(
        (values,),
        statistic,
        permutation_type=kind,
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return float(result.statistic), float(result.pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction for multiple comparisons (Scand. J. Statist. 6, 1979).

    Args:
        p_values: (m,); NaN is not a comparison and remains NaN.

    Returns:
        (m,) adjusted p-values: if those below alpha are claimed, the probability of any false
        claim is at most alpha.
    """
    order = np.argsort(p_values)  # NaN last
    count = np.count_nonzero(~np.isnan(p_values))
    steps = p_values[order] * (count - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def seed_statistics(difference: float, samples: Sequence[np.ndarray]) -> dict[str, float]:
    """Spread over seeds, and whether a difference exceeds it.

    Args:
        difference: observed difference, in the unit of the samples.
        samples: one array (seeds,) of paired differences, or one array (seeds,) of means for each
            of two variants.

    Returns:
        ``n_seeds`` (of the smaller sample), ``std`` (of the difference of two runs), ``p_seeds``
        (t-test, two-sided), ``smallest`` (see `smallest_difference`) and ``needed_seeds`` (see
        `needed_seeds`). All but ``n_seeds`` are NaN for fewer than 2 seeds; without spread ``std``
        and ``smallest`` are 0.
    """
    counts = np.array([len(sample) for sample in samples])
    result: dict[str, float] = {"n_seeds": int(counts.min())}
    result |= dict.fromkeys(("std", "p_seeds", "smallest", "needed_seeds"), np.nan)
    if result["n_seeds"] < 2:
        return result
    variances = np.array([sample.var(ddof=1) for sample in samples])
    result["std"] = float(np.sqrt(variances.sum()))
    if result["std"] < _ROUNDING:
        return result | {"std": 0.0, "smallest": 0.0}
    error, freedom = standard_error(variances, counts)
    result["p_seeds"] = float(2 * stats.t.sf(abs(difference) / error, freedom))
    result["smallest"] = float(smallest_difference(variances, counts))
    result["needed_seeds"] = needed_seeds(difference, variances)
    return result


def standard_error(variances: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of the difference and its degrees of freedom: n - 1, or Welch's.

    Welch: Biometrika 34, 1947.

    Args:
        variances: (samples,) over seeds; one sample if paired, else two.
        counts: (samples, ...) numbers of seeds, at least 2.

    Returns:
        Two arrays (...).
    """
    parts = (variances / counts.T).T
    squared = parts.sum(axis=0)
    return np.sqrt(squared), squared**2 / (parts**2 / (counts - 1)).sum(axis=0)


def smallest_difference(variances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The smallest true difference that a t-test detects with power 0.8, two-sided alpha 0.05.

    The difference divided by its standard error is the noncentrality of t; its square is that of
    F with 1 degree of freedom (Cohen, Statistical Power Analysis for the Behavioral Sciences,
    2nd ed. 1988, chapters 2 and 12). Arguments as in `standard_error`.

    Returns:
        (...), in the unit of the variances' square root.
    """
    error, freedom = standard_error(variances, counts)
    critical = stats.t.ppf(1 - ALPHA / 2, freedom)
    return np.sqrt(special.ncfdtrinc(1, freedom, 1 - POWER, critical**2)) * error


def needed_seeds(difference: float, variances: np.ndarray) -> float:
    """Number of seeds per variant to detect a difference; infinite above `MOST_SEEDS`."""
    seeds = np.arange(2, MOST_SEEDS + 1)
    counts = np.tile(seeds, (len(variances), 1))
    enough = seeds[smallest_difference(variances, counts) <= abs(difference)]
    return float(enough[0]) if len(enough) else np.inf


def spread_factors(n_seeds: int) -> tuple[float, float]:
    """95 % interval of the true standard deviation, in multiples of that of n seeds.

    From the chi-squared distribution of a normal sample's variance.
    """
    freedom = n_seeds - 1
    low, high = np.sqrt(freedom / stats.chi2.ppf([1 - ALPHA / 2, ALPHA / 2], freedom))
    return float(low), float(high)


def compare_variants(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Differences of each variant from the baseline, paired over category and seed.

    - Across categories: the pairs of one category depend on each other, so the mean over the pairs
      of each category is resampled (Davison and Hinkley, Bootstrap Methods and their Application,
      1997, section 3.8): ``low, high`` of `mean_interval`, ``p`` of `sign_flip_p`. With a single
      category the seeds are resampled.
    - Across seeds: `seed_statistics` of the seeds with all categories.

    ``p_holm`` and ``p_seeds_holm`` are corrected (`holm`) over the variants with the same data and
    metric; not over metrics, which answer different questions.

    Args:
        runs: table of `load_runs`.
        baseline: a variant, or a part of its label (see `matching_labels`). None: for each data
            set the first variant of model ``rd4ad``, else the first variant.

    Returns:
        One row for each data x variant x metric that both have, with `COLUMNS`. Values are
        fractions (``unit``). ``n_pairs`` counts the pairs, ``n_left_out`` the runs without a
        partner. Variants without a pair are compared by the means over their own seeds (``paired``
        False). Undefined values are NaN; ``needed_seeds`` is infinite above 1000.

    Raises:
        UserError: no variant, or more than one, matches the baseline.
    """
    metrics = metric_columns(runs)
    baselines = choose_baselines(runs, baseline)
    rows: list[dict[str, Any]] = []
    for data, part in drop_repeats(runs).groupby("data", sort=False):
        variants = {
            str(variant): own.set_index(["seed", "category"])[metrics].unstack("category")
            for variant, own in part.groupby("variant", sort=False)
        }
        base_name = baselines[str(data)]
        base = variants.pop(base_name)
        for (variant, own), metric in product(variants.items(), metrics):
            ours, theirs = own[metric], base[metric]
            if ours.notna().any(axis=None) and theirs.notna().any(axis=None):
                row = {"data": data, "baseline": base_name, "variant": variant}
                row |= {"metric": metric, "unit": "fraction"}
                rows.append(row | _difference(ours, theirs))
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("p", "p_seeds"):
        by_metric = table.groupby(["data", "metric"])[column]
        table[f"{column}_holm"] = by_metric.transform(lambda p: holm(p.to_numpy(dtype=float)))
    return table


def choose_baselines(runs: pd.DataFrame, baseline: str | None = None) -> dict[str, str]:
    """Data -> the variant to compare the others with; see `compare_variants`."""
    baselines = {}
    for data, part in runs.groupby("data", sort=False):
        variants = list(dict.fromkeys(part["variant"]))
        if baseline is None or len(variants) == 1:
            rd4ad = part["variant"][part["model"] == BASELINE_MODEL]
            baselines[str(data)] = rd4ad.iloc[0] if len(rd4ad) else variants[0]
            continue
        matches = matching_labels(variants, baseline)
        if len(matches) != 1:
            problem = "is ambiguous" if matches else f"is no variant on {data}"
            names = "; ".join(short_labels(matches or variants).values())
            raise UserError(f"baseline {baseline!r} {problem}; give one of: {names}")
        baselines[str(data)] = matches[0]
    return baselines


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Compare two frames, seeds x categories, NaN where undefined or not run."""
    pairs = ours - theirs
    n_pairs = int(pairs.notna().sum().sum())
    if n_pairs:
        by_category = pairs.mean().dropna()
        samples = [_seed_means(pairs, by_category.index)]
    else:
        by_category = (ours.mean() - theirs.mean()).dropna()
        samples = [_seed_means(frame, by_category.index) for frame in (ours, theirs)]
    over_categories = len(by_category) > 1
    values = (by_category if over_categories else pairs).to_numpy()
    units = values[~np.isnan(values)]
    low, high = mean_interval(units)
    difference = float(by_category.mean())
    row = {
        "difference": difference,
        "low": low,
        "high": high,
        "p": sign_flip_p(units),
        "resampled": "categories" if over_categories else "seeds",
        "n_resampled": len(units),
        "paired": n_pairs > 0,
        "n_pairs": n_pairs,
        "n_left_out": int(ours.notna().sum().sum() + theirs.notna().sum().sum()) - 2 * n_pairs,
        "n_categories": len(by_category),
    }
    return row | seed_statistics(difference, samples)


def _seed_means(frame: pd.DataFrame, categories: pd.Index) -> np.ndarray:
    """Mean over the categories for each seed that has them all."""
    return frame.reindex(columns=categories).dropna().mean(axis=1).dropna().to_numpy()


def validation_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """The validation metrics of `load_runs`, read from the records.

    Returns:
        The same rows, with columns ``val/<metric>``, NaN where a run has none.

    Raises:
        UserError: a record cannot be read.
    """
    metrics = [read_record(run).get("validation") or {} for run in runs["run"]]
    table = pd.DataFrame(metrics, index=runs.index, dtype=float)
    return table.add_prefix(VALIDATION)


def rank_agreement(runs: pd.DataFrame, validated: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of validation and test over the variants, for each metric.

    A variant's value is the mean over its seeds and, for ``mean all``, then over the categories.
    Only categories and seeds for which all variants have both values are used; variants that never
    have both are left out. ``validated`` is the result of `validation_metrics` for ``runs``.

    Returns:
        One row for each data x category x metric, and ``mean all`` of several categories first.
        Columns: ``rho``, ``p`` (see `spearman`), ``n`` (variants) and ``n_runs`` (per variant).
    """
    metrics = [m for m in metric_columns(runs) if f"{VALIDATION}{m}" in validated]
    both = drop_repeats(runs.join(validated))
    rows: list[dict[str, Any]] = []
    for data, part in both.groupby("data", sort=False):
        names = sorted(part["category"].unique())
        groups = {MEAN_ALL: names} if len(names) > 1 else {}
        for label, categories in (groups | {name: [name] for name in names}).items():
            own = part[part["category"].isin(categories)]
            for metric in metrics:
                means, n_runs = _variant_means(own, [metric, f"{VALIDATION}{metric}"])
                row = {"data": data, "category": label, "metric": metric}
                rows.append(row | spearman(*means.to_numpy().T) | {"n_runs": n_runs})
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)


def spearman(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Spearman's rank correlation and its two-sided permutation p-value.

    Exact (all pairings) for up to 7 values, else from 9999 random pairings with a fixed seed. The
    lowest p-value of n values is 2 / n!: 1/3 for 3, 1/12 for 4.

    Args:
        x: (n,); ties share their mean rank.
        y: (n,); pairs with a NaN are left out.

    Returns:
        ``rho, p, n`` (remaining pairs); rho and p are NaN for fewer than 3 pairs, or if all x or
        all y are equal.
    """
    defined = ~(np.isnan(x) | np.isnan(y))
    ranks = [stats.rankdata(values[defined]) for values in (x, y)]
    n = int(defined.sum())
    if n < MIN_VARIANTS or any(np.ptp(rank) == 0 for rank in ranks):
        return {"rho": np.nan, "p": np.nan, "n": n}
    first, second = ((rank - rank.mean()) / np.linalg.norm(rank - rank.mean()) for rank in ranks)
    rho, p = _permute(
        first, lambda permuted, axis: np.sum(permuted * second, axis=axis), "pairings"
    )
    return {"rho": rho, "p": p, "n": n}


def _variant_means(runs: pd.DataFrame, columns: list[str]) -> tuple[pd.DataFrame, int]:
    """Means, variants x columns, over the cells (category and seed) that all variants have.

    Also returns the number of cells.
    """
    values = runs.dropna(subset=columns).set_index(["variant", "category", "seed"])[columns]
    cells = pd.DataFrame(values.unstack(["category", "seed"])).dropna(axis=1)
    by_category = cells.T.groupby(level=[0, 1]).mean()
    means = by_category.groupby(level=0).mean().T.reindex(columns=columns)
    return means, cells.shape[1] // len(columns)
