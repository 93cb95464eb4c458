"""`bench metrics`: speed, memory and values of pixel metrics by several implementations."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label

from anomalib_rd.metrics.functional import pixel_metrics
from anomalib_rd.metrics.streaming import StreamedPixelMetrics

from .measuring import interleaved, peak_rss, reset_peak_rss

Values = dict[str, float]
MAX_SORTED = 100 * 256 * 256  # pixels up to which `growth` times the slow argsort


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


def by_argsort(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> Values:
    """AUPRO up to a false positive rate, as in MVTec's evaluation code: one argsort."""
    alarm = np.zeros(maps.shape, dtype=np.float64)
    overlap = np.zeros(maps.shape, dtype=np.float64)
    regions = 0
    for image, mask in enumerate(masks):
        labels, count = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        overlap[image] = np.where(labels > 0, 1 / sizes[labels], 0)
        regions += count
    alarm[~masks] = 1 / (~masks).sum()
    order = np.argsort(-maps.ravel(), kind="quicksort")
    values = maps.ravel()[order]
    last = np.append(values[1:] != values[:-1], True)
    fpr = np.append(0, np.cumsum(alarm.ravel()[order])[last])
    pro = np.append(0, np.cumsum(overlap.ravel()[order])[last] / regions)
    inside = fpr <= limit
    x, y = np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))
    return {"aupro": float(np.trapezoid(y, x) / limit)}


def by_sklearn(maps: np.ndarray, masks: np.ndarray) -> Values:
    """Pixel AUROC alone, exact."""
    from sklearn.metrics import roc_auc_score

    return {"pixel_auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}


def by_adeval(maps: np.ndarray, masks: np.ndarray) -> Values:
    """AUROC, AP and AUPRO together from histograms of 1000 bins (PyPI adeval), approximate."""
    if not hasattr(np, "trapz"):  # adeval 1.1 uses the name that NumPy 2.4 removed
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    evaluator = import_module("adeval").EvalAccumulator(
        float(maps.min()), float(maps.max()), nstrips=1000
    )
    evaluator.add_anomap_batch(maps, masks.view(np.uint8))
    with np.errstate(invalid="ignore"):  # there are no image scores
        summary = evaluator.summary()
    names = {"pixel_auroc": "p_auroc", "pixel_ap": "p_aupr", "aupro": "p_aupro"}
    return {ours: float(summary[theirs]) for ours, theirs in names.items()}


def by_anomalib(maps: np.ndarray, masks: np.ndarray) -> Values:
    """AUPRO alone by one argsort, summed in float32 (PyPI anomalib)."""
    metric = import_module("anomalib.metrics.aupro")._AUPRO()  # AUPRO takes batch objects
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    return {"aupro": float(metric.compute())}


class Contestant(NamedTuple):
    """A function of maps and masks (N, H, W), and the package that it needs."""

    work: Callable[[np.ndarray, np.ndarray], Values]
    package: str = "numpy"


OURS, ARGSORT, ADEVAL = "anomalib-rd, exact", "one argsort, AUPRO alone", "adeval, 1000 bins"
CONTESTANTS = {
    OURS: Contestant(exact),
    "anomalib-rd, streamed": Contestant(streamed),
    ARGSORT: Contestant(by_argsort),
    "scikit-learn, AUROC alone": Contestant(by_sklearn, "sklearn"),
    ADEVAL: Contestant(by_adeval, "adeval"),
    "anomalib, AUPRO alone": Contestant(by_anomalib, "anomalib"),
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
        ``peak_bytes`` in addition to the maps and masks (None where the system cannot measure
        it) and its ``values``.
    """
    maps, masks = example(count, size)
    values: dict[str, Values] = {}

    def work(name: str) -> None:
        values[name] = CONTESTANTS[name].work(maps, masks)

    calls: dict[str, Callable[[], object]] = {name: partial(work, name) for name in _installed()}
    timings = interleaved(calls, rounds)
    ours = median(next(timing.seconds for timing in timings if timing.name == OURS))
    return {
        "maps": count,
        "size": size,
        "threads": torch.get_num_threads(),
        "contestants": {
            name: {
                **timing.summary,
                "ratio": median(timing.seconds) / ours,
                "peak_bytes": peak_in_own_process(name, count, size),
                "values": values[name],
            }
            for timing in timings
            for name in [timing.name]
        },
    }


def growth(counts: list[int], sizes: list[int], rounds: int) -> dict[str, Any]:
    """Median seconds by the number of maps and by their size.

    Returns:
        ``by_count``, at the middle size, and ``by_size``, at the middle count: lists of
        ``maps``, ``size`` and ``contestants``, from name to seconds.
    """
    maps, size = counts[len(counts) // 2], sizes[len(sizes) // 2]
    return {
        "by_count": [_seconds(count, size, rounds) for count in counts],
        "by_size": [_seconds(maps, side, rounds) for side in sizes],
    }


def _seconds(count: int, size: int, rounds: int) -> dict[str, Any]:
    maps, masks = example(count, size)
    names = {OURS, ADEVAL, ARGSORT} if maps.size <= MAX_SORTED else {OURS, ADEVAL}
    calls: dict[str, Callable[[], object]] = {
        name: partial(CONTESTANTS[name].work, maps, masks) for name in _installed() if name in names
    }
    medians = {timing.name: median(timing.seconds) for timing in interleaved(calls, rounds)}
    return {"maps": count, "size": size, "contestants": medians}


def _installed() -> list[str]:
    return [name for name, contestant in CONTESTANTS.items() if find_spec(contestant.package)]


def peak_in_own_process(name: str, count: int, size: int) -> int | None:
    """Peak bytes in addition to the input, of all libraries; measured in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, name, count, size).result()


def _peak_bytes(name: str, count: int, size: int) -> int | None:
    work = CONTESTANTS[name].work
    work(*example(8, 64))  # imports do not count
    maps, masks = example(count, size)
    if not reset_peak_rss():
        return None
    before = peak_rss()
    work(maps, masks)
    return peak_rss() - before
