"""``anomalib-rd bench``: measurements that anyone can repeat."""

import argparse
from pathlib import Path
from typing import Any

from anomalib_rd.bench.variants import VARIANTS, chosen
from anomalib_rd.cli import arguments
from anomalib_rd.errors import UserError

USAGE = """\
usage: anomalib-rd bench {metrics,train,infer,startup,report} ...

  metrics   the exact pixel metrics beside other implementations
  train     whole runs beside RD4AD's plain loop, switch by switch
  infer     scoring of test images beside RD4AD's plain loop
  startup   how long a command takes to say anything
  report    building and opening the HTML page of a large sweep

  anomalib-rd bench train --help   what it takes"""
PLOTS = (".png", ".svg", ".pdf")
OVERRIDES = "as for train, such as data=mvtec data.category=pill model/teacher=resnet18"


class Parser(arguments.Parser):
    """Takes what measurements have in common."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=f"anomalib-rd bench {name}")
        self.add_argument("--json", type=Path, help="write the figures here too")

    def takes_run(self) -> None:
        """Add what says which run is measured, and where."""
        self.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help=OVERRIDES)
        self.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    def checked(self, words: list[str], **least: int) -> argparse.Namespace:
        """Parse, and refuse numbers below the least and files that can't be written."""
        options = self.parse_intermixed_args(words)
        for name, smallest in least.items():
            value = getattr(options, name)
            if value is not None and value < smallest:
                flag = f"--{name.replace('_', '-')}"
                self.error(f"{flag} {value}: must be at least {smallest}")
        plot = getattr(options, "plot", None)
        for path in filter(None, (options.json, plot)):
            if not path.parent.is_dir():
                self.error(f"{path}: there is no folder {path.parent}; make it first")
        if plot and plot.suffix not in PLOTS:
            self.error(f"--plot {plot}: its name must end in {', '.join(PLOTS)}")
        return options


def run(words: list[str]) -> int:
    """Measure, print tables, and write JSON and a plot where asked."""
    benches = {
        "metrics": metrics,
        "train": train,
        "infer": infer,
        "startup": startup,
        "report": report,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    if words[0] not in benches:
        raise UserError(f"bench: nothing called '{words[0]}'; choose one of {', '.join(benches)}")
    result, path = benches[words[0]](words[1:])
    if path:
        from anomalib_rd.results.files import to_json_types, write_json

        write_json(path, to_json_types({"bench": words[0], **result}))
    return 0


def metrics(words: list[str]) -> tuple[dict[str, Any], Path | None]:
    """``bench metrics``."""
    parser = Parser("metrics")
    parser.add_argument("--maps", type=int, default=115, help="anomaly maps (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="their side, pixels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (%(default)s)")
    parser.add_argument(
        "--growth",
        action="store_true",
        help="also from a quarter to four times the maps, and from half to twice the size",
    )
    parser.add_argument("--plot", type=Path, help="draw the growth here")
    growing = "--growth" in words
    options = parser.checked(words, maps=8 if growing else 2, size=64 if growing else 32, rounds=1)
    if options.plot and not growing:
        parser.error("--plot draws the growth: add --growth")
    from anomalib_rd.bench import show
    from anomalib_rd.bench.machine import machine
    from anomalib_rd.bench.metrics import growth, measure
    from anomalib_rd.bench.plots import plot_growth

    maps, size, rounds = options.maps, options.size, options.rounds
    result = machine(cuda=False) | measure(maps, size, rounds)
    show.show_metrics(result)
    if growing:
        counts = [maps // 4, maps // 2, maps, 2 * maps, 4 * maps]
        result["growth"] = growth(counts, [size // 2, size, 2 * size], rounds)
        show.show_growth(result["growth"])
    if options.plot:
        plot_growth(result["growth"], options.plot, result["machine"])
    return result, options.json


def train(words: list[str]) -> tuple[dict[str, Any], Path | None]:
    """``bench train``."""
    parser = Parser("train")
    names = [variant.name for variant in VARIANTS]
    parser.takes_run()
    parser.add_argument("--epochs", type=int, help="2 unless given; the first fills the caches")
    parser.add_argument("--batch-size", type=int, help="16 unless given")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--plot", type=Path, help="draw bars of images/s here")
    options = parser.checked(words, epochs=1, batch_size=1)
    # Overrides may follow the names.
    overrides = options.overrides + [word for word in options.only or [] if "=" in word]
    only = [word for word in options.only or [] if "=" not in word]
    for name in only:
        if name not in names:
            parser.error(f"--only {name}: choose of {', '.join(names)}")
    for key, value in (
        ("trainer.max_epochs", options.epochs),
        ("data.train_batch_size", options.batch_size),
    ):
        overrides += [] if value is None else [f"{key}={value}"]
    from anomalib_rd.bench.machine import machine
    from anomalib_rd.bench.plots import plot_train
    from anomalib_rd.bench.show import show_train
    from anomalib_rd.bench.train import measure
    from anomalib_rd.cli.bench_config import measured_run

    run = measured_run(overrides, options.device)
    images = [sample.path for sample in run.data.split.train]
    found = measure(chosen(only, run.cuda), run.config, images)
    result = machine(run.cuda) | run.facts | found
    show_train(result)
    if options.plot:
        plot_train(result, options.plot)
    return result, options.json


def infer(words: list[str]) -> tuple[dict[str, Any], Path | None]:
    """``bench infer``."""
    parser = Parser("infer")
    parser.takes_run()
    parser.add_argument("--images", type=int, default=32, help="test images (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (%(default)s)")
    options = parser.checked(words, images=1, rounds=1)
    from anomalib_rd.bench.infer import measure
    from anomalib_rd.bench.machine import machine
    from anomalib_rd.bench.show import show_infer
    from anomalib_rd.cli.bench_config import measured_run

    run = measured_run(options.overrides, options.device)
    networks, scorer = run.networks()
    images, batch_size = run.test_images(options.images), run.data.test_batch_size
    found = measure(networks, scorer, images, batch_size, options.rounds, run.device)
    result = machine(run.cuda) | run.facts | found
    show_infer(result)
    return result, options.json


def startup(words: list[str]) -> tuple[dict[str, Any], Path | None]:
    """``bench startup``."""
    parser = Parser("startup")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (%(default)s)")
    options = parser.checked(words, rounds=1)
    from anomalib_rd.bench.machine import machine
    from anomalib_rd.bench.show import show_startup
    from anomalib_rd.bench.startup import measure

    result = machine(cuda=False) | measure(options.rounds)
    show_startup(result)
    return result, options.json


def report(words: list[str]) -> tuple[dict[str, Any], Path | None]:
    """``bench report``."""
    parser = Parser("report")
    parser.add_argument("--categories", type=int, default=15, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--variants", type=int, default=4, help="(%(default)s)")
    options = parser.checked(words, categories=1, seeds=1, variants=1)
    from anomalib_rd.bench.machine import machine
    from anomalib_rd.bench.report import measure
    from anomalib_rd.bench.show import show_report

    counts = (options.categories, options.seeds, options.variants)
    result = machine(cuda=False) | measure(*counts)
    show_report(result)
    return result, options.json
