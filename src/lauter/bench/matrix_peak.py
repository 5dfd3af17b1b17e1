"""The speed of light of a machine: what its best matrix product reaches, to set training beside."""

import time
from typing import Literal

import torch

from lauter.errors import ConfigError

SIZES = (512, 1024, 2048, 4096)
"""Sides of the square matrices; the best of them counts."""
_TYPES = {"32": torch.float32, "bf16": torch.bfloat16}


def measure_matrix_peak(
    precision: Literal["32", "bf16"],
    device: torch.device,
    sizes: tuple[int, ...] = SIZES,
    repeats: int = 5,
) -> float:
    """Floating-point operations per second of the fastest square matrix product, with torch's threads.

    Args:
        precision: of the factors, as a runtime names it.
        device: where they are multiplied.
        sizes: sides of the matrices.
        repeats: of each size after one to warm up; the fastest counts.

    Returns:
        2 n^3 / seconds, the largest over all sizes.

    Raises:
        ConfigError: nothing is to be measured.
    """
    if not sizes or min(sizes) < 1 or repeats < 1:
        raise ConfigError(
            f"the matrix product is measured with sizes and repeats of 1 or more, not {sizes} and {repeats}"
        )
    best = 0.0
    for size in sizes:
        left, right = (torch.rand(size, size, device=device).to(_TYPES[precision]) for _ in range(2))
        for repeat in range(repeats + 1):
            began = time.perf_counter()
            left @ right
            if device.type != "cpu":
                torch.accelerator.synchronize()
            if repeat:
                best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
