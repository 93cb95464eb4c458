"""Load a run as a detector: read the checkpoint safely, rebuild the networks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet

from anomalib_rd.components import build, require_known_code, require_plain
from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Detector, choose_threshold
from anomalib_rd.inference.devices import FLOAT32, find_device, find_precision
from anomalib_rd.networks import Distiller
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results.files import expand_home, one_line, read_json, sha256_file
from anomalib_rd.results.identity import require_same_teacher
from anomalib_rd.results.record import RESULT
from anomalib_rd.results.threshold import Threshold, parse_threshold
from anomalib_rd.scoring import AnomalyScorer, Tiling, score_images

CHECKPOINT = "checkpoints/last.ckpt"
PARTS = ("teacher", "masking", "fusion", "student")
NAMED_WEIGHTS = ("timm", "embedded", "random")
HALF_TYPES = {"bf16": torch.bfloat16, "16": torch.float16}
# Blocks known to apply each batch norm right after its convolution, besides nn.Sequential.
BLOCKS = (resnet.BasicBlock, resnet.Bottleneck, timm_resnet.BasicBlock, timm_resnet.Bottleneck)
PAIRS = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
Networks = TypeVar("Networks", bound=nn.Module)

log = logging.getLogger(__name__)


def load_run(
    run: Path | str,
    device: str | torch.device = "auto",
    threshold: float | None = None,
    teacher_weights: Path | str | None = None,
    precision: str | None = None,
    trust: bool = False,
    false_positive_rate: float | None = None,
    other_teacher: bool = False,
) -> Detector:
    """Load a trained model.

    Args:
        run: a run's folder, or a checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        threshold: an image is anomalous if its score is at least this; None: the run's threshold.
        teacher_weights: file of the teacher's weights; None: as in the run's config.
        precision: Lightning's name, such as ``bf16-mixed``; None: as in the training.
        trust: whether foreign code that the run's config names may be executed.
        false_positive_rate: instead of ``threshold``: share of new normal images that may be
            called anomalous, by the run's saved scores of normal images; None: the run's rate.
        other_teacher: whether the teacher may differ from the run's, which makes the scores
            unreliable and the threshold meaningless.

    Raises:
        UserError: a problem with the run, the teacher's weights, the device or the precision.
    """
    trained = read_run(run, trust)
    torch_device = find_device(device)
    if trained.record is None:
        log.warning("%s: the run is not complete; this is epoch %d", run, trained.epochs)
    networks = make_networks(trained, teacher_weights, other_teacher)
    teacher_sha256 = state_sha256(networks.teacher)  # before its batch norms are folded
    precision = find_precision(precision or trained.config["trainer"].get("precision") or FLOAT32)
    return Detector(
        network=TorchNetwork(
            networks, make_scorer(trained), torch_device, precision, make_tiling(trained)
        ),
        image_size=trained.config["data"]["image_size"],
        map_scale=trained.map_scale,
        threshold=choose_threshold(trained.threshold, threshold, false_positive_rate),
        facts={
            "run": trained.config.get("name"),
            "checkpoint": {"path": str(trained.path), "sha256": trained.sha256},
            "teacher_sha256": teacher_sha256,
            "device": str(torch_device),
            "precision": precision,
        },
    )


@dataclass(frozen=True)
class TrainedRun:
    """Contents of a checkpoint.

    Attributes:
        path: the checkpoint.
        folder: of the run, or of the checkpoint.
        sha256: of the checkpoint.
        config: of the run, resolved, in plain types.
        teacher_sha256: of the teacher's state, if known.
        state: state dict without the teacher.
        epochs: number of trained epochs.
        record: ``result.json``; None if it is missing.
        threshold: None if the run has none.
        trust: whether foreign code that the config names may be executed.
        map_scale: map values of the darkest and brightest colour of the run's heatmaps, if known.
        data_fingerprint: of the training images, if known.
    """

    path: Path
    folder: Path
    sha256: str
    config: dict[str, Any]
    teacher_sha256: str | None
    state: dict[str, Tensor]
    epochs: int
    record: dict[str, Any] | None
    threshold: Threshold | None
    trust: bool = False
    map_scale: tuple[float, float] | None = None
    data_fingerprint: str | None = None


def read_run(run: Path | str, trust: bool = False) -> TrainedRun:
    """Read a run's checkpoint and its record.

    Args:
        run: the run's folder, or a checkpoint.
        trust: whether foreign code that the config names may be executed.

    Raises:
        UserError: the checkpoint is missing, damaged or not the recorded one, its config has more
            than plain values, or names foreign code without ``trust``.
    """
    path = find_checkpoint(Path(run))
    folder = path.parent.parent if path.parent.name == Path(CHECKPOINT).parent.name else path.parent
    content = _read_checkpoint(path)
    sha256 = sha256_file(path)
    record = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    recorded = ((record or {}).get("checkpoint") or {}).get("sha256")
    if recorded not in (None, sha256):
        raise UserError(
            f"{path}: not the checkpoint that {folder / RESULT} records (its SHA-256 differs): "
            "damaged or replaced; copy it again, or move it to a separate folder"
        )
    try:
        scale = content.get("map_scale")
        trained = TrainedRun(
            path=path,
            folder=folder,
            sha256=sha256,
            config=dict(content["config"]),
            teacher_sha256=content.get("teacher_sha256"),
            state=dict(content["state_dict"]),
            epochs=int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]),
            record=record,
            threshold=parse_threshold(content.get("threshold"), path),
            trust=trust,
            map_scale=None if scale is None else (float(scale[0]), float(scale[1])),
            data_fingerprint=content.get("data_fingerprint"),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: invalid or missing {one_line(error)}; not a checkpoint of anomalib-rd, or of "
            "another version"
        ) from error
    require_plain(path, trained.config)
    _require_sections(path, trained.config)
    require_known_code(path, {"model": trained.config["model"]}, trust)
    return trained


def find_checkpoint(run: Path) -> Path:
    """The checkpoint in a run's folder, or the file itself; UserError if there is none."""
    run = expand_home(run)
    if run.is_file():
        if run.suffix == ".ckpt":
            return run
        raise UserError(f"{run}: not a checkpoint; give a run's folder or its {CHECKPOINT}")
    if not run.is_dir():
        raise UserError(f"{run}: no such run; give a run's folder or its {CHECKPOINT}")
    path = run / CHECKPOINT
    if path.is_file():
        return path
    inside = next(iter(sorted(run.rglob(CHECKPOINT))), None)
    hint = f"give a run in it, such as {inside.parent.parent}" if inside else "was the run stopped?"
    raise UserError(f"{run}: no {CHECKPOINT} in it; {hint}")


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        # Memory-mapped: most of it is the optimizer's state, which is not needed.
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise UserError(
            f"{path}: damaged, or not a checkpoint of anomalib-rd ({one_line(error)[:100]})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint of anomalib-rd but a {type(content).__name__}")
    return content


