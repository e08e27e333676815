"""Replicates of bounds and gradients, in memory that depends on neither K nor the number of replicates.

Where the noise of one row of data fits into the budget, its log-weights are formed at once and the
estimators' functions give their coefficients. Where it does not, two passes run over the same noise: the
first keeps a summary of each group's weights, the second draws the noise again and turns each block's
log-weights and the summary into coefficients (`Streamed`). Both give the same numbers, to round-off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from toyiwae.estimators import Estimator
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.noise import GROUPS, MOST_UNITS, REPLICATES, ROWS, Layout, Noise
from toyiwae.montecarlo.sampler import Sampler, refuse_noise, three, triples
from toyiwae.montecarlo.streamed import Asked, Streamed, refuse_unheld
from toyiwae.montecarlo.whitened import Sums
from toyiwae.problems.linear_gaussian import Problem

Tensor = torch.Tensor

BUDGET = {"cpu": 2**25, "cuda": 2**28}
"""Bytes of noise held at once, by type of device; a few times as much is used beside it."""

_CACHED = 2**20
"""Bytes of noise handled at once on a CPU where a row's noise is small: what stays in a core's cache."""

_JOINED = 256
"""Replicates that are handed on together, so that what takes them in is not called for each."""


class TorchSampler(Sampler):
    """The slow and obvious engine, on CPUs and CUDA.

    Args:
        problem: model, proposal and data.
        estimators: any registered or user's estimators; all see the same noise.
        parameters: whose gradients.
        device: where to compute.
        budget: bytes of noise to hold at once; by default `BUDGET`. Results depend on it in round-off only.
    """

    name = "torch"
    rate = 2e7

    def __init__(
        self,
        problem: Problem,
        estimators: Sequence[Estimator],
        parameters: Sequence[str],
        device: torch.device,
        budget: int | None = None,
    ):
        """Moves the problem's constants to the device."""
        super().__init__(
            problem,
            estimators,
            parameters,
            lambda array: torch.tensor(array, dtype=torch.float64, device=device),
        )
        self.device = device
        second = 3 * self.dim**2 * self.second * (self.n_rows if self.whitened.own else 1)
        self._outputs = self.outputs + len(self.estimators) * second
        self.budget = (BUDGET.get(device.type, BUDGET["cpu"]) if budget is None else budget) // 8
        self._batch = min(self.budget, _CACHED // 8) if device.type == "cpu" else self.budget

    @property
    def versions(self) -> dict[str, str]:
        """Of torch."""
        return {"torch": torch.__version__}

    def check(self, particles: int, groups: int, replicates: int) -> None:
        """Refuses what an estimator or the sampler cannot do.

        Raises:
            InputError: K below an estimator's minimum, more particles than one without a Form may hold, more groups
                than can be held, or more noise than there are seeds for.
        """
        super().check(particles, groups, replicates)
        self._check_noise(particles, groups, replicates)
        if groups * particles * self.dim > self.budget:
            refuse_unheld(self.estimators, groups, particles)

    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """Replicates of the cell (K, M), in order."""
        layout = Layout.of(self.n_rows, groups, particles, self.dim)
        noise = self._noise(layout, seed, (particles, groups, stream))
        waiting: list[Chunk] = []
        for chunk in self._small_chunks(noise, replicates):
            waiting.append(chunk)
            count = sum(len(item.values) for item in waiting)
            if count >= _JOINED or count * self._outputs >= self.budget:
                yield Chunk.join(waiting)
                waiting.clear()
        if waiting:
            yield Chunk.join(waiting)

    def _check_noise(self, particles: int, groups: int, replicates: int) -> None:
        layout = Layout.of(self.n_rows, groups, particles, self.dim)
        units, numbers = layout.total_units(replicates), math.prod(layout.shape) * replicates
        most = numbers * MOST_UNITS // units
        refuse_noise(particles, groups, replicates, numbers, most, f"but noise repeats after {most:.2g}")

    def _noise(self, layout: Layout, seed: int, stream: tuple[int, ...]) -> Noise:
        return Noise(layout, seed, stream, self.device)

    def _small_chunks(self, noise: Noise, replicates: int) -> Iterator[Chunk]:
        layout = noise.layout
        if layout.axis == REPLICATES:
            units = max(1, self._batch // (layout.block * layout.step))
            for first in range(0, -(-replicates // layout.block), units):
                drawn = noise.draw(first, units)[: replicates - first * layout.block]
                for part in drawn.split(max(1, self.budget // max(1, self._outputs))):
                    yield self.one_pass(part, slice(None))
        else:
            for replicate in range(replicates):
                yield self._replicate(noise, replicate)

    def _sums(self, parts: Sequence[Tensor], noise: Tensor) -> list[Sums]:
        return Sums.of(parts, noise, self.second, own=self.whitened.own) if parts else []

    def _replicate(self, noise: Noise, replicate: int) -> Chunk:
        """One replicate too large for a unit: row by row, or by blocks of rows."""
        layout = noise.layout
        if layout.axis == ROWS:
            units = max(1, self._batch // (layout.block * layout.step))
            parts = []
            for first in range(0, layout.units, units):
                start = first * layout.block
                rows = slice(start, start + units * layout.block)
                parts.append(self.one_pass(noise.draw(first, units, outer=replicate), rows))
            return self.over_rows(parts)
        rows = range(self.n_rows)
        return self.over_rows([self._row(noise, replicate * self.n_rows + n, slice(n, n + 1)) for n in rows])

    def _row(self, noise: Noise, index: int, rows: slice) -> Chunk:
        """One row of one replicate; `index` counts the rows of all replicates."""
        layout = noise.layout
        if layout.groups * layout.particles * layout.dim <= self.budget:
            count = 1 if layout.axis == GROUPS else layout.groups
            outer = range(index * count, (index + 1) * count)
            drawn = [noise.draw(0, layout.units, outer=part) for part in outer]
            return self.one_pass(torch.cat(drawn, dim=GROUPS), rows)
        return self._two_passes(noise, index, rows)

    def _two_passes(self, noise: Noise, index: int, rows: slice) -> Chunk:
        """One row of one replicate whose noise does not fit into the budget."""
        asked = [Asked(estimator.name, estimator.form, estimator) for estimator in self.estimators]
        streamed = Streamed(asked, noise.layout.groups, noise.layout.particles)
        for where, drawn in self._blocks(noise, index):
            streamed.observe(where, self.whitened.log_weights(drawn, rows))
        sums: list[Sums] = []
        for where, drawn in self._blocks(noise, index) if self.estimators else ():
            coefficients = streamed.coefficients(where, self.whitened.log_weights(drawn, rows))
            part = self._sums([p for c in coefficients for p in three(c)], drawn)
            sums = [one + other for one, other in zip(sums, part, strict=True)] if sums else part
        return self.chunk(streamed.log_evidence.mean(-1), streamed.ess.mean(-1), triples(sums), rows)

    def _blocks(self, noise: Noise, index: int) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """The noise of one row in order, with the groups and the particles that each block holds."""
        layout = noise.layout
        units = max(1, self._batch // (layout.block * layout.step))
        for group in range(1 if layout.axis == GROUPS else layout.groups):
            outer = index if layout.axis == GROUPS else index * layout.groups + group
            for first in range(0, layout.units, units):
                part = slice(first * layout.block, min((first + units) * layout.block, layout.length))
                whole = slice(0, layout.particles)
                where = (part, whole) if layout.axis == GROUPS else (slice(group, group + 1), part)
                yield where, noise.draw(first, units, outer=outer)
