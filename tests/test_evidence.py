"""The log-evidence and its stated error, against the marginal covariance factorised with mpmath."""

from typing import Any

import mpmath
import numpy as np
import pytest
from flint import arb, ctx

import toyiwae
from toyiwae.oracle.closed_form import gaussian
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.whitened.algebra import Double, Extended
from toyiwae.oracle.whitened.evidence import log_evidence
from toyiwae.oracle.whitened.model import WhitenedModel
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.truth import accuracy


def noise(dim_x: int, least: float, *, diagonal: bool) -> np.ndarray:
    """A covariance with variances from `least` to 1, log-uniform; dense ones have correlations near singular."""
    rng = np.random.default_rng(5)
    spread = np.sqrt(np.geomspace(least, 1.0, dim_x))
    half = np.eye(dim_x) if diagonal else rng.normal(size=(dim_x, dim_x + 3))
    cov = half @ half.T
    spread = spread / np.sqrt(np.diag(cov))
    return cov * np.multiply.outer(spread, spread)


def problem(noise_cov: np.ndarray, dim_z: int, scale: float, rows: int = 2) -> toyiwae.Problem:
    """Data from the model, a proposal somewhat off the posterior of the first row."""
    rng, dim_x = np.random.default_rng(len(noise_cov)), len(noise_cov)
    half = rng.normal(size=(dim_z, dim_z + 2))
    model = toyiwae.Model(
        rng.normal(size=dim_z),
        half @ half.T / dim_z,
        scale * rng.normal(size=(dim_x, dim_z)),
        rng.normal(size=dim_x),
        noise_cov,
    )
    z = rng.normal(size=(rows, dim_z))
    x = z @ model.loading.T + model.offset
    x = x + rng.normal(size=(rows, dim_x)) @ np.linalg.cholesky(noise_cov).T
    posterior = gaussian.condition(model, x)
    spread = np.sqrt(np.diag(posterior.cov))
    proposal = toyiwae.Proposal(cov=np.diag(1.3 * spread**2), mean=posterior.mean[0] + 0.3 * spread)
    return toyiwae.Problem(model, proposal, toyiwae.Data(x))


def marginal(problem: toyiwae.Problem) -> list[Any]:
    """Log N(x; W m₀ + o, W S₀ Wᵀ + R) of each row, in 120 digits."""
    ctx, model = mpmath.mp.clone(), problem.model
    ctx.dps = 120
    loading, prior, own = (ctx.matrix(a.tolist()) for a in (model.loading, model.prior_cov, model.noise_cov))
    cov = loading * prior * loading.T + own
    middle = loading * ctx.matrix(model.prior_mean.tolist()) + ctx.matrix(model.offset.tolist())
    root = ctx.cholesky(cov, tol=0)
    log_det = sum(ctx.log(root[i, i]) for i in range(root.rows))
    found = []
    for x in problem.rows().x:
        misfit = ctx.matrix(x.tolist()) - middle
        distance = (misfit.T * ctx.lu_solve(cov, misfit))[0]
        found.append(-distance / 2 - log_det - root.rows * ctx.log(2 * ctx.pi) / 2)
    return found


def relative(found: Bounded) -> float:
    """The largest stated error in units of the larger of the value and one nat."""
    return float(np.max(found.error / np.maximum(np.abs(found.value), 1.0)))


@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "dense"])
@pytest.mark.parametrize(
    ("dim_x", "dim_z", "scale", "least"),
    [
        (1, 1, 1.0, 1.0),
        (20, 4, 1.0, 1e-3),
        (40, 5, 1e3, 1e-3),
        (40, 5, 1e3, 1e-9),
        (30, 3, 1e12, 1e-12),
        (30, 3, 1e-6, 1e-6),
        (6, 12, 1e3, 1e-9),
        (6, 12, 1e8, 1e-9),
        (60, 3, 1e3, 1e-9),
    ],
)
def test_the_stated_error_is_honest_and_small(
    dim_x: int, dim_z: int, scale: float, least: float, *, diagonal: bool
) -> None:
    """For noise of many sizes, near singular correlations, and more latents than observations."""
    one = problem(noise(dim_x, least, diagonal=diagonal), dim_z, scale)
    found = log_evidence(Whitened(one))
    for value, error, truth in zip(found.value, found.error, marginal(one), strict=True):
        assert abs(mpmath.mpf(value) - truth) <= error
    assert relative(found) <= 1e-12


def test_digits_that_31_cannot_keep_are_kept_by_50() -> None:
    """Where the loading spans fewer dimensions than the latent, at a size at which 31 digits lose them."""
    one = problem(noise(4, 1e-9, diagonal=False), 9, 1e5)
    whitened = Whitened(one)
    algebras: tuple[Any, ...] = (Double(), Extended())
    for algebra in algebras:
        whitened.model = WhitenedModel(one, algebra)
        found = log_evidence(whitened)
        assert np.all(np.abs(found.value - np.array(marginal(one), dtype=float)) <= found.error)
        assert relative(found) <= 1e-12


@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "dense"])
def test_balls_hold_the_marginal(*, diagonal: bool) -> None:
    """In as many digits as asked for."""
    one = problem(noise(12, 1e-6, diagonal=diagonal), 3, 10.0)
    for ball, truth in zip(enclose.log_evidence(one, 70), marginal(one), strict=True):
        with ctx.workprec(600):
            exact = arb(mpmath.nstr(truth, 110))
            assert abs(ball - exact) < arb(10) ** -100 * abs(exact)
            assert ball.rad() < arb(10) ** -70 * abs(exact)


def images(dim_z: int, *, diagonal: bool = True) -> toyiwae.Problem:
    """One row of 784 observations."""
    spectrum = np.geomspace(1.0, 0.01, 784)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(784, 784)))[0]
    dense = (basis * spectrum) @ basis.T
    return problem(1e-3 * np.eye(784) if diagonal else (dense + dense.T) / 2, dim_z, 1.0, rows=1)


@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "dense"])
def test_many_observations_lose_no_digits(*, diagonal: bool) -> None:
    """784 of them, against float64's."""
    one = images(5, diagonal=diagonal)
    found = log_evidence(Whitened(one))
    assert relative(found) <= 1e-12
    plain = gaussian.condition(one.model, one.data.x).log_evidence
    np.testing.assert_allclose(found.value, plain, rtol=1e-11)


def test_many_pixels_are_answered_at_once_with_digits_too() -> None:
    """Bounds and gradients of 784 pixels, none of which a budget of effort withholds."""
    one = images(5)
    plain = toyiwae.exact(one, K=[1, 16, 10**6], estimators="iwae")
    assert all(cell.reason is None for cell in plain.results)
    exact = toyiwae.exact(one, K=16, estimators="iwae", digits=30)
    assert exact.decimals is not None
    assert abs(plain.log_evidence - float(exact.decimals["log_evidence"])) <= plain.log_evidence_error


def test_observations_count_in_the_effort_of_mpmath() -> None:
    """A dense noise covariance of 784 dimensions is refused in one line, a diagonal one is not."""
    law = GaussianLaw(np.full(5, 0.2), np.full((1, 5), 0.1))
    assert accuracy.seconds(law, [16], 0, 12, images(5), 40.0)[0] is None
    why, left = accuracy.seconds(law, [16], 0, 12, images(5, diagonal=False), 40.0)
    assert left == 40.0
    assert why is not None
    assert why.startswith(
        "multiprecision would take too long for 12 digits of 1 numbers for 1 rows in 5 dimensions"
    )
    assert "observed in 784" in why
