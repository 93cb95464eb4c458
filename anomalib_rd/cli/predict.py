"""``anomalib-rd predict``: judge images by a trained model."""

import math
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import RunParser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.inference.detector import Detector
    from anomalib_rd.inference.predict import Output, Table

SHOWN = 20  # images listed on the terminal
WAITING = 32  # pictures that may wait to be written


@dataclass
class Judged:
    """What became of the images so far.

    Attributes:
        rows: of the table, in the images' order.
        failed: images without a score, ``{path, error}``.
        not_drawn: images with a score whose heatmap or map could not be written, ``{path, error}``.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    not_drawn: list[dict[str, str]] = field(default_factory=list)

    def rest(self, images: Iterable[Path]) -> list[str]:
        """Paths of the images that were not reached."""
        reached = {one["path"] for one in (*self.rows, *self.failed)}
        return [path.as_posix() for path in images if path.as_posix() not in reached]


def run(words: list[str]) -> int:
    """Judge the images; 1 if one could not be read or drawn, else 0.

    Raises:
        KeyboardInterrupt: interrupted; what was judged by then is in the table. SystemExit of a
            SIGTERM likewise.
    """
    options = parse(words)
    from anomalib_rd.inference.predict import Output, Table, find_images

    images = find_images(options.images)
    make_folder(options.out)
    detector = load(options)
    output = Output(
        folder=options.out,
        heatmaps=not options.no_heatmaps,
        maps=options.maps,
        original_size=options.original_size,
        scale=detector.map_scale,
    )
    judged, started = Judged(), time.perf_counter()
    try:
        with closing(Table(output.folder)) as table, stopped_by_sigterm():
            judge(detector, images, output, table, options.batch_size, judged)
    except BaseException as stop:
        seconds = time.perf_counter() - started
        with suppress(OSError):  # a full disk has been the reason perhaps
            output.write_facts(facts(detector, images, judged, seconds, complete=False))
        reached = f"{len(judged.rows)} of {counted(images)} judged, see {output.folder}"
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(reached) from stop
        print(f"anomalib-rd: {reached}", file=sys.stderr)
        raise
    seconds = time.perf_counter() - started
    output.write_facts(facts(detector, images, judged, seconds, complete=True))
    show(judged, detector, seconds)
    print(f"written to {output.folder}")
    return 1 if judged.failed or judged.not_drawn else 0


def facts(
    detector: "Detector", images: Iterable[Path], judged: Judged, seconds: float, complete: bool
) -> dict[str, Any]:
    """What ``predictions.json`` says; ``not_judged`` lists what an interruption has left."""
    threshold = detector.threshold
    return {
        **detector.facts,
        "threshold": threshold and threshold.summary(),
        "seconds": seconds,
        "images_per_s": len(judged.rows) / seconds,
        "complete": complete,
        "images": judged.rows,
        "failed": judged.failed,
        "not_drawn": judged.not_drawn,
        "not_judged": judged.rest(images),
    }


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block by SystemExit, so that what there is can be written."""

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(words: list[str]) -> Namespace:
    """The options; refuses what makes no sense before anything is loaded."""
    parser = RunParser(
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
    parser.add_argument(
        "--false-positive-rate",
        type=float,
        metavar="RATE",
        help="the share of normal images that may be called anomalous, such as 0.02; the threshold "
        "is then taken from the run's scores of normal images",
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
    if "" in options.images:
        parser.error("IMAGES: one is empty; '.' is the current folder")
    rate = options.false_positive_rate
    if rate is not None and options.threshold is not None:
        parser.error("--threshold and --false-positive-rate: give one of them")
    if rate is not None and not 0 < rate < 1:
        parser.error(f"--false-positive-rate {rate}: must be between 0 and 1, such as 0.05")
    if options.original_size and options.no_heatmaps and not options.maps:
        parser.error("--original-size goes with heatmaps or --maps")
    options.out = options.out or Path("predictions", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    return options


def load(options: Namespace) -> "Detector":
    """The model, of a run or an exported file; of the latter without torch, where it needs none."""
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
            raise UserError(
                f"predict: {flag} is of no use with {options.run}: the teacher is in it"
            )
        return load_exported(options.run, **own)
    from anomalib_rd.inference.load import load_run

    own |= {"teacher_weights": options.teacher_weights, "other_teacher": options.other_teacher}
    return load_run(options.run, **own)


def make_folder(out: Path) -> None:
    """Make the output's folder, before anything is judged for nothing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: can't be made ({error.strerror or error})") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: this folder can't be written; choose another")


def judge(
    detector: "Detector",
    images: dict[Path, Path],
    output: "Output",
    table: "Table",
    batch_size: int,
    judged: Judged,
) -> None:
    """Judge the images and write their rows and pictures as they come, with a bar on a terminal.

    What is wrong with one image costs no other.

    Args:
        detector: the model.
        images: path and name of each.
        output: where pictures go.
        table: where rows go.
        batch_size: images that the network takes at once.
        judged: filled, so that it is there whatever ends this.

    Raises:
        OSError: the table cannot be written.
    """
    from anomalib_rd.inference.predict import row
    from anomalib_rd.results.files import one_line

    waiting: deque[tuple[Path, Future[None]]] = deque()

    def note(path: Path, picture: Future[None]) -> None:
        error = CancelledError("interrupted") if picture.cancelled() else picture.exception()
        if error is not None:
            judged.not_drawn.append({"path": path.as_posix(), "error": one_line(error)})

    # Pictures are drawn while the network works.
    with ThreadPoolExecutor() as pool, closing(detector.tried(images, batch_size)) as predictions:
        try:
            found = zip(images.items(), predictions, strict=True)
            for (path, name), one in with_bar(found, len(images)):
                if isinstance(one, UserError):
                    judged.failed.append({"path": path.as_posix(), "error": str(one)})
                    continue
                if not math.isfinite(one.score):
                    error = f"{path}: its score is not a number; try --precision 32-true"
                    judged.failed.append({"path": path.as_posix(), "error": error})
                    continue
                new = row(path, one)
                table.add(new)
                judged.rows.append(new)
                waiting.append((path, pool.submit(output.write, name, path, one)))
                if len(waiting) > WAITING:
                    note(*waiting.popleft())
        except BaseException:
            for _, picture in waiting:
                picture.cancel()
            raise
        finally:
            for path, picture in waiting:
                note(path, picture)


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


def show(judged: Judged, detector: "Detector", seconds: float) -> None:
    """Print the table of a few images, the sum of many, and a line for each that went wrong."""
    from anomalib_rd.results.files import printable

    rows, threshold = judged.rows, detector.threshold
    if len(rows) <= SHOWN:
        for one in rows:
            normalised = "" if one["normalised"] is None else f"  {one['normalised']:.3f}"
            verdict = "" if one["verdict"] is None else f"  {one['verdict']:9}"
            print(f"{one['score']:.4f}{normalised}{verdict}  {printable(one['path'])}")
    if threshold is None:
        print("no verdict: the run has no threshold; --threshold SCORE gives one")
    else:
        anomalous = sum(one["verdict"] == "anomalous" for one in rows)
        print(f"{anomalous} of {len(rows)} anomalous; threshold {threshold}")
    print(f"{counted(rows)} in {seconds:.1f} s")
    show_errors([one["error"] for one in judged.failed], "not read")
    show_errors([f"{one['path']}: {one['error']}" for one in judged.not_drawn], "not drawn")


def show_errors(errors: list[str], what: str) -> None:
    """Print the first errors, and how many there are."""
    from anomalib_rd.results.files import printable

    for error in errors[:SHOWN]:
        print(f"anomalib-rd: {printable(error)}", file=sys.stderr)
    if errors:
        listed = "; predictions.json lists all" if len(errors) > SHOWN else ""
        print(f"anomalib-rd: {counted(errors)} {what}{listed}", file=sys.stderr)


def counted(images: Sized) -> str:
    """Such as ``1 image``, ``2 images``."""
    return f"{len(images)} image{'' if len(images) == 1 else 's'}"
