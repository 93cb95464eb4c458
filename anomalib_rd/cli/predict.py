"""``anomalib-rd predict``: score images with a trained model."""

import math
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import Parser, add_run_arguments, number, parse_run_keyword
from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import format_count

if TYPE_CHECKING:
    from anomalib_rd.inference.detector import Detector
    from anomalib_rd.inference.predict import Output, Table

PRINTED_IMAGES = 20
MAX_PENDING = 32  # pictures waiting to be written


@dataclass
class Results:
    """The images scored so far.

    Attributes:
        rows: of the table, in the order of the images.
        failed: images without a score, ``{path, error}``.
        not_drawn: scored images whose heatmap or map could not be written, ``{path, error}``.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    not_drawn: list[dict[str, str]] = field(default_factory=list)

    def summary(
        self, detector: "Detector", images: Iterable[Path], seconds: float, complete: bool
    ) -> dict[str, Any]:
        """The content of ``predictions.json``; ``not_judged`` lists images not scored yet."""
        threshold = detector.threshold
        reached = {one["path"] for one in (*self.rows, *self.failed)}
        return {
            **detector.facts,
            "threshold": threshold and threshold.summary(),
            "seconds": seconds,
            "images_per_s": len(self.rows) / seconds,
            "complete": complete,
            "images": self.rows,
            "failed": self.failed,
            "not_drawn": self.not_drawn,
            "not_judged": [p.as_posix() for p in images if p.as_posix() not in reached],
        }


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Score images: anomaly score, verdict at the run's threshold, heatmap. RUN may also be an "
        "exported file. Exit status 1 if an image could not be read or drawn.",
        "runs/mine photos/",
        "runs/mine 'photos/*.png' --out results --maps tiff --original-size",
        "part.onnx photos/ --false-positive-rate 0.02",
    )
    add_run_arguments(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or patterns")
    parser.add_argument("--out", type=Path, help="output folder (default: predictions/DATE_TIME)")
    parser.add_argument(
        "--batch-size",
        type=number(int, 1),
        default=16,
        help="images per forward pass (default: %(default)s)",
    )
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument(
        "--threshold", type=number(float), help="lowest anomaly score of an anomalous image"
    )
    threshold.add_argument(
        "--false-positive-rate",
        type=number(float),
        metavar="RATE",
        help="fraction of normal images that may be called anomalous, such as 0.02; sets the "
        "threshold from the run's scores of normal images",
    )
    parser.add_argument("--no-heatmaps", action="store_true", help="write no heatmaps")
    parser.add_argument(
        "--maps", choices=("npy", "tiff"), help="write anomaly maps: float32, or 16-bit float TIFF"
    )
    parser.add_argument(
        "--original-size",
        action="store_true",
        help="heatmaps and maps in the size of each image, not of the network's input",
    )
    parser.add_argument(
        "--precision", help="such as bf16-mixed (default: the precision of the training)"
    )
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Score the images; returns 1 if one could not be read or drawn, else 0.

    Raises:
        KeyboardInterrupt: interrupted; the table holds the images scored so far. SIGTERM raises
            SystemExit likewise.
    """
    parse_run_keyword(options, "images")
    _check_options(options)
    from anomalib_rd.inference.predict import Output, Table, find_images

    images = find_images(options.images)
    _make_folder(options.out)  # before any image is scored
    detector = _load_detector(options)
    output = Output(
        folder=options.out,
        heatmaps=not options.no_heatmaps,
        maps=options.maps,
        original_size=options.original_size,
        scale=detector.map_scale,
    )
    results, started = Results(), time.perf_counter()
    try:
        with closing(Table(output.folder)) as table, _sigterm_as_exception():
            score_images(detector, images, output, table, options.batch_size, results)
    except BaseException as stop:
        seconds = time.perf_counter() - started
        with suppress(OSError):  # the disk may be full
            output.write_facts(results.summary(detector, images, seconds, complete=False))
        total = format_count(len(images), "image")
        progress = f"{len(results.rows)} of {total} scored, see {output.folder}"
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(progress) from stop
        print(f"anomalib-rd: {progress}", file=sys.stderr)
        raise
    seconds = time.perf_counter() - started
    output.write_facts(results.summary(detector, images, seconds, complete=True))
    _print_results(results, detector, seconds)
    print(f"written to {output.folder}")
    return 1 if results.failed or results.not_drawn else 0


