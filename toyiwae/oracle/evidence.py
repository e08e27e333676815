"""The log-evidence of linear-Gaussian problems, with a bound on its error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyiwae import gaussian
from toyiwae.oracle.algebra import EPS, Double, Extended
from toyiwae.oracle.finite_k import Estimate
from toyiwae.problem import Problem

_MOST_LIFTED = 128
"""Largest dimension of x whose covariance is factorised in more digits than float64 has."""


def log_evidence(problem: Problem) -> Estimate:
    """`log p(x) = log N(x; W m₀ + o, W S₀ Wᵀ + R)` of each row: [N].

    With C the covariance, a solve with it loses `1/λ`, λ the smallest eigenvalue of C in units of its standard
    deviations, of which that of R's correlations times the smallest R_ii/C_ii is a lower bound. Computed in 31 digits
    or 50, so that only the rounding of the result is left, up to 128 observations; beyond, in float64.
    """
    model, x = problem.model, problem.rows().x
    size = np.diag(model.loading @ model.prior_cov @ model.loading.T) + np.diag(model.noise_cov)
    noise = np.diag(model.noise_cov)
    least = np.linalg.eigvalsh(model.noise_cov / np.sqrt(np.multiply.outer(noise, noise)))[0]
    loss = 16.0 * len(noise) / (max(float(least), EPS) * float(np.min(noise / size)))
    if len(noise) > _MOST_LIFTED:
        found = gaussian.condition(model, x)
        white = np.linalg.solve(
            np.linalg.cholesky(model.noise_cov), (x - model.loading @ model.prior_mean - model.offset).T
        )
        lost = EPS * 16.0 * len(noise) / max(float(least), EPS) * ((white**2).sum(axis=0) + len(noise))
        return Estimate(found.log_evidence, lost + 4 * EPS * np.abs(found.log_evidence))
    double = Double()
    return _lifted(problem, x, double if loss * double.unit < 0.01 * EPS else Extended(), loss)


def _lifted(problem: Problem, x: NDArray[np.float64], algebra: Any, loss: float) -> Estimate:
    """The same in an algebra of more digits, `Double` or `Extended`."""
    model, lift = problem.model, algebra.array
    loading = lift(model.loading)
    root = algebra.cholesky(loading @ lift(model.prior_cov) @ loading.T + lift(model.noise_cov))
    misfit = lift(x) - lift(model.prior_mean[None]) @ loading.T - lift(model.offset[None])
    white = np.asarray(algebra.forward(root, misfit.T), dtype=float)
    distance = (white**2).sum(axis=0)
    logs = np.log(np.asarray(root[np.diag_indices(len(root))], dtype=float))
    constant = len(logs) * np.log(2 * np.pi)
    value = -0.5 * (distance + constant) - logs.sum()
    size = distance + constant + np.abs(logs).sum() + len(logs)
    return Estimate(value, EPS * (4.0 + 0.5 * np.sqrt(len(logs))) * size + loss * algebra.unit * size)
