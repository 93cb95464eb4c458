"""Published results on MVTec AD, compared with ours."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line
from anomalib_rd.results.runs_table import MEAN_ALL

DATA = "mvtec"
MVTEC_AD = frozenset({"carpet", "grid", "leather", "tile", "wood", "bottle", "cable"}) | frozenset(
    {"capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"}
)
CATEGORIES = len(MVTEC_AD)
REPORTED = ("image_auroc", "pixel_auroc", "pro")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Published:
    """Results of one source, in percent.

    ``pro``: our metric with the PRO protocol of the source, "aupro" or "pro_rd4ad"; None: unknown.
    """

    key: str
    name: str
    source: str
    verified: bool
    protocol: str
    mean: dict[str, float]
    teacher: str | None = None
    pro: str | None = None
    std: dict[str, float] = field(default_factory=dict)
    categories: dict[str, dict[str, float]] = field(default_factory=dict)

    def metric(self, name: str) -> str | None:
        """Our name of a reported metric; None if its protocol is unknown."""
        return self.pro if name == "pro" else name

    def mean_over(self, names: Collection[str], metric: str) -> float | None:
        """Mean of a reported metric over these categories; None if one is not reported.

        Over all 15 categories: the mean as published.
        """
        if set(names) == MVTEC_AD:
            return self.mean.get(metric)
        values = [self.categories.get(name, {}).get(metric) for name in names]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None


def load_published(path: Path | None = None) -> dict[str, Published]:
    """Read published.yaml: method -> its results.

    Without a path: the copy in the installed package, or ``experiments/published.yaml`` of a
    checkout.

    Raises:
        UserError: the file is missing or invalid.
    """
    installed = _PACKAGE / "published.yaml"
    checkout = _PACKAGE.parent / "experiments" / "published.yaml"
    file = path or (installed if installed.exists() or not checkout.exists() else checkout)
    try:
        # The C loader, where PyYAML has it, is ten times faster.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(file.read_bytes(), Loader=loader)
        return {key: Published(key=key, **entry) for key, entry in content.items()}
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found; install anomalib-rd again or give a path") from error
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a table of reported numbers ({one_line(error)})") from error


def compare(table: pd.DataFrame, published: Mapping[str, Published]) -> pd.DataFrame:
    """Our means next to the reported ones, where metric and protocol are the same.

    Only rows of `category_table` with data ``mvtec`` are used.

    Returns:
        Long format, in percent: ``variant, category, metric, ours, method, reported,
        difference (ours - reported, points), verified``. In mean rows both means are over the same
        categories; methods that report only means are compared in ``mean all`` of all 15.
    """
    columns = ["variant", "category", "metric", "ours", "method", "reported", "difference"]
    rows: list[tuple[Any, ...]] = []
    ours = table[(table["data"] == DATA) & table["mean"].notna()]
    for (variant, metric), part in ours.groupby(["variant", "metric"], sort=False):
        singles = part[part["kind"] == "category"]
        for row in part.to_dict("records"):
            names, mean = _categories(singles, row["group"], row["category"]), 100 * row["mean"]
            for method, reported in product(published.values(), REPORTED):
                value = method.mean_over(names, reported)
                if value is not None and method.metric(reported) == metric:
                    cells = (variant, row["category"], metric, mean, method.key, value)
                    rows.append((*cells, mean - value, method.verified))
    return pd.DataFrame(rows, columns=[*columns, "verified"])


def _categories(singles: pd.DataFrame, group: str, label: str) -> set[str]:
    if label == MEAN_ALL:
        return set(singles["category"])
    if label.startswith("mean "):
        return set(singles["category"][singles["group"] == group])
    return {label}