def _check_options(options: Namespace) -> None:
    """Refuse contradictory options before anything is loaded; set the output folder."""
    # Accept images=PATH, like run=RUN.
    options.images = [path.removeprefix("images=") for path in options.images]
    if not all(options.images):
        raise UserError("predict: an empty path in IMAGES; '.' is the current folder")
    rate = options.false_positive_rate
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"predict: --false-positive-rate {rate}: must be between 0 and 1")
    if options.original_size and options.no_heatmaps and not options.maps:
        raise UserError("predict: --original-size requires heatmaps or --maps")
    options.out = options.out or Path("predictions", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be created ({error.strerror or error})") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: no permission to write; choose another folder")


def _load_detector(options: Namespace) -> "Detector":
    """The model of a run or of an exported file, which may not need torch."""
    from anomalib_rd.inference.runtimes import is_exported, load_exported

    own = {
        "device": options.device,
        "threshold": options.threshold,
        "false_positive_rate": options.false_positive_rate,
        "precision": options.precision,
        "trust": options.trust,
    }
    if is_exported(options.run):
        if options.teacher_weights or options.other_teacher:
            flag = "--teacher-weights" if options.teacher_weights else "--other-teacher"
            raise UserError(f"predict: {flag} has no effect: {options.run} contains the teacher")
        return load_exported(options.run, **own)
    from anomalib_rd.inference.load import load_run

    own |= {"teacher_weights": options.teacher_weights, "other_teacher": options.other_teacher}
    return load_run(options.run, **own)


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """SIGTERM raises SystemExit inside the block, so that results are still written."""

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def score_images(
    detector: "Detector",
    images: dict[Path, Path],
    output: "Output",
    table: "Table",
    batch_size: int,
    results: Results,
) -> None:
    """Score the images, and write rows and pictures immediately; errors do not stop the others.

    Args:
        detector: the model.
        images: path -> name of the output.
        output: writes pictures.
        table: writes rows.
        batch_size: images per forward pass.
        results: filled in place, so that they are complete after an interruption.

    Raises:
        OSError: the table cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    from anomalib_rd.inference.predict import table_row
    from anomalib_rd.results.files import one_line

    pending: deque[tuple[Path, Future[None]]] = deque()

    def finish(path: Path, picture: Future[None]) -> None:
        error = CancelledError("interrupted") if picture.cancelled() else picture.exception()
        if error is not None:
            results.not_drawn.append({"path": path.as_posix(), "error": one_line(error)})

    console = Console(stderr=True)
    # Threads write pictures while the network computes.
    with (
        ThreadPoolExecutor() as pool,
        closing(detector.many_or_errors(images, batch_size)) as predictions,
    ):
        try:
            for (path, name), prediction in track(
                zip(images.items(), predictions, strict=True),
                "images",
                total=len(images),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            ):
                if not isinstance(prediction, UserError) and not math.isfinite(prediction.score):
                    prediction = UserError(f"{path}: score not finite; try --precision 32-true")
                if isinstance(prediction, UserError):
                    results.failed.append({"path": path.as_posix(), "error": str(prediction)})
                    continue
                new = table_row(path, prediction)
                table.add(new)
                results.rows.append(new)
                pending.append((path, pool.submit(output.write, name, path, prediction)))
                if len(pending) > MAX_PENDING:
                    finish(*pending.popleft())
        except BaseException:
            for _, picture in pending:
                picture.cancel()
            raise
        finally:
            for path, picture in pending:
                finish(path, picture)


def _print_results(results: Results, detector: "Detector", seconds: float) -> None:
    """Print the rows of a few images, the totals, and the errors."""
    from anomalib_rd.results.files import printable

    rows, threshold = results.rows, detector.threshold
    for row in rows if len(rows) <= PRINTED_IMAGES else []:
        normalised = "" if row["normalised"] is None else f"  {row['normalised']:.3f}"
        verdict = "" if row["verdict"] is None else f"  {row['verdict']:9}"
        print(f"{row['score']:.4f}{normalised}{verdict}  {printable(row['path'])}")
    if threshold is None:
        print("no verdict: the run has no threshold; set one with --threshold SCORE")
    else:
        anomalous = sum(row["verdict"] == "anomalous" for row in rows)
        print(f"{anomalous} of {len(rows)} anomalous; threshold {threshold}")
    print(f"{format_count(len(rows), 'image')} in {seconds:.1f} s")
    not_drawn = [f"{one['path']}: {one['error']}" for one in results.not_drawn]
    failed = [one["error"] for one in results.failed]
    for errors, problem in ((failed, "not scored"), (not_drawn, "not drawn")):
        for error in errors[:PRINTED_IMAGES]:
            print(f"anomalib-rd: {printable(error)}", file=sys.stderr)
        if errors:
            more = "; predictions.json lists all" if len(errors) > PRINTED_IMAGES else ""
            count = format_count(len(errors), "image")
            print(f"anomalib-rd: {count} {problem}{more}", file=sys.stderr)
