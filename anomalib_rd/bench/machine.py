"""Where a measurement was taken."""

from typing import Any

from anomalib_rd.results.provenance import provenance


def machine(cuda: bool) -> dict[str, Any]:
    """``machine``, one line for titles, and ``provenance`` with torch's own settings.

    Args:
        cuda: whether the current CUDA device does the work.
    """
    import torch

    found = provenance(torch.cuda.get_device_name() if cuda else None)
    hardware = found["hardware"]
    place = hardware["accelerator"] or f"{hardware['cpu']}, {torch.get_num_threads()} threads"
    found["torch"] = {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32 if cuda else None,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
    }
    return {"machine": f"{place}, torch {torch.__version__}", "provenance": found}
