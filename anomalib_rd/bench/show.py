"""The measurements as tables in the terminal."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MIB = 2**20
STEADY = 1.5  # largest ratio over the smallest of one contestant, on a machine left to itself
Columns = Mapping[str, Callable[[dict[str, Any]], str]]


def show(title: str, rows: Mapping[str, dict[str, Any]], columns: Columns) -> None:
    """Print one row a contestant."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("contestant", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in rows.items():
        table.add_row(name, *(cell(figures) for cell in columns.values()))
    console = Console()
    console.print(f"\n{title}", style="bold", highlight=False, markup=False)
    console.print(table)


def show_metrics(result: dict[str, Any]) -> None:
    """Seconds, memory and one value of each way to the pixel metrics."""
    maps, size, threads = result["maps"], result["size"], result["threads"]
    columns: Columns = {
        "median,\ns": lambda c: f"{c['median_s']:.3f}",
        "min-max, s": lambda c: f"{c['min_s']:.3f}-{c['max_s']:.3f}",
        "times\nours": lambda c: f"{c['ratio']:.1f}",
        "peak\nMiB": lambda c: mib(c["peak_bytes"]),
        "value": lambda c: headline(c["values"]),
    }
    title = f"{maps} maps of {size} x {size} pixels, {threads} CPU threads"
    show(title, result["contestants"], columns)


def headline(values: dict[str, float]) -> str:
    """AUPRO where there is one, else whatever there is."""
    name = "aupro" if "aupro" in values else next(iter(values))
    return f"{name.removeprefix('pixel_').upper()} {values[name]:.6f}"


def show_growth(growth: dict[str, Any]) -> None:
    """Seconds over the number of maps and over their size."""
    by_count, by_size = growth["by_count"], growth["by_size"]
    size, maps = by_count[0]["size"], by_size[0]["maps"]
    show_series(f"seconds by the number of maps, {size} x {size}", by_count, "maps")
    show_series(f"seconds by the side in pixels, {maps} maps", by_size, "size")


def show_series(title: str, rows: list[dict[str, Any]], over: str) -> None:
    """One row a contestant, one column a number."""
    names = dict.fromkeys(name for row in rows for name in row["contestants"])
    seconds: dict[str, dict[str, Any]] = {name: {} for name in names}
    for row in rows:
        for name, taken in row["contestants"].items():
            seconds[name][str(row[over])] = f"{taken:.3f}"
    columns = [str(row[over]) for row in rows]
    show(title, seconds, {column: partial(_cell, column) for column in columns})


def _cell(column: str, cells: dict[str, Any]) -> str:
    return str(cells.get(column, ""))


def show_train(result: dict[str, Any]) -> None:
    """Speed, cost and outcome of each contestant."""
    title = f"{result['title']}: {result['images']} images, batches of {result['batch_size']}"
    baseline = result["baseline"]
    speed: Columns = {
        "images/s": lambda c: f"{c['images_per_s']:.2f}",
        "first\nepoch, s": lambda c: f"{c['first_epoch_s']:.2f}",
        "later\nepochs, s": lambda c: f"{c['steady_s']:.2f}",
        "times faster": ratio,
    }
    contestants = result["contestants"]
    show(f"{title}, {result['epochs']} epochs", contestants, speed)
    outcome: Columns = {
        "image\nAUROC": lambda c: percent(c["metrics"]["image_auroc"]),
        "pixel\nAUROC": lambda c: percent(c["metrics"]["pixel_auroc"]),
        "AUPRO": lambda c: percent(c["metrics"]["aupro"]),
        **cost(result),
    }
    show("outcome and cost", contestants, outcome)
    starts = [c["startup_s"] for c in contestants.values()]
    say(
        f"images/s: over all epochs. times faster: {baseline}'s seconds over these, median of the "
        "later epochs (min-max).",
        f"Not counted: {min(starts):.1f} to {max(starts):.1f} s to start each.",
    )
    show_ceilings(result["ceilings"])
    say_if_busy(contestants)


