"""What an exported model says of itself, the same in every format: one JSON object in the file."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalib_rd.components import require_plain
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, plain
from anomalib_rd.results.threshold import Threshold, threshold_of

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
        return json.dumps(plain(asdict(self)), allow_nan=False)


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
        values["threshold"] = threshold_of(found["threshold"], path)
        values["map_scale"] = (float(scale[0]), float(scale[1])) if scale else None
        return Metadata(**values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: its metadata are damaged ({one_line(error)[:100]}); export the run again"
        ) from error
