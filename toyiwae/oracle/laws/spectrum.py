"""log M(s) of Gaussian weights from the spectrum β and the shifts h, with bounds on its rounding and on theirs.

    log M(s) = ½ Σ_i [s log(1+β_i) - log(1+sβ_i)] + Σ_i h_i² s(s-1) / (2(1+sβ_i)(1+β_i))

What depends on β alone is computed once for all observations that share it. `toyiwae.oracle.laws.own_spectra` does the
same for observations with a spectrum each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, loggamma

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS


def log1pmx(y: np.ndarray) -> np.ndarray:
    """log(1+y) - y without cancellation, for real or complex y with Re(1+y) > 0."""
    small = np.abs(y) < 0.2
    plain = np.log1p(y) - y
    if not small.any():
        return plain
    z = y[small]
    series = np.zeros_like(z)
    for n in range(26, 1, -1):
        series = z * series + (-1.0 if n % 2 == 0 else 1.0) / n
    plain[small] = z * z * series
    return plain


def log1p_difference(s: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S log(1+β) - log(1+sβ), real or complex s, and the sum of the sizes that it was rounded at: [S, D].

    Where both arguments are small their linear terms, which cancel, are left out; where one is large they would be
    larger than the logarithms.
    """
    sb = np.multiply.outer(s, beta)
    left, right = np.multiply.outer(s, np.log1p(beta)), np.log1p(sb)
    near = (np.abs(sb) < 0.2) & (np.abs(beta) < 0.2)
    if near.any():
        left[near], right[near] = np.multiply.outer(s, log1pmx(beta))[near], log1pmx(sb[near])
    return left - right, np.abs(left) + np.abs(right)


def log_abs_expm1(x: np.ndarray) -> np.ndarray:
    """Log |e^x - 1|, for real or complex x whose exponential may overflow."""
    with np.errstate(divide="ignore"):
        large = np.real(x) > 30.0
        return np.where(large, np.real(x), np.log(np.abs(np.expm1(np.where(large, 30.0, x)))))


