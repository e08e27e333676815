"""Replicates on a GPU: which kernels serve a cell, and chunk by chunk what they give."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton

from toyiwae.errors import InputError
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.kernels.gpu.cells import CalledCell, Cell, FusedCell
from toyiwae.montecarlo.kernels.gpu.combine import REGISTERS, exponents_of, fusible
from toyiwae.montecarlo.kernels.gpu.graphs import Replayed
from toyiwae.montecarlo.kernels.gpu.launch import PhiloxNoise, start_of
from toyiwae.montecarlo.kernels.torch_sampler import TorchSampler
from toyiwae.montecarlo.noise import Layout, Noise
from toyiwae.montecarlo.sampler import as_numpy


class TritonSampler(TorchSampler):
    """`TorchSampler` with Triton kernels, which need a GPU or Triton's interpreter (TRITON_INTERPRET=1).

    Where all Forms are polynomials of the weights, one fused kernel keeps noise, log-weights and sums on chip, at any
    K. For other estimators the log-weights are written out, their own functions called, and the noise made once more.
    Parameters with second-order sums, and groups too large for that, go through the torch engine. All see the same
    noise: what serves a cell changes its numbers in round-off only.
    """

    name = "triton"
    rate = 2e11  # not measured so far
    core = "one GPU"

    @property
    def versions(self) -> dict[str, str]:
        """Of torch and Triton."""
        return super().versions | {"triton": triton.__version__}

    @property
    def fused(self) -> bool:
        """Whether the fused kernel has the estimators' Forms, and registers for their sums."""
        forms = [estimator.form for estimator in self.estimators]
        if not all(map(fusible, forms)):
            return False
        first = exponents_of(form for form in forms if form)[1]
        return self.dim * (first + 4) <= REGISTERS  # slope and curvature have two registers each

    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """As `TorchSampler.chunks`."""
        cell = self.cell(particles, groups, start_of(seed, (particles, groups, stream), self.device))
        if cell is None:
            yield from super().chunks(particles, groups, replicates, seed, stream)
            return
        capacity = max(1, self.budget // cell.numbers)  # pairs of a replicate and a row in a launch
        if capacity < self.n_rows:
            for replicate in range(replicates):
                yield self._in_blocks(cell, replicate, capacity)
            return
        count = min(replicates, capacity // self.n_rows)
        whole = Replayed(lambda: cell.tensors(count, slice(None)), self.device)
        for first in range(0, replicates, count):
            cell.start_at(first * self.n_rows)
            rest = min(count, replicates - first)
            # what may wait for the device, as a user's function may, cannot be recorded
            recorded = rest == count and isinstance(cell, FusedCell)
            yield self._chunk_of(whole() if recorded else cell.tensors(rest, slice(None)))

    def cell(self, particles: int, groups: int, start: torch.Tensor) -> Cell | None:
        """The kernels that serve (K, M); None where the torch engine has to."""
        arguments = (self.whitened, self.estimators, self.parameters, particles, groups, start)
        if self.second:
            return None
        if self.fused:
            return FusedCell(*arguments)
        cell = CalledCell(*arguments)
        return cell if cell.numbers <= self.budget else None

    def _in_blocks(self, cell: Cell, replicate: int, capacity: int) -> Chunk:
        """One replicate, some rows at a time."""
        parts = []
        for first in range(0, self.n_rows, capacity):
            cell.start_at(replicate * self.n_rows + first)
            rows = slice(first, min(first + capacity, self.n_rows))
            parts.append(self._chunk_of(cell.tensors(1, rows)))
        return self.over_rows(parts)

    def _chunk_of(self, tensors: Sequence[torch.Tensor]) -> Chunk:
        """What `Cell.tensors` lists, by name."""
        values, ess, *rest = map(as_numpy, tensors)
        parts = iter(rest)
        gradients = {e.name: {name: next(parts) for name in self.parameters} for e in self.estimators}
        return Chunk(values, ess, gradients)

    def _check_noise(self, particles: int, groups: int, replicates: int) -> None:
        if particles >= 2**32:  # the only word of a counter that may run out: units have 64 bits
            raise InputError(f"K is {particles}: the engine triton has counters for less than 2³² = {2**32}")

    def _noise(self, layout: Layout, seed: int, stream: tuple[int, ...]) -> Noise:
        return PhiloxNoise(layout, seed, stream, self.device)
