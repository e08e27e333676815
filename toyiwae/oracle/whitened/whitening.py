"""A problem in the noise in which its log-weights are independent sums: the spectrum β and the shifts h.

With `z = μ_q + Lε`, posterior N(m, P), `LᵀP⁻¹L - I = U diag(β) Uᵀ` and `h = UᵀLᵀP⁻¹(μ_q - m)`, in the rotated noise

    log(w/Z) = c₀ + Σ_i ( -β_i ε_i²/2 - h_i ε_i )
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.whitened.algebra import Double, Extended, solve_root
from toyiwae.oracle.whitened.gradient_polynomials import Coordinates, Gradients, row_batches
from toyiwae.oracle.whitened.model import Float, ScaledCovariance, Slopes, WhitenedModel, rounded
from toyiwae.problems.linear_gaussian import Problem

_MOST_EXTENDED = 2_000_000
"""Products of the observations with the loading that are taken in 50 digits: about ten seconds."""


class Whitened:
    """A problem in whitened noise, by the covariance that all its observations share.

    Formula: whitening.

    Everything is computed in 31 digits, in 50 where those are too few and that is quick enough, and rounded once.

    Attributes:
        beta, h: the spectrum [D] and the shifts [N, D]; zeros if all of them are zero within round-off of the input.
        beta_error, h_error: bounds on the errors in them, shaped like them.
        x, mean: the observations [N, D_x] and the proposal's means [N, D_z].
        model: the factorised model, in the precision that was enough.
    """

    def __init__(self, problem: Problem, model: WhitenedModel | None = None, products: int = 0):
        """Whitens.

        Args:
            problem: the problem.
            model: its factorised model in 31 digits, where that is known.
            products: how many products of observations with the loading 50 digits would take, all in all.
        """
        self._products = max(products, problem.n_rows * problem.dim_x * problem.dim_z)
        self.problem = problem
        observations = problem.observations()
        self.x, self.mean = observations.x, observations.proposal_mean
        self._cov = observations.proposal_cov
        with np.errstate(all="ignore"):  # what overflows in 31 digits does not in 50
            kept = self._whiten(model or WhitenedModel(problem, Double()))
            if not kept and isinstance(self.model.algebra, Double) and not self._usable():
                self._whiten(WhitenedModel(problem, Extended()))
        found = (self.beta, self.h, self.beta_error, self.h_error, self._jacobian, self._root_vectors)
        if not all(np.isfinite(rounded(array)).all() for array in found):
            raise PrecisionError(
                "the problem's numbers are too large, or too far apart, for float64 once they are standardised: choose"
                " other units, or a proposal nearer to the posterior"
            )

    def _usable(self) -> bool:
        """Whether 31 digits have to do, since 50 would take too long, and can: their bounds are small."""
        return self._products > _MOST_EXTENDED and self._condition * self.model.algebra.unit < EPS

    def _whiten(self, model: WhitenedModel) -> bool:
        """Compute everything; whether that kept enough digits."""
        self.model, algebra, dim = model, model.algebra, self.problem.dim_z
        chol = algebra.cholesky(algebra.array(self._cov))
        curvature = chol.T @ model.precision @ chol - algebra.array(np.eye(dim))
        self._beta, self._rotation = algebra.eigh((curvature + curvature.T) / 2)
        slopes = model.slopes(self.x, self.mean)
        self._root_vectors = chol @ self._rotation  # LU
        self._h = slopes.value @ self._root_vectors
        self._jacobian = solve_root(algebra, chol, self._rotation)  # L⁻ᵀU
        largest = 1.0 + np.abs(rounded(self._beta)).max()
        size = (slopes.prior + slopes.data) * 4.0 * dim + slopes.given
        least_h = EPS * (size @ np.abs(rounded(self._root_vectors))).max()
        return self._round(self._rounding(chol, slopes), 4.0 * EPS * dim * largest, least_h)

    def _round(self, rounding: tuple[float, Float], least_beta: float, least_h: float) -> bool:
        """Rounded β and h with their errors; whether they kept enough digits."""
        beta, h = rounded(self._beta), rounded(self._h)
        self.beta, self.beta_error = beta, EPS * np.abs(beta) + rounding[0]
        self.h, self.h_error = h, EPS * np.abs(h) + rounding[1]
        self._roundings = rounding
        if not np.isfinite([np.abs(beta).max(), np.abs(h).max(), least_beta, least_h]).all():
            self.beta_error, self.h_error = np.full_like(beta, np.nan), np.full_like(h, np.nan)
            return False
        if np.abs(beta).max() <= least_beta and np.abs(h).max() <= least_h:
            # a proposal that equals the posterior up to the rounding of its own numbers has equal weights
            self.beta, self.h = np.zeros_like(beta), np.zeros_like(h)
            self.beta_error, self.h_error = np.abs(beta) + rounding[0], np.abs(h) + rounding[1]
            self._beta, self._h = 0 * self._beta, 0 * self._h
            self._roundings = float(self.beta_error.max()), self.h_error
            return True
        kept = [_kept(beta, rounding[0], least_beta), _kept(h, rounding[1], least_h)]
        return all(kept) and self._condition * self.model.algebra.unit < 0.1 * EPS

    def _rounding(self, chol: Any, slopes: Slopes) -> tuple[float, Float]:
        """Bounds on the absolute round-off of β and of h [N, 1] in the precision that they were computed in."""
        prior, noise, own = self.model.prior, self.model.noise, ScaledCovariance(self._cov)
        unit = 16 * self.problem.dim_z * self.model.algebra.unit
        lower, vectors = rounded(chol), np.abs(rounded(self._root_vectors))
        self._condition = 16 * self.problem.dim_z * max(prior.condition, noise.condition, own.condition)
        size = prior.condition * prior.norm(lower)
        size += noise.condition * noise.norm(self.problem.model.loading @ lower)
        size += own.condition * (1.0 + np.abs(rounded(self._beta)).max())
        terms = (prior.condition + own.condition) * slopes.prior
        terms += (noise.condition + own.condition) * slopes.data
        return unit * size, unit * (terms @ vectors).max(axis=1, keepdims=True)

    def posterior(self) -> tuple[Bounded, Bounded]:
        """The posterior's mean for each row [N, D_z], and the covariance that all share [D_z, D_z], rounded once.

            P = T (I + diag β)⁻¹ Tᵀ,   m = μ_q - T (I + diag β)⁻¹ h,   T = LU

        L and U need not be accurate, if only `I + diag β` is `TᵀP⁻¹T` up to a small E, the rounding of β: that moves P
        by `T (I + diag β)⁻¹ E (I + diag β)⁻¹ Tᵀ` and terms of higher order.
        """
        root, algebra, dim = self._root_vectors, self.model.algebra, self.problem.dim_z
        scaled = root * (1 / (1 + self._beta))
        length, solved = (np.linalg.norm(rounded(a), axis=1) for a in (root, scaled))
        moved, shifts = self._roundings
        largest = moved * (1.0 / (1.0 + self.beta)).max()
        moved = 2.0 * moved if largest < 0.5 else np.inf
        cov, unit = rounded(scaled @ root.T), 16 * (dim + self.x.shape[1]) * algebra.unit
        error = moved * np.multiply.outer(solved, solved) + unit * np.multiply.outer(length, solved)
        mean = rounded(self.model.means(self.x, self.mean) - self._h @ scaled.T)
        h, weight = np.abs(rounded(self._h)), self.problem.proposal.weight
        size = h @ np.abs(rounded(scaled)).T + np.abs(self.mean)
        size = size if weight is None else size + np.abs(self.x) @ np.abs(weight).T
        along = dim**0.5 * shifts + moved * np.linalg.norm(h / (1.0 + self.beta), axis=1, keepdims=True)
        mean_error = along * solved + unit * size + EPS * np.abs(mean)
        return Bounded(mean, mean_error), Bounded(cov, error + error.T + EPS * np.abs(cov))

    def law(self, exponent: float = 1.0) -> GaussianLaw:
        """The law of w^e of all rows, normalised to mean 1."""
        size = abs(exponent)
        return GaussianLaw(
            exponent * self.beta, exponent * self.h, size * self.beta_error, size * self.h_error
        )

    @property
    def axes(self) -> tuple[Float, Float, Float]:
        """U, LU and L⁻ᵀU: [D, D] each, rounded."""
        return rounded(self._rotation), rounded(self._root_vectors), rounded(self._jacobian)

    def batches(self, exponent: float, width: int) -> Iterator[tuple[np.ndarray, Gradients]]:
        """The gradients of all rows, in batches that share their contours: indices of rows, and their polynomials.

        Args:
            exponent: e of w^e.
            width: how many coordinates are transformed at once.
        """
        law = self.law(exponent)
        for rows in row_batches(law, width):
            yield rows, self.gradients(law, rows, exponent)

    def gradients(self, law: GaussianLaw, rows: slice | np.ndarray, exponent: float = 1.0) -> Gradients:
        """The polynomials of some rows, about the mean under w^e; `law` is that of all rows at this exponent."""
        coordinates = Coordinates(
            self.model,
            self.x[rows],
            self.mean[rows],
            self._beta,
            self._h[rows],
            self._rotation,
            self._root_vectors,
            self._jacobian,
            self.beta_error,
            self.h_error[rows],
        )
        return coordinates.gradients(law.take(rows), exponent)


def _kept(values: Float, rounding: float | np.ndarray, least: float) -> bool:
    """Whether the round-off is small beside every value, or beside what the input's own rounding would make."""
    known = np.abs(values) > np.maximum(1e3 * rounding, 1e-8 * least)
    return bool(np.all(np.where(known, rounding <= 1e-13 * np.abs(values), rounding <= 1e-8 * least)))
