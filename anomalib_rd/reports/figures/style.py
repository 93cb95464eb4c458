"""How the figures look, and how they are written."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from anomalib_rd.reports.tables import HEADINGS, metric_name
from anomalib_rd.results.files import write_atomically

WIDTH = 7.16  # inches: both columns of a page of IEEE's or CVPR's
PAGE = 9.0  # inches of height
PNG_DPI = 300
NOTE = 6.0  # points
LONGEST_NAME = 160  # bytes
# Okabe and Ito, Color Universal Design, 2008, without the yellow that is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beyond the colours: each variant also differs in line and hatch, so that print in grey will do.
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx")
# For names in other scripts than matplotlib's own font has; taken if installed.
_OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans")


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for building and writing a figure."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]
    settings: dict[str, Any] = {
        "text.parse_math": False,  # names hold $ and _ and mean them
        "pdf.fonttype": 42,  # TrueType, vector: what publishers ask for
        "font.family": fonts,
        "font.size": 7.0,
        "axes.titlesize": 7.0,
        "axes.labelsize": 7.0,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.0,
        "hatch.linewidth": 0.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc makes no other figures
        matplotlib.rcParams.update(cast(Any, settings))
        yield


def colour(position: int) -> str:
    """The colour of the variant at this position."""
    return COLOURS[position % len(COLOURS)]


def dashes(position: int) -> Any:
    """The line style of the variant at this position."""
    return DASHES[position % len(DASHES)]


def hatch(position: int) -> str:
    """The hatch of the variant at this position: none for the first, which is looked at most."""
    return HATCHES[position % len(HATCHES)]


def short(name: str, length: int) -> str:
    """The name, cut in its middle to ``length`` characters: names differ at either end."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def heading(metric: str) -> str:
    """The metric's name, such as ``image AUROC``."""
    name = metric_name(metric) if metric in HEADINGS else metric
    return name.replace("<=", "≤")


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def foot(
    figure: Figure,
    notes: Sequence[str],
    handles: Sequence[Any] = (),
    variants: Sequence[str] = (),
) -> None:
    """Makes the figure taller by a legend of the variants, if there are several, and small print.

    Args:
        figure: with all that it shall hold above.
        notes: lines of small print; long ones are wrapped.
        handles: one for each variant.
        variants: the legend's labels.
    """
    width, above = figure.get_size_inches()
    text = "\n".join(wrapped(line, int(width / 0.0485)) for line in notes)
    small = 0.105 * len(text.splitlines()) + (0.06 if text else 0)
    labels = [wrapped(variant, 60) for variant in variants] if len(variants) > 1 else []
    longest = max((len(line) for label in labels for line in label.splitlines()), default=1)
    columns = max(1, min(len(labels), int(width / (0.055 * longest + 0.45))))
    # Filled column by column: so many rows there are, each as high as its highest label.
    rows = -(-len(labels) // columns) * max((1 + x.count("\n") for x in labels), default=0)
    below = small + (0.14 * rows + 0.1 if labels else 0)
    height = above + below
    figure.set_size_inches(width, height)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, below / height, 1, above / height))
    figure.text(0.06 / width, 0.04 / height, text, fontsize=NOTE, va="bottom", linespacing=1.25)
    if labels:
        at = (0.5, small / height)
        legend = figure.legend(
            handles, labels, loc="lower center", bbox_to_anchor=at, ncols=columns, frameon=False
        )
        legend.set_in_layout(False)


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes ``<path>.pdf`` and ``<path>.png``, each atomically; returns both."""
    forms = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    return [
        write_atomically(
            path.with_name(f"{path.name}.{form}"),
            partial(figure.savefig, format=form, dpi=PNG_DPI, metadata=metadata),
        )
        for form, metadata in forms.items()
    ]


def file_name(words: str, taken: set[str]) -> str:
    """The words as a file's name, another one than those taken, to which it is added."""
    stem = re.sub(r"[^\w.=+-]+", "-", words).strip(".-")
    # File systems count bytes: 255 with the ending and what a temporary file's name adds.
    stem = stem[:80].encode()[:LONGEST_NAME].decode(errors="ignore") or "figure"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name
