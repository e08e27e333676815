"""Asymmetric problems for the tests: no unit scales, no zero means, full covariances, D_x ≠ D_z."""

import json
from pathlib import Path

import numpy as np

from toyiwae.problems.density import QuadratureProblem
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal


def reference() -> dict:
    """Values of a separate program: problem -> `problem` and `truth`, gradients in their first three coordinates."""
    path = Path(__file__).resolve().parent / "data" / "reference.json"
    return json.loads(path.read_text(encoding="utf-8"))


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric part."""
    return (matrix + matrix.T) / 2


def random_cov(rng: np.random.Generator, dim: int, size: float = 1.0) -> np.ndarray:
    """A full covariance of moderate condition with variances around `size`."""
    root = rng.normal(size=(dim, dim + 2)) * 0.4 / np.sqrt(dim)
    return size * (root @ root.T + np.diag(rng.uniform(0.5, 1.3, dim)))


def random_problem(
    seed: int, dim_z: int = 2, dim_x: int = 3, rows: int | None = None, *, amortised: bool = False
) -> Problem:
    """A random problem whose proposal is near enough to the posterior for second moments to exist, mostly."""
    rng = np.random.default_rng([seed, dim_z, dim_x])
    model = Model(
        prior_mean=rng.normal(size=dim_z),
        prior_cov=random_cov(rng, dim_z, 1.3),
        loading=rng.normal(size=(dim_x, dim_z)) * 0.6,
        offset=rng.normal(size=dim_x),
        noise_cov=random_cov(rng, dim_x, 0.8),
    )
    x = rng.normal(size=(rows, dim_x) if rows else dim_x) * 1.2
    noise_precision = np.linalg.inv(model.noise_cov)
    cov = np.linalg.inv(np.linalg.inv(model.prior_cov) + model.loading.T @ noise_precision @ model.loading)
    gain = cov @ model.loading.T @ noise_precision
    stretch = np.eye(dim_z) + rng.normal(size=(dim_z, dim_z)) * 0.12
    proposal_cov = symmetric(1.1 * stretch @ cov @ stretch.T)
    shift = 0.2 * rng.normal(size=dim_z)
    intercept = model.prior_mean - gain @ (model.loading @ model.prior_mean + model.offset) + shift
    if amortised:
        weight = gain + 0.05 * rng.normal(size=gain.shape)
        proposal = Proposal(cov=proposal_cov, weight=weight, offset=intercept)
    else:
        mean = gain @ np.mean(np.atleast_2d(x), axis=0) + intercept
        proposal = Proposal(cov=proposal_cov, mean=mean)
    return Problem(model, proposal, Data(x))


def log_normal(x: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log N(x; 0, cov) of rows."""
    solved = np.linalg.solve(cov, x.T).T
    return -0.5 * (x * solved).sum(axis=1) - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]


def as_functions(problem: Problem) -> QuadratureProblem:
    """A linear-Gaussian problem of one row as a density and its gradients."""
    model, x = problem.model, problem.data.x

    def misfit(z):
        return x - model.offset - z @ model.loading.T

    def log_joint(z):
        return log_normal(z - model.prior_mean, model.prior_cov) + log_normal(misfit(z), model.noise_cov)

    def prior_mean(z):
        return np.linalg.solve(model.prior_cov, (z - model.prior_mean).T).T

    def offset(z):
        return np.linalg.solve(model.noise_cov, misfit(z).T).T

    gradients = {"prior_mean": prior_mean, "offset": offset}
    return QuadratureProblem(
        log_joint, problem.proposal.mean, problem.proposal.cov, model_gradients=gradients
    )
