"""Exported files: their metadata, and the runtimes that run them."""

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
from anomalib_rd.inference.detector import Detector, Network, chosen_threshold
from anomalib_rd.results.files import expand_home, one_line, sha256_file, to_json_types
from anomalib_rd.results.threshold import Threshold, parse_threshold

KEY = "anomalib_rd"
"""Where the JSON stands: ONNX's ``metadata_props``, OpenVINO's ``rt_info``; with ``.json`` the name
of an extra file of torch's archive."""
FORMAT_VERSION = 1
IMAGE, MAP, SCORE = "image", "map", "score"
"""Names of the graph's input and outputs."""
INPUT = "uint8 RGB (B, 3, H, W), resized bilinearly with antialiasing; any B"


@dataclass(frozen=True)
class Metadata:
    """Facts inside an exported model.

    Attributes:
        run: its name.
        category: that it was trained on, or several.
        image_size: (H, W) that the graph takes.
        threshold: where anomalous begins, from scores of the run in its own precision.
        normalisation: ``mean, std`` of the values in [0, 1]; they are applied inside the graph.
        map_scale: map values of the darkest and brightest colour of the run's heatmaps, if known.
        precision: ``float32`` or ``int8``.
        model: ``name, teacher, teacher_sha256`` of the teacher in the file.
        training: ``data, seed, epochs, precision, checkpoint_sha256, teacher_sha256``, and where
            the run has a record ``metrics, data_fingerprint, commit, software``.
        int8: of ``int8``: ``calibration_images``, and ``metrics`` with ``{name: [float32, int8]}``.
        weights_sha256: of OpenVINO's ``.bin`` beside the ``.xml``; None for a single file.
        input: what the graph takes.
        format_version: of these facts.
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
        """As it stands in the file."""
        return json.dumps(to_json_types(asdict(self)), allow_nan=False)


def from_json(text: str | bytes | None, path: Path) -> Metadata:
    """Read the facts back.

    Args:
        text: the JSON; None or empty where the file has none.
        path: of the model, named in errors.

    Raises:
        UserError: none of ours, of a younger version, damaged, or with more than plain values.
    """
    if not text:
        raise UserError(f"{path}: not exported by anomalib-rd; it has no '{KEY}' in its metadata")
    try:
        found = json.loads(text)
        require_plain(path, found)
        version = found["format_version"]
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path}: of format {version}, and this anomalib-rd reads up to {FORMAT_VERSION}; "
                "update it, or export the run again"
            )
        height, width = found["image_size"]
        scale = found.get("map_scale")
        known = {one.name for one in fields(Metadata)}
        values = {key: value for key, value in found.items() if key in known}
        values["image_size"] = (int(height), int(width))
        values["threshold"] = parse_threshold(found["threshold"], path)
        values["map_scale"] = (float(scale[0]), float(scale[1])) if scale else None
        return Metadata(**values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: its metadata are damaged ({one_line(error)[:100]}); export the run again"
        ) from error


FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""Formats by the names that ``export`` takes, and what their files end in."""
FLOAT32, BF16 = "32-true", "bf16-true"
"""Precisions by Lightning's names."""
CUDA = "CUDAExecutionProvider"


class Opened(NamedTuple):
    """A model ready to run, what its file says of it, and the device that it runs on."""

    network: Network
    metadata: Metadata
    device: str


def open_model(
    kind: str,
    path: Path,
    device: str = "auto",
    precision: str = FLOAT32,
    threads: int | None = None,
) -> Opened:
    """Open an exported model.

    Args:
        kind: a name of ``FORMATS``.
        path: the file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: that the runtime computes in; only OpenVINO has a choice.
        threads: of the CPU; None: as ``OMP_NUM_THREADS`` says, else as the runtime chooses.

    Raises:
        UserError: the runtime is not installed, does not have the device or the precision, or the
            file is damaged or of someone else's.
    """
    if precision not in ((FLOAT32, BF16) if kind == "openvino" else (FLOAT32,)):
        raise UserError(
            f"precision {precision}: {path} is computed in {FLOAT32}; files of OpenVINO's in "
            f"{BF16} too"
        )
    return OPENERS[kind](path, device, precision, threads or threads_wanted())


