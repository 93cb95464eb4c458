"""``anomalib-rd predict``: judge images by a trained model."""

import math
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.run_options import Parser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.inference.detector import Detector
    from anomalib_rd.inference.files import Output

SHOWN = 20  # images listed on the terminal
WAITING = 32  # pictures that may wait to be written


def run(words: list[str]) -> int:
    """Judge the images; 1 if some could not be read, else 0."""
    options = parse(words)
    from anomalib_rd.inference.files import Output, find_images

    images = find_images(options.images)
    make_folder(options.out)
    output = Output(options.out, not options.no_heatmaps, options.maps, options.original_size)
    detector = load(options)
    rows, failed, seconds = judge(detector, images, output, options.batch_size)
    threshold = detector.threshold
    facts = {
        **detector.facts,
        "threshold": threshold and asdict(threshold),
        "seconds": seconds,
        "images_per_s": len(rows) / seconds,
    }
    output.write_table(rows, failed, facts)
    show(rows, failed, detector, seconds)
    print(f"written to {output.folder}")
    return 1 if failed else 0


def parse(words: list[str]) -> Namespace:
    """The options; refuses what makes no sense before anything is loaded."""
    parser = Parser(
        "predict",
        "Judge images: scores, verdicts at the run's threshold, heatmaps. "
        "Exit status 1 if an image could not be read.",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders, or patterns in quotes"
    )
    parser.add_argument(
        "--out", type=Path, help="where to write; default: predictions/DATE_TIME here"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
    parser.add_argument(
        "--threshold", type=float, help="the score from which on an image is anomalous"
    )
    parser.add_argument("--no-heatmaps", action="store_true", help="draw nothing")
    parser.add_argument(
        "--maps", choices=("npy", "tiff"), help="keep the maps: float32, or 16-bit float TIFF"
    )
    parser.add_argument(
        "--original-size", action="store_true", help="heatmaps and maps of the images' own size"
    )
    parser.add_argument(
        "--precision", metavar="NAME", help="such as bf16-mixed; default: as the run was trained"
    )
    # As the run may be said as run=RUN.
    options = parser.parsed([word.removeprefix("images=") for word in words])
    if options.batch_size < 1:
        parser.error(f"--batch-size {options.batch_size}: must be at least 1")
    if options.threshold is not None and not math.isfinite(options.threshold):
        parser.error(f"--threshold {options.threshold}: must be a number")
    if options.original_size and options.no_heatmaps and not options.maps:
        parser.error("--original-size goes with heatmaps or --maps")
    options.out = options.out or Path("predictions", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    return options


def load(options: Namespace) -> "Detector":
    """The model, of a run or an exported file; of the latter without torch, where it needs none."""
    from anomalib_rd.inference.exported import is_exported, load_exported

    own = {
        "device": options.device,
        "threshold": options.threshold,
        "precision": options.precision,
        "trust": options.trust,
    }
    if is_exported(options.run):
        if options.teacher_weights:
            raise UserError(
                f"predict: --teacher-weights is of no use with {options.run}: the teacher is in it"
            )
        return load_exported(options.run, **own)
    from anomalib_rd.inference.load import load_run

    return load_run(options.run, teacher_weights=options.teacher_weights, **own)


def make_folder(out: Path) -> None:
    """Make the output's folder, before anything is judged for nothing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: can't be made ({error.strerror or error})") from error


def judge(
    detector: "Detector", images: dict[Path, Path], output: "Output", batch_size: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]], float]:
    """Judge the images and write their pictures, with a bar on a terminal.

    Returns:
        The table's rows, what could not be read (``path, error``), and the seconds it took.
    """
    from anomalib_rd.inference.files import row

    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    started = time.perf_counter()
    # Pictures are drawn while the network works.
    with ThreadPoolExecutor() as pool:
        waiting: deque[Future[None]] = deque()
        found = zip(images.items(), detector.tried(images, batch_size), strict=True)
        for (path, name), one in with_bar(found, len(images)):
            if isinstance(one, UserError):
                failed.append({"path": path.as_posix(), "error": str(one)})
                continue
            rows.append(row(path, one))
            waiting.append(pool.submit(output.write, name, path, one))
            if len(waiting) > WAITING:
                waiting.popleft().result()
        for writing in waiting:
            writing.result()
    return rows, failed, time.perf_counter() - started


def with_bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        items,
        "images",
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def show(
    rows: list[dict[str, Any]], failed: list[dict[str, str]], detector: "Detector", seconds: float
) -> None:
    """Print the table of a few images, the sum of many, and a line for each unreadable one."""
    threshold = detector.threshold
    if len(rows) <= SHOWN:
        for one in rows:
            normalised = "" if one["normalised"] is None else f"  {one['normalised']:.3f}"
            verdict = "" if one["verdict"] is None else f"  {one['verdict']:9}"
            print(f"{one['score']:.4f}{normalised}{verdict}  {one['path']}")
    if threshold is None:
        print("no verdict: the run has no threshold; --threshold SCORE gives one")
    else:
        anomalous = sum(one["verdict"] == "anomalous" for one in rows)
        print(f"{anomalous} of {len(rows)} anomalous; threshold {threshold}")
    print(f"{len(rows)} image{'' if len(rows) == 1 else 's'} in {seconds:.1f} s")
    for one in failed:
        print(f"anomalib-rd: {one['error']}", file=sys.stderr)
    if failed:
        count = "1 image" if len(failed) == 1 else f"{len(failed)} images"
        print(f"anomalib-rd: {count} not read", file=sys.stderr)
