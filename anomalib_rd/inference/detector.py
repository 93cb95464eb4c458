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
    """A scored image; with a threshold a verdict too.

    Attributes:
        image: uint8 (H, W, 3), as the network saw it.
        anomaly_map: float32 (H, W), at the network's size.
        size: (H, W) of the image itself, upright.
        threshold: where anomalous begins; None if the run has none.
    """

    size: tuple[int, int]
    threshold: Threshold | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str | None:
        """``anomalous`` (score >= threshold) or ``normal``; None without a threshold."""
        return None if self.threshold is None else self.threshold.verdict(self.score)

    @property
    def anomalous(self) -> bool | None:
        """The verdict as a truth value."""
        return None if self.verdict is None else self.verdict == ANOMALOUS

    @property
    def normalised(self) -> float | None:
        """The score in [0, 1], 0.5 at the threshold: see `Threshold.normalised`."""
        return None if self.threshold is None else self.threshold.normalised(self.score)

    def full_map(self) -> np.ndarray:
        """The map at the image's own size: float32 (H, W), bilinear, antialiased if smaller."""
        return self.map_of_size(self.size)

    def map_of_size(self, size: tuple[int, int]) -> np.ndarray:
        """The map at any size (H, W), in the same way."""
        if self.anomaly_map.shape == size:
            return self.anomaly_map
        height, width = size
        resized = Image.fromarray(self.anomaly_map).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        return np.asarray(resized)


_WHITE = {"u1": 255, "u2": 65535, "f": 1, "b": 1}


def as_rgb(image: Any) -> Image.Image:
    """Decode or convert an image as the training images were read.

    Args:
        image: a path; a PIL image of any mode, turned upright as its EXIF data say; an array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a torch tensor (H, W) or with the channels
            first. Values of arrays and tensors: uint8, uint16, bool, or float in [0, 1], rounded
            to 8 bit. An alpha channel is dropped.

    Raises:
        UserError: unreadable, of another shape or type, or values out of range.
    """
    if isinstance(image, str | Path):
        return load_image(Path(image))
    if isinstance(image, Image.Image):
        return convert_to_rgb(ImageOps.exif_transpose(image), "the image")
    if hasattr(image, "detach"):  # a tensor, without importing torch to ask
        array = image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise UserError(
            f"an image of type {type(image).__name__}: give a path, a PIL image, an array or a "
            "tensor"
        )
    return Image.fromarray(_three_channels(_eight_bit(array), getattr(image, "shape", ())))


def _eight_bit(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    white = _WHITE.get(kind if kind in "fb" else f"{kind}{array.dtype.itemsize}")
    if white is None:
        raise UserError(
            f"an image of {array.dtype} values: give uint8, uint16, bool, or float in [0, 1]"
        )
    if white == 255:
        return array
    return scale_to_8_bit(array, white, f"the image of {array.dtype} values")


def _three_channels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"an image of shape {tuple(shape)}: give an array (H, W[, 1, 3 or 4]) or a tensor "
            "([1, 3 or 4,] H, W); several images go to `many`"
        )
    array = array[..., :3]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""The one thing that a runtime brings: images (B, 3, H, W) uint8 -> maps (B, H, W), scores (B,),
both float32. The images may be a view with the channels last in memory."""


class Prepared(NamedTuple):
    """An image as the network takes it, uint8 (H, W, 3), and its own size (H, W)."""

    image: np.ndarray
    size: tuple[int, int]


class Detector:
    """A trained model that judges images.

    Args:
        network: scores a batch.
        image_size: (H, W) that the network takes.
        threshold: where anomalous begins; None: predictions have no verdict.
        facts: of the run, for whoever writes the predictions down.
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
        """Judge one image: a path, PIL image, array or tensor, see `as_rgb`.

        Raises:
            UserError: no image that can be read.
        """
        return self.score([self.prepare(image)])[0]

    def many(
        self, images: Iterable[Any], batch_size: int = 16, readers: int | None = None
    ) -> Iterator[Prediction]:
        """Judge images in their order, each as in a call; arguments as for `tried`.

        Raises:
            UserError: at the first that cannot be read.
        """
        for found in self.tried(images, batch_size, readers):
            if isinstance(found, UserError):
                raise found
            yield found

    def tried(
        self, images: Iterable[Any], batch_size: int = 16, readers: int | None = None
    ) -> Generator[Prediction | UserError, None, None]:
        """As `many`, with the error of an unreadable image in the place of its prediction.

        The next images are read while the network works on a batch.

        Args:
            images: paths, PIL images, arrays or tensors; also an array or tensor of them.
            batch_size: images that the network takes at once; changes scores by rounding alone.
            readers: threads; None: one for each CPU core, at most 8.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        batch: list[Prepared | UserError] = []
        size = 1  # the first batches are small, so that there are results soon
        for item in self._read_ahead(images, 2 * batch_size, readers or min(8, usable_cores())):
            batch.append(item)
            if sum(isinstance(one, Prepared) for one in batch) == size:
                yield from self._in_order(batch)
                batch, size = [], min(2 * size, batch_size)
        yield from self._in_order(batch)

    def prepare(self, image: Any) -> Prepared:
        """Read an image and resize it as the training images were."""
        rgb = as_rgb(image)
        return Prepared(resize_to_array(rgb, self.image_size), (rgb.height, rgb.width))

    def score(self, batch: Sequence[Prepared]) -> list[Prediction]:
        """Judge prepared images at once."""
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
                "take a smaller batch size"
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

    def _in_order(self, batch: list[Prepared | UserError]) -> Iterator[Prediction | UserError]:
        judged = iter(self.score([one for one in batch if isinstance(one, Prepared)]))
        for one in batch:
            yield one if isinstance(one, UserError) else next(judged)

    def _read_ahead(
        self, images: Iterable[Any], ahead: int, readers: int
    ) -> Iterator[Prepared | UserError]:
        def attempt(image: Any) -> Prepared | UserError:
            try:
                return self.prepare(image)
            except UserError as error:
                return error
            except Exception as error:  # of a decoder, or no memory for so large an image
                name = image if isinstance(image, str | Path) else "the image"
                reason = f"{type(error).__name__}: {one_line(error)}"
                return UserError(f"{name}: can't be read ({reason})")

        pool = ThreadPoolExecutor(readers)
        try:
            pending: deque[Future[Prepared | UserError]] = deque()
            for image in images:
                pending.append(pool.submit(attempt, image))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also where nobody asks for more
            pool.shutdown(cancel_futures=True)


def chosen_threshold(
    own: Threshold | None, given: float | None, rate: float | None = None
) -> Threshold | None:
    """The model's threshold, or in its place the one given or that of a false positive rate.

    Raises:
        UserError: both are given, or the model's cannot be taken to the rate.
    """
    if rate is not None:
        if given is not None:
            raise UserError("a threshold and a false positive rate: give one of them")
        if own is None:
            raise UserError(
                f"false positive rate {rate:g}: the model has no threshold and no scores of normal "
                "images; give a threshold"
            )
        return own.at_rate(rate)
    if given is None:
        return own
    return own.moved(given) if own else Threshold("given", image=given, pixel=given)
