"""``anomalib-rd export``: a run to a file for ONNX Runtime, OpenVINO or torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import RunParser
from anomalib_rd.errors import UserError
from anomalib_rd.inference.runtimes import FORMATS

if TYPE_CHECKING:
    from anomalib_rd.data import AnomalyDataModule
    from anomalib_rd.inference.runtimes import Metadata

FOLDER = "exports"
CALIBRATION = 128  # images


def run(words: list[str]) -> int:
    """Export, and say how near the file comes to torch."""
    parser = RunParser(
        "export",
        "Write a run's whole way from image to map and score into one file, with its threshold and "
        "record inside. It is only left if it gives on real images what torch gives.",
        device=False,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"format={'|'.join(FORMATS)} (onnx); data.root=... where the run's images are now",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default: RUN/{FOLDER}/NAME with the right ending"
    )
    parser.add_argument(
        "--images", type=int, default=16, help="test images to compare with torch (%(default)s)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with format=openvino: in 8 bit, calibrated on normal training images; says what "
        "that costs on the test images",
    )
    options = parser.parsed(words)
    said = [word for word in options.overrides if word.startswith("format=")]
    kind = said[-1].removeprefix("format=") if said else "onnx"
    if kind not in FORMATS:
        parser.error(f"format={kind}: choose one of {', '.join(FORMATS)}")
    if options.int8 and kind != "openvino":
        parser.error(f"--int8 goes with format=openvino, not format={kind}")
    if options.images < 1:
        parser.error(f"--images {options.images}: must be at least 1")
    if options.out and options.out.suffix != FORMATS[kind]:
        parser.error(f"--out {options.out}: format={kind} ends in {FORMATS[kind]}")
    from anomalib_rd.cli.config import register_resolvers
    from anomalib_rd.inference.checkpoint import read_run
    from anomalib_rd.inference.export import export, export_int8, load_model

    register_resolvers()
    trained = read_run(options.run, options.trust)
    overrides = [word for word in options.overrides if word not in said]
    data = images_of(trained, overrides, options.trust)
    images = spread(data, options.images)
    model = load_model(trained, options.teacher_weights, options.other_teacher)
    name = f"{model.metadata.run or trained.path.stem}{'-int8' if options.int8 else ''}"
    path = options.out or trained.folder / FOLDER / f"{name}{FORMATS[kind]}"
    if options.int8:
        found, facts = export_int8(model, path, images, calibration(data), data.test_set)
    else:
        found, facts = export(model, kind, path, images), model.metadata
    files = [path, *([path.with_suffix(".bin")] if kind == "openvino" else [])]
    size = sum(file.stat().st_size for file in files)
    print(f"{model.metadata.run} as {kind}, {facts.precision}: {path}, {size / 2**20:.1f} MiB")
    print(
        f"as torch in float32 on {found.images} test images: scores differ by {found.score:.1e} at "
        f"most, maps by {found.map:.1e}"
    )
    if facts.int8:
        print(int8_line(facts, len(data.test_set)))
    return 0


def images_of(trained: Any, overrides: list[str], trust: bool) -> "AnomalyDataModule":
    """The run's data, wherever they are now.

    Raises:
        UserError: they are not there, or what the user says of them is wrong.
    """
    from omegaconf import OmegaConf

    from anomalib_rd.cli.evaluate import evaluation_config
    from anomalib_rd.components import require_known_code
    from anomalib_rd.training.data import make_data

    cfg = evaluation_config(trained, overrides, trained.folder, None, may_change=("data",))
    settled: Any = OmegaConf.to_container(cfg, resolve=True)
    require_known_code(trained.path, {"data": settled["data"]}, trust)
    try:
        return make_data(cfg)
    except UserError as error:
        raise UserError(
            f"the run's images, with which its export is checked: {error}; data.root=... says "
            "where they are now"
        ) from error


def spread(data: "AnomalyDataModule", count: int) -> Any:
    """At most so many test images, spread over them all: (N, 3, H, W) uint8."""
    import torch

    every = max(1, len(data.test_set) // count)
    chosen = range(0, len(data.test_set), every)[:count]
    return torch.stack([data.test_set[i]["image"] for i in chosen])


def calibration(data: "AnomalyDataModule") -> list[Any]:
    """Normal training images, spread over them all, each (3, H, W) uint8."""
    from anomalib_rd.data import read_image

    samples = data.split.train
    kept = samples[:: max(1, len(samples) // CALIBRATION)][:CALIBRATION]
    return [read_image(sample.path, data.image_size) for sample in kept]


def int8_line(facts: "Metadata", images: int) -> str:
    """What 8 bit costs, in words."""
    assert facts.int8 is not None
    parts = [
        f"{name} {100 * (small - whole):+.2f} ({100 * whole:.2f} to {100 * small:.2f})"
        for name, (whole, small) in facts.int8["metrics"].items()
    ]
    return (
        f"int8, calibrated on {facts.int8['calibration_images']} normal training images, changes "
        f"on {images} test images, %: {', '.join(parts)}"
    )