def open_onnx(path: Path, device: str, precision: str, threads: int) -> Opened:  # noqa: ARG001
    """Open by ONNX Runtime; arguments as of `open_model`, threads 0: as it chooses."""
    ort = runtime("onnxruntime", path)
    on_cuda = CUDA in ort.get_available_providers()
    if device.startswith("cuda") and not on_cuda:
        raise UserError(f"device {device}: this ONNX Runtime has no CUDA; choose cpu or auto")
    number = device.partition(":")[2] or "0"
    if not number.isdigit() or device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device}: choose auto, cpu, cuda or cuda:N")
    providers: list[Any] = ["CPUExecutionProvider"]
    if on_cuda and device != "cpu":
        # TF32 would round the scores to three digits.
        options = {"device_id": number, "use_tf32": "0"}
        providers.insert(0, (CUDA, options))
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    session = opened(path, lambda: ort.InferenceSession(path, settings, providers=providers))
    metadata = from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = session.run([MAP, SCORE], {IMAGE: np.ascontiguousarray(images)})
        return maps, scores

    return Opened(network, metadata, device_of(session, path, device))


def device_of(session: Any, path: Path, asked: str) -> str:
    """The device that ONNX Runtime really took: without CUDA's libraries it falls back to the CPU.

    Raises:
        UserError: another than the one asked for by name.
    """
    if session.get_providers()[0] == CUDA:
        return f"cuda:{session.get_provider_options()[CUDA]['device_id']}"
    if asked.startswith("cuda"):
        raise UserError(
            f"device {asked}: ONNX Runtime cannot use CUDA here and would run {path} on the CPU; "
            "check the CUDA and cuDNN libraries that it needs, or choose cpu or auto"
        )
    return "cpu"


def open_openvino(path: Path, device: str, precision: str, threads: int) -> Opened:
    """Open by OpenVINO, on the CPU; arguments as of `open_model`, threads 0: as it chooses."""
    if device not in ("auto", "cpu"):
        raise UserError(f"device {device}: OpenVINO's files are run on the CPU; choose cpu or auto")
    core = runtime("openvino", path).Core()
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(f"{path}: its weights, {weights.name}, do not lie beside it; copy them too")
    model = opened(path, lambda: core.read_model(path))
    told = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    metadata = from_json(told, path)
    if metadata.weights_sha256 != sha256_file(weights):
        raise UserError(
            f"{weights}: damaged, or of another model than {path.name}; copy both again"
        )
    settings = {
        # Left alone it would take bf16 where the CPU can: scores off in the second digit.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BF16 else "f32",
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
    }
    compiled = opened(path, lambda: core.compile_model(model, "CPU", settings))
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken != settings["INFERENCE_PRECISION_HINT"]:
        raise UserError(
            f"precision {precision}: OpenVINO would compute {path} in {taken} on this CPU; "
            f"choose {FLOAT32}"
        )

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({IMAGE: np.ascontiguousarray(images)})
        return found[MAP], found[SCORE]

    return Opened(network, metadata, "cpu")


def open_torch(path: Path, device: str, precision: str, threads: int) -> Opened:  # noqa: ARG001
    """Open by torch; arguments as of `open_model`, the threads are those of the process."""
    torch = runtime("torch", path)
    from torch.export.passes import move_to_device_pass

    from anomalib_rd.inference.load import find_device

    place = find_device(device)
    kept = {f"{KEY}.json": ""}
    program = opened(path, lambda: torch.export.load(path, extra_files=kept))
    metadata = from_json(kept[f"{KEY}.json"], path)
    if place.type != "cpu":
        program = move_to_device_pass(program, str(place))
    module = program.module(check_guards=False)

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            maps, scores = module(torch.from_numpy(images).to(place))
        return maps.cpu().numpy(), scores.cpu().numpy()

    return Opened(network, metadata, str(place))


OPENERS: dict[str, Callable[[Path, str, str, int], Opened]] = {
    "onnx": open_onnx,
    "openvino": open_openvino,
    "torch": open_torch,
}


def runtime(name: str, path: Path | str) -> Any:
    """The runtime's module.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: needs the package {name}, which is not there ({one_line(error)}); "
            f"pip install {name}"
        ) from error


def opened(path: Path, work: Callable[[], Any]) -> Any:
    """What a runtime makes of a file.

    Raises:
        UserError: it can't read it.
    """
    try:
        return work()
    except Exception as error:  # each runtime raises its own
        raise UserError(
            f"{path}: damaged, or nothing that this runtime reads ({one_line(error)[:160]})"
        ) from error


def threads_wanted() -> int:
    """``OMP_NUM_THREADS``, which not every runtime looks at by itself; 0 if not set."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else 0


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
    path = expand_home(path)
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
