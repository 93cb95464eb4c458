"""What the machine can do at most, measured: the yardstick for what a network reaches."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

GIGA = 1e9
# Side of the matrices; images, channels of the convolution; floats to copy.
SIZES = {"cpu": (2048, 8, 128, 2**26), "cuda": (8192, 64, 512, 2**28)}
SECONDS = 0.4
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ceilings(device: torch.device) -> dict[str, float]:
    """The best of several runs of each operation.

    "fp32" is what torch's own settings make of it: on CUDA its convolutions use TF32.

    Args:
        device: to measure.

    Returns:
        ``matmul_fp32``, ``conv_fp32``, ``matmul_bf16``, ``conv_bf16`` in GFLOP/s (a
        multiplication and an addition are two), ``copy`` in GB/s (read and written bytes).
    """
    side, batch, channels, floats = SIZES[device.type]
    found: dict[str, float] = {}
    with torch.inference_mode():
        for name, dtype in DTYPES.items():
            a = torch.randn(side, side, device=device).to(dtype)
            product = partial(torch.matmul, a, a)
            found[f"matmul_{name}"] = 2 * side**3 / best(product, device)
            found[f"conv_{name}"] = convolution(batch, channels, dtype, device)
        source = torch.ones(floats, device=device)  # zeros may not be in memory at all
        target = torch.empty_like(source)
        found["copy"] = 2 * source.nbytes / best(lambda: target.copy_(source), device)
    return {name: value / GIGA for name, value in found.items()}


def convolution(batch: int, channels: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a 3x3 convolution on 64 x 64 positions, in the better memory format."""
    images = torch.randn(batch, channels, 64, 64, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    taken = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x, w = images.to(memory_format=layout), weight.to(memory_format=layout)
        taken.append(best(partial(F.conv2d, x, w, padding=1), device))
    return 2 * batch * 64 * 64 * channels * channels * 9 / min(taken)


def best(work: Callable[[], Any], device: torch.device) -> float:
    """Shortest of at least three runs in ``SECONDS``, after one to warm up."""
    run(work, device)
    until = time.perf_counter() + SECONDS
    taken = [run(work, device) for _ in range(3)]
    while time.perf_counter() < until:
        taken.append(run(work, device))
    return min(taken)


def run(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run, the device's work included."""
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def highest(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Of two measurements the better, for a shared machine is not always as fast as it can be."""
    return {name: max(value, after[name]) for name, value in before.items()}


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU is always done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def share(flops_per_s: float, precision: str, limits: dict[str, float]) -> float:
    """Part of the better of the two ceilings of this precision, matrix or convolution.

    Args:
        flops_per_s: FLOP/s reached.
        precision: Lightning's, such as ``32-true`` or ``bf16-mixed``.
        limits: from ``ceilings``.
    """
    kind = "bf16" if "16" in precision else "fp32"
    return flops_per_s / GIGA / max(limits[f"matmul_{kind}"], limits[f"conv_{kind}"])