def _require_sections(path: Path, config: dict[str, Any]) -> None:
    """Raise UserError for a config without the sections that every run has."""
    sections = ["model", "data", "trainer", "data.source", "model.scoring"]
    for key in [*sections, *(f"model.{part}" for part in PARTS)]:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise UserError(f"{path}: its config has no section {key}")
    size = config["data"].get("image_size")
    if not (isinstance(size, list) and [type(side) for side in size] == [int, int]):
        raise UserError(f"{path}: its config has no data.image_size [height, width] in pixels")


class TorchNetwork:
    """A `detector.Network` of a run's networks, scorer and tiling, on a device.

    ``precision`` is one of `devices.PRECISIONS`.
    """

    def __init__(
        self,
        networks: Distiller,
        scorer: AnomalyScorer,
        device: torch.device,
        precision: str,
        tiling: Tiling,
    ) -> None:
        bits, _, mode = precision.partition("-")
        self.autocast_dtype = HALF_TYPES.get(bits) if mode == "mixed" else None
        dtype = (HALF_TYPES | {"64": torch.float64}).get(bits) if mode == "true" else None
        if precision == FLOAT32:
            networks = fold_batch_norms(networks.eval())
        # Folding and channels last are faster, and change the seventh digit.
        networks = networks.to(memory_format=torch.channels_last)
        self.networks, self.scorer = networks.to(device, dtype).eval(), scorer.to(device)
        self.device, self.tiling = device, tiling

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (B, H, W) and scores (B,) of images (B, 3, H, W) uint8."""
        batch = torch.from_numpy(images).to(self.device)
        dtype = self.autocast_dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            maps, scores = score_images(batch, self.networks, self.scorer, self.tiling)
        return maps.float().cpu().numpy(), scores.float().cpu().numpy()


def make_networks(
    trained: TrainedRun, teacher_weights: Path | str | None = None, other_teacher: bool = False
) -> Distiller:
    """The networks of a run with its trained weights.

    Raises:
        UserError: the teacher's weights are unavailable or, without ``other_teacher``, not the
            run's, or the checkpoint does not fit its config.
    """
    model = with_teacher(trained, teacher_weights)["model"]
    parts = {part: build(model[part], f"model.{part}", trained.trust) for part in PARTS}
    networks = Distiller(**parts)
    require_own_teacher(trained, state_sha256(networks.teacher), model["teacher"], other_teacher)
    state = _substate(trained, "distiller.")
    shapes = {k: v.shape for k, v in state.items()}
    own = {k: v.shape for k, v in networks.state_dict().items() if not k.startswith("teacher.")}
    wrong = sorted(k for k in own.keys() | shapes.keys() if own.get(k) != shapes.get(k))
    if wrong:
        raise UserError(
            f"{trained.path}: does not fit the networks of its config ({wrong[0]}); it was written "
            "by another version of anomalib-rd"
        )
    networks.load_state_dict(state, strict=False)
    return networks


def make_scorer(trained: TrainedRun) -> AnomalyScorer:
    """The scorer of a run, with its statistics of normal images."""
    scorer: AnomalyScorer = build(
        trained.config["model"]["scoring"], "model.scoring", trained.trust
    )
    scorer.load_state_dict(_substate(trained, "scorer."))
    return scorer


def make_tiling(trained: TrainedRun) -> Tiling:
    """The tiling of a run."""
    tiling = build(trained.config["model"].get("tiling"), "model.tiling", trained.trust)
    return tiling or Tiling()


def _substate(trained: TrainedRun, prefix: str) -> dict[str, Tensor]:
    """The entries of the state with a prefix, without the prefix."""
    state = trained.state.items()
    return {k.removeprefix(prefix): v for k, v in state if k.startswith(prefix)}


def require_own_teacher(
    trained: TrainedRun, sha256: str, spec: Mapping[str, Any], other_teacher: bool
) -> None:
    """Raise UserError if the teacher, by its `state_sha256` and config, is not the run's."""
    if other_teacher:
        return
    hint = (
        "give the run's weights with --teacher-weights FILE, or accept this teacher with "
        "--other-teacher (load_run(..., other_teacher=True))"
    )
    own_spec = trained.config["model"]["teacher"]
    require_same_teacher(trained.path, trained.teacher_sha256, sha256, own_spec, spec, hint)


