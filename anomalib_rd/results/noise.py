"""Is a difference more than noise? What a number of seeds can show.

A seed gives one number: the difference of two variants' means over the categories if they
share seeds (paired), else each variant's mean (unpaired). The runs of one seed are never
counted as independent: they share it. So this is a t-test over seeds, with Welch's degrees of
freedom where it is unpaired.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special, stats

ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 1000
_NO_SPREAD = 1e-12  # of a fraction: rounding, not seeds


def over_seeds(difference: float, samples: Sequence[np.ndarray]) -> dict[str, float]:
    """The spread over seeds, and what it says of a difference.

    Args:
        difference: observed, in the unit of the samples.
        samples: one array (seeds,) of differences, or two (seeds of one variant), (seeds of
            the other) of means.

    Returns:
        ``n_seeds`` (of the smaller sample), ``std`` (of the difference of two runs),
        ``p_seeds`` (t-test, two-sided), ``smallest`` (see `smallest_difference`) and
        ``needed_seeds`` (see `needed_seeds`). NaN where there is no spread to judge by: with
        fewer than 2 seeds, and, but for ``std`` and ``smallest``, where all seeds give the same.
    """
    counts = np.array([len(sample) for sample in samples])
    result: dict[str, float] = {"n_seeds": int(counts.min())}
    result |= dict.fromkeys(("std", "p_seeds", "smallest", "needed_seeds"), np.nan)
    if result["n_seeds"] < 2:
        return result
    variances = np.array([sample.var(ddof=1) for sample in samples])
    result["std"] = float(np.sqrt(variances.sum()))
    if result["std"] < _NO_SPREAD:
        return result | {"std": 0.0, "smallest": 0.0}
    error, freedom = standard_error(variances, counts)
    result["p_seeds"] = float(2 * stats.t.sf(abs(difference) / error, freedom))
    result["smallest"] = float(smallest_difference(variances, counts))
    result["needed_seeds"] = needed_seeds(difference, variances)
    return result


def standard_error(variances: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of the difference, and its degrees of freedom.

    One sample: n - 1. Two: Welch's (Biometrika 34, 1947).

    Args:
        variances: (samples,) over seeds.
        counts: (samples, ...) numbers of seeds, at least 2.

    Returns:
        Two arrays (...).
    """
    parts = (variances / counts.T).T
    squared = parts.sum(axis=0)
    return np.sqrt(squared), squared**2 / (parts**2 / (counts - 1)).sum(axis=0)


def smallest_difference(variances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The smallest true difference that a t-test over so many seeds finds 4 times in 5.

    Two-sided alpha 0.05, power 0.8. The difference, divided by its standard error, is the
    noncentrality of t; squared that of F with 1 degree of freedom (Cohen, Statistical Power
    Analysis for the Behavioral Sciences, 2nd ed. 1988, chapters 2 and 12).

    Args:
        variances: (samples,) over seeds, one sample if paired, else two.
        counts: (samples, ...) numbers of seeds, at least 2.

    Returns:
        (...), in the unit of the variances' square root.
    """
    error, freedom = standard_error(variances, counts)
    critical = stats.t.ppf(1 - ALPHA / 2, freedom)
    return np.sqrt(special.ncfdtrinc(1, freedom, 1 - POWER, critical**2)) * error


def needed_seeds(difference: float, variances: np.ndarray) -> float:
    """How many seeds each variant needs for `smallest_difference` to come down to this one.

    Infinity stands for more than ``MOST_SEEDS``.
    """
    seeds = np.arange(2, MOST_SEEDS + 1)
    counts = np.tile(seeds, (len(variances), 1))
    enough = seeds[smallest_difference(variances, counts) <= abs(difference)]
    return float(enough[0]) if len(enough) else np.inf


def spread_factors(n_seeds: int) -> tuple[float, float]:
    """What the true standard deviation may be, in multiples of that of n seeds (95 %).

    From the chi-squared distribution of a normal sample's variance.
    """
    freedom = n_seeds - 1
    least, most = np.sqrt(freedom / stats.chi2.ppf([1 - ALPHA / 2, ALPHA / 2], freedom))
    return float(least), float(most)
