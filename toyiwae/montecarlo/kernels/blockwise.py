"""Estimators that are called on blocks of log-weights, between the two kernels of `held`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toyiwae.forms import Coefficients
from toyiwae.montecarlo.callers import Caller
from toyiwae.montecarlo.kernels.held import begin, go_on, hold, times, weigh
from toyiwae.montecarlo.kernels.lanes.vectors import WIDTH
from toyiwae.montecarlo.kernels.room import aligned, fours
from toyiwae.montecarlo.kernels.streams import padded
from toyiwae.montecarlo.kernels.sums import STEP
from toyiwae.montecarlo.kernels.tasks import Stopped
from toyiwae.montecarlo.streamed import Streamed, Where

HELD_NUMBERS = 2**22
"""Numbers of noise that are held at once; where a replicate's row has more, they are drawn twice."""

_BLOCK = 2**14  # particles whose log-weights an estimator is called on at once, where a replicate has fewer
_AGAIN = 2**20  # numbers of noise at once where they are drawn twice

Found = tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray | None]]]
"""log Ẑ and effective sample size, means over groups `[R, n]`, and of every estimator's P coefficients that are needed
Σ c and Σ c η `[R, n, P, 1 + D]` and Σ c ηηᵀ, of all rows or of each `[R, 1 or n, P, D4, D4]`."""


