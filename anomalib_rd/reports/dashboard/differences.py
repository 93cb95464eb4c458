"""What makes each variant: the config keys in which they differ."""

import json
from collections.abc import Sequence
from typing import Any

from anomalib_rd.reports.dashboard.runs import Run
from anomalib_rd.results.variants import variant_settings

_ABSENT = "–"


def config_differences(runs: Sequence[Run], variants: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Config key -> its value in each variant, for the keys that tell variants apart.

    Keys that differ within a variant (they do not make it) are left out.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        for key, value in variant_settings(run.record["config"]):
            by_variant = values.setdefault(key, {})
            by_variant.setdefault(run.row["variant"], set()).add(_text(value))
    found = []
    for key, by_variant in values.items():
        if all(len(texts) == 1 for texts in by_variant.values()):
            line = [next(iter(by_variant[v])) if v in by_variant else _ABSENT for v in variants]
            if len(set(line)) > 1:
                found.append((key, line))
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
