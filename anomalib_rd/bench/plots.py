"""Figures of the measurements. No global state: a figure is an object."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

INK, MUTED, GRID = "#22272e", "#8b949e", "#e6e8eb"
BASELINE, OURS = "#a8b0ba", "#2f6db3"
# Ours first, then what stands beside it.
SERIES = (OURS, "#d1802e", "#5b9a68", "#8a6fb0", "#b5534f", "#7d7d7d", "#4aa3a8")
BAR = 0.42  # inches


def plot_train(result: dict[str, Any], path: Path) -> None:
    """Bars of images/s, the plain loop on top, each switch added in turn below.

    Of the median epoch: what else the machine did in another epoch does not show.
    """
    contestants = result["contestants"]
    labels = list(contestants)
    values = [result["images"] / c["steady_s"] for c in contestants.values()]
    figure = Figure(figsize=(7.5, 1.3 + BAR * len(labels)), layout="constrained")
    axes = figure.subplots()
    plain = [c["name"].startswith("plain") for c in contestants.values()]
    bars = axes.barh(labels, values, height=0.62, color=[BASELINE if p else OURS for p in plain])
    ratios = [c["ratio"]["median"] for c in contestants.values()]
    texts = [
        f"{value:.3g} images/s   {ratio:.2f} x" for value, ratio in zip(values, ratios, strict=True)
    ]
    axes.bar_label(bars, texts, padding=5, fontsize=9, color=INK)
    axes.set_xlim(0, 1.45 * max(values))
    axes.invert_yaxis()
    axes.set_xlabel(
        f"images/s, median of {result['epochs']} epochs but the first; ratio to the top bar",
        color=INK,
    )
    axes.set_title(heading(result), loc="left", fontsize=10, color=INK)
    axes.tick_params(axis="y", length=0)
    calm(axes, grid="x")
    figure.savefig(path, dpi=150)


def heading(result: dict[str, Any]) -> str:
    """What was trained where."""
    batch = f"batches of {result['batch_size']}, {result['images']} images an epoch"
    return f"{result['title']}, {batch}\n{result['machine']}"


def plot_growth(growth: dict[str, Any], path: Path, machine: str) -> None:
    """Seconds of the pixel metrics over the number of maps and over their size, log axes."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    by_count, by_size = growth["by_count"], growth["by_size"]
    names = list(dict.fromkeys(n for row in by_count + by_size for n in row["contestants"]))
    colours = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    size, maps = by_count[0]["size"], by_size[0]["maps"]
    draw(left, by_count, "maps", colours)
    left.set(xlabel=f"maps of {size} x {size} pixels", ylabel="seconds, median")
    draw(right, by_size, "size", colours)
    right.set(xlabel=f"side of the maps, pixels ({maps} maps)")
    figure.suptitle(f"Pixel metrics\n{machine}", x=0.02, ha="left", fontsize=10, color=INK)
    handles = {line.get_label(): line for axes in (left, right) for line in axes.get_lines()}
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, dpi=150)


def draw(axes: Axes, rows: list[dict[str, Any]], over: str, colours: dict[str, str]) -> None:
    """One line a contestant, through the points that it has."""
    for name, colour in colours.items():
        points = [(r[over], r["contestants"][name]) for r in rows if name in r["contestants"]]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, "o-", label=name, color=colour, linewidth=1.8, markersize=4.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [row[over] for row in rows]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    calm(axes, grid="y")


def calm(axes: Axes, grid: str) -> None:
    """Thin grid behind, no box."""
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left" if grid == "x" else "bottom"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
