"""Replicates of bounds and gradients, in memory that depends on neither K nor the number of replicates.

Where the noise of one row of data fits into the budget, its log-weights are formed at once and the
estimators' functions give their coefficients. Where it does not, two passes run over the same noise: the
first keeps a summary of each group's weights, the second draws the noise again and turns each block's
log-weights and the summary into coefficients (`Streamed`). Both give the same numbers, to round-off.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from toyiwae import weights
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator
from toyiwae.montecarlo.noise import GROUPS, MOST_UNITS, REPLICATES, ROWS, Layout, Noise
from toyiwae.montecarlo.streamed import HELD, Streamed, refuse_formless
from toyiwae.montecarlo.whitened import SECOND_ORDER, Sums, Tensor, Whitened
from toyiwae.problems.linear_gaussian import Problem

BUDGET = {"cpu": 2**25, "cuda": 2**28}
"""Bytes of noise held at once, by type of device; a few times as much is used beside it."""

_CACHED = 2**20
"""Bytes of noise handled at once on a CPU where a row's noise is small: what stays in a core's cache."""

_JOINED = 256
"""Replicates that are handed on together, so that what takes them in is not called for each."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some replicates of one cell, for all its estimators, from the same noise.

    Attributes:
        values: log Ẑ, averaged over groups and rows `[R]`: unbiased for the bound L_K.
        ess: (Σw)²/Σw², averaged over groups and rows `[R]`.
        gradients: estimator -> parameter -> gradients of the average over rows `[R, *shape]`.
    """

    values: Tensor
    ess: Tensor
    gradients: dict[str, dict[str, Tensor]]

    def __add__(self, other: Chunk) -> Chunk:
        """The same replicates, with the parts of more rows."""
        gradients = {
            name: {key: value + other.gradients[name][key] for key, value in parts.items()}
            for name, parts in self.gradients.items()
        }
        return Chunk(self.values + other.values, self.ess + other.ess, gradients)

    @classmethod
    def join(cls, chunks: Sequence[Chunk]) -> Chunk:
        """One chunk after the other."""
        gradients = {
            name: {key: torch.cat([chunk.gradients[name][key] for chunk in chunks]) for key in parts}
            for name, parts in chunks[0].gradients.items()
        }
        values, ess = (torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("values", "ess"))
        return cls(values, ess, gradients)


class Sampler:
    """Draws replicates of one problem for some estimators and parameters.

    Args:
        problem: model, proposal and data.
        estimators: any registered or user's estimators; all see the same noise.
        parameters: whose gradients.
        device: where to compute.
        budget: bytes of noise to hold at once; by default `BUDGET`. Results depend on it in round-off only.
    """

    def __init__(
        self,
        problem: Problem,
        estimators: Sequence[Estimator],
        parameters: Sequence[str],
        device: torch.device,
        budget: int | None = None,
    ):
        """Moves the problem's constants to the device."""
        self.whitened = Whitened(problem, device)
        self.estimators, self.parameters, self.device = tuple(estimators), tuple(parameters), device
        self.dim, self.n_rows = problem.dim_z, problem.n_rows
        self._second = any(name in SECOND_ORDER for name in parameters)
        outputs = sum(math.prod(problem.parameters[name]) for name in parameters)
        second = 3 * self.dim**2 * self._second * (self.n_rows if self.whitened.own else 1)
        self._outputs = len(self.estimators) * (outputs + second)
        self.budget = (BUDGET.get(device.type, BUDGET["cpu"]) if budget is None else budget) // 8
        self._batch = min(self.budget, _CACHED // 8) if device.type == "cpu" else self.budget

    def only(self, estimators: Sequence[Estimator]) -> Sampler:
        """The same sampler for some of its estimators."""
        found = copy.copy(self)
        found.estimators = tuple(estimators)
        return found

    def check(self, particles: int, groups: int, replicates: int) -> None:
        """Refuses what an estimator or the sampler cannot do.

        Raises:
            InputError: K below an estimator's minimum, more particles than one without a Form may hold, more groups
                than can be held, or more noise than there are seeds for.
        """
        for estimator in self.estimators:
            estimator.check_particles(particles)
        layout = Layout.of(self.n_rows, groups, particles, self.dim)
        units, numbers = layout.total_units(replicates), math.prod(layout.shape) * replicates
        if units > MOST_UNITS:
            raise InputError(
                f"K = {particles}, M = {groups} and {replicates} replicates take {numbers:.2g} standard normals, but"
                f" noise repeats after {numbers * MOST_UNITS // units:.2g}: lower K, M or replicates"
            )
        if groups * particles * self.dim > self.budget:
            refuse_formless(self.estimators, groups, particles)
            if groups > HELD:
                raise InputError(
                    f"M is {groups}: at most {HELD} groups of a row can be held at once, lower M"
                )

    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """Replicates of the cell (K, M), in order, in chunks of no particular size.

        Args:
            particles: K.
            groups: M.
            replicates: how many in all; the first ones do not depend on it.
            seed: the user's.
            stream: tells independent noise of the same cell apart.
        """
        layout = Layout.of(self.n_rows, groups, particles, self.dim)
        noise = Noise(layout, seed, (particles, groups, stream), self.device)
        waiting: list[Chunk] = []
        for chunk in self._small_chunks(noise, replicates):
            waiting.append(chunk)
            count = sum(len(item.values) for item in waiting)
            if count >= _JOINED or count * self._outputs >= self.budget:
                yield Chunk.join(waiting)
                waiting.clear()
        if waiting:
            yield Chunk.join(waiting)

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

    def one_pass(self, noise: Tensor, rows: slice) -> Chunk:
        """What noise η `[R, n, M, K, D]` gives, as the part of n rows in the average over all rows."""
        log_w = self.whitened.log_weights(noise, rows)
        parts = [part for estimator in self.estimators for part in _parts(estimator(log_w))]
        values, ess = weights.log_mean_exp(log_w), weights.ess(log_w)
        sums = self._sums(parts, noise) if parts else None
        return self._chunk(values, ess, sums, rows)

    def _sums(self, parts: Sequence[Tensor], noise: Tensor) -> Sums:
        return Sums.of(torch.stack(list(parts), dim=2), noise, self._second, own=self.whitened.own)

    def _replicate(self, noise: Noise, replicate: int) -> Chunk:
        """One replicate too large for a unit: row by row, or by blocks of rows."""
        layout, total = noise.layout, None
        if layout.axis == ROWS:
            units = max(1, self._batch // (layout.block * layout.step))
            for first in range(0, layout.units, units):
                start = first * layout.block
                rows = slice(start, start + units * layout.block)
                part = self.one_pass(noise.draw(first, units, outer=replicate), rows)
                total = part if total is None else total + part
        else:
            for row in range(self.n_rows):
                part = self._row(noise, replicate * self.n_rows + row, slice(row, row + 1))
                total = part if total is None else total + part
        assert total is not None
        return total

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
        streamed = Streamed(self.estimators, noise.layout.groups, noise.layout.particles)
        for where, drawn in self._blocks(noise, index):
            streamed.observe(where, self.whitened.log_weights(drawn, rows))
        sums = None
        for where, drawn in self._blocks(noise, index) if self.estimators else ():
            coefficients = streamed.coefficients(where, self.whitened.log_weights(drawn, rows))
            part = self._sums([p for c in coefficients for p in _parts(c)], drawn)
            sums = part if sums is None else sums + part
        return self._chunk(streamed.log_evidence, streamed.ess, sums, rows)

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

    def _chunk(self, values: Tensor, ess: Tensor, sums: Sums | None, rows: slice) -> Chunk:
        """Maps sums to gradients; `values` and `ess` are `[R, n, M]`."""
        gradients: dict[str, dict[str, Tensor]] = {}
        for index, estimator in enumerate(self.estimators):
            assert sums is not None
            own = sums.part(index)
            gradients[estimator.name] = {
                name: self.whitened.gradient(name, own, rows) for name in self.parameters
            }
        share = values.shape[1] / self.n_rows
        return Chunk(values.mean((1, 2)) * share, ess.mean((1, 2)) * share, gradients)


def _parts(coefficients: Any) -> tuple[Tensor, Tensor, Tensor]:
    return coefficients.model, coefficients.path, coefficients.score