def show_infer(result: dict[str, Any]) -> None:
    """Speed, agreement and cost of each way to score."""
    title = f"{result['title']}: {result['images']} test images, {result['rounds']} rounds"
    columns: Columns = {
        "images/s": lambda c: f"{c['images_per_s']:.2f}",
        "call, ms": lambda c: f"{c['latency_ms']:.1f}",
        "times faster": ratio,
        "score\noff by": lambda c: f"{c['score_difference']:.1e}",
    }
    show(title, result["contestants"], columns)
    show("cost", result["contestants"], cost(result))
    scores = result["plain_scores"]
    say(
        "call: one batch. score off by: largest difference from the plain loop's, which are from "
        f"{scores['min']:.3f} to {scores['max']:.3f}."
    )
    show_ceilings(result["ceilings"])
    say_if_busy(result["contestants"])


def show_startup(result: dict[str, Any]) -> None:
    """Seconds of whole commands beside their targets."""
    columns: Columns = {
        "median, s": lambda c: f"{c['median_s']:.2f}",
        "min to max, s": lambda c: f"{c['min_s']:.2f} to {c['max_s']:.2f}",
        "target, s": lambda c: "" if c["target_s"] is None else f"{c['target_s']:.1f}",
        "": verdict,
    }
    show(f"{result['rounds']} interleaved rounds", result["contestants"], columns)


def show_report(result: dict[str, Any]) -> None:
    """The page's figures beside their targets."""
    columns: Columns = {
        "measured": lambda c: f"{c['value']:.2f}",
        "target": lambda c: "" if c["target"] is None else f"{c['target']:.0f}",
        "": lambda c: _kept(c["value"], c["target"]),
    }
    show(f"The page of {result['runs']} made-up runs", result["contestants"], columns)
    if "first paint, s" not in result["contestants"]:
        say("Not opened: that needs the package playwright and a Chromium on the PATH.")


def verdict(figures: dict[str, Any]) -> str:
    """Whether the median keeps to the target."""
    return _kept(figures["median_s"], figures["target_s"])


def _kept(value: float, target: float | None) -> str:
    return "" if target is None else "met" if value <= target else "missed"


def show_ceilings(limits: dict[str, float]) -> None:
    """What the machine was measured to do at most."""
    flops = (f"{name.replace('_', ' ')} {limits[name]:,.0f}" for name in limits if name != "copy")
    say(f"Ceilings measured here, GFLOP/s: {', '.join(flops)}; copy {limits['copy']:.1f} GB/s.")


def say_if_busy(contestants: dict[str, Any]) -> None:
    """Doubt figures whose turns differ too much."""
    spread = max(c["ratio"]["max"] / c["ratio"]["min"] for c in contestants.values())
    if spread > STEADY:
        say(
            f"The same ratio differed {spread:.1f}-fold between turns: something else was busy on "
            "this machine. Measure again when it is quiet."
        )


def cost(result: dict[str, Any]) -> Columns:
    """Columns of memory and of operations."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "peak\nMiB": lambda c: mib(c["peak_rss"])
    }
    if any(c["peak_cuda"] is not None for c in result["contestants"].values()):
        columns["peak\nCUDA, MiB"] = lambda c: mib(c["peak_cuda"])
    columns["GFLOP/s"] = lambda c: f"{c['flops_per_s'] / 1e9:,.1f}"
    columns["of\nceiling"] = lambda c: f"{c['of_ceiling']:.0%}"
    return columns


def ratio(figures: dict[str, Any]) -> str:
    """Median and spread."""
    r = figures["ratio"]
    return f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})"


def percent(value: float) -> str:
    """A fraction in percent with two decimals; n/a where undefined."""
    return f"{100 * value:.2f}" if value == value else "n/a"


def mib(size: float | None) -> str:
    """Bytes in MiB."""
    return "" if size is None else f"{size / MIB:,.0f}"


def say(*lines: str) -> None:
    """Print text as it is, wrapped."""
    for line in lines:
        Console().print(line, markup=False, highlight=False)
