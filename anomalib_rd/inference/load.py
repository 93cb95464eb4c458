"""From a run's folder to a detector: the networks rebuilt from its config, with torch."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_rd.components import build
from anomalib_rd.errors import UserError
from anomalib_rd.inference.checkpoint import PARTS, Trained, read_run
from anomalib_rd.inference.detector import Detector, chosen_threshold
from anomalib_rd.inference.graph import fold
from anomalib_rd.inference.runtimes import FLOAT32
from anomalib_rd.networks import Distiller
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results.identity import require_same_teacher
from anomalib_rd.scoring import AnomalyScorer, Tiling, score_images

NETWORKS, SCORER, TEACHER = "distiller.", "scorer.", "teacher."
NAMED_WEIGHTS = ("timm", "embedded", "random")
HALVES = {"bf16": torch.bfloat16, "16": torch.float16}
PRECISIONS = (FLOAT32, "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
ALIASES = {"32": FLOAT32, "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}  # Lightning's

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
        threshold: the score from which on an image is anomalous; None: the run's own.
        teacher_weights: the file of the teacher's weights; None: as the run's config says.
        precision: Lightning's name, such as ``bf16-mixed``; None: as the run was trained.
        trust: whether code outside of this project that the run's config names may be run.
        false_positive_rate: in the place of ``threshold``: the share of new normal images that may
            be called anomalous, by the run's kept scores of normal images; None: the run's own.
        other_teacher: whether the teacher may be another one than the run was trained with; its
            scores mean little then, and its threshold nothing.

    Raises:
        UserError: whatever is wrong with the run, the teacher's weights, the device or the
            precision.
    """
    trained = read_run(run, trust)
    place = find_device(device)
    if trained.record is None:
        log.warning("%s: the run is not complete; this is epoch %d", run, trained.epochs)
    networks = make_networks(trained, teacher_weights, other_teacher)
    teacher_sha256 = state_sha256(networks.teacher)  # before it is folded
    scorer = make_scorer(trained)
    precision = find_precision(precision or trained.config["trainer"].get("precision") or FLOAT32)
    return Detector(
        network=TorchNetwork(networks, scorer, place, precision, make_tiling(trained)),
        image_size=trained.config["data"]["image_size"],
        map_scale=trained.map_scale,
        threshold=chosen_threshold(trained.threshold, threshold, false_positive_rate),
        facts={
            "run": trained.config.get("name"),
            "checkpoint": {"path": str(trained.path), "sha256": trained.sha256},
            "teacher_sha256": teacher_sha256,
            "device": str(place),
            "precision": precision,
        },
    )


