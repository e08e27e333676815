"""Laws of the importance weight: its moments and Laplace transforms, with polynomials in the noise inside.

A Law answers, for `w` in units of the evidence (E[w] = 1), N rows of data and functions `g` of the noise:

* `moment(power, factors)`             -> E[w^power Π g]: [N, F]
* `transform(power, requests, grid)`   -> E[w^power Π g · e^{-t w^p}] on a grid of t
* `deviation(power, grid)`             -> the transform for g = 1 less that of w = 1, without cancellation

All finite-K truth is computed from these and from nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from toyiwae.errors import MissingMomentError
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.grid import Smoothness
from toyiwae.oracle.laws.own_spectra import OwnSpectra
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.laws.spectrum import Spectrum
from toyiwae.oracle.laws.tilted import AbsoluteSums, TiltedNoise

_EDGE = 9.5  # standard deviations beyond which there is less than 1e-20 of the noise


@dataclass(frozen=True)
class GaussianMoments:
    """The weights of a Gaussian proposal against Gaussian posteriors of N rows, by their spectra.

    In rotated whitened noise `log w = const + Σ_i (-β_i ε_i²/2 - h_i ε_i)`, normalised to E[w] = 1, so that
    `log M(s) = ½Σ [s log(1+β) - log(1+sβ)] + Σ h² s(s-1) / (2(1+sβ)(1+β))` wherever 1 + Re(s) β_i > 0.

    Args:
        beta: `[D]`, or `[N, D]` for rows with a spectrum each: eigenvalues of LᵀP⁻¹L - I, each above -1.
        h: `[N, D]`, UᵀLᵀP⁻¹(μ_q - m) of each row.
        beta_error, h_error: absolute bounds on the errors in them, shaped like them or for all entries.
    """

    beta: np.ndarray
    h: np.ndarray
    beta_error: float | np.ndarray = 0.0
    h_error: float | np.ndarray = 0.0
    spectrum: Spectrum | OwnSpectra = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self):
        """Share or build the cache."""
        if self.spectrum is None:
            kind = Spectrum if self.beta.ndim == 1 else OwnSpectra
            object.__setattr__(self, "spectrum", kind(self.beta, self.beta_error))

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> Self:
        """The law of some of the rows."""
        h_error = self.h_error[rows] if isinstance(self.h_error, np.ndarray) else self.h_error
        if self.beta.ndim == 1:
            return type(self)(self.beta, self.h[rows], self.beta_error, h_error, self.spectrum)
        return type(self)(self.beta[rows], self.h[rows], np.asarray(self.beta_error)[rows], h_error)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.h)

    @property
    def max_power(self) -> float:
        """E[w^s] exists for s below this power (infinite when the weight is bounded or log-normal)."""
        return self.spectrum.limit(-1)

    @property
    def min_power(self) -> float:
        """E[w^s] exists for s above this (negative) power."""
        return -self.spectrum.limit(+1)

    def log_moment(self, s: float | np.ndarray) -> np.ndarray:
        """Log E[w^s] for s [S], real or complex, in the strip (min_power, max_power): [N, S]. Formula: moment."""
        return self.spectrum.log_moment(np.atleast_1d(np.asarray(s)), self.h)

    def log_moment_error(self, s: float | np.ndarray) -> np.ndarray:
        """Bound on the error of `log_moment`, that of β and h included to first order: [N, S]."""
        return self.spectrum.log_moment_error(np.atleast_1d(np.asarray(s)), self.h, self.h_error)

    def moment(self, power: float, factors: tuple[Polynomial, ...] = ()) -> Bounded:
        """E[w^power Π g]: [N, F], F = 1 without factors; its error holds that of β and h.

        Raises:
            MissingMomentError: if E[w^power] does not exist.
        """
        if not self.min_power < power < self.max_power:
            raise MissingMomentError(
                f"E[w^{power:g}] does not exist: the weight has moments of order s only for"
                f" {self.min_power:.6g} < s < {self.max_power:.6g}"
            )
        if power == 0 and len(factors) == 1 and factors[0].plain is not None:
            sizes = factors[0].sizes.plain
            assert sizes is not None
            return Bounded(factors[0].plain, EPS * sizes)
        s = np.array([float(power)])
        moment = np.exp(self.log_moment(s))
        error = moment * self.log_moment_error(s)
        if not factors:
            return Bounded(moment, error)
        mean = np.real(TiltedNoise(self.beta, self.h, s).expectation(factors)[:, 0])
        return Bounded(moment * mean, error * np.abs(mean) + EPS * moment * self.sizes(s, factors)[:, 0])

    def moment_less_one(self, power: int) -> Bounded:
        """E[w^power] - 1 for a power of 2 or more, with a relative accuracy of its own: [N, 1]."""
        s = np.array([float(power)])
        log_moment, error = self.log_moment(s), self.log_moment_error(s)
        # a sum of positive terms, each rounded in proportion to itself and not, as where it is exponentiated, to 1
        error = np.maximum(error - 8.0 * EPS, 0.0) + 32.0 * EPS * np.abs(log_moment)
        return Bounded(log_moment, error).expm1()

    def sizes(self, s: np.ndarray, factors: tuple[Polynomial, ...], about: float = 1.0) -> np.ndarray:
        """Round-off of the mean of a product under the laws ∝ w^s, in machine precisions: [N or 1, S, F]."""
        beta_error, h_error = np.asarray(self.beta_error / EPS), np.asarray(self.h_error / EPS)
        return AbsoluteSums(self.beta, self.h, s, beta_error, h_error, about).expectation(
            tuple(factor.sizes for factor in factors)
        )

    def upper_log_t(self, decay: float, p: float = 1.0) -> float:
        """Log t beyond which E[e^{-t w^p}] < e^-decay for every row: Chernoff, (c/e)^c t^{-c} E[w^{-pc}] for any c."""
        c = 2.0 ** np.arange(-40, 8.1, 0.25)
        c = c[-c * p > 0.98 * self.min_power] if self.min_power > -np.inf else c
        c = c if len(c) else np.array([-0.5 * self.min_power / p])
        with np.errstate(over="ignore", invalid="ignore"):
            need = (decay + c * (np.log(c) - 1.0) + self.log_moment(-p * c)) / c
        return float(np.min(np.where(np.isfinite(need), need, np.inf), axis=1).max())

    def smoothness(self, p: float = 1.0) -> Smoothness:
        """How smooth the transforms of w^p of all rows are: see `toyiwae.oracle.laws.grid`.

        In one coordinate log w is -βε²/2 - hε, with its stationary point at -h/β. Where that is beyond 9.5 standard
        deviations nothing happens there, but the values within them may be all there is; where it is beyond 20, the
        coordinate also blurs what the others do.
        """
        beta, h = np.broadcast_arrays(self.beta, self.h)
        size, slope = np.abs(beta), np.abs(h)
        with np.errstate(divide="ignore", invalid="ignore"):
            place = np.where(slope > 0.0, slope / size, 0.0)
            stationary = np.where(slope > 0.0, 0.5 * h * h / beta, 0.0)
        edge = -_EDGE * slope - 0.5 * _EDGE**2 * size
        blurs = place > 20.0
        least = np.where(place <= _EDGE, stationary, np.minimum(edge, np.where(blurs, np.inf, stationary)))
        centre = (0.5 * np.log1p(self.beta) - 0.5 * h * h / (1.0 + self.beta)).sum(axis=1)
        features = -centre - least.sum(axis=1)
        blur = np.sqrt((np.where(blurs, slope - _EDGE * size, 0.0) ** 2).sum(axis=1))
        return Smoothness(p * float(features.max()) + 6.0, p * float(blur.min()))

    @cached_property
    def spreads(self) -> np.ndarray:
        """Standard deviation of log w of each row, under the law ∝ w^½: [N]."""
        at = 1.0 + 0.5 * self.beta
        return np.sqrt((0.5 * (self.beta / at) ** 2 + self.h**2 / at**3).sum(axis=1))
