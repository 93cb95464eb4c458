"""Print results as tables, and plot them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from rich import box
from rich.console import Console
from rich.table import Table

MIB = 2**20
MAX_SPREAD = 1.5  # of the ratios of one contestant (largest / smallest) on a quiet machine
Columns = Mapping[str, Callable[[dict[str, Any]], str]]
INK, MUTED, GRID = "#22272e", "#8b949e", "#e6e8eb"
BASELINE, OURS = "#a8b0ba", "#2f6db3"
# The first colour is ours.
SERIES = (OURS, "#d1802e", "#5b9a68", "#8a6fb0", "#b5534f", "#7d7d7d", "#4aa3a8")
BAR = 0.42  # inches


def print_table(title: str, rows: Mapping[str, dict[str, Any]], columns: Columns) -> None:
    """Print one row per contestant."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("contestant", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in rows.items():
        table.add_row(name, *(cell(figures) for cell in columns.values()))
    console = Console()
    console.print(f"\n{title}", style="bold", highlight=False, markup=False)
    console.print(table)


def print_lines(*lines: str) -> None:
    """Print text unchanged, wrapped."""
    for line in lines:
        Console().print(line, markup=False, highlight=False)


def print_metrics(result: dict[str, Any]) -> None:
    """Seconds, memory and one value of each pixel metric implementation."""

    def value(figures: dict[str, Any]) -> str:
        values = figures["values"]
        name = "aupro" if "aupro" in values else next(iter(values))
        return f"{name.removeprefix('pixel_').upper()} {values[name]:.6f}"

    maps, size, threads = result["maps"], result["size"], result["threads"]
    columns: Columns = {
        "median,\ns": lambda c: f"{c['median_s']:.3f}",
        "min-max, s": lambda c: f"{c['min_s']:.3f}-{c['max_s']:.3f}",
        "times\nours": lambda c: f"{c['ratio']:.1f}",
        "peak\nMiB": lambda c: mib(c["peak_bytes"]),
        "value": value,
    }
    title = f"{maps} maps of {size} x {size} pixels, {threads} CPU threads"
    print_table(title, result["contestants"], columns)
    if growth := result.get("growth"):
        by_count, by_size = growth["by_count"], growth["by_size"]
        size, maps = by_count[0]["size"], by_size[0]["maps"]
        _print_series(f"seconds by the number of maps, {size} x {size}", by_count, "maps")
        _print_series(f"seconds by the side in pixels, {maps} maps", by_size, "size")


def _print_series(title: str, rows: list[dict[str, Any]], axis: str) -> None:
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        for name, seconds in row["contestants"].items():
            cells.setdefault(name, {})[str(row[axis])] = f"{seconds:.3f}"
    columns = {str(row[axis]): partial(_cell, str(row[axis])) for row in rows}
    print_table(title, cells, columns)


def _cell(key: str, cells: dict[str, str]) -> str:
    return cells.get(key, "")


def print_train(result: dict[str, Any]) -> None:
    """Speed, metrics and cost of each contestant."""
    contestants = result["contestants"]
    speed: Columns = {
        "images/s": lambda c: f"{c['images_per_s']:.2f}",
        "first\nepoch, s": lambda c: f"{c['first_epoch_s']:.2f}",
        "later\nepochs, s": lambda c: f"{c['steady_s']:.2f}",
        "times faster": ratio,
    }
    metrics_and_cost: Columns = {
        "image\nAUROC": lambda c: percent(c["metrics"]["image_auroc"]),
        "pixel\nAUROC": lambda c: percent(c["metrics"]["pixel_auroc"]),
        "AUPRO": lambda c: percent(c["metrics"]["aupro"]),
        **cost_columns(result),
    }
    print_table(f"{training_title(result)}, {result['epochs']} epochs", contestants, speed)
    print_table("metrics and cost", contestants, metrics_and_cost)
    starts = [c["startup_s"] for c in contestants.values()]
    print_lines(
        f"images/s: over all epochs. times faster: seconds of '{result['baseline']}' divided by "
        "these, median of the later epochs (min-max).",
        f"Not counted: {min(starts):.1f} to {max(starts):.1f} s to start each.",
    )
    print_ceilings(result["ceilings"])
    warn_if_busy(contestants)


def print_infer(result: dict[str, Any]) -> None:
    """Speed, agreement and cost of each scoring."""
    title = f"{result['title']}: {result['images']} test images, {result['rounds']} rounds"
    columns: Columns = {
        "images/s": lambda c: f"{c['images_per_s']:.2f}",
        "call, ms": lambda c: f"{c['latency_ms']:.1f}",
        "times faster": ratio,
        "score\noff by": lambda c: f"{c['score_difference']:.1e}",
    }
    print_table(title, result["contestants"], columns)
    print_table("cost", result["contestants"], cost_columns(result))
    scores = result["plain_scores"]
    print_lines(
        "call: one batch. score off by: largest difference from the scores of the plain loop, "
        f"which range from {scores['min']:.3f} to {scores['max']:.3f}."
    )
    print_ceilings(result["ceilings"])
    warn_if_busy(result["contestants"])


