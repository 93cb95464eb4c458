"""How fast the exact pixel metrics are, and that they agree with the references."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from anomalib_rd.bench.references import aupro_by_argsort
from anomalib_rd.bench.timing import interleaved
from anomalib_rd.metrics.functional import pixel_metrics, pro_rd4ad


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
    """Time our metrics and the references on the same maps.

    Returns:
        ``maps``, ``size``, and for each contestant its ``seconds`` (median, min, max), the
        ``ratio`` of its median to ours and what it computed.
    """
    maps, masks = example(count, size)
    tensors = torch.from_numpy(maps), torch.from_numpy(masks)
    found: dict[str, Any] = {}

    def keep(name: str, work: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            found[name] = work()

        return run

    ours = "anomalib-rd, all five pixel metrics, exact"
    work = {
        ours: lambda: pixel_metrics(*tensors),
        "plain AUPRO by one argsort, exact": lambda: {"aupro": aupro_by_argsort(maps, masks)},
        "anomalib-rd, RD4AD's per-image PRO": lambda: {"pro_rd4ad": pro_rd4ad(*tensors)},
    }
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError:
        pass
    else:
        work["scikit-learn, pixel AUROC alone"] = lambda: {
            "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel())
        }
    timings = interleaved({name: keep(name, run) for name, run in work.items()}, rounds)
    base = next(t.median for t in timings if t.name == ours)
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
                "values": found[t.name],
            }
            for t in timings
        },
    }
