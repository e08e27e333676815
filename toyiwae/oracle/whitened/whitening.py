"""The gradients of a linear-Gaussian problem as polynomials in whitened noise, and the law of its weights.

With `z = μ_q + Lε`, posterior N(m, P) and `LᵀP⁻¹L - I = U diag(β) Uᵀ`, `h = UᵀLᵀP⁻¹(μ_q - m)`, in the rotated noise

    ∂ log w/∂z = -L⁻ᵀU(βε + h),   ∇_μ log q = L⁻ᵀUε,   ∇_L log q = tril L⁻ᵀ(εεᵀ - I)

and the gradients of log p(x, z) are affine (prior_mean, offset) or bilinear (loading) in z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyiwae.errors import PrecisionError
from toyiwae.oracle.closed_form import gaussian
from toyiwae.oracle.laws.bounded import EPS
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.polynomials import Affine, Polynomial
from toyiwae.oracle.whitened.algebra import Double, Extended, is_diagonal, solve, solve_root
from toyiwae.problems.linear_gaussian import Problem

Float = NDArray[np.float64]
MODEL_PARAMETERS = ("prior_mean", "loading", "offset")


@dataclass(frozen=True)
class Gradients:
    """The law of w^e of some rows, and the polynomials of their gradients by kind of parameter.

    Attributes:
        law: the law of w^e.
        model: parameter -> ∇ log p(x, z).
        path: "mean", "chol" -> (∂ log w/∂z)(∂z/∂φ).
        score: "mean", "chol" -> ∇φ log q.
    """

    law: GaussianLaw
    model: dict[str, Polynomial]
    path: dict[str, Polynomial]
    score: dict[str, Polynomial]


class Whitened:
    """A problem in the coordinates in which its log-weights are independent sums, shared by all its rows.

    Everything is computed in 31 digits, in 50 where those are too few, and rounded once.

    Attributes:
        beta, h: the spectrum [D] and the shifts [N, D]; zeros if all of them are zero within round-off of the input.
        beta_error, h_error: bounds on the errors in them, shaped like them.
        x, mean: the observations [N, D_x] and the proposal's means [N, D_z].
        algebra: the precision that was enough; in it, prior_root and noise_root: Cholesky roots of S₀ and R.
        prior_condition, noise_condition: condition numbers of the correlations in S₀ and R.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        problem.require_shared_proposal("the oracle")
        rows = problem.rows()
        self.x, self.mean = rows.x, rows.proposal_mean
        with np.errstate(all="ignore"):  # what overflows in 31 digits does not in 50
            if not self._whiten(Double()):
                self._whiten(Extended())
        found = (self.beta, self.h, self.beta_error, self.h_error, self._jacobian, self._turned)
        if not all(np.isfinite(_rounded(array)).all() for array in found):
            raise PrecisionError(
                "the problem's numbers are too large, or too far apart, for float64 once they are standardised: choose"
                " other units, or a proposal nearer to the posterior"
            )

    def _whiten(self, algebra: Any) -> bool:
        """Compute everything; whether that kept enough digits."""
        model, dim = self.problem.model, self.problem.dim_z
        lift: Callable[[Any], Any] = algebra.array
        self._lift = lift
        self.algebra = algebra
        loading, offset, x, mean = (lift(a) for a in (model.loading, model.offset, self.x, self._means(lift)))
        chol = algebra.cholesky(lift(self.problem.proposal.cov))
        self.prior_root, self.noise_root = (
            algebra.cholesky(lift(cov)) for cov in (model.prior_cov, model.noise_cov)
        )
        self._pulled = solve(algebra, self.noise_root, loading)  # R⁻¹W
        precision = solve(algebra, self.prior_root, lift(np.eye(dim))) + loading.T @ self._pulled
        excess = chol.T @ ((precision + precision.T) / 2) @ chol - lift(np.eye(dim))
        self._beta, self._rotation = algebra.eigh(excess)
        misfit = mean @ loading.T + offset - x
        from_prior = solve(algebra, self.prior_root, (mean - lift(model.prior_mean)).T).T
        self._turned = chol @ self._rotation  # LU
        self._h = (from_prior + misfit @ self._pulled) @ self._turned
        self._jacobian = solve_root(algebra, chol, self._rotation)  # L⁻ᵀU
        values = 1.0 + np.abs(_rounded(self._beta)).max()
        pulled, turned = np.abs(_rounded(self._pulled)), np.abs(_rounded(self._turned))
        terms = np.abs(_rounded(from_prior)), np.abs(_rounded(misfit)) @ pulled
        # the problem's own numbers are rounded before they are subtracted
        own = np.abs(self.x) + np.abs(model.offset) + np.abs(self.mean) @ np.abs(model.loading.T)
        size = ((terms[0] + terms[1]) * 4.0 * dim + own @ pulled) @ turned
        return self._round(self._lost(chol, *terms), 4.0 * EPS * dim * values, EPS * size.max())

    def _round(self, lost: tuple[float, np.ndarray], least_beta: float, least_h: float) -> bool:
        """Rounded β and h with their errors; whether they kept enough digits."""
        beta, h = _rounded(self._beta), _rounded(self._h)
        if not np.isfinite([np.abs(beta).max(), np.abs(h).max(), least_beta, least_h]).all():
            self.beta, self.h, self.beta_error, self.h_error = (
                beta,
                h,
                np.full_like(beta, np.nan),
                np.full_like(h, np.nan),
            )
            return False
        if np.abs(beta).max() <= least_beta and np.abs(h).max() <= least_h:
            # a proposal that equals the posterior up to the rounding of its own numbers has equal weights
            self.beta, self.h = np.zeros_like(beta), np.zeros_like(h)
            self.beta_error, self.h_error = np.abs(beta) + lost[0], np.abs(h) + lost[1]
            self._beta, self._h = 0 * self._beta, 0 * self._h
            return True
        self.beta, self.beta_error = beta, EPS * np.abs(beta) + lost[0]
        self.h, self.h_error = h, EPS * np.abs(h) + lost[1]
        kept = [_kept(beta, lost[0], least_beta), _kept(h, lost[1], least_h)]
        return all(kept) and self._condition * self.algebra.unit < 0.1 * EPS

    def _lost(self, chol: Any, from_prior: Float, from_data: Float) -> tuple[float, np.ndarray]:
        """Bounds on the absolute round-off of β and of h [N, 1] in the precision that they were computed in."""
        model, unit = self.problem.model, 16 * self.problem.dim_z * self.algebra.unit
        lower, loading, turned = _rounded(chol), model.loading, np.abs(_rounded(self._turned))
        prior, noise, own = (
            _Scaled(c) for c in (model.prior_cov, model.noise_cov, self.problem.proposal.cov)
        )
        self.prior_condition, self.noise_condition = prior.condition, noise.condition
        self._condition = 16 * self.problem.dim_z * max(prior.condition, noise.condition, own.condition)
        size = prior.condition * prior.norm(lower) + noise.condition * noise.norm(loading @ lower)
        size += own.condition * (1.0 + np.abs(_rounded(self._beta)).max())
        pull = (
            (prior.condition + own.condition) * from_prior + (noise.condition + own.condition) * from_data
        ) @ turned
        return unit * size, unit * pull.max(axis=1, keepdims=True)

    def _means(self, lift: Callable[[Any], Any]) -> Any:
        """The proposal's means, from its own numbers where it is amortised."""
        proposal = self.problem.proposal
        if proposal.weight is None or proposal.offset is None:
            return self.mean
        return lift(self.x) @ lift(proposal.weight).T + lift(proposal.offset)

    @cached_property
    def _posterior(self) -> gaussian.Posterior:
        return gaussian.condition(self.problem.model, self.x)

    @property
    def posterior_cov(self) -> Float:
        """P, the same for all rows: [D_z, D_z]."""
        return self._posterior.cov

    @property
    def posterior_mean(self) -> Float:
        """The posterior mean of each row: [N, D_z]."""
        return self._posterior.mean

    def law(self, exponent: float = 1.0) -> GaussianLaw:
        """The law of w^e of all rows, normalised to mean 1."""
        size = abs(exponent)
        return GaussianLaw(
            exponent * self.beta, exponent * self.h, size * self.beta_error, size * self.h_error
        )

    def gradients(self, law: GaussianLaw, rows: slice | np.ndarray, exponent: float = 1.0) -> Gradients:
        """The polynomials of some rows, about the unit tilt of w^e; `law` is that of all rows at this exponent."""
        q = self._h[rows] / (1 + self._lift(np.array([exponent]))[0] * self._beta)  # [N, D]
        path, score = self._proposal(rows, q, exponent)
        return Gradients(law.take(rows), self._model(rows, q, exponent), path, score)

    def _proposal(
        self, rows: slice | np.ndarray, q: Any, exponent: float
    ) -> tuple[dict[str, Polynomial], dict[str, Polynomial]]:
        jacobian, rotation = self._jacobian, self._rotation
        tilt_variance = 1 / (1 + self._lift(np.array([exponent]))[0] * self._beta)
        noise = -self._lift(np.array([exponent]))[0] * q @ rotation.T  # unit-tilt mean of ε, original axes
        full_base = -q @ jacobian.T
        full_cross = -(jacobian * (self._beta * tilt_variance)) @ rotation.T
        full_cross = full_cross + full_base[:, :, None] * noise[:, None, :]
        base, cross, slope = (_rounded(a) for a in (full_base, full_cross, jacobian))
        path = Affine(base, _rounded(-jacobian * self._beta))
        i, j = np.tril_indices(q.shape[1])
        right = Affine(_rounded(noise)[:, j], _rounded(rotation)[j])
        untilted = (
            _rounded(-self._h[rows] @ jacobian.T),
            _rounded(-(jacobian * self._beta) @ rotation.T)[i, j],
        )
        untilted = untilted[0], np.broadcast_to(untilted[1], base[:, i].shape)
        doubts = self._doubts(rows, (base, *untilted), path, slope, right)
        chol = Affine(base[:, i], path.linear[i])
        paths = {
            "mean": Polynomial(base, path, None, untilted[0], doubts["mean"]),
            "chol": Polynomial(cross[:, i, j], chol, right, untilted[1], doubts["chol"]),
        }
        zero = np.zeros_like(base)
        # E[w^e path] = E[w^e score] / e: at e = 1 one array, so that nothing is left of their difference
        known = [paths["mean"].base, paths["chol"].base, chol.constant]
        level, product, constant = known if exponent == 1.0 else [exponent * array for array in known]
        size = abs(exponent) * doubts["mean"].base
        other = doubts["chol"].right
        sizes = {
            "mean": Polynomial(size, Affine(size, np.abs(slope)), None, zero),
            "chol": Polynomial(
                abs(exponent) * doubts["chol"].base, Affine(size[:, i], np.abs(slope[i])), other, zero[:, i]
            ),
        }
        scores = {
            "mean": Polynomial(level, Affine(level, slope), None, zero, sizes["mean"]),
            "chol": Polynomial(product, Affine(constant, slope[i]), right, zero[:, i], sizes["chol"]),
        }
        return paths, scores

    def _doubts(
        self, rows: slice | np.ndarray, known: tuple, path: Affine, slope: Float, right: Affine
    ) -> dict:
        """What the path's round-off is relative to: its coefficients' size, and more where β and h lost digits."""
        base, mean, product = map(np.abs, known)
        size, beta, h = np.abs(slope), self.beta_error / EPS, self.h_error[rows] / EPS
        i, j = np.tril_indices(len(slope))
        moved, spread = h @ size.T, ((size * beta) @ np.abs(_rounded(self._rotation)).T)[i, j]
        left = Affine(base + moved, np.abs(path.linear) + size * beta)
        other = Affine(np.abs(right.constant), np.abs(right.linear))
        cross = left.constant[:, i] * other.constant + product + spread
        return {
            "mean": Polynomial(left.constant, left, None, mean + moved),
            "chol": Polynomial(cross, left[i], other, product + spread),
        }

    def _model(self, rows: slice | np.ndarray, q: Any, exponent: float) -> dict[str, Polynomial]:
        lift, model = self._lift, self.problem.model
        power = lift(np.array([exponent]))[0]
        tilt_variance = 1 / (1 + power * self._beta)
        loading, middle = lift(model.loading), lift(self._means(lift)[rows])
        latent = middle - power * q @ self._turned.T  # unit-tilt mean of z
        pull_slope = -self._pulled @ self._turned
        prior_slope = solve(self.algebra, self.prior_root, self._turned)
        i, j = (index.ravel() for index in np.indices(model.loading.shape))
        products = pull_slope[i] * self._turned[j]
        found = []
        for at, spread in ((latent, tilt_variance), (middle, lift(np.ones(self.beta.shape)))):
            misfit = lift(self.x[rows]) - lift(model.offset) - at @ loading.T
            pull = solve(self.algebra, self.noise_root, misfit.T).T  # R⁻¹(x - o - Wz)
            prior = solve(self.algebra, self.prior_root, (at - lift(model.prior_mean)).T).T
            base = pull[:, i] * at[:, j] + products @ spread
            found.append([_rounded(a) for a in (prior, base, pull)])
        (prior, base, pull), plain = found
        pulls = Affine(pull, _rounded(pull_slope))
        latents = Affine(_rounded(latent), _rounded(self._turned))
        return {
            "prior_mean": Polynomial(prior, Affine(prior, _rounded(prior_slope)), plain=plain[0]),
            "loading": Polynomial(base, pulls[i], latents[j], plain[1]),
            "offset": Polynomial(pull, pulls, plain=plain[2]),
        }


class _Scaled:
    """A covariance in units of its own standard deviations: what triangular solves with it can lose."""

    def __init__(self, cov: Float):
        self._deviations = np.sqrt(np.diag(cov))
        if is_diagonal(cov):
            values, vectors = np.ones(len(cov)), np.eye(len(cov))
        else:
            values, vectors = np.linalg.eigh(cov / np.multiply.outer(self._deviations, self._deviations))
        self._values = np.maximum(values, EPS * values[-1] / 64)
        self._vectors = vectors
        self.condition = float(values[-1] / self._values[0])

    def norm(self, columns: Float) -> float:
        """Norm of columnsᵀ cov⁻¹ columns."""
        turned = self._vectors.T @ (columns / self._deviations[:, None])
        return float(np.sum(turned**2 / self._values[:, None]))


def _kept(values: Float, lost: float | np.ndarray, least: float) -> bool:
    """Whether the round-off is small beside every value, or beside what the input's own rounding would make."""
    told = np.abs(values) > np.maximum(1e3 * lost, 1e-8 * least)
    return bool(np.all(np.where(told, lost <= 1e-13 * np.abs(values), lost <= 1e-8 * least)))


def _rounded(values: Any) -> Float:
    return np.asarray(values, dtype=np.float64)