def print_startup(result: dict[str, Any]) -> None:
    """Seconds of complete commands next to their targets."""
    columns: Columns = {
        "median, s": lambda c: f"{c['median_s']:.2f}",
        "min to max, s": lambda c: f"{c['min_s']:.2f} to {c['max_s']:.2f}",
        "target, s": lambda c: "" if c["target_s"] is None else f"{c['target_s']:.1f}",
        "": lambda c: verdict(c["median_s"], c["target_s"]),
    }
    print_table(f"{result['rounds']} interleaved rounds", result["contestants"], columns)


def print_report(result: dict[str, Any]) -> None:
    """Figures of the page next to their targets."""
    columns: Columns = {
        "measured": lambda c: f"{c['value']:.2f}",
        "target": lambda c: "" if c["target"] is None else f"{c['target']:.0f}",
        "": lambda c: verdict(c["value"], c["target"]),
    }
    print_table(f"The page of {result['runs']} made-up runs", result["contestants"], columns)
    if "first paint, s" not in result["contestants"]:
        print_lines("Not opened: install the package playwright and put Chromium on the PATH.")


def print_ceilings(limits: dict[str, float]) -> None:
    """The measured peak performance of the machine."""
    flops = (f"{name.replace('_', ' ')} {limits[name]:,.0f}" for name in limits if name != "copy")
    print_lines(
        f"Ceilings measured here, GFLOP/s: {', '.join(flops)}; copy {limits['copy']:.1f} GB/s."
    )


def warn_if_busy(contestants: dict[str, Any]) -> None:
    """Warn if a contestant's turns differ too much."""
    spread = max(c["ratio"]["max"] / c["ratio"]["min"] for c in contestants.values())
    if spread > MAX_SPREAD:
        print_lines(
            f"A contestant's ratio varied {spread:.1f}-fold between turns because of other load. "
            "Repeat the measurement when the machine is quiet."
        )


def cost_columns(result: dict[str, Any]) -> Columns:
    """Columns of memory and of operations."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "peak\nMiB": lambda c: mib(c["peak_rss"])
    }
    if any(c["peak_cuda"] is not None for c in result["contestants"].values()):
        columns["peak\nCUDA, MiB"] = lambda c: mib(c["peak_cuda"])
    columns["GFLOP/s"] = lambda c: f"{c['flops_per_s'] / 1e9:,.1f}"
    columns["of\nceiling"] = lambda c: f"{c['of_ceiling']:.0%}"
    return columns


def verdict(value: float, target: float | None) -> str:
    """Whether a figure meets its target; empty without a target."""
    return "" if target is None else "met" if value <= target else "missed"


def ratio(figures: dict[str, Any]) -> str:
    """Median and spread."""
    r = figures["ratio"]
    return f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})"


def percent(value: float) -> str:
    """A fraction in percent with two decimals; n/a if undefined."""
    return f"{100 * value:.2f}" if value == value else "n/a"


def mib(size: float | None) -> str:
    """Bytes in MiB."""
    return "" if size is None else f"{size / MIB:,.0f}"


def training_title(result: dict[str, Any]) -> str:
    """Model, data and batch size."""
    return f"{result['title']}: {result['images']} images, batches of {result['batch_size']}"


def plot_train(result: dict[str, Any], path: Path) -> None:
    """Bars of images/s of the median epoch, the plain loop on top, then each switch added."""
    contestants = result["contestants"].values()
    values = [result["images"] / c["steady_s"] for c in contestants]
    figure = Figure(figsize=(7.5, 1.3 + BAR * len(values)), layout="constrained")
    axes = figure.subplots()
    colours = [BASELINE if c["name"].startswith("plain") else OURS for c in contestants]
    bars = axes.barh(list(result["contestants"]), values, height=0.62, color=colours)
    texts = [
        f"{value:.3g} images/s   {c['ratio']['median']:.2f} x"
        for value, c in zip(values, contestants, strict=True)
    ]
    axes.bar_label(bars, texts, padding=5, fontsize=9, color=INK)
    axes.set_xlim(0, 1.45 * max(values))
    axes.invert_yaxis()
    axes.set_xlabel(
        f"images/s, median of {result['epochs']} epochs without the first; ratio to the top bar",
        color=INK,
    )
    title = f"{training_title(result)}\n{result['machine']}"
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.tick_params(axis="y", length=0)
    _style(axes, grid="x")
    figure.savefig(path, dpi=150)


def plot_growth(growth: dict[str, Any], path: Path, machine: str) -> None:
    """Seconds of the pixel metrics by the number of maps and by their size, log axes."""
    by_count, by_size = growth["by_count"], growth["by_size"]
    names = list(dict.fromkeys(n for row in by_count + by_size for n in row["contestants"]))
    colours = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    size, maps = by_count[0]["size"], by_size[0]["maps"]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_lines(left, by_count, "maps", colours)
    left.set(xlabel=f"maps of {size} x {size} pixels", ylabel="seconds, median")
    _draw_lines(right, by_size, "size", colours)
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


def _draw_lines(axes: Axes, rows: list[dict[str, Any]], axis: str, colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        points = [(r[axis], r["contestants"][name]) for r in rows if name in r["contestants"]]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, "o-", label=name, color=colour, linewidth=1.8, markersize=4.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [row[axis] for row in rows]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    _style(axes, grid="y")


def _style(axes: Axes, grid: str) -> None:
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left" if grid == "x" else "bottom"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
