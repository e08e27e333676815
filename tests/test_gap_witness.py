"""The gap as what it is, KL(Q‖P) between laws of two particles: integrated over both, with densities written by hand.

Q(z₁, z₂) = q(z₁) q(z₂) and P(z₁, z₂) = Q(z₁, z₂) · ½ Σ_k p(z_k|x)/q(z_k), for one latent. Nothing of the oracle is in
it: no transform of the weight, no contour, no evidence even.
"""

# pyright: reportOptionalOperand=false, reportOperatorIssue=false

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae.problems.linear_gaussian import Proposal


def log_normal(z: np.ndarray, mean: float, var: float) -> np.ndarray:
    """Log N(z; mean, var)."""
    return -((z - mean) ** 2) / (2 * var) - 0.5 * np.log(2 * np.pi * var)


def posterior(problem: toyiwae.Problem) -> tuple[float, float]:
    """Mean and variance of p(z|x) for one latent, from the natural parameters of its two factors."""
    model, noise = problem.model, np.linalg.inv(problem.model.noise_cov)
    loading, prior_var = model.loading[:, 0], float(model.prior_cov[0, 0])
    precision = 1 / prior_var + loading @ noise @ loading
    pull = model.prior_mean[0] / prior_var + loading @ noise @ (problem.data.x - model.offset)
    return float(pull / precision), float(1 / precision)


def divergence(problem: toyiwae.Problem, step: float = 0.05, reach: float = 9.5) -> float:
    """KL(Q‖P) of two particles by the tensor trapezoidal rule, which converges geometrically."""
    assert problem.proposal.mean is not None
    mean, var = float(problem.proposal.mean[0]), float(problem.proposal.cov[0, 0])
    z = mean + np.sqrt(var) * np.arange(-reach, reach + step / 2, step)
    log_q = log_normal(z, mean, var)
    log_ratio = log_normal(z, *posterior(problem)) - log_q
    log_share = np.logaddexp(log_ratio[:, None], log_ratio[None, :]) - np.log(2)  # log(P/Q)
    q = np.exp(log_q) * step * np.sqrt(var)
    return float(-q @ log_share @ q)


@pytest.mark.parametrize("factor", [1.0, 0.4, 2.5], ids=["near", "narrow", "wide"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_gap_of_two_particles_is_the_divergence_of_their_laws(seed: int, factor: float) -> None:
    """Narrow: β = -0.55 or so, the weights have no variance; the divergence exists all the same."""
    problem = random_problem(seed, dim_z=1, dim_x=2)
    proposal = Proposal(factor * problem.proposal.cov, mean=np.asarray(problem.proposal.mean) - 0.35)
    problem = toyiwae.Problem(problem.model, proposal, problem.data)
    assert (toyiwae.ClosedForms(problem).ratio.beta < -0.5).any() == (factor < 1.0)
    cell = toyiwae.exact(problem, K=2, estimators="elbo").cell(2)
    found, coarser = divergence(problem), divergence(problem, step=0.07)
    assert found == pytest.approx(coarser, rel=1e-13)
    assert cell.gap == pytest.approx(found, rel=1e-12)


def test_another_law_of_the_particles_would_be_seen() -> None:
    """The gap at K = 3 in the place of that at 2 differs by far more than the tolerance."""
    problem = random_problem(1, dim_z=1, dim_x=2)
    gap = toyiwae.exact(problem, K=3, estimators="elbo").cell(3).gap
    assert abs(gap / divergence(problem) - 1) > 1e-2
