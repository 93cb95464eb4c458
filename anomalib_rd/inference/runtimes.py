"""What runs an exported model: ONNX Runtime, OpenVINO or torch, each imported where it is used."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Network
from anomalib_rd.inference.metadata import IMAGE, KEY, MAP, SCORE, Metadata, from_json
from anomalib_rd.results.files import one_line, sha256_file

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
