"""The gradients of a linear-Gaussian problem as polynomials in whitened noise, and the law of its weights.

With `z = μ_q + Lε`, posterior N(m, P) and `LᵀP⁻¹L - I = U diag(β) Uᵀ`, `h = UᵀLᵀP⁻¹(μ_q - m)`, in the rotated noise

    ∂ log w/∂z = -L⁻ᵀU(βε + h),   ∇_μ log q = L⁻ᵀUε,   ∇_L log q = tril L⁻ᵀ(εεᵀ - I)

and the gradients of log p(x, z) are affine (prior_mean, offset) or bilinear (loading) in z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toyiwae import gaussian
from toyiwae.oracle.algebra import EPS, Double, Extended
from toyiwae.oracle.laws import GaussianLaw
from toyiwae.oracle.polynomials import Affine, Polynomial
from toyiwae.problem import Problem

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

    Double precision does where it keeps ten digits of every number; elsewhere (ill-conditioned covariances, a
    proposal close to the posterior) the same lines run in fifty digits, and only their results are rounded.

    Attributes:
        beta, h: the spectrum [D] and the shifts [N, D]; what is zero within round-off of the input is zero.
        beta_error, h_error: bounds on the round-off in them, shaped like them.
        x, mean: the observations [N, D_x] and the proposal's means [N, D_z].
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        rows = problem.rows()
        self.x, self.mean = rows.x, rows.proposal_mean
        self._whiten(Double())
        if self._lost_digits() > 1e-10:
            self._whiten(Extended())

    def _whiten(self, algebra: Double | Extended) -> None:
        model, dim = self.problem.model, self.problem.dim_z
        lift = self._lift = algebra.array
        self._algebra, self._prior, self._noise = algebra, lift(model.prior_cov), lift(model.noise_cov)
        loading, offset, x, mean = (lift(a) for a in (model.loading, model.offset, self.x, self._means(lift)))
        chol = algebra.cholesky(lift(self.problem.proposal.cov))
        self._pulled = algebra.solve(self._noise, loading)  # R⁻¹W
        precision = algebra.solve(self._prior, lift(np.eye(dim))) + loading.T @ self._pulled
        values, self._rotation = algebra.eigh(chol.T @ ((precision + precision.T) / 2) @ chol)
        misfit = mean @ loading.T + offset - x
        from_prior = algebra.solve(self._prior, (mean - lift(model.prior_mean)).T).T
        self._turned = chol @ self._rotation  # LU
        shift = (from_prior + misfit @ self._pulled) @ self._turned
        self._jacobian = algebra.solve_root(chol, self._rotation)  # L⁻ᵀU
        size = (np.abs(from_prior) + np.abs(misfit) @ np.abs(self._pulled)) @ np.abs(self._turned)
        least_beta, least_h = (4.0 * EPS * dim * float(a.max()) for a in (np.abs(values), size))
        beta, h = _rounded(values - 1), _rounded(shift)
        exact = isinstance(algebra, Extended)
        self.beta_error = np.where(exact & (np.abs(beta) > least_beta), EPS * np.abs(beta), least_beta)
        self.h_error = np.where(exact & (np.abs(h) > least_h), EPS * np.abs(h), least_h)
        # a proposal that equals the posterior up to the rounding of its own numbers has equal weights
        self.beta, self.h = (
            np.where(np.abs(beta) <= least_beta, 0.0, beta),
            np.where(np.abs(h) <= least_h, 0.0, h),
        )
        self._beta, self._h = (
            np.where(near == 0.0, 0 * full, full) for near, full in ((self.beta, values - 1), (self.h, shift))
        )

    def _means(self, lift: Callable[[Float], np.ndarray]) -> np.ndarray:
        """The proposal's means, from its own numbers where it is amortised."""
        proposal = self.problem.proposal
        if proposal.weight is None or proposal.offset is None:
            return self.mean
        return lift(self.x) @ lift(proposal.weight).T + lift(proposal.offset)

    def _lost_digits(self) -> float:
        """Largest relative error that double precision left in β, h, or a solution with a covariance."""
        covs = (self.problem.model.prior_cov, self.problem.model.noise_cov, self.problem.proposal.cov)
        worst = EPS * max(float(np.linalg.cond(cov)) for cov in covs)
        for error, value in ((self.beta_error, self.beta), (self.h_error, self.h)):
            largest = np.abs(value).max(initial=0.0)
            if largest > 0.0:
                worst = max(worst, float(error.max()) / largest)
        return worst

    @cached_property
    def _posterior(self) -> gaussian.Posterior:
        return gaussian.condition(self.problem.model, self.x)

    @property
    def log_evidence(self) -> Float:
        """Log p(x) = log N(x; W m₀ + o, W S₀ Wᵀ + R) of each row: [N]."""
        return self._posterior.log_evidence

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
        path, score = self._proposal(q, exponent)
        return Gradients(law.take(rows), self._model(rows, q, exponent), path, score)

    def _proposal(
        self, q: np.ndarray, exponent: float
    ) -> tuple[dict[str, Polynomial], dict[str, Polynomial]]:
        jacobian, rotation = self._jacobian, self._rotation
        tilt_variance = 1 / (1 + self._lift(np.array([exponent]))[0] * self._beta)
        noise = -self._lift(np.array([exponent]))[0] * q @ rotation.T  # unit-tilt mean of ε, original axes
        full_base = -q @ jacobian.T
        full_cross = -(jacobian * (self._beta * tilt_variance)) @ rotation.T
        full_cross = full_cross + full_base[:, :, None] * noise[:, None, :]
        # E[w^e path] = E[w^e score] / e: written so that their difference vanishes exactly at e = 1
        base, cross, slope = (_rounded(a) for a in (full_base, full_cross, jacobian))
        path, score = Affine(base, _rounded(-jacobian * self._beta)), Affine(exponent * base, slope)
        i, j = np.tril_indices(q.shape[1])
        right = Affine(_rounded(noise)[:, j], _rounded(rotation)[j])
        paths = {
            "mean": Polynomial(base, path),
            "chol": Polynomial(cross[:, i, j], Affine(base[:, i], path.linear[i]), right),
        }
        scores = {
            "mean": Polynomial(score.constant, score),
            "chol": Polynomial(exponent * cross[:, i, j], Affine(score.constant[:, i], slope[i]), right),
        }
        return paths, scores

    def _model(self, rows: slice | np.ndarray, q: np.ndarray, exponent: float) -> dict[str, Polynomial]:
        lift, model, solve = self._lift, self.problem.model, self._algebra.solve
        power = lift(np.array([exponent]))[0]
        tilt_variance = 1 / (1 + power * self._beta)
        loading = lift(model.loading)
        latent = lift(self._means(lift)[rows]) - power * q @ self._turned.T  # unit-tilt mean of z
        misfit = lift(self.x[rows]) - lift(model.offset) - latent @ loading.T
        pull, pull_slope = solve(self._noise, misfit.T).T, -self._pulled @ self._turned  # R⁻¹(x - o - Wz)
        prior = solve(self._prior, (latent - lift(model.prior_mean)).T).T
        prior_slope = solve(self._prior, self._turned)
        i, j = (index.ravel() for index in np.indices(model.loading.shape))
        base = pull[:, i] * latent[:, j] + (pull_slope[i] * self._turned[j]) @ tilt_variance
        pulls = Affine(_rounded(pull), _rounded(pull_slope))
        latents = Affine(_rounded(latent), _rounded(self._turned))
        priors = Affine(_rounded(prior), _rounded(prior_slope))
        return {
            "prior_mean": Polynomial(priors.constant, priors),
            "loading": Polynomial(_rounded(base), pulls[i], latents[j]),
            "offset": Polynomial(pulls.constant, pulls),
        }


def _rounded(values: np.ndarray) -> Float:
    return np.asarray(values, dtype=np.float64)
