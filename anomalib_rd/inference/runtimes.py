"""Exported files: their metadata, and opening them in a runtime."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomalib_rd.components import require_plain
from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Detector, Network, choose_threshold
from anomalib_rd.inference.devices import BF16, FLOAT32, find_device
from anomalib_rd.results.files import expand_home, one_line, sha256_file, to_json_types
from anomalib_rd.results.threshold import Threshold, parse_threshold

KEY = "anomalib_rd"
"""Key of the JSON in ONNX's ``metadata_props`` and OpenVINO's ``rt_info``; in torch's archive the
extra file of this name with ``.json``."""
FORMAT_VERSION = 1
IMAGE, MAP, SCORE = "image", "map", "score"
"""Names of the graph's input and outputs."""
INPUT = "uint8 RGB (B, 3, H, W), resized bilinearly with antialiasing; any B"


@dataclass(frozen=True)
class Metadata:
    """Metadata inside an exported model.

    Attributes:
        run: its name.
        category: of the training, or a list.
        image_size: (H, W) of the graph's input.
        threshold: from scores in the precision of the run.
        normalisation: ``mean, std`` of the values in [0, 1], applied inside the graph.
        map_scale: map values of the darkest and brightest colour of the run's heatmaps, if known.
        precision: ``float32`` or ``int8``.
        model: ``name, teacher, teacher_sha256`` of the teacher in the file.
        training: ``data, seed, epochs, precision, checkpoint_sha256, teacher_sha256``, and from
            the run's record ``metrics, data_fingerprint, commit, software``.
        int8: ``calibration_images`` and ``metrics`` ``{name: [float32, int8]}`` of an int8 file.
        weights_sha256: of OpenVINO's ``.bin`` file; None for a single file.
        input: description of the graph's input.
        format_version: version of this metadata.
    """

    run: str | None
    category: str | list[str]
    image_size: tuple[int, int]
    threshold: Threshold | None
    normalisation: dict[str, Any]
    map_scale: tuple[float, float] | None = None
    precision: str = "float32"
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] | None = None
    weights_sha256: str | None = None
    input: str = INPUT
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """JSON for the file."""
        return json.dumps(to_json_types(asdict(self)), allow_nan=False)


def from_json(text: str | bytes | None, path: Path) -> Metadata:
    """Parse the metadata of the file at ``path``.

    Raises:
        UserError: metadata are missing, damaged, newer, or have more than plain values.
    """
    if not text:
        raise UserError(f"{path}: not exported by anomalib-rd: no '{KEY}' in its metadata")
    try:
        content = json.loads(text)
        require_plain(path, content)
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path}: has format {version}, this version of anomalib-rd reads up to "
                f"{FORMAT_VERSION}; update it, or export the run again"
            )
        height, width = content["image_size"]
        scale = content.get("map_scale")
        known = {field.name for field in fields(Metadata)}
        values = {key: value for key, value in content.items() if key in known}
        values["image_size"] = (int(height), int(width))
        values["threshold"] = parse_threshold(content["threshold"], path)
        values["map_scale"] = (float(scale[0]), float(scale[1])) if scale else None
        return Metadata(**values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged metadata ({one_line(error)[:100]}); export the run again"
        ) from error


FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
SUFFIXES = {suffix: kind for kind, suffix in FORMATS.items()}
CUDA = "CUDAExecutionProvider"


class OpenedModel(NamedTuple):
    """A model ready to run, its metadata and its device."""

    network: Network
    metadata: Metadata
    device: str


def open_model(
    kind: str,
    path: Path,
    device: str = "auto",
    precision: str = FLOAT32,
    threads: int | None = None,
) -> OpenedModel:
    """Open an exported model.

    Args:
        kind: a key of ``FORMATS``.
        path: the file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the computation; only OpenVINO supports several.
        threads: CPU threads; None: ``OMP_NUM_THREADS`` if set, else the runtime's default.

    Raises:
        UserError: the runtime is not installed or does not support the device or the precision,
            or the file is damaged or not exported by anomalib-rd.
    """
    if precision not in ((FLOAT32, BF16) if kind == "openvino" else (FLOAT32,)):
        raise UserError(
            f"precision {precision}: choose {FLOAT32} for {path}; only OpenVINO has {BF16} too"
        )
    # Not every runtime reads OMP_NUM_THREADS; 0 is the runtime's default.
    omp_threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = threads or (int(omp_threads) if omp_threads.isdigit() else 0)
    return OPENERS[kind](path, device, precision, threads)


def open_onnx(path: Path, device: str, precision: str, threads: int) -> OpenedModel:  # noqa: ARG001
    """Open with ONNX Runtime; same arguments as `open_model`."""
    ort = import_runtime("onnxruntime", path)
    has_cuda = CUDA in ort.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise UserError(f"device {device}: this ONNX Runtime has no CUDA; choose cpu or auto")
    number = device.partition(":")[2] or "0"
    if not number.isdigit() or device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device}: choose auto, cpu, cuda or cuda:N")
    providers: list[Any] = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        # TF32 would round the scores to three digits.
        providers.insert(0, (CUDA, {"device_id": number, "use_tf32": "0"}))
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    session = read_file(path, lambda: ort.InferenceSession(path, settings, providers=providers))
    metadata = from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = session.run([MAP, SCORE], {IMAGE: np.ascontiguousarray(images)})
        return maps, scores

    return OpenedModel(network, metadata, onnx_device(session, path, device))


