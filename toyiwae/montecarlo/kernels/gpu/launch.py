"""How kernels are launched, and the noise that they share."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from toyiwae.montecarlo.kernels.gpu import kernels
from toyiwae.montecarlo.kernels.gpu.device import ROUNDS
from toyiwae.montecarlo.noise import Layout, Noise

SEGMENT = 128
"""Particles that one lane sums up, at most."""

BLOCK = 128
"""Lanes of a program; changes no number."""


def launch(kernel: Any, lanes: int, *arguments: Any, across: int = 1, **constants: Any) -> None:
    """Runs a kernel in as many lanes, times `across`.

    Multiplications are fused with additions where the kernel says so, and nowhere else.
    """
    grid, warps = (-(-lanes // BLOCK), across), max(1, min(BLOCK // 32, 32))
    options = {"num_warps": warps, "enable_fp_fusion": False}
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants, ROUNDS=ROUNDS, BLOCK=BLOCK, **options)


def start_of(seed: int, stream: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """What a kernel starts from: the key of a cell's noise, and a position, as int64 `[2]` on the device."""
    key = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64).astype(np.int64)
    return torch.tensor([int(key[0]), 0], dtype=torch.int64, device=device)


class PhiloxNoise(Noise):
    """The noise of one cell from counters, written out: the fused kernel's."""

    def __init__(self, layout: Layout, seed: int, stream: tuple[int, ...], device: torch.device):
        """Derives the cell's key."""
        self.layout, self.device = layout, device
        self._start = start_of(seed, stream, device)

    def draw(self, first: int, count: int = 1, outer: int = 0) -> torch.Tensor:
        """As `Noise.draw`."""
        layout = self.layout
        numbers, whole = layout.block * layout.step, layout.length * layout.step
        rest = math.inf if layout.axis == 0 else whole - first * numbers
        particles = int(min(count * numbers, rest)) // layout.dim
        noise = torch.empty((particles, layout.dim), dtype=torch.float64, device=self.device)
        self._start[1].fill_((outer * whole + first * numbers) // layout.dim)
        launch(
            kernels.standard_normals, particles, self._start, noise, particles, layout.particles, D=layout.dim
        )
        return noise.view(*(1 for _ in range(layout.axis)), -1, *layout.shape[layout.axis :])
