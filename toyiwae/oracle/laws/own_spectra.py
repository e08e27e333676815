"""The same as `toyiwae.oracle.laws.spectrum`, for observations with a spectrum each.

Nothing is shared, so that log M costs D factors for every observation and node. The product of the roots of 1 + sβ is
formed in place of the sum of their logarithms: every factor has a positive real part, so that products of two have the
right principal root. Where all sβ are small, log M comes from the sums of the powers of β, which keep its relative
accuracy near 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import gammaln

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS
from toyiwae.oracle.laws.spectrum import Nodes, abscissae, log1pmx, on_contour

_SMALL = 0.2  # |sβ| up to which powers are summed
_POWERS = 26  # how many: 0.2^26 is below the machine precision
_BLOCK = 2**14  # nodes of all observations that are computed at once
_RESCALE = 16  # factors after which the product is brought back to size 1


class OwnSpectra:
    """Spectra β [N, D] of N observations; see `Spectrum`, whose methods these are."""

    def __init__(self, beta: np.ndarray, beta_error: float | np.ndarray = 0.0):
        self.beta, self.beta_error = beta, np.broadcast_to(beta_error, beta.shape)
        self._largest = np.abs(beta).max(axis=1)[:, None]
        logs = np.log1p(beta)
        self._logs, self._log_sizes = (a.sum(axis=1)[:, None] for a in (logs, np.abs(logs)))

    def limit(self, sign: int) -> float:
        """Largest |s| with 1 + sβ > 0 for all observations, for s of the opposite sign of the β of sign `sign`."""
        worst = float(np.max(sign * self.beta, initial=0.0))
        return np.inf if worst <= 0.0 else 1.0 / worst

    def log_moment(self, s: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Log M(s): [N, S]."""
        return self._in_blocks(s, h, self._log_moment)

    def log_moment_error(self, s: np.ndarray, h: np.ndarray, h_error: float | np.ndarray) -> np.ndarray:
        """Bound on the error of `log_moment`, that of β and h included: [N, S]."""
        return self._in_blocks(
            s, h, lambda part, own: self._errors(part, own, np.broadcast_to(h_error, h.shape))
        )

    @staticmethod
    def _in_blocks(s: np.ndarray, h: np.ndarray, function: Any) -> np.ndarray:
        """A function of a few s at a time, so that memory stays small."""
        size = max(1, 2**20 // max(1, h.size))
        return np.concatenate([function(s[i : i + size], h) for i in range(0, len(s), size)], axis=1)

    def _log_moment(self, s: np.ndarray, h: np.ndarray) -> np.ndarray:
        beta = self.beta[:, None, :]
        sb = s[:, None] * beta
        constant = 0.5 * (s[:, None] * log1pmx(beta) - log1pmx(sb)).sum(axis=2)
        weight = (s * (s - 1.0))[:, None] / (2.0 * (1.0 + sb) * (1.0 + beta))
        return constant + (weight * (h**2)[:, None, :]).sum(axis=2)

    def _errors(self, s: np.ndarray, h: np.ndarray, h_error: np.ndarray) -> np.ndarray:
        beta, size = self.beta[:, None, :], np.abs(s)[:, None]
        inverse = 1.0 / np.abs(1.0 + s[:, None] * beta)
        constant = 0.5 * (size * np.abs(log1pmx(beta)) + np.abs(log1pmx(s[:, None] * beta))).sum(axis=2)
        return EPS * (8.0 + constant) + self._perturbation(
            size, np.abs(s - 1.0)[:, None], inverse, h, h_error, EPS
        )

    def _perturbation(
        self,
        size: Any,
        less: Any,
        inverse: np.ndarray,
        h: np.ndarray,
        h_error: np.ndarray,
        unit: float,
    ) -> np.ndarray:
        """Change of log M under the errors of β and h and `unit` roundings of h², from |s|, |s-1|, 1/|1+sβ|.

        The error of β bounds the norm of one of a matrix, whose entries off the diagonal
        mix those of h: with `R_s = (1+sβ)⁻¹`
        it moves ½ hᵀ(s²R_s - sR_1)h by at most ½ δ |s(s-1)| |R_s R_1 h| (|s R_s h| + |R_1 h|).
        """
        beta, error = self.beta, self.beta_error
        inside = 1.0 / (1.0 + beta)
        weight = inverse * (0.5 * inside)[:, None, :]
        squares = weight * (unit * h**2 + (2.0 * np.abs(h) + h_error) * h_error)[:, None, :]
        from_beta = weight * ((np.abs(beta) + error) * error)[:, None, :]
        beside, alone = np.abs(h)[:, None, :] * inverse, np.abs(h * inside)[:, None, :]
        both, beside, alone = (np.linalg.norm(a, axis=2) for a in (alone * inverse, beside, alone))
        mixed = 0.5 * error.max(axis=1)[:, None] * both * (size[:, 0] * beside + alone)
        return (size * less)[:, 0] * ((squares + from_beta).sum(axis=2) + mixed)

    def candidates(
        self, power: float, p: float, deviation: bool, spread: float, finest: float | None, h: Any
    ):
        """Candidate contours of a transform: abscissae, orders, log Γ [J] and log M [N, J] on the real axis."""
        abscissa, order = abscissae(self, power, p, deviation, spread, finest)
        return abscissa, order, gammaln(abscissa), self.log_moment(power - p * abscissa, h)

    @staticmethod
    def nodes(power: float, p: float, abscissa: float, step: float, truncation: float) -> Nodes:
        """The nodes of a contour up to a truncation."""
        return on_contour(contour.ordinates(step, truncation), power, p, abscissa)

    @staticmethod
    def at_ordinates(power: float, p: float, abscissa: float) -> Nodes:
        """The ordinates at which an integrand's decay is looked at."""
        return on_contour(contour.ORDINATES, power, p, abscissa)

    def log_moment_on(self, nodes: Nodes, h: np.ndarray, *, near_zero: bool) -> tuple[np.ndarray, np.ndarray]:
        """Real and imaginary part of log M at the nodes, the latter up to multiples of 2π: [N, S]."""
        x, v = float(nodes.s[0].real), np.ascontiguousarray(nodes.s.imag)
        weight, size = h**2 / (2.0 * (1.0 + self.beta)), max(1, _BLOCK // len(v))
        blocks = [slice(n, n + size) for n in range(0, len(h), size)]  # that stay in a processor's cache
        parts = [_products(x, v, self.beta[rows], weight[rows]) for rows in blocks]
        log_size, angle, real, imag = (np.concatenate(part) for part in zip(*parts, strict=True))
        first, second = x * x - x - v * v, (2.0 * x - 1.0) * v  # s(s-1)
        of_h = first * real + second * imag, second * real - first * imag
        constant = 0.5 * x * self._logs - log_size, 0.5 * v * self._logs - angle
        if near_zero:
            within = self._within(np.abs(nodes.s))
            if within.any():
                last = int(np.flatnonzero(within.any(axis=0))[-1]) + 1
                power = self._power_sums(nodes.s[:last])
                for part, found in zip(constant, (np.real(power), np.imag(power)), strict=True):
                    part[:, :last] = np.where(within[:, :last], found, part[:, :last])
        return constant[0] + of_h[0], constant[1] + of_h[1]

    def _within(self, size: np.ndarray) -> np.ndarray:
        """Where all sβ of an observation are small: [N, S]."""
        return self._largest * size <= _SMALL

    def _power_sums(self, s: np.ndarray) -> np.ndarray:
        """½ Σ [s (log(1+β) - β) - (log(1+sβ) - sβ)] from the power series of the second part: [N, S]."""
        powers = [(self.beta**n).sum(axis=1)[:, None] / n for n in range(2, _POWERS + 1)]
        total = np.zeros((len(self.beta), len(s)), dtype=complex)
        for n in range(_POWERS, 1, -1):
            total = s * total + (-1.0 if n % 2 == 0 else 1.0) * powers[n - 2]
        return 0.5 * (s * log1pmx(self.beta).sum(axis=1)[:, None] - s * s * total)

    def errors_on(
        self, nodes: Nodes, h: np.ndarray, h_error: float | np.ndarray, *, near_zero: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Largest relative error of a group of nodes [N, G]: of M(s) - 1 by rounding, of M(s) by all else.

        Along a group |s| rises and 1/|1+sβ| falls: the former is taken at its end, the latter at its beginning.
        """
        h_error, dim = np.broadcast_to(h_error, h.shape), h.shape[1]
        first = nodes.starts
        last = np.append(first[1:] - 1, len(nodes.y) - 1)
        size, less = (np.abs(nodes.s[last] + shift) for shift in (0.0, -1.0))
        log_gamma = np.maximum.reduceat(np.abs(nodes.log_gamma), first)
        inverse = 1.0 / np.abs(1.0 + nodes.s[first, None] * self.beta[:, None, :])
        moved = self._perturbation(size[:, None], less[:, None], inverse, h, h_error, 4.0 * EPS)
        logs = 0.5 * np.log1p(size * self._largest) * dim + 0.5 * size * self._log_sizes
        rounding = EPS * (4.0 + log_gamma + np.zeros_like(moved))
        plain = EPS * (2.0 * dim + logs)
        if near_zero:
            within = self._within(size)
            return rounding + np.where(within, EPS * _POWERS, 0.0), moved + np.where(within, 0.0, plain)
        return rounding + plain, moved


def _products(x: float, v: np.ndarray, beta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Log |Π √(1+sβ)| and its angle, and Σ weight/(1+sβ) as `real - i imag`, for s = x + iv: [N, S] each."""
    n, dim = beta.shape
    shape = n, len(v)
    real, imag, log_size = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    product = np.ones(shape), np.zeros(shape)
    root = pair = product
    for d in range(dim):
        a, b = 1.0 + x * beta[:, d, None], beta[:, d, None] * v
        ratio = weight[:, d, None] / (a * a + b * b)
        real += ratio * a
        ratio *= b
        imag += ratio
        if d % 2 == 0:
            pair = np.broadcast_to(a, shape), b
            if d + 1 < dim:
                continue
        else:
            pair = pair[0] * a - pair[1] * b, pair[0] * b + pair[1] * a
        root = _root(*pair)
        product = product[0] * root[0] - product[1] * root[1], product[0] * root[1] + product[1] * root[0]
        if (d + 1) % _RESCALE == 0 or d + 1 == dim:
            size = np.hypot(*product)
            log_size += np.log(size)
            product = product[0] / size, product[1] / size
    return log_size, np.arctan2(product[1], product[0]), real, imag


def _root(real: np.ndarray, imag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal square root of complex numbers off the negative axis; at least one part without cancellation."""
    size = np.hypot(real, imag)
    large = np.sqrt(0.5 * (size + np.abs(real)))
    small = 0.5 * imag / large
    left = real < 0.0
    if not left.any():
        return large, small
    return np.where(left, np.abs(small), large), np.where(left, np.copysign(large, imag), small)
