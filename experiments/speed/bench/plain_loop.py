"""Training loop and evaluation of RD4AD (arXiv 2201.10703; see README) in plain PyTorch.

In every epoch the CPU decodes, resizes and normalises each image, and the complete teacher runs,
with its unused last stage, all in float32.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import transforms

from anomalib_rd.data.images import FORMATS
from anomalib_rd.networks import DistillationOutput, Distiller, Teacher
from anomalib_rd.scoring import AnomalyScorer

# From images (B, 3, H, W) uint8 in host memory to maps (B, H, W) and scores (B,) there.
Score = Callable[[Tensor], tuple[Tensor, Tensor]]


class CompleteTeacher(nn.Module):
    """The teacher's network with all its stages, for normalised float images.

    Stages that ``teacher`` does not have are random; their output is unused.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        # Draws none of the random numbers of the student's initialisation and what follows.
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
    """Images, decoded, resized and normalised for the teacher at every access, as in RD4AD."""

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


def rd4ad_loss(output: DistillationOutput) -> Tensor:
    """Sum over scales of the batch mean of 1 - cos of the flattened features."""
    loss = torch.zeros((), device=output.teacher_features[0].device)
    for feature, restored in zip(*output, strict=True):
        loss = loss + torch.mean(1 - F.cosine_similarity(feature.flatten(1), restored.flatten(1)))
    return loss


class PlainLoop:
    """RD4AD's training loop with the networks of a run.

    Args:
        networks: a ``Distiller`` on the training device; its masking, fusion and student train.
        loss: of the networks' output.
        optimizer: of their parameters.
        paths: training images.
        size: (H, W) in pixels.
        batch_size: images per step; the short last batch is used too.
        seed: of the image order, which is that of ``AnomalyDataModule``.
    """

    def __init__(
        self,
        networks: Any,
        loss: Callable[[DistillationOutput], Tensor],
        optimizer: torch.optim.Optimizer,
        paths: Sequence[Path],
        size: tuple[int, int],
        batch_size: int,
        seed: int,
    ) -> None:
        images = PlainImages(paths, size, networks.teacher)
        self.device = networks.teacher.mean.device
        self.teacher = CompleteTeacher(networks.teacher).to(self.device)
        self.networks, self.loss, self.optimizer = networks.train(), loss, optimizer
        self.sampler: DistributedSampler[Any] = DistributedSampler(
            images, num_replicas=1, rank=0, shuffle=True, seed=seed
        )
        # A separate generator: the loader must not draw from the masks' random numbers.
        generator = torch.Generator().manual_seed(seed)
        self.loader = DataLoader(images, batch_size, sampler=self.sampler, generator=generator)

    def train_epoch(self, epoch: int) -> float:
        """Train on all images; returns the mean loss."""
        self.sampler.set_epoch(epoch)
        losses = []
        for images in self.loader:
            loss = self.forward(images.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def forward(self, images: Tensor) -> Tensor:
        """The loss of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            features = self.teacher(images)
        return self.loss(self.networks.forward_features(features))


def plain_scoring(networks: Distiller, scorer: AnomalyScorer, device: torch.device) -> Score:
    """RD4AD's evaluation of one image per call: complete teacher, blur by scipy on the CPU."""
    teacher = CompleteTeacher(networks.teacher).to(device)

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        size = images.shape[-2:]
        with torch.no_grad():
            features = teacher(networks.teacher.normalize(images.to(device)))
            restored = networks.forward_features(features).student_features
            total = torch.zeros(size, device=device)
            for f, r in zip(features, restored, strict=True):
                distance = (1 - F.cosine_similarity(f, r)).unsqueeze(1)
                total += F.interpolate(distance, size, mode="bilinear", align_corners=True)[0, 0]
        blurred = gaussian_filter(total.cpu().numpy(), sigma=scorer.sigma)
        return torch.from_numpy(blurred).unsqueeze(0), torch.tensor([blurred.max()])

    return score
