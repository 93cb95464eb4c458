"""Peak performance of the machine, measured, to compare the networks' performance with."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

GIGA = 1e9
# Side of the matrices; images and channels of the convolution; floats to copy.
SIZES = {"cpu": (2048, 8, 128, 2**26), "cuda": (8192, 64, 512, 2**28)}
SECONDS = 0.4
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Measure ``matmul_fp32, conv_fp32, matmul_bf16, conv_bf16`` (GFLOP/s) and ``copy`` (GB/s).

    Each is the best of several runs. A multiplication and an addition are two operations; copied
    bytes count twice. On CUDA "fp32" convolutions use TF32, torch's default.
    """
    side, batch, channels, floats = SIZES[device.type]
    limits: dict[str, float] = {}
    with torch.inference_mode():
        for name, dtype in DTYPES.items():
            a = torch.randn(side, side, device=device).to(dtype)
            limits[f"matmul_{name}"] = 2 * side**3 / best(partial(torch.matmul, a, a), device)
            limits[f"conv_{name}"] = convolution(batch, channels, dtype, device)
        source = torch.ones(floats, device=device)  # zeros may not be in memory at all
        target = torch.empty_like(source)
        limits["copy"] = 2 * source.nbytes / best(lambda: target.copy_(source), device)
    return {name: value / GIGA for name, value in limits.items()}


def convolution(batch: int, channels: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a 3x3 convolution on 64 x 64 positions, in the better memory format."""
    images = torch.randn(batch, channels, 64, 64, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    seconds = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x, w = images.to(memory_format=layout), weight.to(memory_format=layout)
        seconds.append(best(partial(F.conv2d, x, w, padding=1), device))
    return 2 * batch * 64 * 64 * channels * channels * 9 / min(seconds)


def best(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of at least three runs within ``SECONDS``, after a warm-up."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        synchronize(device)
        return time.perf_counter() - start

    timed()
    until = time.perf_counter() + SECONDS
    seconds = [timed() for _ in range(3)]
    while time.perf_counter() < until:
        seconds.append(timed())
    return min(seconds)


def highest(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The better of two measurements: a shared machine is not always at full speed."""
    return {name: max(value, after[name]) for name, value in before.items()}


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU needs no wait."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def share(flops_per_s: float, precision: str, limits: dict[str, float]) -> float:
    """FLOP/s as a fraction of the higher ceiling of this precision, matrix or convolution.

    ``precision`` is Lightning's name; ``limits`` are from `measure_ceilings`.
    """
    kind = "bf16" if "16" in precision else "fp32"
    return flops_per_s / GIGA / max(limits[f"matmul_{kind}"], limits[f"conv_{kind}"])
