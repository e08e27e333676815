"""Estimators that are called on blocks of log-weights, between the two kernels of `held`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toyiwae.forms import PARTS, Coefficients
from toyiwae.montecarlo.callers import Caller
from toyiwae.montecarlo.kernels.held import begin, go_on, hold, weigh
from toyiwae.montecarlo.kernels.moments import LINE, aligned
from toyiwae.montecarlo.kernels.streams import padded
from toyiwae.montecarlo.kernels.tasks import Stopped
from toyiwae.montecarlo.kernels.tiles import STEP
from toyiwae.montecarlo.streamed import Streamed, Where
from toyiwae.montecarlo.whitened import Sums, Weighted

HELD_NUMBERS = 2**22
"""Numbers of noise that are held at once; where a replicate's row has more, they are drawn twice."""

_BLOCK = 2**14  # particles whose log-weights an estimator is called on at once, where a replicate has fewer
_AGAIN = 2**20  # numbers of noise at once where they are drawn twice

Found = tuple[np.ndarray, np.ndarray, list[Weighted]]
"""log Ẑ and effective sample size, means over groups `[R, n]`, and the sums of every estimator."""


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
        blocks = [
            (block + first // self._each, min(self._each, count - first))
            for first in range(0, count, self._each)
        ]
        if groups * particles * self._dim > HELD_NUMBERS:
            found = [
                _over_rows([self._twice(b, row + n) for n in range(rows)], own=self._own) for b, _ in blocks
            ]
        else:
            step = max(1, _BLOCK // (self._each * groups * particles))
            firsts = range(row, row + rows, step)
            found = [
                _over_rows(
                    [self._once(b, n, first, min(step, row + rows - first)) for first in firsts],
                    own=self._own,
                )
                for b, n in blocks
            ]
        return _over_replicates(found)

    def _once(self, block: int, count: int, row: int, rows: int) -> Found:
        """Noise held: each estimator is called once on all log-weights."""
        groups, particles = self._sizes
        width = count * groups * particles
        noise = self._noise(rows, padded(width))
        log_w = np.empty((rows, padded(width)))  # which a user's function may keep
        values, ess = np.empty((2, count, rows))
        hold(self._key, block, (row, rows), self._sizes, self._constants, noise, log_w, values, ess)
        log_w = log_w[:, :width].reshape(rows, count, groups, particles)
        return values, ess, [self._sums(noise, 0, caller(log_w)) for caller in self.callers]

    def _noise(self, rows: int, width: int) -> np.ndarray:
        """Room for noise `[rows, D, width]`: the thread's own, since new memory costs as much as the noise."""
        size = rows * self._dim * width
        if getattr(self._own_room, "size", 0) < size:
            self._own_room.noise, self._own_room.size = np.empty(size, self._precision), size
        return self._own_room.noise[:size].reshape(rows, self._dim, width)

    def _room(self, second: bool) -> tuple[np.ndarray, np.ndarray]:
        """What `weigh` writes to on its way, likewise."""
        if not hasattr(self._own_room, "sums"):
            four = (self._dim + 3) // 4 * 4 if second else 0
            self._own_room.sums = aligned(2, four, STEP + LINE), aligned(four, four)
        return self._own_room.sums

    def _twice(self, block: int, row: int) -> Found:
        """One row of one replicate, whose noise is drawn twice."""
        groups, particles = self._sizes
        streamed = Streamed([caller.asked for caller in self.callers], groups, particles)
        for where, _, _, log_w in self._pieces(block, row):
            streamed.observe(where, log_w)
        sums: list[Weighted] = []
        for where, noise, offset, log_w in self._pieces(block, row):
            found = [self._sums(noise, offset, part) for part in streamed.coefficients(where, log_w)]
            sums = [_plus(*pair) for pair in zip(sums, found, strict=True)] if sums else found
        return streamed.log_evidence.mean(-1), streamed.ess.mean(-1), sums

    def _pieces(self, block: int, row: int) -> Iterator[tuple[Where, np.ndarray, int, np.ndarray]]:
        """Particles in order, some of one group or all of some: where, their noise, from where in it, log-weights."""
        groups, particles = self._sizes
        base, slope, curvature = self._constants
        state, at = begin(self._key, block, row), 0
        noise = np.empty((1, self._dim, padded(max(1, _AGAIN // self._dim))), self._precision)
        log_w, total = np.empty(noise.shape[2]), groups * particles
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

    def _sums(self, noise: np.ndarray, offset: int, coefficients: Coefficients) -> Weighted:
        """One estimator's sums; its coefficients are often one another's multiple by −1, 0 or 1."""
        known: list[tuple[np.ndarray, Sums]] = []
        found: dict[str, Sums | None] = dict.fromkeys(PARTS)
        for name in self._needed:
            part = getattr(coefficients, name)
            sums = next((sums * sign for other, sums in known if (sign := _sign(part, other))), None)
            if sums is None:
                sums = self._weigh(noise, offset, part)
                known.append((part, sums))
            found[name] = sums
        return Weighted(**found)

    def _weigh(self, noise: np.ndarray, offset: int, coefficient: np.ndarray) -> Sums:
        rows, dim = noise.shape[:2]
        second = any(self._needed.values())
        c = np.ascontiguousarray(coefficient, dtype=np.float64).reshape(rows, coefficient.shape[1], -1)
        first = np.zeros((c.shape[1], rows, 1 + dim))
        pairs = np.zeros((c.shape[1], rows if self._own else 1, dim, dim)) if second else None
        if c.any():
            weigh(noise, offset, c, self._room(second), first, pairs)
        return Sums(first[..., 0], first[..., 1:], pairs if pairs is None or self._own else pairs[:, 0])


def _sign(part: np.ndarray, other: np.ndarray) -> float:
    """1 or −1 where a coefficient is that multiple of another, else 0."""
    if part is other:
        return 1.0
    one, two = part.flat[0], other.flat[0]
    if one == two and np.array_equal(part, other):
        return 1.0
    return -1.0 if one == -two and np.array_equal(part, -other) else 0.0


def _plus(one: Weighted, other: Weighted) -> Weighted:
    """The sums over the particles of both."""
    return Weighted(*(None if a is None or b is None else a + b for a, b in zip(one, other, strict=True)))


def _over_rows(parts: Sequence[Found], *, own: bool) -> Found:
    """Rows one after the other."""
    return _joined(parts, 1, lambda pairs: np.concatenate(pairs, axis=1) if own else sum(pairs[1:], pairs[0]))


def _over_replicates(parts: Sequence[Found]) -> Found:
    """Replicates one after the other."""
    return _joined(parts, 0, np.concatenate)


def _joined(parts: Sequence[Found], axis: int, of_products: Callable[[list[Any]], Any]) -> Found:
    """Values, sample sizes and sums along an axis; those of products in a way of their own."""
    if len(parts) == 1:
        return parts[0]

    def sums(some: Sequence[Sums | None]) -> Sums | None:
        there = [part for part in some if part is not None]
        if not there:
            return None
        zeroth, first = (
            np.concatenate([getattr(part, key) for part in there], axis=axis) for key in ("zeroth", "first")
        )
        products = [part.second for part in there if part.second is not None]
        return Sums(zeroth, first, of_products(products) if products else None)

    values, ess = (np.concatenate(some, axis=axis) for some in list(zip(*parts, strict=True))[:2])
    estimators = zip(*(part[2] for part in parts), strict=True)
    return values, ess, [Weighted(*map(sums, zip(*own, strict=True))) for own in estimators]
