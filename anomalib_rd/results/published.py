"""The numbers that others report on MVTec AD, and our own beside them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line
from anomalib_rd.results.table import MEAN_ALL

DATA = "mvtec"
MVTEC_AD = frozenset({"carpet", "grid", "leather", "tile", "wood", "bottle", "cable"}) | frozenset(
    {"capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"}
)
CATEGORIES = len(MVTEC_AD)
REPORTED = ("image_auroc", "pixel_auroc", "pro")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Published:
    """What one source reports, in percent.

    ``pro`` says which PRO protocol the source uses: "aupro", "pro_rd4ad" or None (unknown).
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
        """Our name for a reported metric; None if its protocol is unknown."""
        return self.pro if name == "pro" else name

    def mean_over(self, names: Collection[str], metric: str) -> float | None:
        """The mean of a reported metric over just these categories; None if it is not reported.

        Over all 15 of MVTec AD it is the mean as the source states it.
        """
        if set(names) == MVTEC_AD:
            return self.mean.get(metric)
        values = [self.categories.get(name, {}).get(metric) for name in names]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None


def load_published(path: Path | None = None) -> dict[str, Published]:
    """Reads published.yaml: method -> what it reports.

    Without a path: the installed package's copy, else the checkout's
    ``experiments/published.yaml``.

    Raises:
        UserError: the file is missing or not in this form.
    """
    places = (_PACKAGE / "published.yaml", _PACKAGE.parent / "experiments" / "published.yaml")
    file = path or next((place for place in places if place.exists()), places[0])
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
    """Our means beside the reported ones, wherever metric and protocol are the same.

    Args:
        table: of `category_table`; only its rows with data ``mvtec`` count.
        published: of `load_published`.

    Returns:
        Long format, in percent: ``variant, category, metric, ours, method, reported,
        difference (ours - reported, points), verified``. In the mean rows the reported mean
        is over the same categories as ours; methods that report means only are compared in
        ``mean all`` when it is over all 15.
    """
    rows: list[dict[str, Any]] = []
    ours = table[(table["data"] == DATA) & table["mean"].notna()]
    for (variant, metric), part in ours.groupby(["variant", "metric"], sort=False):
        singles = part[part["kind"] == "category"]
        for row in part.to_dict("records"):
            names = _categories(singles, row["group"], row["category"])
            here = {"variant": variant, "category": row["category"], "metric": metric}
            here["ours"] = 100 * row["mean"]
            rows += [here | theirs for theirs in _reported(published, str(metric), names)]
    columns = ["variant", "category", "metric", "ours", "method", "reported", "verified"]
    result = pd.DataFrame(rows, columns=columns)
    result.insert(6, "difference", result["ours"] - result["reported"])
    return result


def _reported(
    published: Mapping[str, Published], metric: str, names: set[str]
) -> Iterator[dict[str, Any]]:
    for method in published.values():
        for reported in REPORTED:
            value = method.mean_over(names, reported)
            if value is not None and method.metric(reported) == metric:
                yield {"method": method.key, "reported": value, "verified": method.verified}


def _categories(singles: pd.DataFrame, group: str, label: str) -> set[str]:
    """The categories that a row of the table stands for."""
    if label == MEAN_ALL:
        return set(singles["category"])
    if label.startswith("mean "):
        return set(singles["category"][singles["group"] == group])
    return {label}
