"""How fast and how lean the pixel metrics are beside others, and how far all agree."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from anomalib_rd.bench import references
from anomalib_rd.bench.memory import forget_peak, peak_rss
from anomalib_rd.bench.timing import interleaved
from anomalib_rd.metrics import StreamedPixelMetrics
from anomalib_rd.metrics.functional import pixel_metrics

Values = dict[str, float]
_MOST_SORTED = 100 * 256 * 256  # pixels that the plain argsort gets in `growth`: it is slow


class Contestant(NamedTuple):
    """A way to the metrics of maps and masks (N, H, W), and the package that it needs."""

    work: Callable[[np.ndarray, np.ndarray], Values]
    package: str = "numpy"


def exact(maps: np.ndarray, masks: np.ndarray) -> Values:
    """All five pixel metrics."""
    return pixel_metrics(torch.from_numpy(maps), torch.from_numpy(masks))


def streamed(maps: np.ndarray, masks: np.ndarray) -> Values:
    """All five in batches of 16 maps, within proven bounds."""
    metric = StreamedPixelMetrics()
    batches = zip(torch.from_numpy(maps).split(16), torch.from_numpy(masks).split(16), strict=True)
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


OURS, ARGSORT, ADEVAL = "anomalib-rd, exact", "one argsort, AUPRO alone", "adeval, 1000 bins"
CONTESTANTS = {
    OURS: Contestant(exact),
    "anomalib-rd, streamed": Contestant(streamed),
    ARGSORT: Contestant(references.by_argsort),
    "scikit-learn, AUROC alone": Contestant(references.by_sklearn, "sklearn"),
    ADEVAL: Contestant(references.by_adeval, "adeval"),
    "anomalib, AUPRO alone": Contestant(references.by_anomalib, "anomalib"),
}


def example(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random maps (N, H, W) float32 and masks with a square defect in 70 % of them."""
    rng = np.random.default_rng(seed)
    maps = gaussian_filter(rng.normal(size=(count, size, size)), (0, 4, 4))
    maps /= maps.std()
    masks = np.zeros(maps.shape, dtype=bool)
    for image in range(int(0.7 * count)):
        side = int(size * rng.uniform(0.1, 0.3))
        top, left = rng.integers(0, size - side, 2)
        masks[image, top : top + side, left : left + side] = True
    return (maps + masks).astype(np.float32), masks


def measure(count: int, size: int, rounds: int) -> dict[str, Any]:
    """Time all installed contestants on the same maps.

    Returns:
        ``maps``, ``size``, ``threads`` and for each of ``contestants`` the seconds
        (``median_s``, ``min_s``, ``max_s``), the ``ratio`` of its median to ours, the
        ``peak_bytes`` that it needs beside the maps and masks (None where the system can't
        say) and the ``values`` that it found.
    """
    maps, masks = example(count, size)
    found: dict[str, Values] = {}

    def work(name: str) -> None:
        found[name] = CONTESTANTS[name].work(maps, masks)

    work_of: dict[str, Callable[[], object]] = {name: partial(work, name) for name in _installed()}
    timings = interleaved(work_of, rounds)
    base = next(t.median for t in timings if t.name == OURS)
    return {
        "maps": count,
        "size": size,
        "threads": torch.get_num_threads(),
        "contestants": {
            t.name: {
                "median_s": t.median,
                "min_s": min(t.seconds),
                "max_s": max(t.seconds),
                "ratio": t.median / base,
                "peak_bytes": _peak_in_own_process(t.name, count, size),
                "values": found[t.name],
            }
            for t in timings
        },
    }


def growth(counts: list[int], sizes: list[int], rounds: int) -> dict[str, Any]:
    """Median seconds over the number of maps and over their size.

    Returns:
        ``by_count``, at the middle one of the sizes, and ``by_size``, at the middle one of the
        counts: lists of ``maps``, ``size`` and ``contestants``, from name to seconds.
    """
    maps, size = counts[len(counts) // 2], sizes[len(sizes) // 2]
    return {
        "by_count": [_seconds(count, size, rounds) for count in counts],
        "by_size": [_seconds(maps, side, rounds) for side in sizes],
    }


def _seconds(count: int, size: int, rounds: int) -> dict[str, Any]:
    maps, masks = example(count, size)
    shown = (OURS, ADEVAL, ARGSORT) if maps.size <= _MOST_SORTED else (OURS, ADEVAL)
    names = [name for name in _installed() if name in shown]
    work: dict[str, Callable[[], object]] = {
        name: partial(CONTESTANTS[name].work, maps, masks) for name in names
    }
    medians = {timing.name: timing.median for timing in interleaved(work, rounds)}
    return {"maps": count, "size": size, "contestants": medians}


def _installed() -> list[str]:
    return [name for name, contestant in CONTESTANTS.items() if find_spec(contestant.package)]


def _peak_in_own_process(name: str, count: int, size: int) -> int | None:
    """Bytes beside the input, seen from outside, so that no library's memory is missed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_bytes, name, count, size).result()


def peak_bytes(name: str, count: int, size: int) -> int | None:
    """Growth of this process's peak memory by one contestant's work, after a small first one."""
    work = CONTESTANTS[name].work
    work(*example(8, 64))  # what it loads is not what it needs
    maps, masks = example(count, size)
    if not forget_peak():
        return None
    before = peak_rss()
    work(maps, masks)
    return peak_rss() - before