def onnx_device(session: Any, path: Path, device: str) -> str:
    """The device in use, as ONNX Runtime falls back to the CPU without CUDA's libraries."""
    if session.get_providers()[0] == CUDA:
        return f"cuda:{session.get_provider_options()[CUDA]['device_id']}"
    if device.startswith("cuda"):
        raise UserError(
            f"device {device}: ONNX Runtime cannot use CUDA here and would run {path} on the CPU; "
            "check its CUDA and cuDNN libraries, or choose cpu or auto"
        )
    return "cpu"


def open_openvino(path: Path, device: str, precision: str, threads: int) -> OpenedModel:
    """Open with OpenVINO, on the CPU; same arguments as `open_model`."""
    if device not in ("auto", "cpu"):
        raise UserError(f"device {device}: OpenVINO runs on the CPU; choose cpu or auto")
    core = import_runtime("openvino", path).Core()
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(f"{path}: its weights, {weights.name}, are missing; copy them too")
    model = read_file(path, lambda: core.read_model(path))
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    metadata = from_json(text, path)
    if metadata.weights_sha256 != sha256_file(weights):
        raise UserError(f"{weights}: damaged, or not the weights of {path.name}; copy both again")
    settings = {
        # The default is bf16 on some CPUs, which changes scores in the second digit.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BF16 else "f32",
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
    }
    compiled = read_file(path, lambda: core.compile_model(model, "CPU", settings))
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if actual != settings["INFERENCE_PRECISION_HINT"]:
        raise UserError(
            f"precision {precision}: OpenVINO would compute {path} in {actual} on this CPU; "
            f"choose {FLOAT32}"
        )

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = compiled({IMAGE: np.ascontiguousarray(images)})
        return outputs[MAP], outputs[SCORE]

    return OpenedModel(network, metadata, "cpu")


def open_torch(path: Path, device: str, precision: str, threads: int) -> OpenedModel:  # noqa: ARG001
    """Open with torch; same arguments as `open_model`, but with the threads of the process."""
    torch = import_runtime("torch", path)
    from torch.export.passes import move_to_device_pass

    torch_device = find_device(device)
    extra_files = {f"{KEY}.json": ""}
    program = read_file(path, lambda: torch.export.load(path, extra_files=extra_files))
    metadata = from_json(extra_files[f"{KEY}.json"], path)
    if torch_device.type != "cpu":
        program = move_to_device_pass(program, str(torch_device))
    module = program.module(check_guards=False)

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            maps, scores = module(torch.from_numpy(images).to(torch_device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    return OpenedModel(network, metadata, str(torch_device))


OPENERS: dict[str, Callable[[Path, str, str, int], OpenedModel]] = {
    "onnx": open_onnx,
    "openvino": open_openvino,
    "torch": open_torch,
}


def import_runtime(name: str, path: Path | str) -> Any:
    """Import a package that ``path`` needs; UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: needs the package {name} ({one_line(error)}); pip install {name}"
        ) from error


def read_file(path: Path, read: Callable[[], Any]) -> Any:
    """Return ``read()``; any error of a runtime becomes a UserError about ``path``."""
    try:
        return read()
    except Exception as error:  # each runtime raises its own
        raise UserError(
            f"{path}: damaged, or not a file of this runtime ({one_line(error)[:160]})"
        ) from error


def is_exported(path: Path | str) -> bool:
    """Whether the name has the suffix of an exported model."""
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
    """Load a model that ``anomalib-rd export`` wrote.

    Args:
        path: ``.onnx`` (for ONNX Runtime), ``.xml`` (OpenVINO, with its ``.bin`` in the same
            folder) or ``.pt2`` (torch).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; OpenVINO runs on the CPU only.
        threshold: an image is anomalous if its score is at least this; None: the file's threshold.
        precision: ``32-true``, the default, or for OpenVINO ``bf16-true``.
        threads: CPU threads of ONNX Runtime and OpenVINO; None: their default.
        trust: whether a ``.pt2`` may be loaded: torch executes code in such a file.
        false_positive_rate: instead of ``threshold``, see `load_run`; None: the file's rate.

    Raises:
        UserError: the file is missing, damaged or not exported by anomalib-rd, or its runtime is
            not installed.
    """
    path = expand_home(path)
    if path.suffix.lower() == ".bin":
        raise UserError(f"{path}: contains only weights; give {path.with_suffix('.xml')}")
    if not is_exported(path):
        raise UserError(f"{path}: not an exported model ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind = SUFFIXES[path.suffix.lower()]
    if kind == "torch" and not trust:
        raise UserError(
            f"{path}: such a file can contain code, which torch executes; if you trust its source, "
            "add --trust (load_exported(..., trust=True))"
        )
    precision = precision or FLOAT32
    network, metadata, used_device = open_model(kind, path, device, precision, threads)
    return Detector(
        network=network,
        image_size=metadata.image_size,
        map_scale=metadata.map_scale,
        threshold=choose_threshold(metadata.threshold, threshold, false_positive_rate),
        facts={
            "run": metadata.run,
            "exported": {"path": str(path), "format": kind, "precision": metadata.precision},
            "checkpoint": {"sha256": metadata.training.get("checkpoint_sha256")},
            "teacher_sha256": metadata.model.get("teacher_sha256"),
            "device": used_device,
            "precision": precision,
        },
    )
