"""The detector: images in, scores and anomaly maps out."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from anomalib_rd.cores import usable_cores
from anomalib_rd.data.images import (
    convert_to_rgb,
    load_image,
    resize_to_array,
    scale_to_8_bit,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line
from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.results.threshold import ANOMALOUS, Threshold


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction(ScoredImage):
    """A scored image, with a verdict if there is a threshold.

    Attributes:
        image: uint8 (H, W, 3), resized for the network.
        anomaly_map: float32 (H, W), at the network's size.
        size: (H, W) of the original image, after its EXIF rotation.
        threshold: None if the run has none.
    """

    size: tuple[int, int]
    threshold: Threshold | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str | None:
        """``anomalous`` (score >= threshold) or ``normal``; None without a threshold."""
        return None if self.threshold is None else self.threshold.verdict(self.score)

    @property
    def anomalous(self) -> bool | None:
        """The verdict as a bool; None without a threshold."""
        return None if self.verdict is None else self.verdict == ANOMALOUS

    @property
    def normalised(self) -> float | None:
        """The score in [0, 1], 0.5 at the threshold, see `Threshold.normalised`."""
        return None if self.threshold is None else self.threshold.normalised(self.score)

    def full_map(self) -> np.ndarray:
        """The map, resized to the original image: float32 (H, W), bilinear with antialiasing."""
        return self.map_of_size(self.size)

    def map_of_size(self, size: tuple[int, int]) -> np.ndarray:
        """The map, resized to (H, W)."""
        if self.anomaly_map.shape == size:
            return self.anomaly_map
        height, width = size
        resized = Image.fromarray(self.anomaly_map).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        return np.asarray(resized)


_WHITE = {"u1": 255, "u2": 65535, "f": 1, "b": 1}  # NumPy kind and bytes -> value of white


def to_rgb(image: Any) -> Image.Image:
    """Decode or convert an image in the same way as the training images.

    Args:
        image: a path; a PIL image of any mode, rotated by its EXIF data; an array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a torch tensor (H, W) or with the channels
            first. Arrays and tensors are uint8, uint16, bool, or float in [0, 1], rounded to
            8 bit. An alpha channel is dropped.

    Raises:
        UserError: unreadable, unknown shape or type, or values out of range.
    """
    if isinstance(image, str | Path):
        return load_image(Path(image))
    if isinstance(image, Image.Image):
        return convert_to_rgb(ImageOps.exif_transpose(image), "the image")
    if hasattr(image, "detach"):  # a tensor; torch may be missing
        array = image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise UserError(
            f"an image of type {type(image).__name__}: give a path, a PIL image, an array or a "
            "tensor"
        )
    kind = array.dtype.kind
    white = _WHITE.get(kind if kind in "fb" else f"{kind}{array.dtype.itemsize}")
    if white is None:
        raise UserError(
            f"an image of {array.dtype} values: give uint8, uint16, bool, or float in [0, 1]"
        )
    if white != 255:
        array = scale_to_8_bit(array, white, f"the image of {array.dtype} values")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"an image of shape {tuple(image.shape)}: give an array (H, W[, 1, 3 or 4]) or a "
            "tensor ([1, 3 or 4,] H, W); use `many` for several images"
        )
    rgb = np.broadcast_to(array[..., :3], (*array.shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(rgb))


Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A model of any runtime: images (B, 3, H, W) uint8, perhaps channels-last in memory, to maps
(B, H, W) and scores (B,), both float32."""


class PreparedImage(NamedTuple):
    """An image for the network, uint8 (H, W, 3), and its original size (H, W)."""

    image: np.ndarray
    size: tuple[int, int]


