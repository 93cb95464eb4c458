"""Each variant against a baseline: the ablation matrix."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.errors import UserError
from anomalib_rd.results.noise import over_seeds
from anomalib_rd.results.statistics import holm, mean_interval, sign_flip_p
from anomalib_rd.results.table import metric_columns, without_repeats
from anomalib_rd.results.variants import matching_labels, short_labels

BASELINE_MODEL = "rd4ad"
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


def compare_variants(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Each variant less the baseline, paired over category and seed.

    Two questions are kept apart:

    - Does it hold across categories? The pairs of one category are not independent of each
      other, so a category gives one number, the mean over its pairs, and whole categories are
      resampled (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
      3.8): ``low, high`` of `mean_interval`, ``p`` of `sign_flip_p`. With one category the
      seeds are resampled.
    - Would other seeds show it on these categories? See `over_seeds`, which takes the seeds
      that have every category.

    ``p_holm, p_seeds_holm`` are corrected (`holm`) over the variants with the same data and
    metric; not over metrics, which answer different questions.

    Args:
        runs: of `load_runs`.
        baseline: a variant, or words that mean only one (see `matching_labels`). If None, for each
            data the first variant of model ``rd4ad``, else the first variant.

    Returns:
        One row for each data x variant x metric that both have, with ``COLUMNS``. Values are
        fractions (``unit``). ``n_pairs`` counts what both have, ``n_left_out`` what only one
        has. Variants without a pair are compared by their means over their own seeds
        (``paired`` False). Undefined is NaN; ``needed_seeds`` is infinite if over 1000.

    Raises:
        UserError: no variant, or more than one, is the baseline.
    """
    metrics = metric_columns(runs)
    chosen = choose_baselines(runs, baseline)
    rows: list[dict[str, Any]] = []
    for data, part in without_repeats(runs).groupby("data", sort=False):
        variants = {
            str(variant): own.set_index(["seed", "category"])[metrics].unstack("category")
            for variant, own in part.groupby("variant", sort=False)
        }
        against = chosen[str(data)]
        base = variants.pop(against)
        for (variant, own), metric in product(variants.items(), metrics):
            ours, theirs = own[metric], base[metric]
            if ours.notna().any(axis=None) and theirs.notna().any(axis=None):
                row = {"data": data, "baseline": against, "variant": variant}
                row |= {"metric": metric, "unit": "fraction"}
                rows.append(row | _difference(ours, theirs))
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("p", "p_seeds"):
        by_metric = table.groupby(["data", "metric"])[column]
        table[f"{column}_holm"] = by_metric.transform(lambda p: holm(p.to_numpy(dtype=float)))
    return table


def choose_baselines(runs: pd.DataFrame, baseline: str | None = None) -> dict[str, str]:
    """For each data the variant that the others are compared with; see `compare_variants`."""
    chosen = {}
    for data, part in runs.groupby("data", sort=False):
        variants = list(dict.fromkeys(part["variant"]))
        if baseline is None or len(variants) == 1:
            plain = part["variant"][part["model"] == BASELINE_MODEL]
            chosen[str(data)] = plain.iloc[0] if len(plain) else variants[0]
        elif found := _matching(variants, baseline):
            chosen[str(data)] = found
        else:
            raise UserError(
                f"baseline {baseline!r}: no variant on {data} is called so; give one of: "
                f"{_names(variants)}"
            )
    return chosen


def _matching(variants: Sequence[str], name: str) -> str | None:
    found = matching_labels(variants, name)
    if len(found) > 1:
        raise UserError(f"baseline {name!r}: which one? Give one of: {_names(found)}")
    return found[0] if found else None


def _names(variants: Sequence[str]) -> str:
    return "; ".join(short_labels(variants).values())


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """One comparison; both frames are seeds x categories, NaN where undefined or not run."""
    pairs = ours - theirs
    n_pairs = int(pairs.notna().sum().sum())
    if n_pairs:
        by_category = pairs.mean().dropna()
        samples = [_seed_means(pairs, by_category.index)]
    else:
        by_category = (ours.mean() - theirs.mean()).dropna()
        samples = [_seed_means(frame, by_category.index) for frame in (ours, theirs)]
    over_categories = len(by_category) > 1
    every_pair = pairs.to_numpy()
    units = by_category.to_numpy() if over_categories else every_pair[~np.isnan(every_pair)]
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
    return row | over_seeds(difference, samples)


def _seed_means(frame: pd.DataFrame, categories: pd.Index) -> np.ndarray:
    """The mean over the categories for each seed that has them all."""
    return frame.reindex(columns=categories).dropna().mean(axis=1).dropna().to_numpy()
