"""From an exported file to a detector; ONNX and OpenVINO without torch."""

from pathlib import Path

from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Detector, chosen_threshold
from anomalib_rd.inference.runtimes import FLOAT32, FORMATS, open_model
from anomalib_rd.results.files import with_home

SUFFIXES = {suffix: name for name, suffix in FORMATS.items()}


def is_exported(path: Path | str) -> bool:
    """Whether the name is that of an exported model."""
    return Path(path).suffix.lower() in {*SUFFIXES, ".bin"}


def load_exported(
    path: Path | str,
    device: str = "auto",
    threshold: float | None = None,
    precision: str | None = None,
    threads: int | None = None,
    trust: bool = False,
    false_positive_rate: float | None = None,
) -> Detector:
    """Load a model that ``anomalib-rd export`` has written.

    Args:
        path: ``.onnx`` (run by ONNX Runtime), ``.xml`` (OpenVINO, with its ``.bin`` beside it) or
            ``.pt2`` (torch).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; OpenVINO runs on the CPU alone.
        threshold: the score from which on an image is anomalous; None: the file's own.
        precision: ``32-true``, the default; OpenVINO also takes ``bf16-true``.
        threads: CPU threads of ONNX Runtime and OpenVINO; None: as they choose.
        trust: whether a ``.pt2`` may be loaded: torch runs code that such a file brings.
        false_positive_rate: in the place of ``threshold``, as of `load_run`; None: the file's own.

    Raises:
        UserError: no such file, damaged, of someone else's, or its runtime is not installed.
    """
    path = with_home(path)
    if path.suffix.lower() == ".bin":
        raise UserError(f"{path}: the weights alone; give {path.with_suffix('.xml')}")
    if not is_exported(path):
        raise UserError(f"{path}: no exported model; {', '.join(SUFFIXES)} are")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = SUFFIXES[path.suffix.lower()]
    if kind == "torch" and not trust:
        raise UserError(
            f"{path}: torch runs code that such a file may bring; if you know where it is from, "
            "say --trust (load_exported(..., trust=True))"
        )
    precision = precision or FLOAT32
    network, metadata, place = open_model(kind, path, device, precision, threads)
    return Detector(
        network=network,
        image_size=metadata.image_size,
        map_scale=metadata.map_scale,
        threshold=chosen_threshold(metadata.threshold, threshold, false_positive_rate),
        facts={
            "run": metadata.run,
            "exported": {"path": str(path), "format": kind, "precision": metadata.precision},
            "checkpoint": {"sha256": metadata.training.get("checkpoint_sha256")},
            "teacher_sha256": metadata.model.get("teacher_sha256"),
            "device": place,
            "precision": precision,
        },
    )
