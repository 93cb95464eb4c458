"""Parse the names of devices and precisions."""

from typing import TYPE_CHECKING

from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    import torch

FLOAT32, BF16 = "32-true", "bf16-true"
PRECISIONS = (FLOAT32, "bf16-mixed", "16-mixed", BF16, "16-true", "64-true")  # Lightning's names
ALIASES = {"32": FLOAT32, "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}


def find_device(name: "str | torch.device") -> "torch.device":
    """The torch device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: no such device.
    """
    import torch

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
    """One of `PRECISIONS` by Lightning's long or short name; UserError for any other."""
    precision = ALIASES.get(str(name), str(name))
    if precision not in PRECISIONS:
        raise UserError(f"precision {name}: choose one of {', '.join(PRECISIONS)}")
    return precision
