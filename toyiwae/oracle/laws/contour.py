"""Laplace transforms of a positive random variable from its complex moments, by Mellin–Barnes contours.

For `w > 0` with `M_g(s) = E[w^s g]` known in closed form,

    E[w^a g e^{-t w^p}] = (1/2πi) ∫_{c-i∞}^{c+i∞} Γ(s) t^{-s} M_g(a - p s) ds,   c > 0,

and, with the contour left of the poles s = 0, …, -(n-1) of Γ, the same without its first n Taylor terms in t.
The trapezoidal rule on a contour has no other discretisation error than aliases: with step η it returns
`Σ_j (±1)^j e^{-2πcj/η} Λ(t e^{-2πj/η})`, each bounded by the same integral on a neighbouring contour. So the step
follows from a table of real moments alone, for any law, and the error is known before the sum is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import erfc

from toyiwae.errors import PrecisionError

DIGITS = 39.0  # natural logarithm of the relative size at which aliases and tails are dropped (e^-39 = 1e-17)
_MOST_NODES = 2**18
_BLOCK = 8  # points whose phases are those of the middle one, turned
_TOLERATED = 3.0  # natural logarithm of the accuracy given up for a contour with a longer step
_FRACTIONS = np.array([0.02, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98])
_LAWS = 16  # of which the loss of accuracy on a contour is looked at
_RAY = np.concatenate([[0.04, 0.1, 0.2, 0.35], 2.0 ** np.arange(-1, 9.1, 0.5)])


Parts = tuple[np.ndarray, np.ndarray]


def candidates(
    low: float, high: float, *, floor: float, poles: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Abscissae of candidate contours in the strip (low, high) of the moment, and how many Taylor terms they leave.

    Poles of Γ right of `floor` are cancelled by zeros of the moment; `poles` more may be crossed, each leaving a term.
    `spread` is the standard deviation of p log w: saddles are 1/spread wide, and a contour must come near each.
    """
    intervals = [(max(low, floor), high, 0)]
    intervals += [(max(low, floor - n - 1.0), min(high, floor - n), n + 1) for n in range(poles)]
    parts = [(_between(a, b, spread), n) for a, b, n in intervals if b - a > 1e-9]
    abscissa = np.concatenate([c for c, _ in parts])
    order = np.concatenate([np.full(len(c), n) for c, n in parts])
    keep = (abscissa > 0.5) | (
        np.abs(abscissa - np.round(abscissa)) > 1e-3
    )  # off the poles, removable ones too
    arranged = np.argsort(abscissa[keep], kind="stable")
    return abscissa[keep][arranged], order[keep][arranged]


def refine(
    abscissa: np.ndarray,
    order: np.ndarray,
    low: float,
    high: float,
    *,
    floor: float,
    centre: float,
    finest: float,
) -> tuple[np.ndarray, np.ndarray]:
    """More candidates, geometric toward `centre` from both sides: at large t the saddle is 1/log t away from it."""
    distance = 2.0 ** np.arange(-2.0, np.log2(finest) - 4.0, -0.5)
    extra = np.r_[centre - distance, centre + distance]
    extra = extra[(extra > low) & (extra < high)]
    orders = np.where(extra > max(low, floor), 0, np.ceil(floor - extra).astype(int))
    both, first = np.unique(np.r_[abscissa, extra], return_index=True)
    return both, np.r_[order, orders][first]


def _between(low: float, high: float, spread: float) -> np.ndarray:
    """Candidates inside the open interval (low, high): geometric from its lower end when it is long."""
    if high - low <= 2.5:
        coarse = low + (high - low) * _FRACTIONS
    else:
        # a contour at the far end of a strip much longer than the ray would leave the ray's last without a neighbour
        ray = low + _RAY
        coarse = ray if high - low > 2 * _RAY[-1] else np.r_[ray[ray < high - 1.0], high - _RAY[_RAY < 1.0]]
    if spread <= 2.0:
        return np.unique(coarse)
    margin = 0.02 * min(high - low, 1.0)
    return np.unique(np.r_[coarse, np.arange(low + margin, min(high, low + 8.0) - margin, 1.0 / spread)])


