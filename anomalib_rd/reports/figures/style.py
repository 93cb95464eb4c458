"""Style, legends and files of the figures."""

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

from anomalib_rd.results.files import write_atomically

WIDTH = 7.16  # inches: both columns of a page of IEEE or CVPR
PNG_DPI = 300
LONGEST_NAME = 160  # bytes
# Okabe and Ito, Color Universal Design, 2008, without the yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Variants also differ in line and hatch, for prints in grey.
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_HATCHES = ("", "////", "....", "xxxx")
# For names in scripts that matplotlib's own font does not cover; used if installed.
_OTHER_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans")
_SETTINGS = {
    "text.parse_math": False,  # names may contain $ and _
    "pdf.fonttype": 42,  # TrueType, as publishers require
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


@contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib's settings for making and writing figures."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed)]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change figures
        matplotlib.rcParams.update(cast(Any, {**_SETTINGS, "font.family": fonts}))
        yield


def colour(index: int) -> str:
    """The colour of a variant."""
    return COLOURS[index % len(COLOURS)]


def dashes(index: int) -> Any:
    """The line style of a variant."""
    return _DASHES[index % len(_DASHES)]


def hatch(index: int) -> str:
    """The hatch of a variant's bars, none for the first."""
    return _HATCHES[(index // len(COLOURS) + index % 2) % len(_HATCHES)]


def shorten(name: str, length: int) -> str:
    """The name, cut in the middle to ``length`` characters: names differ at either end."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def wrap(text: str, width: int) -> str:
    """The text in lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def set_title(figure: Figure, title: str) -> None:
    """A title at the top left."""
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")


def add_legend_and_notes(
    figure: Figure,
    notes: Sequence[str],
    handles: Sequence[Any] = (),
    variants: Sequence[str] = (),
) -> None:
    """Extend the figure at the bottom by notes, and a legend if there are several variants.

    Args:
        figure: with everything else in it.
        notes: lines, wrapped if they are long.
        handles: of the legend, one for each variant.
        variants: labels of the legend.
    """
    width, above = figure.get_size_inches()
    text = "\n".join(wrap(line, int(width / 0.0485)) for line in notes)
    notes_height = 0.105 * len(text.splitlines()) + (0.06 if text else 0)
    labels = [wrap(variant, 60) for variant in variants] if len(variants) > 1 else []
    longest = max((len(line) for label in labels for line in label.splitlines()), default=1)
    columns = max(1, min(len(labels), int(width / (0.055 * longest + 0.45))))
    # Each row is as high as the highest label.
    rows = -(-len(labels) // columns) * max((1 + x.count("\n") for x in labels), default=0)
    below = notes_height + (0.14 * rows + 0.1 if labels else 0)
    height = above + below
    figure.set_size_inches(width, height)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, below / height, 1, above / height))
    figure.text(0.06 / width, 0.04 / height, text, fontsize=6.0, va="bottom", linespacing=1.25)
    if labels:
        legend = figure.legend(
            handles,
            labels,
            loc="lower center",
            bbox_to_anchor=(0.5, notes_height / height),
            ncols=columns,
            frameon=False,
        )
        legend.set_in_layout(False)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``<path>.pdf`` and ``<path>.png``, each atomically."""
    formats = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    return [
        write_atomically(
            path.with_name(f"{path.name}.{name}"),
            partial(figure.savefig, format=name, dpi=PNG_DPI, metadata=metadata),
        )
        for name, metadata in formats.items()
    ]


def make_file_name(words: str, taken: set[str]) -> str:
    """A file name of letters, digits and ``_.=+-`` that is not taken, and is added to ``taken``."""
    stem = re.sub(r"[^\w.=+-]+", "-", words).strip(".-")
    # File systems allow 255 bytes, and the suffix and a temporary name need some of them.
    stem = stem[:80].encode()[:LONGEST_NAME].decode(errors="ignore") or "figure"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name
