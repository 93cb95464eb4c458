"""All that the page shows, read from the runs' folders once."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

import anomalib_rd
from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import format_duration, format_percent, format_rate
from anomalib_rd.reports.heatmaps import COLORMAP
from anomalib_rd.reports.page.images import group_pictures, images_each
from anomalib_rd.reports.page.runs import Collected, Group
from anomalib_rd.reports.page.sections import data_sections, headline_metrics, metric_name
from anomalib_rd.reports.tables import below_chance, records, shown_metrics
from anomalib_rd.results.files import one_line, to_json_types, write_atomically
from anomalib_rd.results.published import Published
from anomalib_rd.results.record import parent_run
from anomalib_rd.results.table import metric_columns

TEMPLATES = Path(__file__).parents[1] / "templates"
# In the order of their use: each may call those before it.
SCRIPTS = (
    "tools.js",
    "theme.js",
    "sorting.js",
    "metrics.js",
    "plots.js",
    "overview.js",
    "pictures.js",
    "lightbox.js",
    "gallery.js",
    "curves.js",
    "run.js",
    "router.js",
)
_COLOURS = 16


def write_page(
    collected: Collected, published: Mapping[str, Published], out: Path, images: int
) -> Path:
    """Writes the page atomically; arguments and errors as for `build_page`."""
    each = images_each(collected.groups, images)
    parts = (
        _environment()
        .get_template("page.html.j2")
        .generate(
            **_context(collected, published),
            pictures=_pictures(collected.groups, each),
            images_each=each,
        )
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(
            out, lambda file: file.writelines(part.encode("utf-8", "replace") for part in parts)
        )
    except OSError as error:
        raise UserError(
            f"{out}: the page cannot be written ({one_line(error)}); give another place"
        ) from error


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("anomalib_rd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["below_chance"] = below_chance
    environment.filters |= {
        "json": _json,
        "percent": format_percent,
        "seconds": format_duration,
        "rate": format_rate,
        "metric": metric_name,
    }
    return environment


def _context(collected: Collected, published: Mapping[str, Published]) -> dict[str, Any]:
    runs = collected.runs
    sections = data_sections(collected, published)
    metrics = shown_metrics(runs)
    keys = [run.key for run in collected.read]
    return {
        "version": anomalib_rd.__version__,
        "made": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "title": _title(collected),
        "sections": sections,
        "sweeps": collected.sweeps,
        "runs": list(zip(keys, records(runs), strict=True)),
        "complete": runs["run"].map(parent_run).nunique(),
        "metrics": metrics,
        "headline": headline_metrics(metrics),
        "chosen_metric": [*headline_metrics(metrics), *metrics][0],
        "colours": _colour_tables(),
        "gradient": ", ".join(map(to_hex, _colours())),
        "style": Markup((TEMPLATES / "style.css").read_text()),
        "script": Markup("\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)),
        "plotly": Markup(get_plotlyjs()),
        "payload": {
            "metrics": {name: metric_name(name) for name in metrics},
            "names": {name: metric_name(name) for name in metric_columns(runs)},
            "data": [section.drawn for section in sections],
            "groups": [_group(group) for group in collected.groups],
            "runs": {run.key: run.payload(metrics) for run in collected.read},
        },
    }


def _title(collected: Collected) -> str:
    names = [Path(sweep.folder).resolve().name for sweep in collected.sweeps]
    return ", ".join(dict.fromkeys(names))


def _group(group: Group) -> dict[str, Any]:
    return {
        "data": group.data,
        "category": group.category,
        "runs": [run.key for run in group.runs],
        "images": [[path, defect, label] for path, (defect, label) in group.images.items()],
    }


def _pictures(groups: list[Group], count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """One group's pictures at a time: all together they would fill the memory."""
    for index, group in enumerate(groups):
        if pictures := group_pictures(group, count):
            yield index, pictures


def _colour_tables() -> dict[str, str]:
    """The colour map as tables of an SVG filter: red, green, blue."""
    return {
        name: " ".join(f"{value:.3f}" for value in _colours()[:, channel])
        for channel, name in enumerate(("R", "G", "B"))
    }


def _colours() -> np.ndarray:
    """The colour map's steps, (16, 4) RGBA in [0, 1]."""
    return colormaps[COLORMAP](np.linspace(0, 1, _COLOURS))


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element, whatever text it holds."""
    return htmlsafe_json_dumps(to_json_types(value), _dumps)


def _dumps(value: Any, **_: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
