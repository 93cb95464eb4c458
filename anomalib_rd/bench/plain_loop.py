"""RD4AD's training loop as one writes it in plain PyTorch (arXiv 2201.10703; see README).

Nothing is kept from one epoch to the next: each image is decoded, resized and normalised by the
CPU, the whole teacher runs, its unused last stage too, everything in float32.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import transforms

from anomalib_rd.data.images import FORMATS
from anomalib_rd.networks import Distilled, Teacher


class WholeTeacher(nn.Module):
    """The teacher's network uncut, fed with normalised float images.

    Args:
        teacher: gives name and weights; the stages that it lacks stay random, for nobody looks
            at what they give.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        # The student's initialisation, and what is drawn after it, must not notice.
        with torch.random.fork_rng(devices=[]):
            self.net: Any = timm.create_model(teacher.name, pretrained=False)
        self.net.load_state_dict(teacher.net.state_dict(), strict=False)
        self.indices = teacher.indices
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features [(B, Ck, Hk, Wk)] of normalised images (B, 3, H, W)."""
        features: list[Tensor] = self.net.forward_intermediates(
            images, indices=self.indices, intermediates_only=True
        )
        return features


class PlainImages(Dataset[Tensor]):
    """Images as RD4AD reads them: decoded, resized and normalised at every access.

    Args:
        paths: the files.
        size: (H, W) in pixels.
        teacher: gives mean and standard deviation.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], teacher: Teacher) -> None:
        self.paths = list(paths)
        mean, std = teacher.mean.flatten().tolist(), teacher.std.flatten().tolist()
        resize, tensor = transforms.Resize(size), transforms.ToTensor()
        self.read = transforms.Compose([resize, tensor, transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        stored = Image.open(self.paths[index], formats=FORMATS)
        image: Tensor = self.read(stored.convert("RGB"))
        return image


def rd4ad_loss(distilled: Distilled) -> Tensor:
    """Sum over scales of the batch mean of 1 - cos of the flattened features."""
    loss = torch.zeros((), device=distilled.features[0].device)
    for feature, restored in zip(distilled.features, distilled.restored, strict=True):
        loss = loss + torch.mean(1 - F.cosine_similarity(feature.flatten(1), restored.flatten(1)))
    return loss


class PlainLoop:
    """RD4AD's loop over the networks of a run.

    Args:
        networks: a ``Distiller`` on the training device; its masking, fusion and student train.
        loss: of what the networks distil.
        optimizer: over their parameters.
        paths: training images.
        size: (H, W) in pixels.
        batch_size: images a step; the last short batch is kept.
        seed: of the images' order, which is that of ``AnomalyDataModule``.
    """

    def __init__(
        self,
        networks: Any,
        loss: Callable[[Distilled], Tensor],
        optimizer: torch.optim.Optimizer,
        paths: Sequence[Path],
        size: tuple[int, int],
        batch_size: int,
        seed: int,
    ) -> None:
        images = PlainImages(paths, size, networks.teacher)
        self.device = networks.teacher.mean.device
        self.teacher = WholeTeacher(networks.teacher).to(self.device)
        self.networks, self.loss, self.optimizer = networks.train(), loss, optimizer
        self.order: DistributedSampler[Any] = DistributedSampler(
            images, num_replicas=1, rank=0, shuffle=True, seed=seed
        )
        # A generator of its own, or the loader would draw from the masks' random numbers.
        self.loader = DataLoader(
            images, batch_size, sampler=self.order, generator=torch.Generator().manual_seed(seed)
        )

    def epoch(self, number: int) -> float:
        """Train on all images; returns the mean loss."""
        self.order.set_epoch(number)
        losses = [self.step(images.to(self.device)) for images in self.loader]
        return sum(losses) / len(losses)

    def step(self, images: Tensor) -> float:
        """One batch."""
        loss = self.forward(images)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def forward(self, images: Tensor) -> Tensor:
        """The loss of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            features = self.teacher(images)
        return self.loss(self.networks.restore(features))
