"""A problem in whitened noise whose observations have a covariance each, as a trained encoder gives them.

Spectra are computed in float64, with bounds from their residuals: with `E = LᵀP⁻¹L - I` and computed U and β, the norms
of `EU - U diag(β)` and of `UᵀU - I` bound how far `U diag(β) Uᵀ` is from E, and so every eigenvalue. Where such a
bound is too large for what the observation's weights vary by, it is whitened alone in more digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.whitened.algebra import Double
from toyiwae.oracle.whitened.gradient_polynomials import Gradients
from toyiwae.oracle.whitened.model import Float, WhitenedModel, rounded
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Problem, Proposal

_BLOCK = 256  # observations whose matrices are held at once
_TOLERATED = 1e-10
"""Change of log w's variance, relative to it, by the errors of β and h, above which float64 is not enough."""


class OwnWhitened:
    """A problem in whitened noise, by the covariance of each observation; see `Whitened`.

    Attributes:
        beta, h: the spectra and the shifts [N, D].
        beta_error, h_error: bounds on the errors in them [N, D]; the former also on the norm of what the spectrum's
            matrix is off by.
        x, mean: the observations [N, D_x] and the proposal's means [N, D_z].
        model: the factorised model, in 31 digits.
    """

    def __init__(self, problem: Problem):
        self.problem, proposal = problem, problem.proposal
        self.x, self.mean = np.atleast_2d(problem.data.x), np.asarray(proposal.mean)
        self.model = WhitenedModel(problem, Double())
        shape = self.mean.shape
        self._axes: dict[int, tuple[Float, ...]] = {}
        self.beta, self.h, self.beta_error, self.h_error = (np.zeros(shape) for _ in range(4))
        with np.errstate(all="ignore"):
            for first in range(0, len(self.x), _BLOCK):
                rows = slice(first, min(first + _BLOCK, len(self.x)))
                self._whiten(rows)
            unclear = np.flatnonzero(self._unclear())
            few = len(unclear) * problem.dim_x * problem.dim_z
            for n in map(int, unclear):
                alone = self._alone([n], products=few)
                self.beta[n], self.h[n] = alone.beta, alone.h[0]
                self.beta_error[n], self.h_error[n] = alone.beta_error, alone.h_error[0]
                self._axes[n] = alone.axes

    def _whiten(self, rows: slice) -> None:
        """Spectra and shifts of some observations in float64."""
        model, dim = self.model, self.problem.dim_z
        factors, rounding = self._factors(rows)
        precision, one = rounded(model.precision), np.eye(dim)
        unit = EPS * (2.0 + dim**0.5)
        transposed = factors.transpose(0, 2, 1)
        product = transposed @ precision @ factors
        curvature = product - one
        beta, vectors = np.linalg.eigh(curvature)
        residual = _norm(curvature @ vectors - vectors * beta[:, None, :])
        defect = _norm(vectors.transpose(0, 2, 1) @ vectors - one) + unit * dim
        largest = np.abs(beta).max(axis=1)
        error = residual + unit * dim**0.5 * _norm(curvature) + 2.0 * largest * defect
        if self._variances is None:
            error += 2.0 * unit * _norm(np.abs(transposed) @ np.abs(precision) @ np.abs(factors))
        else:
            error += 6.0 * EPS * _norm(product)
        error += rounding * (1.0 + largest)
        slopes = model.slopes(self.x[rows], self.mean[rows])
        value = rounded(slopes.value)[:, None, :]
        shift = (value @ factors)[:, 0]
        size = (np.abs(value) @ np.abs(factors))[:, 0]
        conditions = model.prior.condition, model.noise.condition
        given = (
            conditions[0] * slopes.prior + conditions[1] * slopes.data
        )  # of 16 D roundings in the model's digits
        exact = 16 * dim * model.algebra.unit * (given[:, None, :] @ np.abs(factors))[:, 0]
        size = (((3.0 + unit / EPS) * EPS * size + exact)[:, None, :] @ np.abs(vectors))[:, 0]
        size += unit * (np.abs(shift)[:, None, :] @ np.abs(vectors))[:, 0]
        self.beta[rows], self.h[rows] = beta, (shift[:, None, :] @ vectors)[:, 0]
        self.beta_error[rows] = error[:, None]
        self.h_error[rows] = size + ((defect + rounding) * np.linalg.norm(shift, axis=1))[:, None]

    @property
    def axes(self) -> tuple[Float, Float, Float]:
        """U, LU and L⁻ᵀU of every observation: [N, D, D] each."""
        dim = self.problem.dim_z
        found = np.zeros((3, len(self.h), dim, dim))
        for first in range(0, len(self.x), _BLOCK):
            rows = slice(first, first + _BLOCK)
            factors, _ = self._factors(rows)
            product = factors.transpose(0, 2, 1) @ rounded(self.model.precision) @ factors
            vectors = np.linalg.eigh(product - np.eye(dim))[1]
            found[:, rows] = vectors, factors @ vectors, np.linalg.solve(factors.transpose(0, 2, 1), vectors)
        for n, alone in self._axes.items():
            found[:, n] = alone
        return found[0], found[1], found[2]

    @cached_property
    def _variances(self) -> Float | None:
        """Variances [N, D] where all covariances are diagonal."""
        proposal = self.problem.proposal
        if proposal.var is not None:
            return proposal.var
        diagonals = np.diagonal(proposal.cov, axis1=1, axis2=2)
        return diagonals if np.count_nonzero(proposal.cov) == np.count_nonzero(diagonals) else None

    def _factors(self, rows: slice) -> tuple[Float, Float | float]:
        """Cholesky factors L [n, D, D], and norms of `L⁻¹ cov L⁻ᵀ - I` [n]."""
        if self._variances is not None:
            return np.sqrt(self._variances[rows])[:, :, None] * np.eye(self.problem.dim_z), 2.0 * EPS
        cov = self.problem.proposal.cov[rows]
        factors = np.linalg.cholesky(cov)
        deviations = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
        scaled = np.linalg.inv(factors) * deviations[:, None, :]
        return factors, EPS * (2.0 + self.problem.dim_z**0.5) * _norm(scaled) ** 2

    def _unclear(self) -> np.ndarray:
        """Which observations float64 is not enough for: [N]."""
        beta, h = self.beta, self.h
        inside = 1.0 / (1.0 + beta)
        moved = ((np.abs(beta) + self.beta_error) * self.beta_error * inside**2).sum(axis=1)
        moved += ((np.abs(h) + self.h_error) * self.h_error * inside).sum(axis=1)
        good = (moved <= _TOLERATED * self.law().spreads ** 2) & (self.beta_error * inside < 1e-6).all(axis=1)
        return ~good

    def _alone(self, rows: Sequence[int] | np.ndarray, products: int = 0) -> Whitened:
        """Some observations, as if of the covariance of the first, whitened in more than double precision."""
        proposal, first = self.problem.proposal, rows[0]
        given = {"cov": proposal.cov[first]} if proposal.var is None else {"var": proposal.var[first]}
        part = Problem(self.problem.model, Proposal(**given, mean=self.mean[rows]), Data(self.x[rows]))
        return Whitened(part, self.model, products=products)

    def posterior(self) -> tuple[Bounded, Bounded]:
        """Its mean for each row [N, D_z], and its covariance [D_z, D_z], which no proposal changes."""
        return self._alone(np.arange(len(self.x))).posterior()

    def law(self, exponent: float = 1.0) -> GaussianLaw:
        """The law of w^e of all rows, normalised to mean 1."""
        size = abs(exponent)
        return GaussianLaw(
            exponent * self.beta, exponent * self.h, size * self.beta_error, size * self.h_error
        )

    def batches(self, exponent: float, width: int) -> Iterator[tuple[np.ndarray, Gradients]]:
        """The gradients of all rows, those of one covariance after those of another; see `Whitened.batches`."""
        proposal = self.problem.proposal
        given = proposal.cov if proposal.var is None else proposal.var
        groups: dict[bytes, list[int]] = {}
        for n, own in enumerate(given):
            groups.setdefault(own.tobytes(), []).append(n)
        for rows in groups.values():
            for part, gradients in self._alone(rows).batches(exponent, width):
                yield np.array(rows)[part], gradients


def whiten(problem: Problem) -> Whitened | OwnWhitened:
    """The problem in whitened noise, by the covariance of all observations or of each."""
    return OwnWhitened(problem) if len(problem.proposal.cov_shape) == 3 else Whitened(problem)


def _norm(matrices: np.ndarray) -> Float:
    """Frobenius norms: [n]."""
    return np.sqrt((matrices**2).sum(axis=(1, 2)))
