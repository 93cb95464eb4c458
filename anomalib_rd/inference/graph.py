"""The whole way from image to map and score as one network, and as one traced graph."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, export, fx, nn, no_grad, uint8, zeros

from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer, Tiling


class Graph(nn.Module):
    """What a run's test does with a batch.

    Args:
        networks: in eval mode.
        scorer: features to maps.
        tiling: what the networks see of an image; all tiles of a batch at once.
        image_size: (H, W) of the images.
    """

    def __init__(
        self,
        networks: Distiller,
        scorer: AnomalyScorer,
        tiling: Tiling,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.networks, self.scorer = networks, scorer
        self.tiling, self.image_size = tiling, image_size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, H, W) and scores (B,), float32, of images (B, 3, H, W) uint8."""
        size = self.tiling.size or self.image_size
        features, restored, _ = self.networks(self.tiling.split(image))
        maps = self.scorer.distances(features, restored, size)
        if self.tiling.size:
            maps = self.tiling.blend(maps, self.image_size)
        found = self.scorer.finish(maps)
        return found.maps, found.scores


def trace(graph: Graph) -> export.ExportedProgram:
    """The graph's operations with a batch of any size, on the CPU."""
    example = zeros(2, 3, *graph.image_size, dtype=uint8)
    batch = {0: export.Dim.DYNAMIC}
    with no_grad(), quiet():
        # What scorer and masking make once and keep is made before, and becomes a constant.
        graph(example)
        program = export.export(graph, (example,), dynamic_shapes=(batch,))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say of their own insides."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
