"""What pairs of values say of their mean difference: interval, p-value, correction."""

import warnings

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999
SEED = 0
FEWEST_FOR_P = 6
"""Below so many units no sign-flip p-value, of which 2 ** (1 - n) is the least, is below 0.05."""


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap confidence interval of the mean, 95 %.

    BCa (Efron, Better bootstrap confidence intervals, JASA 82, 1987); the percentile interval
    where BCa is not defined, such as for equal values. From few values it is too narrow: on
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


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided permutation p-value of "the values are symmetric about 0".

    All signs are flipped (exact) for up to 13 values, else 9999 random flips of a fixed seed
    are drawn (Phipson and Smyth, Permutation p-values should never be zero, 2010). The least
    that n values can give is 2 ** (1 - n).

    Args:
        values: (n,) differences, independent of each other, without NaN.

    Returns:
        The p-value; NaN for fewer than 2 values.
    """
    if len(values) < 2:
        return np.nan
    result = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction for several comparisons (Scand. J. Statist. 6, 1979).

    Args:
        p_values: (m,); NaN is no comparison and stays NaN.

    Returns:
        (m,) adjusted p-values: those below alpha may be claimed together, with a chance of at
        most alpha that any claim is false.
    """
    order = np.argsort(p_values)  # NaN last
    count = np.count_nonzero(~np.isnan(p_values))
    steps = p_values[order] * (count - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


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