class TorchNetwork:
    """Teacher, student and scorer on a device; a `anomalib_rd.inference.detector.Network`.

    Args:
        networks: of the run; moved to the device.
        scorer: of the run.
        device: where to compute.
        precision: one of ``PRECISIONS``, Lightning's names.
        tiling: of the run; None: the networks see whole images.
    """

    def __init__(
        self,
        networks: Distiller,
        scorer: AnomalyScorer,
        device: torch.device,
        precision: str,
        tiling: Tiling | None = None,
    ) -> None:
        half, _, how = precision.partition("-")
        self.half = HALVES.get(half) if how == "mixed" else None
        dtype = (HALVES | {"64": torch.float64}).get(half) if how == "true" else None
        if precision == FLOAT32:
            networks = fold(networks.eval())
        # Both round otherwise in the seventh digit, and are faster.
        networks = networks.to(memory_format=torch.channels_last)
        self.networks, self.scorer = networks.to(device, dtype).eval(), scorer.to(device)
        self.device, self.tiling = device, tiling or Tiling()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (B, H, W) and scores (B,) of images (B, 3, H, W) uint8."""
        batch = torch.from_numpy(images).to(self.device)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            scored = score_images(batch, self.networks, self.scorer, self.tiling)
        return scored.maps.float().cpu().numpy(), scored.scores.float().cpu().numpy()


def make_networks(
    trained: Trained, teacher_weights: Path | str | None = None, other_teacher: bool = False
) -> Distiller:
    """The networks of a run with the weights that it ended with.

    Raises:
        UserError: the teacher can't be had, or is another one than the run's without
            ``other_teacher``, or the checkpoint is of other networks.
    """
    model = with_teacher(trained, teacher_weights)["model"]
    parts = {part: build(model[part], f"model.{part}", trained.trust) for part in PARTS}
    networks = Distiller(**parts)
    require_own_teacher(trained, state_sha256(networks.teacher), model["teacher"], other_teacher)
    state = {
        name.removeprefix(NETWORKS): value
        for name, value in trained.state.items()
        if name.startswith(NETWORKS)
    }
    own = {k: v.shape for k, v in networks.state_dict().items() if not k.startswith(TEACHER)}
    kept = {k: v.shape for k, v in state.items()}
    wrong = sorted(k for k in own.keys() | kept.keys() if own.get(k) != kept.get(k))
    if wrong:
        raise UserError(
            f"{trained.path}: does not fit the networks of its config ({wrong[0]}); it is of "
            "another version of anomalib-rd"
        )
    networks.load_state_dict(state, strict=False)
    return networks


def require_own_teacher(
    trained: Trained, here: str, spec: Mapping[str, Any], other_teacher: bool
) -> None:
    """Hold the teacher at hand against the run's, unless ``other_teacher``.

    Args:
        trained: the run.
        here: `state_sha256` of the teacher.
        spec: what the teacher was made from.
        other_teacher: whether any will do.

    Raises:
        UserError: it is another one.
    """
    if not other_teacher:
        require_same_teacher(
            trained.path,
            trained.teacher_sha256,
            here,
            trained.config["model"]["teacher"],
            spec,
            "give the run's weights with --teacher-weights FILE, or take this teacher all the same "
            "with --other-teacher (load_run(..., other_teacher=True))",
        )


def make_scorer(trained: Trained) -> AnomalyScorer:
    """The scorer of a run, with what it has learnt of normal images."""
    spec = trained.config["model"]["scoring"]
    scorer: AnomalyScorer = build(spec, "model.scoring", trained.trust)
    state = trained.state.items()
    scorer.load_state_dict({k.removeprefix(SCORER): v for k, v in state if k.startswith(SCORER)})
    return scorer


def make_tiling(trained: Trained) -> Tiling:
    """What the networks see of an image at once; older runs lack it."""
    tiling = build(trained.config["model"].get("tiling"), "model.tiling", trained.trust)
    return tiling or Tiling()


def with_teacher(trained: Trained, weights: Path | str | None) -> dict[str, Any]:
    """The run's config with another file of the teacher's weights, if one is given.

    Raises:
        UserError: the weights are random, or their file is gone.
    """
    config = trained.config
    teacher = dict(config["model"]["teacher"])
    if weights is not None:
        teacher["weights"] = str(weights)
    elif teacher["weights"] == "random":
        raise UserError(
            f"{trained.path}: its teacher was random, and no checkpoint keeps a teacher"
        )
    elif teacher["weights"] not in NAMED_WEIGHTS and not Path(teacher["weights"]).is_file():
        raise UserError(
            f"{trained.path}: its teacher's weights, {teacher['weights']}, are not there; say "
            "where they are with --teacher-weights FILE (load_run(..., teacher_weights=...))"
        )
    return {**config, "model": {**config["model"], "teacher": teacher}}


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        UserError: there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name}: choose auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name}: torch finds no such CUDA device; choose cpu or auto")
    return device


def find_precision(name: str | int) -> str:
    """The precision of that name, one of ``PRECISIONS``.

    Raises:
        UserError: there is none, or it is one that only training has.
    """
    known = ALIASES.get(str(name), str(name))
    if known not in PRECISIONS:
        raise UserError(f"precision {name}: choose one of {', '.join(PRECISIONS)}")
    return known
