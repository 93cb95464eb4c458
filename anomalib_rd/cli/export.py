"""``anomalib-rd export``: a run as one file for ONNX Runtime, OpenVINO or torch."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import Parser, add_run_arguments, number, parse_run_keyword
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.data import AnomalyDataModule
    from anomalib_rd.inference.load import TrainedRun
    from anomalib_rd.inference.runtimes import Metadata

FOLDER = "exports"
CALIBRATION_IMAGES = 128


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Export a run to one file that computes anomaly map and score from an image and contains "
        "the threshold and the record. It is written only if its results on test images equal "
        "those of torch.",
        "runs/mine",
        "runs/mine format=openvino --int8 --out part.xml",
    )
    add_run_arguments(parser, device=False)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="format=onnx, openvino or torch (default: onnx); data.root=... if the run's images "
        "have moved",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"output file (default: RUN/{FOLDER}/NAME.*)"
    )
    parser.add_argument(
        "--images",
        type=number(int, 1),
        default=16,
        metavar="N",
        help="test images to verify the file with (default: %(default)s)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with format=openvino: quantise to 8 bit, calibrated on normal training images, and "
        "report the change of the test metrics",
    )
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Export the run, and print the difference between the file's results and torch's."""
    from anomalib_rd.inference.runtimes import FORMATS

    parse_run_keyword(options, "overrides")
    formats = [o for o in options.overrides if o.startswith("format=")]
    overrides = [o for o in options.overrides if o not in formats]
    kind = formats[-1].removeprefix("format=") if formats else "onnx"
    if kind not in FORMATS:
        raise UserError(f"export: format={kind}: choose one of {', '.join(FORMATS)}")
    if options.int8 and kind != "openvino":
        raise UserError(f"export: --int8 requires format=openvino, not format={kind}")
    if options.out and options.out.suffix != FORMATS[kind]:
        raise UserError(f"export: --out {options.out}: format={kind} needs {FORMATS[kind]}")
    import torch

    from anomalib_rd.cli.config import register_resolvers
    from anomalib_rd.data import read_image
    from anomalib_rd.inference.export import export, export_int8, load_model
    from anomalib_rd.inference.load import read_run

    register_resolvers()
    trained = read_run(options.run, options.trust)
    data = load_data(trained, overrides, options.trust)
    test_set, train = data.test_set, data.split.train
    images = torch.stack([test_set[i]["image"] for i in spaced(len(test_set), options.images)])
    model = load_model(trained, options.teacher_weights, options.other_teacher)
    name = f"{model.metadata.run or trained.path.stem}{'-int8' if options.int8 else ''}"
    path = options.out or trained.folder / FOLDER / f"{name}{FORMATS[kind]}"
    if options.int8:
        paths = [train[i].path for i in spaced(len(train), CALIBRATION_IMAGES)]
        calibration = [read_image(image, data.image_size) for image in paths]
        difference, metadata = export_int8(model, path, images, calibration, test_set)
    else:
        difference, metadata = export(model, kind, path, images), model.metadata
    files = [path, *([path.with_suffix(".bin")] if kind == "openvino" else [])]
    size = sum(file.stat().st_size for file in files) / 2**20
    print(f"{model.metadata.run} as {kind}, {metadata.precision}: {path}, {size:.1f} MiB")
    print(
        f"largest difference to torch in float32 on {difference.images} test images: "
        f"{difference.score:.1e} in scores, {difference.map:.1e} in maps"
    )
    if metadata.int8:
        print(_int8_summary(metadata, len(test_set)))
    return 0


def load_data(trained: "TrainedRun", overrides: list[str], trust: bool) -> "AnomalyDataModule":
    """The run's data.

    Raises:
        UserError: it is missing, or an override is wrong.
    """
    from omegaconf import OmegaConf

    from anomalib_rd.cli.evaluate import evaluation_config
    from anomalib_rd.components import require_known_code
    from anomalib_rd.training.build import make_data

    cfg = evaluation_config(trained, overrides, trained.folder, None, changeable=("data",))
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    require_known_code(trained.path, {"data": resolved["data"]}, trust)
    try:
        return make_data(cfg)
    except UserError as error:
        raise UserError(
            f"the run's images, needed to verify the export: {error}; set their folder with "
            "data.root=..."
        ) from error


def spaced(total: int, count: int) -> range:
    """At most ``count`` indices, evenly spaced over ``range(total)``."""
    return range(0, total, max(1, total // count))[:count]


def _int8_summary(metadata: "Metadata", images: int) -> str:
    """How quantisation changes the metrics, in percent."""
    assert metadata.int8 is not None
    parts = [
        f"{name} {100 * (int8 - float32):+.2f} ({100 * float32:.2f} to {100 * int8:.2f})"
        for name, (float32, int8) in metadata.int8["metrics"].items()
    ]
    calibration = metadata.int8["calibration_images"]
    return (
        f"int8, calibrated on {calibration} normal training images, changes on {images} test "
        f"images, %: {', '.join(parts)}"
    )