class Detector:
    """A trained model that scores images.

    Args:
        network: scores a batch.
        image_size: (H, W) of the network's input.
        threshold: None: predictions have no verdict.
        facts: of the run, to save with predictions.
        map_scale: map values of the darkest and brightest colour of the run's heatmaps, if known.
    """

    def __init__(
        self,
        network: Network,
        image_size: Sequence[int],
        threshold: Threshold | None = None,
        facts: dict[str, Any] | None = None,
        map_scale: tuple[float, float] | None = None,
    ) -> None:
        height, width = image_size
        self.network, self.image_size = network, (int(height), int(width))
        self.map_scale = map_scale
        self.threshold, self.facts = threshold, dict(facts or {})

    def __call__(self, image: Any) -> Prediction:
        """Score one image: a path, PIL image, array or tensor, see `to_rgb`.

        Raises:
            UserError: unreadable image.
        """
        return self.score([self.prepare(image)])[0]

    def many(
        self, images: Iterable[Any], batch_size: int = 16, readers: int | None = None
    ) -> Iterator[Prediction]:
        """Score images in order; same arguments as `many_or_errors`.

        Raises:
            UserError: at the first unreadable image.
        """
        for prediction in self.many_or_errors(images, batch_size, readers):
            if isinstance(prediction, UserError):
                raise prediction
            yield prediction

    def many_or_errors(
        self, images: Iterable[Any], batch_size: int = 16, readers: int | None = None
    ) -> Generator[Prediction | UserError, None, None]:
        """Score images in order; an unreadable image yields its error instead of a prediction.

        The next images are read while the network processes a batch.

        Args:
            images: paths, PIL images, arrays or tensors; also an array or tensor of images.
            batch_size: images per call of the network; affects scores only by rounding.
            readers: number of threads; None: one per CPU core, at most 8.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        batch: list[PreparedImage | UserError] = []
        size = 1  # the first batches are small, for early results
        for item in self._read_ahead(images, 2 * batch_size, readers or min(8, usable_cores())):
            batch.append(item)
            if sum(isinstance(item, PreparedImage) for item in batch) == size:
                yield from self._score_readable(batch)
                batch, size = [], min(2 * size, batch_size)
        yield from self._score_readable(batch)

    def prepare(self, image: Any) -> PreparedImage:
        """Read an image and resize it in the same way as the training images."""
        rgb = to_rgb(image)
        return PreparedImage(resize_to_array(rgb, self.image_size), (rgb.height, rgb.width))

    def score(self, batch: Sequence[PreparedImage]) -> list[Prediction]:
        """Score prepared images as one batch."""
        if not batch:
            return []
        images = np.stack([one.image for one in batch]).transpose(0, 3, 1, 2)
        try:
            maps, scores = self.network(images)
        except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise UserError(
                f"not enough memory for {len(batch)} images at once ({one_line(error)[:100]}); "
                "choose a smaller batch size"
            ) from error
        return [
            Prediction(
                image=one.image,
                anomaly_map=anomaly_map,
                score=float(score),
                size=one.size,
                threshold=self.threshold,
            )
            for one, anomaly_map, score in zip(batch, maps, scores, strict=True)
        ]

    def _score_readable(
        self, batch: list[PreparedImage | UserError]
    ) -> Iterator[Prediction | UserError]:
        predictions = iter(self.score([item for item in batch if isinstance(item, PreparedImage)]))
        for item in batch:
            yield item if isinstance(item, UserError) else next(predictions)

    def _read_ahead(
        self, images: Iterable[Any], ahead: int, readers: int
    ) -> Iterator[PreparedImage | UserError]:
        def prepare_or_error(image: Any) -> PreparedImage | UserError:
            try:
                return self.prepare(image)
            except UserError as error:
                return error
            except Exception as error:  # a decoder's own, or not enough memory
                name = image if isinstance(image, str | Path) else "the image"
                reason = f"{type(error).__name__}: {one_line(error)}"
                return UserError(f"{name}: can't be read ({reason})")

        pool = ThreadPoolExecutor(readers)
        try:
            pending: deque[Future[PreparedImage | UserError]] = deque()
            for image in images:
                pending.append(pool.submit(prepare_or_error, image))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also when the consumer stops early
            pool.shutdown(cancel_futures=True)


def choose_threshold(
    own: Threshold | None, given: float | None, rate: float | None = None
) -> Threshold | None:
    """The given threshold, else the one of the false positive rate, else the model's own.

    Raises:
        UserError: both are given, or the model has no scores to derive the rate's from.
    """
    if rate is not None:
        if given is not None:
            raise UserError("give a threshold or a false positive rate, not both")
        if own is None:
            raise UserError(
                f"false positive rate {rate:g}: the model has no threshold and no scores of normal "
                "images; give a threshold"
            )
        return own.at_rate(rate)
    if given is None:
        return own
    return own.with_given_value(given) if own else Threshold("given", image=given, pixel=given)