_ROUNDED = 3.0  # roundings of a coefficient of h², and of its product with it
_POLES = 4  # how many Taylor terms may be taken out where the moments exist
_GROUPS = 24  # of the nodes of a contour; sizes vary slowly along one: each group has its largest


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of the trapezoidal rule on a contour.

    Attributes:
        y: their ordinates [S].
        log_gamma: log Γ(c + iy) [S].
        s: the argument a - p(c + iy) of M [S].
        starts: where groups of nodes begin [G].
        parts: what log M needs of β.
    """

    y: np.ndarray
    log_gamma: NDArray[np.complex128]
    s: NDArray[np.complex128]
    starts: np.ndarray
    parts: Any = field(repr=False)


class Spectrum:
    """The spectrum β [D] that all observations share.

    Args:
        beta: eigenvalues of LᵀP⁻¹L - I.
        beta_error: bounds on the errors in them.
    """

    def __init__(self, beta: np.ndarray, beta_error: float | np.ndarray = 0.0):
        self.beta, self.beta_error = beta, beta_error
        self._tables: dict = {}
        self._nodes: dict = {}

    def limit(self, sign: int) -> float:
        """Largest |s| with 1 + sβ > 0, for s of the opposite sign of the β whose sign is `sign`."""
        worst = float(np.max(sign * self.beta, initial=0.0))
        return np.inf if worst <= 0.0 else 1.0 / worst

    def log_moment(self, s: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Log M(s): [N, S]."""
        constant, weight, _ = self._parts(s)
        return constant + h**2 @ weight.T

    def log_moment_error(self, s: np.ndarray, h: np.ndarray, h_error: float | np.ndarray) -> np.ndarray:
        """Bound on the error of `log_moment`, that of β and h included: [N, S]."""
        _, weight, terms = self._parts(s)
        size = 8.0 + terms + _ROUNDED * (h**2 @ np.abs(weight).T)
        return EPS * size + _apply(self._perturbation(s, weight), h, h_error)

    def candidates(
        self, power: float, p: float, deviation: bool, spread: float, finest: float | None, h: Any
    ):
        """Candidate contours of a transform: abscissae, orders, log Γ [J] and log M [N, J] on the real axis."""
        key = (power, p, deviation, spread, finest)
        if key not in self._tables:
            abscissa, order = abscissae(self, power, p, deviation, spread, finest)
            self._tables[key] = (abscissa, order, gammaln(abscissa), *self._parts(power - p * abscissa))
        abscissa, order, log_gamma, constant, weight, _ = self._tables[key]
        return abscissa, order, log_gamma, constant + h**2 @ weight.T

    def nodes(self, power: float, p: float, abscissa: float, step: float, truncation: float) -> Nodes:
        """The nodes of a contour up to a truncation."""
        y = contour.ordinates(step, truncation)
        return self._known((power, p, abscissa, step, len(y)), y, power, p, abscissa)

    def at_ordinates(self, power: float, p: float, abscissa: float) -> Nodes:
        """The ordinates at which an integrand's decay is looked at."""
        return self._known((power, p, abscissa), contour.ORDINATES, power, p, abscissa)

    def _known(self, key: tuple, y: np.ndarray, power: float, p: float, abscissa: float) -> Nodes:
        found = self._nodes.get(key)
        if found is None:
            found = on_contour(y, power, p, abscissa)
            constant, weight, terms = self._parts(found.s)
            starts, size = found.starts, np.abs(weight)
            rounding = EPS * (4.0 + np.abs(found.log_gamma) + terms), _ROUNDED * EPS * size
            perturbation = self._perturbation(found.s, weight)
            grouped = tuple(
                tuple(np.maximum.reduceat(part, starts, axis=0) for part in parts)
                for parts in ((*rounding, np.zeros_like(size)), perturbation)
            )
            halves = np.real(constant), np.imag(constant), np.real(weight).T, np.imag(weight).T
            split = [np.ascontiguousarray(a) for a in halves]
            found = Nodes(found.y, found.log_gamma, found.s, starts, (*split, grouped))
            if len(y) <= 4096:
                self._nodes[key] = found
        return found

    @staticmethod
    def log_moment_on(nodes: Nodes, h: np.ndarray, *, near_zero: bool) -> tuple[np.ndarray, np.ndarray]:
        """Real and imaginary part of log M at the nodes: [N, S]."""
        del near_zero  # always accurate near 0
        real, imag, real_weight, imag_weight, _ = nodes.parts
        squares = h**2
        return real + squares @ real_weight, imag + squares @ imag_weight

    @staticmethod
    def errors_on(
        nodes: Nodes, h: np.ndarray, h_error: float | np.ndarray, *, near_zero: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Largest relative error of a group of nodes [N, G]: of M(s) - 1 by rounding, of M(s) by that of β and h."""
        del near_zero
        rounding, perturbation = nodes.parts[-1]
        return _apply(rounding, h, 0.0), _apply(perturbation, h, h_error)

    def _parts(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The constant part [S], the coefficients of h² [S, D] of log M(s), and what the first is rounded at [S]."""
        beta = self.beta
        found, size = log1p_difference(s, beta)
        weight = (s * (s - 1.0))[:, None] / (2.0 * (1.0 + np.multiply.outer(s, beta)) * (1.0 + beta))
        return 0.5 * found.sum(axis=1), weight, 0.5 * size.sum(axis=1)

    def _perturbation(self, s: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Change of log M(s) under the errors of β and h: its constant part, and coefficients of h² and |h| δh."""
        beta, error = self.beta, self.beta_error
        variance = 1.0 / np.abs(1.0 + np.multiply.outer(s, beta)) / (1.0 + beta)
        size = np.abs(weight)
        from_beta = 0.5 * np.abs(s * (s - 1.0)) * (variance @ (np.abs(beta) * error))
        slope = np.abs((1.0 + s)[:, None] + 2.0 * np.multiply.outer(s, beta))
        return from_beta, size * slope * variance * error, 2.0 * size


def on_contour(y: np.ndarray, power: float, p: float, abscissa: float) -> Nodes:
    """The nodes with these ordinates, without what depends on β."""
    s = abscissa + 1j * y
    return Nodes(y, loggamma(s), power - p * s, np.arange(0, len(y), max(1, len(y) // _GROUPS)), None)


def abscissae(
    spectrum: Any, power: float, p: float, deviation: bool, spread: float, finest: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Abscissae of candidate contours inside the strip of the moments, and how many Taylor terms each leaves."""
    low, high = (power - spectrum.limit(-1)) / p, (power + spectrum.limit(+1)) / p
    floor = power - 2.0 if deviation else 0.0
    abscissa, order = contour.candidates(low, high, floor=floor, poles=_POLES, spread=spread)
    if finest is None:
        return abscissa, order
    return contour.refine(abscissa, order, low, high, floor=floor, centre=power / p, finest=finest)


def _apply(parts: tuple[np.ndarray, ...], h: np.ndarray, h_error: float | np.ndarray) -> np.ndarray:
    constant, by_square, by_error = parts
    found = constant + h**2 @ by_square.T
    if np.any(h_error):
        found = found + (np.abs(h) * h_error) @ by_error.T
    return found
