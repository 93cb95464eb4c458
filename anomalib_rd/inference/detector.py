"""Images in, predictions out, whatever runs the networks."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomalib_rd.cores import usable_cores
from anomalib_rd.data.images import image_array
from anomalib_rd.errors import UserError
from anomalib_rd.inference.images import as_rgb
from anomalib_rd.inference.prediction import Prediction
from anomalib_rd.results.files import one_line
from anomalib_rd.results.threshold import Threshold

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
        return Prepared(image_array(rgb, self.image_size), (rgb.height, rgb.width))

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
            Prediction(float(score), anomaly_map, one.size, one.image, self.threshold)
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
