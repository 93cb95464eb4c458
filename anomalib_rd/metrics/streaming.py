"""The pixel metrics in bounded memory, exact for small sets and within proven bounds for others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from anomalib_rd.metrics.bounds import Bounds, pixel_bounds
from anomalib_rd.metrics.checks import check_pixels, why_pixels_undefined
from anomalib_rd.metrics.ranking import PixelRanking
from anomalib_rd.metrics.score_bins import ScoreBins

LEAST_BINS = 64
_COLUMNS = dict(zip(ScoreBins._fields, (np.int32, np.int64, np.int64, np.float64), strict=True))
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class StreamedPixelMetrics(Metric):
    """`pixel_metrics` of maps (B, H, W) and masks (B, H, W) that need not all be kept.

    Pixels are counted by their score, in at most `max_bins` bins of 28 bytes, whatever the number
    of images. While there are no more distinct scores than bins, all is exact; when there are,
    the lowest bit of the scores' float32 is dropped, then the next. The values are the middle of
    `bounds`, between which the exact ones lie: closer than 1e-5 with 2^20 bins, as a rule.
    Neither batches nor their order nor the number of processes changes the result.

    Args:
        max_bins: at least 64; ValueError otherwise.
    """

    full_state_update = True  # forward() must merge bins too
    keys: list[Tensor]
    normals: list[Tensor]
    defects: list[Tensor]
    weights: list[Tensor]
    shift: Tensor
    images: Tensor
    _ranking: PixelRanking
    _bounds: Bounds
    _images: int

    def __init__(self, max_bins: int = 2**20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_bins < LEAST_BINS:
            raise ValueError(f"max_bins must be at least {LEAST_BINS}, got {max_bins}")
        self.max_bins = max_bins
        for name in _COLUMNS:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("shift", default=torch.tensor(0), dist_reduce_fx="max")
        self.add_state("images", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Count a batch; ValueError on bad shapes, NaN, or maps of a type finer than float32."""
        maps, masks = check_pixels(maps, masks)
        if maps.dtype not in _TYPES:
            raise ValueError(
                f"maps must be float32, float16 or bfloat16 to be streamed, got {maps.dtype}: "
                "rounding others would break the bounds"
            )
        scores = maps.float().cpu().numpy()
        self._keep(ScoreBins.of_maps(scores, masks.cpu().numpy(), int(self.shift)))
        self.images += len(maps)
        if sum(map(len, self.keys)) > self.max_bins:
            bins = self._gathered()
            for name in _COLUMNS:
                getattr(self, name).clear()  # now: merging needs memory
            bins, shift = bins.merged(int(self.shift), self.max_bins)
            self._keep(bins)
            self.shift.fill_(shift)

    def compute(self) -> dict[str, float]:
        """Return the metrics of everything seen since the last reset."""
        bins, shift = self._gathered().merged(int(self.shift), self.max_bins)
        self._ranking = bins.ranking()
        self._images = int(self.images)
        exact = {name: (value, value) for name, value in self._ranking.metrics().items()}
        self._bounds = exact if shift == 0 else pixel_bounds(bins)
        return {name: (least + most) / 2 for name, (least, most) in self._bounds.items()}

    def bounds(self) -> Bounds:
        """Least and greatest value that each exact metric can have: equal while all is exact."""
        self.compute()  # cached by torchmetrics unless batches came since
        return self._bounds

    def curves(self, max_points: int = 1000) -> dict[str, NDArray[np.float64]]:
        """Return `PixelRanking.curves`, the scores of a bin taken as equal to its least one."""
        self.compute()
        return self._ranking.curves(max_points)

    def why_undefined(self) -> str | None:
        """Say why the metrics are NaN; None if they are defined."""
        self.compute()
        return why_pixels_undefined(self._images, self._ranking.defects, self._ranking.normals)

    def _keep(self, bins: ScoreBins) -> None:
        for name, column in bins._asdict().items():
            getattr(self, name).append(torch.from_numpy(column).to(self.device))

    def _gathered(self) -> ScoreBins:
        """Put together the bins of all batches, and in `compute` of all processes, as they are."""
        return ScoreBins(*(_joined(getattr(self, name), type_) for name, type_ in _COLUMNS.items()))


def _joined(state: list[Tensor] | Tensor, dtype: type) -> NDArray[Any]:
    """Concatenate a state, which is a list of batches, or one tensor if processes are gathered."""
    parts = state if isinstance(state, list) else [state]
    return np.concatenate([np.zeros(0, dtype), *(part.cpu().numpy() for part in parts)])