@dataclass(frozen=True)
class Contours:
    """The candidate contours of one transform for N laws that share their strip.

    Attributes:
        abscissa: `[J]`, increasing.
        order: `[J]`, Taylor terms left behind.
        log_size: `[N, J]`, log of the integrand on the real axis at t = 1.
        plain: the largest order whose integrand measures the accuracy that is wanted.
    """

    abscissa: np.ndarray
    order: np.ndarray
    log_size: np.ndarray
    plain: int

    def choose(self, log_t: np.ndarray, breaks: Sequence[int] = ()) -> list[tuple[int, float, int, int]]:
        """Segments (contour, step, start, stop) of the grid: of the accurate enough contours, that of the longest step.

        Formula: contours.

        No segment contains one of the `breaks` but as its start.
        """
        inner = np.r_[
            False, (self.order[2:] == self.order[1:-1]) & (self.order[:-2] == self.order[1:-1]), False
        ]
        loss = np.where(inner, self._loss(log_t, inner & (self.order <= self.plain)), np.inf)  # [T, J]
        segments, start = [], 0
        while start < len(log_t):
            allowed = np.maximum(_TOLERATED, loss[start].min() + 0.5)
            usable = np.flatnonzero(loss[start] <= allowed)
            end = next((b for b in breaks if b > start), len(log_t))
            beyond = loss[start:end, usable] > allowed
            limits = start + np.where(beyond.any(axis=0), beyond.argmax(axis=0), end - start)
            steps = self._steps(usable, (np.full(len(limits), log_t[start]), log_t[limits - 1]))
            # nodes per point of the grid count; a little longer segment is worth a little
            pick = int(np.argmax(np.log(steps) + 0.3 * np.log(limits - start)))
            segments.append((int(usable[pick]), quantise(float(steps[pick])), start, int(limits[pick])))
            start = int(limits[pick])
        return segments

    def _loss(self, log_t: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Log of how much larger than the smallest wanted integrand a contour's is, for some law: [T, J]."""
        laws = self.log_size
        if len(laws) > _LAWS:  # the choice need not see them all: what bounds the error does
            laws = laws[np.linspace(0, len(laws) - 1, _LAWS).astype(int)]
        found = np.full((len(log_t), len(self.abscissa)), -np.inf)
        for size in laws:
            least = (size[wanted] - log_t[:, None] * self.abscissa[wanted]).min(axis=1, keepdims=True)
            np.maximum(found, size - least, out=found)
        return found - log_t[:, None] * self.abscissa

    def _steps(self, chosen: np.ndarray, ends: Sequence[np.ndarray]) -> np.ndarray:
        """The largest steps whose aliases stay below e^-39 of every integrand's size: of some contours `[U]`.

        Args:
            chosen: which of them `[U]`.
            ends: log t at both ends of the segment of each `[U]`.
        """
        found = np.full(len(chosen), np.inf)
        for order in np.unique(self.order[chosen]):  # other Taylor terms make another integrand
            own, same = self.order[chosen] == order, self.order == order
            gap = self.abscissa[same] - self.abscissa[chosen[own], None]  # [U, J]
            length = 2 * np.pi * np.abs(gap)
            left, right = length * (gap < 0), length * (gap > 0)
            rise = DIGITS + self.log_size[:, None, same] - self.log_size[:, chosen[own], None]  # [N, U, J]
            for log_t in ends:
                room = np.maximum(rise - log_t[own, None] * gap, 1.0)
                both = np.minimum((left / room).max(axis=-1), (right / room).max(axis=-1))
                found[own] = np.minimum(found[own], both.min(axis=0))
        return found


@dataclass
class Kernel:
    """t^{-iy} on a grid of t, for all rows and transforms: cached by step at its `fine` points, `distance` apart."""

    log_t: np.ndarray
    fine: int
    distance: float
    _phase: dict = field(default_factory=dict)

    def sum(self, step: float, y: np.ndarray, f: Parts, start: int, stop: int) -> np.ndarray:
        """Re Σ_y f(y) t^{-iy}, for nodes `y` [S] and the parts of f [S, C], on grid[start:stop]: [T', C]."""
        real, imag = f
        if len(y) <= 1024 and stop <= self.fine:
            cos, sin = self._cached(step, y)
            return cos[start:stop, : len(y)] @ real + sin[start:stop, : len(y)] @ imag
        total = np.zeros((stop - start, real.shape[1]))
        for first in range(0, len(y), 4096):
            part = slice(first, first + 4096)
            angle = np.multiply.outer(self.log_t[start:stop], y[part])
            total += np.cos(angle) @ real[part] + np.sin(angle) @ imag[part]
        return total

    def _cached(self, step: float, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = self._phase.get(step)
        if known is None or known[0].shape[1] < len(y):
            known = self._phase[step] = self._phases(y)
        return known

    def _phases(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of y log t [T, S]: of every eighth point, turned by those of the distances to it."""
        places = self.distance * (np.arange(_BLOCK) - _BLOCK // 2)
        ends = self.log_t[self.fine - 1] + self.distance * np.arange(1, _BLOCK)
        centres = np.concatenate([self.log_t[: self.fine], ends])[_BLOCK // 2 :: _BLOCK]
        turns = (np.exp(1j * np.multiply.outer(x, y)) for x in (centres, places))
        phases = (next(turns)[:, None] * next(turns)).reshape(-1, len(y))[: self.fine]
        return np.ascontiguousarray(np.real(phases)), np.ascontiguousarray(np.imag(phases))


@dataclass(frozen=True)
class Window:
    """A window on a contour's ordinates that no function notices whose features in log t are beyond `distance`.

    It is 1 up to the ordinate `kept`, and falls to 0 about 82/distance above it. In log t it blurs with a kernel of
    which e^-42 reaches that far, and within the distance a function that is smooth on its scale has nothing at such
    ordinates.
    """

    distance: float
    kept: float = 0.0

    @property
    def end(self) -> float:
        """The ordinate at which it has ended."""
        return self.kept + 164.0 / self.distance

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Its values at some ordinates."""
        return 0.5 * erfc(((y - self.kept) * self.distance - 82.0) / 13.0)


def ordinates(step: float, truncation: float) -> np.ndarray:
    """Nodes of the midpoint rule on the upper half of a contour.

    Raises:
        PrecisionError: if they would not fit into memory.
    """
    count = max(1.0, np.ceil(truncation / step))
    if count > _MOST_NODES:
        raise PrecisionError(
            f"a Laplace transform of the weight needs {count:.3g} nodes (step {step:.3g} up to {truncation:.3g}): the"
            " law of log w is too wide for double precision"
        )
    return (np.arange(int(count)) + 0.5) * step


ORDINATES = np.concatenate([[0.0], 2.0 ** np.arange(-12, 7.01, 0.25)])
"""Where the decay of an integrand is looked at, to truncate its contour."""


def truncation(log_size: np.ndarray) -> float:
    """Ordinate beyond which integrands stay below e^-39 of their largest: of logarithms [N, len(ORDINATES)]."""
    large = (log_size >= log_size.max(axis=-1, keepdims=True) - DIGITS).any(axis=0)
    return float(ORDINATES[min(np.flatnonzero(large)[-1] + 1, len(ORDINATES) - 1)])


def quantise(step: float) -> float:
    """Round a step down to a power of 2^(1/4), so that nodes are shared between rows and transforms."""
    return float(2.0 ** (np.floor(4 * np.log2(step)) / 4))
