"""The report page put together from templates, data and images."""

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
from anomalib_rd.reports.page.images import encode_images, images_per_category
from anomalib_rd.reports.page.runs import PageData
from anomalib_rd.reports.page.sections import headline_metrics, make_sections
from anomalib_rd.reports.result_tables import is_below_chance, metric_name, metrics_to_show
from anomalib_rd.results.files import one_line, to_json_types, write_atomically
from anomalib_rd.results.published import Published
from anomalib_rd.results.record import parent_run
from anomalib_rd.results.runs_table import metric_columns

TEMPLATES = Path(__file__).parents[1] / "templates"
SCRIPTS = ("page.js", "gallery.js", "views.js")  # each may call the ones before it
COLOUR_STEPS = 16


def make_environment(**filters: Any) -> Environment:
    """Templates that escape all text."""
    environment = Environment(
        loader=PackageLoader("anomalib_rd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def write_page(data: PageData, published: Mapping[str, Published], out: Path, images: int) -> Path:
    """Write the page atomically; arguments and errors as for `build_page`."""
    count = images_per_category(data.image_sets, images)
    environment = make_environment(
        json=_to_json,
        percent=format_percent,
        duration=format_duration,
        rate=format_rate,
        metric=metric_name,
    )
    environment.tests["below_chance"] = lambda value, metric: is_below_chance(metric, value)
    parts = environment.get_template("page.html.j2").generate(
        **_context(data, published), images=_encode_images(data, count), image_count=count
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(
            out, lambda file: file.writelines(part.encode("utf-8", "replace") for part in parts)
        )
    except OSError as error:
        raise UserError(
            f"{out}: cannot write the page ({one_line(error)}); choose another folder"
        ) from error


def _context(data: PageData, published: Mapping[str, Published]) -> dict[str, Any]:
    sections = make_sections(data, published)
    metrics = metrics_to_show(data.table)
    headline = headline_metrics(metrics)
    colours = colormaps[COLORMAP](np.linspace(0, 1, COLOUR_STEPS))
    names = [Path(sweep.folder).resolve().name for sweep in data.sweeps]
    return {
        "version": anomalib_rd.__version__,
        "created": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "title": ", ".join(dict.fromkeys(names)),
        "sections": sections,
        "sweeps": data.sweeps,
        "runs": [(run.key, run.row) for run in data.runs],
        "complete": data.table["run"].map(parent_run).nunique(),
        "metrics": metrics,
        "headline": headline,
        "first_metric": [*headline, *metrics][0],
        "gradient": ", ".join(map(to_hex, colours)),
        # The colour map as tables of an SVG filter.
        "colours": {
            channel: " ".join(f"{value:.3f}" for value in colours[:, index])
            for index, channel in enumerate("RGB")
        },
        "style": Markup((TEMPLATES / "style.css").read_text()),
        "script": Markup("\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)),
        "plotly": Markup(get_plotlyjs()),
        "payload": {
            "metrics": {name: metric_name(name) for name in metrics},
            "names": {name: metric_name(name) for name in metric_columns(data.table)},
            "headline": headline,
            "data": [section.plots for section in sections],
            "groups": [
                {
                    "data": each.data,
                    "category": each.category,
                    "runs": [run.key for run in each.runs],
                    "images": [[path, *about] for path, about in each.images.items()],
                }
                for each in data.image_sets
            ],
            "runs": {run.key: run.payload(metrics) for run in data.runs},
        },
    }


def _encode_images(data: PageData, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """One image set at a time: all of them would fill the memory."""
    for index, image_set in enumerate(data.image_sets):
        if images := encode_images(image_set, count):
            yield index, images


def _to_json(value: Any) -> Markup:
    """JSON that is safe in a script element."""

    def dump(content: Any, **_: Any) -> str:
        return json.dumps(content, separators=(",", ":"), allow_nan=False)

    return htmlsafe_json_dumps(to_json_types(value), dump)
