"""``anomalib-rd bench``: measurements that anyone can repeat."""

import argparse
import json
from pathlib import Path
from typing import Any


def run(words: list[str]) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="anomalib-rd bench")
    parser.add_argument("what", choices=["metrics"], help="what to measure")
    parser.add_argument("--maps", type=int, default=115, help="anomaly maps (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="their side, pixels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(words)
    if min(options.maps - 1, options.size - 31, options.rounds) < 1:
        parser.error("needs --maps 2, --size 32 and --rounds 1 at least")
    from anomalib_rd.bench.metrics import measure

    result = measure(options.maps, options.size, options.rounds)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def show(result: dict[str, Any]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    maps, size, threads = result["maps"], result["size"], result["threads"]
    table = Table(title=f"{maps} maps of {size} x {size} pixels, {threads} CPU threads")
    for heading in ("contestant", "median, s", "min to max, s", "times ours", "value"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for name, figures in result["contestants"].items():
        name_of, value = list(figures["values"].items())[-2 if len(figures["values"]) > 1 else 0]
        table.add_row(
            name,
            f"{figures['median_s']:.3f}",
            f"{figures['min_s']:.3f} to {figures['max_s']:.3f}",
            f"{figures['ratio']:.1f}",
            f"{name_of} {value:.6f}",
        )
    Console().print(table)
