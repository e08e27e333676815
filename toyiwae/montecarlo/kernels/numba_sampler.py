"""The engine of the CPU's vector units: noise in single precision, everything that is summed in double.

Estimators whose Form is a polynomial in the normalised weights (with `log Ẑ` as one more term) need one pass over the
noise and no memory for it (`moments`). All others are called on blocks of log-weights whose noise is held, or drawn a
second time where it is too much to hold (`held`, `Streamed`). Both see the same noise.

A cell is cut into blocks of replicates, a stream for each of their rows. How depends on the problem's sizes, K and M
alone, so that the noise does too. Tasks are some blocks and some rows; how many depends on the parameters as well,
which changes sums over rows in round-off. Their results are added in their order: numbers depend neither on threads nor
on chunks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.memory import keep_freed
from toyiwae.montecarlo.callers import Caller
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.formed import Called, Terms
from toyiwae.montecarlo.kernels.blockwise import HELD_NUMBERS, Blockwise
from toyiwae.montecarlo.kernels.moments import moments
from toyiwae.montecarlo.kernels.one_row import OneRow, take_in
from toyiwae.montecarlo.kernels.room import Room, aligned, fours, tile_of
from toyiwae.montecarlo.kernels.streams import key_of
from toyiwae.montecarlo.kernels.tasks import Stopped, in_order
from toyiwae.montecarlo.sampler import Sampler, refuse_noise
from toyiwae.montecarlo.streamed import refuse_unheld
from toyiwae.montecarlo.whitened import OF_MODEL, Weighted
from toyiwae.problems.linear_gaussian import Problem

BLOCK = 2**14
"""Particles of one row in a block of replicates, at most where a replicate fits."""

AT_ONCE, MOST_REPLICATES = 2**17, 2**14
"""Particles of all rows, and replicates, in a task, roughly and at most."""

_OUTPUTS = 2**18  # numbers of gradients that a task gives, at most where a block gives fewer
_ANY = ""  # stands for the name of an estimator that is called
_SHARING = 8  # rows from which blocks no longer get smaller
_JOINED = 256  # replicates that are handed on together
_MOST = 2.0**62

MOST_NUMBERS = 2**26
"""Standard normals that one call of a kernel makes, roughly: Python hears of Ctrl-C between two."""

Task = tuple[int, int, int, int]
"""The first block, how many replicates, the first row, and how many."""


class NumbaSampler(Sampler):
    """Draws with Numba's kernels.

    Args:
        problem: model, proposal and data.
        estimators: any registered or user's estimators; all see the same noise.
        parameters: whose gradients.
        precision: of the noise, "float32" or "float64".
        threads: how many tasks at once.
        together: whether a user's functions may be called on several threads at once.
    """

    name = "numba"
    rate = 7e8

    def __init__(
        self,
        problem: Problem,
        estimators: Sequence[Estimator],
        parameters: Sequence[str],
        *,
        precision: str = "float32",
        threads: int = 1,
        together: bool = True,
    ):
        """Whitens the problem, and tries the estimators."""
        super().__init__(problem, estimators, parameters)
        self.precision, self.threads = np.dtype(precision), threads
        keep_freed()
        lock = None if together or threads == 1 else threading.Lock()
        self.callers = {estimator.name: Caller(estimator, lock) for estimator in estimators}

    @property
    def versions(self) -> dict[str, str]:
        """Of Numba, and the precision of the noise."""
        return {"numba": numba.__version__, "precision": self.precision.name}

    def check(self, particles: int, groups: int, replicates: int) -> None:
        """Refuses what an estimator or the sampler cannot do.

        Raises:
            InputError: K below an estimator's minimum, more particles than one without a Form may hold, more groups
                than can be held, or more noise than an index reaches.
        """
        super().check(particles, groups, replicates)
        numbers = self.n_rows * groups * particles * self.dim * replicates
        refuse_noise(particles, groups, replicates, numbers, _MOST, f"more than {_MOST:.2g}")
        others = [e for e in self.estimators if not self.callers[e.name].linear]
        if others and groups * particles * self.dim > HELD_NUMBERS:
            refuse_unheld(others, groups, particles)

    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """Replicates of the cell (K, M), in order."""
        cell = Cell(self, particles, groups, key_of(seed, particles, groups, stream))
        waiting: list[Chunk] = []
        for chunk in cell.blocks(replicates):
            waiting.append(chunk)
            if sum(len(item.values) for item in waiting) >= _JOINED:
                yield Chunk.join(waiting)
                waiting.clear()
        if waiting:
            yield Chunk.join(waiting)


class Cell:
    """One (K, M) of a sampler, cut into tasks.

    Args:
        sampler: whose problem, estimators and parameters.
        particles: K.
        groups: M.
        key: of its streams.
    """

    def __init__(self, sampler: NumbaSampler, particles: int, groups: int, key: np.ndarray):
        """Cuts it: what a stream holds depends on the problem's sizes, K and M alone; a task, on the parameters too."""
        self.sampler, self.sizes, self.key = sampler, (groups, particles), key
        self.own, self.stopped = sampler.whitened, Stopped()
        self._constants = self.own.base, self.own.slope, self.own.curvature
        each, dim, rows = groups * particles, sampler.dim, sampler.n_rows
        self.each = max(1, min(BLOCK // (each * min(rows, _SHARING)), HELD_NUMBERS // (each * dim)))
        products = dim**2 if sampler.second else 1
        self.rows = max(1, min(rows, AT_ONCE // (self.each * each)))
        if self.own.own:
            self.rows = max(1, min(self.rows, HELD_NUMBERS // (self.each * products)))
        blocks = min(AT_ONCE // (each * self.rows), MOST_REPLICATES, _OUTPUTS // sampler.outputs) // self.each
        self.count = self.each * max(1, blocks)
        asked = set(sampler.parameters)
        needed = {"model": "loading" in asked} if asked & set(OF_MODEL) else {}
        if asked - set(OF_MODEL):
            needed |= {"path": "proposal_chol" in asked, "score": "proposal_chol" in asked}
        callers = [sampler.callers[estimator.name] for estimator in sampler.estimators]
        forms = [form for caller in callers if caller.linear and (form := caller.estimator.form)]
        self.terms = Terms(forms, needed, particles)
        self._arrays = self.terms.arrays(), self.terms.pooled()
        self.blockwise = Blockwise(
            self.sizes,
            key,
            self.each,
            self._constants,
            sampler.precision,
            [caller for caller in callers if not caller.linear],
            needed,
            self.stopped,
            own=self.own.own,
        )
        self.one_pass = bool(forms) or not callers
        self.linear = [caller.linear for caller in callers]
        self._formed = [caller.estimator.name for caller in callers if caller.linear]
        self._own_room = threading.local()
        self._one_row = None
        if rows == 1 and self.terms.powers:
            self._one_row = OneRow(self.own, self.terms, self._formed, sampler.parameters)
        self._called = Called(needed)
        self._called_row = None
        if rows == 1 and needed and self.blockwise.callers:
            self._called_row = OneRow(self.own, self._called, [_ANY], sampler.parameters)

    def blocks(self, replicates: int) -> Iterator[Chunk]:
        """All replicates in order."""
        starts = range(0, self.sampler.n_rows, self.rows)
        tasks = (
            (first // self.each, count, row, min(self.rows, self.sampler.n_rows - row))
            for first, count in self._shares(replicates)
            for row in starts
        )
        parts = in_order(self.run, tasks, self.sampler.threads, self.stopped)
        for _ in self._shares(replicates):
            yield self.sampler.over_rows([next(parts) for _ in starts])

    def _shares(self, replicates: int) -> Iterator[tuple[int, int]]:
        """The first replicate of each task and how many.

        Of one row fewer toward the end, so that threads end together; other rows' products are BLAS's, whose round-off
        depends on how many there are.
        """
        first, threads = 0, self.sampler.threads
        while first < replicates:
            left = replicates - first
            fair = (
                left
                if threads == 1 or self.sampler.n_rows > 1
                else -(-left // (2 * threads * self.each)) * self.each
            )
            count = min(self.count, fair, left)
            yield first, count
            first += count

    def run(self, task: Task) -> Chunk:
        """One task's part of its replicates."""
        _, count, row, rows = task
        values = ess = None
        known: dict[str, dict[str, np.ndarray]] = {}
        formed: Iterator[Weighted | None] = iter(())
        others: list[Weighted | None] = []
        if self.one_pass:
            values, ess, first, second, begun = self._moments(task)
            if begun is None:
                formed = self.terms.sums(first, self._cropped(second))
            else:
                known, formed = begun, iter([None] * len(self._formed))
        if self.blockwise.callers:
            own_values, own_ess, weighed = self.blockwise.run(*task)
            values, ess = (own_values, own_ess) if values is None else (values, ess)
            for caller, (first, second) in zip(self.blockwise.callers, weighed, strict=True):
                if self._called_row is None:
                    others += self._called.sums(first, self._cropped(second))
                    continue
                begun = self._called_row.begin(count)
                take_in(first, second, self._called_row.maps, begun)
                known[caller.estimator.name] = self._called_row.gradients(begun)[_ANY]
                others.append(None)
        rest = iter(others)
        sums = [next(formed) if one else next(rest) for one in self.linear]
        assert values is not None
        assert ess is not None
        return self.sampler.chunk(values, ess, sums, slice(row, row + rows), known)

    def _moments(self, task: Task) -> tuple[Any, ...]:
        """Values and sample sizes, and the sums of powers `[R, n, P, 1 + D]` and `[R, 1 or n, P, D4, D4]`.

        Of one row these are None, and the gradients are there.
        """
        block, count, row, rows = task
        dim, each = self.sampler.dim, self.sizes[0] * self.sizes[1]
        held = count if self._one_row is None else min(count, tile_of(dim) // each + 2)
        values, ess = np.zeros((2, count, rows))
        room, first, second = self._room(held, rows)
        at, most = aligned(7, precision=np.int64), MOST_NUMBERS // dim
        maps = begun = None
        if self._one_row is not None:
            maps, begun = self._one_row.maps, self._one_row.begin(count)
        shared = self.key, block, self.each, (row, rows), self.sizes, self._constants, *self._arrays
        cell = *shared, (room.scratch, room.running, room.state)
        while not moments(cell, at, most, values, ess, first, second, room.pool, maps, begun):
            self.stopped.refuse()
        if self._one_row is None or begun is None:
            return values, ess, first, second, None
        return values, ess, None, None, self._one_row.gradients(begun)

    def _room(self, held: int, rows: int) -> tuple[Room, np.ndarray, np.ndarray | None]:
        """What the kernel writes to on its way, and the sums of some replicates: the thread's own where it can be."""
        own, number, with_second = self._own_room, len(self.terms.powers), any(self.terms.second)
        if not hasattr(own, "moments"):
            (exponents, _, powers, *_), pooled = self._arrays
            own.moments = Room(
                self.sampler.dim,
                len(exponents),
                powers,
                self.sampler.precision,
                second=with_second,
                pooled=bool(pooled.any()),
            )
        four, apart = fours(self.sampler.dim), rows if self.own.own else 1
        first = np.empty((held, rows, number, 1 + self.sampler.dim))
        make = np.empty if all(self.terms.second) else np.zeros  # those that are not wanted are read, times 0
        second = make((held, apart, number, four, four)) if with_second else None
        return own.moments, first, second

    def _cropped(self, second: np.ndarray | None) -> np.ndarray | None:
        """Σ c ηηᵀ `[R, P, D, D]`, or `[R, n, P, D, D]` of each row, of what the kernels give."""
        if second is None:
            return None
        dim = self.sampler.dim
        return second[..., :dim, :dim] if self.own.own else second[:, 0, :, :dim, :dim]