class Blockwise:
    """The estimators of a cell without sums in one pass.

    Args:
        sizes: M and K.
        key: of the cell's streams.
        each: replicates in a block.
        constants: base `[N]`, slope `[N, D]` and curvature `[1 or N, D]` of the log-weights.
        precision: of the noise.
        callers: the estimators.
        needed: "model", "path", "score" -> whether Σ c ηηᵀ is needed too, for those that are needed.
        stopped: whether nobody waits for the results any more.
        own: whether Σ c ηηᵀ is needed of each row.
    """

    def __init__(
        self,
        sizes: tuple[int, int],
        key: np.ndarray,
        each: int,
        constants: tuple[np.ndarray, np.ndarray, np.ndarray],
        precision: np.dtype,
        callers: Sequence[Caller],
        needed: Mapping[str, bool],
        stopped: Stopped,
        *,
        own: bool,
    ):
        """Keeps what tasks share."""
        self._sizes, self._key, self._each, self._constants = sizes, key, each, constants
        self._precision, self.callers, self._needed, self._own = precision, tuple(callers), needed, own
        self._own_room = threading.local()
        self._dim, self._stopped = constants[1].shape[1], stopped

    def run(self, block: int, count: int, row: int, rows: int) -> Found:
        """Some rows of some replicates, from a block on."""
        groups, particles = self._sizes
        found = self._nothing(count, rows)
        width, step = groups * particles, 1
        if width * self._dim <= HELD_NUMBERS:
            step = max(1, _BLOCK // (self._each * width))
        for start in range(0, count, self._each):
            here = block + start // self._each, min(self._each, count - start)
            for first in range(0, rows, step):
                if width * self._dim <= HELD_NUMBERS:
                    self._once(*here, row + first, min(step, rows - first), (start, first), found)
                else:
                    self._twice(here[0], row + first, (start, first), found)
        return found

    def _nothing(self, count: int, rows: int) -> Found:
        """Sums of nothing."""
        values, ess = np.empty((2, count, rows))
        number, four = len(self._needed), fours(self._dim)
        products = (count, rows if self._own else 1, number, four, four)
        return (
            values,
            ess,
            [
                (
                    np.zeros((count, rows, number, 1 + self._dim)),
                    np.zeros(products) if any(self._needed.values()) else None,
                )
                for _ in self.callers
            ],
        )

    def _once(
        self, block: int, count: int, row: int, rows: int, start: tuple[int, int], found: Found
    ) -> None:
        """Noise held: each estimator is called once on all log-weights."""
        groups, particles = self._sizes
        width = count * groups * particles
        noise = self._noise(rows, padded(width))
        log_w = np.empty((rows, padded(width)))  # which a user's function may keep
        values, ess, sums = found
        place = (row, rows), self._sizes, self._constants
        hold(self._key, block, *place, noise, log_w, count, start, values, ess)
        log_w = log_w[:, :width].reshape(rows, count, groups, particles)
        for caller, own in zip(self.callers, sums, strict=True):
            self._add(noise, 0, caller(log_w), start, own)

    def _noise(self, rows: int, width: int) -> np.ndarray:
        """Room for noise `[rows, D, width]`: the thread's own, since new memory costs as much as the noise."""
        size = rows * self._dim * width
        if getattr(self._own_room, "size", 0) < size:
            self._own_room.noise, self._own_room.size = np.zeros(size + WIDTH, self._precision), size
        return self._own_room.noise[:size].reshape(rows, self._dim, width)

    def _room(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `weigh` writes to on its way, likewise."""
        if not hasattr(self._own_room, "sums"):
            four = fours(self._dim) if any(self._needed.values()) else 0
            self._own_room.sums = aligned(2, four, STEP + 8), aligned(four, four), aligned(1, 1 + self._dim)
        return self._own_room.sums

    def _twice(self, block: int, row: int, start: tuple[int, int], found: Found) -> None:
        """One row of one replicate, whose noise is drawn twice."""
        groups, particles = self._sizes
        values, ess, sums = found
        streamed = Streamed([caller.asked for caller in self.callers], groups, particles)
        for where, _, _, log_w in self._pieces(block, row):
            streamed.observe(where, log_w)
        for where, noise, offset, log_w in self._pieces(block, row):
            for part, own in zip(streamed.coefficients(where, log_w), sums, strict=True):
                self._add(noise, offset, part, start, own)
        values[start], ess[start] = streamed.log_evidence.mean(), streamed.ess.mean()

    def _pieces(self, block: int, row: int) -> Iterator[tuple[Where, np.ndarray, int, np.ndarray]]:
        """Particles in order, some of one group or all of some: where, their noise, from where in it, log-weights."""
        groups, particles = self._sizes
        base, slope, curvature = self._constants
        state, at = begin(self._key, block, row), 0
        noise = np.zeros((1, self._dim, padded(max(1, _AGAIN // self._dim)) + WIDTH), self._precision)
        log_w, total = np.empty(noise.shape[2] - WIDTH), groups * particles
        bent = curvature[row if len(curvature) > 1 else 0]
        while at < total:
            self._stopped.refuse()
            go_on(state, base[row], slope[row], bent, noise[0], log_w)
            end, offset = min(at + len(log_w), total), 0
            while at < end:
                group, first = divmod(at, particles)
                whole = (end - at) // particles if first == 0 else 0
                here = whole * particles if whole else min(end - at, particles - first)
                where = (
                    slice(group, group + max(whole, 1)),
                    slice(first, first + (particles if whole else here)),
                )
                shape = (1, 1, max(whole, 1), -1)
                yield where, noise, offset, log_w[offset : offset + here].reshape(shape)
                offset, at = offset + here, at + here

    def _add(
        self,
        noise: np.ndarray,
        offset: int,
        coefficients: Coefficients,
        start: tuple[int, int],
        sums: tuple[np.ndarray, np.ndarray | None],
    ) -> None:
        """Adds one estimator's sums; its coefficients are often one another's multiple by −1, 0 or 1."""
        alike: list[tuple[object, np.ndarray, np.ndarray]] = []
        for p, (name, pairs) in enumerate(self._needed.items()):
            given = getattr(coefficients, name)
            part = np.ascontiguousarray(given, dtype=np.float64)
            part = part.reshape(*part.shape[:2], -1)
            for other, values, factors in alike:
                factor = 1.0 if given is other else times(part, values)
                if factor:
                    factors[:, p] = factor, factor * pairs
                    break
            else:
                factors = np.zeros((2, len(self._needed)))
                factors[:, p] = 1.0, pairs
                alike.append((given, part, factors))
        for _, part, factors in alike:
            if part.flat[0] or part.any():
                weigh(noise, offset, part, factors, self._room(), start, *sums)
