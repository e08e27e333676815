"""Replicates on a GPU: the fused kernel where the Forms allow it, else the torch engine on the same noise."""

# pyright: reportMissingImports=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import triton

from toyiwae.errors import InputError
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.kernels.gpu.combine import MOST_FIRST, PowerSums, exponents_of, fusible, sums_of
from toyiwae.montecarlo.kernels.gpu.device import ROUNDS
from toyiwae.montecarlo.kernels.gpu.graphs import Replayed
from toyiwae.montecarlo.kernels.gpu.kernels import power_sums, standard_normals
from toyiwae.montecarlo.kernels.torch_sampler import TorchSampler
from toyiwae.montecarlo.noise import Layout, Noise
from toyiwae.montecarlo.sampler import as_numpy

SEGMENT = 128
"""Particles that one lane sums up, at most."""

BLOCK = 128
"""Tasks of a program; changes no number."""


class PhiloxNoise(Noise):
    """The noise of one cell from counters: the fused kernel's."""

    def __init__(self, layout: Layout, seed: int, stream: tuple[int, ...], device: torch.device):
        """Derives the cell's key."""
        self.layout, self.device = layout, device
        self._start = start_of(seed, stream, device)

    def draw(self, first: int, count: int = 1, outer: int = 0) -> torch.Tensor:
        """As `Noise.draw`."""
        layout = self.layout
        numbers, whole = layout.block * layout.step, layout.length * layout.step
        rest = math.inf if layout.axis == 0 else whole - first * numbers
        noise = torch.empty(
            int(min(count * numbers, rest)) // layout.dim, layout.dim, dtype=torch.float64, device=self.device
        )
        self._start[1].fill_((outer * whole + first * numbers) // layout.dim)
        standard_normals[(-(-len(noise) // BLOCK),)](
            self._start,
            noise,
            len(noise),
            layout.particles,
            D=layout.dim,
            ROUNDS=ROUNDS,
            BLOCK=BLOCK,
            num_warps=BLOCK // 32,
            enable_fp_fusion=False,
        )
        return noise.view(*(1 for _ in range(layout.axis)), -1, *layout.shape[layout.axis :])


class TritonSampler(TorchSampler):
    """`TorchSampler` with Triton kernels, which need a GPU or Triton's interpreter (TRITON_INTERPRET=1).

    Estimators with a Form of powers of the weights, and parameters without second-order sums, go through the fused
    kernel: noise, log-weights and sums stay on chip, at any K. All others go through the torch engine, on the same
    noise. So what serves a cell changes its numbers in round-off only.
    """

    name = "triton"
    rate = 2e11  # not measured so far

    @property
    def versions(self) -> dict[str, str]:
        """Of torch and Triton."""
        return super().versions | {"triton": triton.__version__}

    @property
    def fused(self) -> bool:
        """Whether the fused kernel serves all estimators and parameters."""
        forms = [estimator.form for estimator in self.estimators]
        if self.second or not all(fusible(form) for form in forms):
            return False
        return exponents_of(form for form in forms if form)[1] * self.dim <= MOST_FIRST

    def check(self, particles: int, groups: int, replicates: int) -> None:
        """As `TorchSampler.check`; besides, a counter has 32 bits for the particle."""
        super().check(particles, groups, replicates)
        if particles >= 2**32:
            raise InputError(f"K is {particles}: the engine triton has counters for less than 2³² = {2**32}")

    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """As `TorchSampler.chunks`."""
        if not self.fused:
            yield from super().chunks(particles, groups, replicates, seed, stream)
            return
        cell = Cell(self, particles, groups, start_of(seed, (particles, groups, stream), self.device))
        if cell.capacity < self.n_rows:
            for replicate in range(replicates):
                yield self._in_blocks(cell, replicate)
            return
        count = min(replicates, cell.capacity // self.n_rows)
        whole = Replayed(lambda: cell.tensors(count, slice(None)), self.device)
        for first in range(0, replicates, count):
            cell.start_at(first * self.n_rows)
            rest = min(count, replicates - first)
            yield self._chunk_of(whole() if rest == count else cell.tensors(rest, slice(None)))

    def _in_blocks(self, cell: Cell, replicate: int) -> Chunk:
        """One replicate, some rows at a time."""
        total = None
        for first in range(0, self.n_rows, cell.capacity):
            cell.start_at(replicate * self.n_rows + first)
            rows = slice(first, min(first + cell.capacity, self.n_rows))
            part = self._chunk_of(cell.tensors(1, rows))
            total = part if total is None else total + part
        assert total is not None
        return total

    def _chunk_of(self, tensors: Sequence[torch.Tensor]) -> Chunk:
        """What `Cell.tensors` lists, by name."""
        values, ess, *rest = map(as_numpy, tensors)
        parts = iter(rest)
        gradients = {e.name: {name: next(parts) for name in self.parameters} for e in self.estimators}
        return Chunk(values, ess, gradients)

    def _noise(self, layout: Layout, seed: int, stream: tuple[int, ...]) -> Noise:
        return PhiloxNoise(layout, seed, stream, self.device)


class Cell:
    """Launches of the fused kernel for one (K, M), and what follows them on the device.

    Args:
        sampler: its estimators, parameters and constants.
        particles: K.
        groups: M.
        start: of the noise.

    Attributes:
        capacity: pairs of a replicate and a row that a launch may hold.
    """

    def __init__(self, sampler: TritonSampler, particles: int, groups: int, start: torch.Tensor):
        """Derives sizes; launches nothing."""
        self._sampler, self._particles, self._groups, self._start = sampler, particles, groups, start
        self._segments = -(-particles // SEGMENT)
        self._forms = [estimator.form for estimator in sampler.estimators if estimator.form]
        self._exponents, self._first = exponents_of(self._forms)
        numbers = 4 * (2 + len(self._exponents)) + 3 * self._first * sampler.dim  # and what is made of them
        self.capacity = max(1, sampler.budget // (groups * self._segments * numbers))

    def start_at(self, pair: int) -> None:
        """Sets the pair replicate·N + row at which the next launch starts."""
        self._start[1].fill_(pair)

    def tensors(self, replicates: int, rows: slice) -> list[torch.Tensor]:
        """The rows' part of replicates: values `[R]`, ess `[R]`, and each gradient, estimators outermost."""
        whitened = self._sampler.whitened
        base = whitened.base[rows, None]
        groups = self.launch(replicates, len(base)).pooled().squeezed()
        values = base + groups.log_mean(1.0, self._particles)
        ess = groups.total(1.0) ** 2 / groups.total(2.0)
        share = len(base) / whitened.n_rows
        found = [values.mean((1, 2)) * share, ess.mean((1, 2)) * share]
        for form in self._forms:
            sums = sums_of(form, groups, base, self._particles)
            found += [whitened.gradient(name, sums, rows) for name in self._sampler.parameters]
        return found

    def launch(self, replicates: int, n_rows: int) -> PowerSums:
        """The sums `[..., R, n, M, segments]` of as many pairs."""
        whitened, dim, device = self._sampler.whitened, self._sampler.dim, self._start.device
        shape = (replicates, n_rows, self._groups, self._segments)
        tasks = math.prod(shape)
        extremes = torch.empty((2, *shape), dtype=torch.float64, device=device)
        zeroth = torch.empty((len(self._exponents), *shape), dtype=torch.float64, device=device)
        first = torch.empty((self._first, dim, *shape), dtype=torch.float32, device=device)
        power_sums[(-(-tasks // BLOCK),)](
            self._start,
            whitened.slope,
            whitened.curvature,
            extremes,
            zeroth,
            first,
            tasks,
            whitened.n_rows,
            self._groups,
            self._particles,
            self._segments,
            -(-self._particles // self._segments),
            dim if whitened.own else 0,
            D=dim,
            EXPONENTS=self._exponents,
            FIRST=self._first,
            ROUNDS=ROUNDS,
            BLOCK=BLOCK,
            num_warps=BLOCK // 32,
            enable_fp_fusion=False,
        )
        return PowerSums(self._exponents, extremes, zeroth, first.movedim(1, -1))


def start_of(seed: int, stream: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """What a kernel starts from: the key of a cell's noise, and a position, as int64 `[2]` on the device."""
    key = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64).astype(np.int64)
    return torch.tensor([int(key[0]), 0], dtype=torch.int64, device=device)