def with_teacher(trained: TrainedRun, weights: Path | str | None) -> dict[str, Any]:
    """The run's config, with the given teacher weights; UserError if none are available."""
    config = trained.config
    teacher = dict(config["model"]["teacher"])
    if weights is not None:
        teacher["weights"] = str(weights)
    elif teacher["weights"] == "random":
        raise UserError(
            f"{trained.path}: its teacher was random, and checkpoints do not contain the teacher"
        )
    elif teacher["weights"] not in NAMED_WEIGHTS and not Path(teacher["weights"]).is_file():
        raise UserError(
            f"{trained.path}: the file of its teacher's weights, {teacher['weights']}, is missing; "
            "give it with --teacher-weights FILE (load_run(..., teacher_weights=...))"
        )
    return {**config, "model": {**config["model"], "teacher": teacher}}


def fold_batch_norms(networks: Networks) -> Networks:
    """Fold batch norms into convolutions in place; in eval mode this changes only the rounding.

    Subclasses of batch norm are not folded, as they may do more.
    """
    for part in list(networks.modules()):
        if isinstance(part, nn.Sequential):
            names = list(pairwise(dict(part.named_children())))
        elif isinstance(part, (*BLOCKS, timm_resnet.ResNet)):
            names = [pair for pair in PAIRS if hasattr(part, pair[1])]
        else:
            continue
        for first, second in names:
            convolution, norm = getattr(part, first), getattr(part, second)
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            is_convolution = isinstance(convolution, nn.Conv2d) or transposed
            if is_convolution and type(norm) is nn.BatchNorm2d:
                setattr(part, first, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(part, second, nn.Identity())
    return networks
