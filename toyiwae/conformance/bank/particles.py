"""Particles of a linear-Gaussian problem in NumPy, and the gradients that coefficients of them give.

The suite's own sampler: it turns a formula `log_w -> (model, path, score)` into replicates, makes the table of
reference variances, and is what the planted bugs are planted in. It knows no estimator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from toyiwae.forms import Coefficients
from toyiwae.problems.linear_gaussian import Problem

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles `z = mean + L ε` with what their gradients are made of; arrays `[R, N, M, K, D]`.

    Attributes:
        problem: where they come from.
        z: the particles.
        noise: ε.
        log_prior: log p(z) `[R, N, M, K]`.
        log_likelihood: log p(x|z).
        log_q: log q(z|x).
        by_prior_mean: ∂ log p(z)/∂ prior_mean = prior_cov⁻¹ (z − prior_mean).
        by_offset: ∂ log p(x|z)/∂ offset = noise_cov⁻¹ (x − loading z − offset) `[R, N, M, K, D_x]`.
        score: ∇_mean log q = L⁻ᵀ ε.
        inverse_chol: L⁻¹.
    """

    problem: Problem
    z: np.ndarray
    noise: np.ndarray
    log_prior: np.ndarray
    log_likelihood: np.ndarray
    log_q: np.ndarray
    by_prior_mean: np.ndarray
    by_offset: np.ndarray
    score: np.ndarray
    inverse_chol: np.ndarray

    @classmethod
    def of(cls, problem: Problem, noise: np.ndarray) -> Particles:
        """The particles of noise `[R, N, M, K, D_z]`."""
        model, rows = problem.model, problem.rows()
        chol = np.linalg.cholesky(problem.proposal.cov)
        inverse = solve_triangular(chol, np.eye(len(chol)), lower=True)
        z = rows.proposal_mean[:, None, None] + noise @ chol.T
        log_prior, by_prior_mean = _normal(z - model.prior_mean, model.prior_cov)
        misfit = rows.x[:, None, None] - z @ model.loading.T - model.offset
        log_likelihood, by_offset = _normal(misfit, model.noise_cov)
        log_q = -0.5 * (noise**2).sum(-1) - np.log(np.diag(chol)).sum() - 0.5 * len(chol) * LOG_2PI
        score = noise @ inverse
        return cls(
            problem, z, noise, log_prior, log_likelihood, log_q, by_prior_mean, by_offset, score, inverse
        )

    @property
    def log_w(self) -> np.ndarray:
        """Log-weights `[R, N, M, K]`."""
        return self.log_prior + self.log_likelihood - self.log_q

    def gradients(self, coefficients: Coefficients, names: Any = None) -> dict[str, np.ndarray]:
        """Gradients `[R, *shape]` of the average over rows, by parameter; of all, unless names are given."""
        problem = self.problem
        names = tuple(problem.parameters) if names is None else names
        found = {}
        if any(name in ("prior_mean", "loading", "offset") for name in names):
            found |= self._model(np.asarray(coefficients.model))
        if any(name.startswith("proposal") for name in names):
            found |= self._proposal(np.asarray(coefficients.path), np.asarray(coefficients.score))
        return {name: found[name] for name in names}

    def _model(self, factors: np.ndarray) -> dict[str, np.ndarray]:
        by_offset = factors[..., None] * self.by_offset
        return {
            "prior_mean": _total(factors[..., None] * self.by_prior_mean).mean(1),
            "loading": _outer(by_offset, self.z).mean(1),
            "offset": _total(by_offset).mean(1),
        }

    def _proposal(self, path: np.ndarray, score: np.ndarray) -> dict[str, np.ndarray]:
        slope = self.by_offset @ self.problem.model.loading - self.by_prior_mean + self.score
        by_mean = path[..., None] * slope + score[..., None] * self.score
        by_chol, by_mean = _outer(by_mean, self.noise), _total(by_mean)
        by_chol = np.tril(by_chol - score.sum((-1, -2))[..., None, None] * self.inverse_chol.T).mean(1)
        if not self.problem.amortised:
            return {"proposal_mean": by_mean.mean(1), "proposal_chol": by_chol}
        x = self.problem.rows().x
        weight = (by_mean[..., :, None] * x[:, None, :]).mean(1)
        return {"proposal_weight": weight, "proposal_offset": by_mean.mean(1), "proposal_chol": by_chol}


def draw(problem: Problem, K: int, M: int, replicates: int, seed: int) -> Particles:
    """Particles of fresh noise."""
    shape = (replicates, problem.n_rows, M, K, problem.dim_z)
    return Particles.of(problem, np.random.default_rng(seed).standard_normal(shape))


def _normal(centred: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log density of N(0, cov), and its gradient by the mean, cov⁻¹ times the argument."""
    inverse = np.linalg.inv(cov)
    by_mean = centred @ (0.5 * (inverse + inverse.T))
    log_det = np.linalg.slogdet(cov)[1]
    return -0.5 * (centred * by_mean).sum(-1) - 0.5 * log_det - 0.5 * len(cov) * LOG_2PI, by_mean


def _total(values: np.ndarray) -> np.ndarray:
    """Sum over particles and groups `[R, N, M, K, D] -> [R, N, D]`; the coefficients hold 1/M."""
    return values.sum((-2, -3))


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Σ over particles and groups of left rightᵀ: `[R, N, D, E]`."""
    rows, count = left.shape[:2], left.shape[2] * left.shape[3]
    first, second = (array.reshape(*rows, count, array.shape[-1]) for array in (left, right))
    return np.swapaxes(first, -1, -2) @ second
