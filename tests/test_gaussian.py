"""Closed forms on arrays against textbook formulas, SciPy, quadrature and the reference values."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from tests.problems import random_cov, random_problem, reference, symmetric
from toyiwae.errors import MissingMomentError, PrecisionError
from toyiwae.oracle.closed_form import gaussian
from toyiwae.oracle.closed_form.gaussian import Ratio, condition
from toyiwae.problems.linear_gaussian import Model, Problem

CASES = [(1, 1), (1, 3), (2, 3), (3, 2), (5, 1), (6, 4)]
SEEDS = st.integers(0, 2**32 - 1)


def ratio_of(problem) -> Ratio:
    rows = problem.rows()
    posterior = condition(problem.model, rows.x)
    chol = np.linalg.cholesky(problem.proposal.cov)
    return Ratio.between(posterior.mean, posterior.precision_root, rows.proposal_mean, chol)


def grid_2d(half_width: float, points: int) -> tuple[np.ndarray, float]:
    """A square grid [n², 2] about 0 and its cell: the trapezoidal rule, exact to round-off here."""
    axis = np.linspace(-half_width, half_width, points)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


@given(SEEDS, st.sampled_from(CASES))
def test_evidence_is_the_marginal_density(seed, dims):
    problem = random_problem(seed, *dims, rows=4)
    model, x = problem.model, problem.data.x
    mean = model.loading @ model.prior_mean + model.offset
    cov = model.loading @ model.prior_cov @ model.loading.T + model.noise_cov
    expected = multivariate_normal.logpdf(x, mean, cov)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(condition(model, x).log_evidence, expected, rtol=1e-12, atol=1e-12)


@given(SEEDS, st.sampled_from(CASES))
def test_bayes_identity_holds_at_any_latent(seed, dims):
    problem = random_problem(seed, *dims)
    model, x = problem.model, problem.data.x
    posterior = condition(model, x)
    z = np.random.default_rng(seed).normal(size=dims[0]) * 2
    joint = gaussian.log_density(z, model.prior_mean, model.prior_cov) + gaussian.log_density(
        x, model.loading @ z + model.offset, model.noise_cov
    )
    evidence = joint - gaussian.log_density(z, posterior.mean[0], posterior.cov)
    np.testing.assert_allclose(evidence, posterior.log_evidence[0], rtol=1e-11, atol=1e-11)


@given(SEEDS, st.sampled_from(CASES))
def test_posterior_is_the_conditional_of_the_joint(seed, dims):
    problem = random_problem(seed, *dims)
    model, x = problem.model, problem.data.x
    posterior = condition(model, x)
    cross = model.prior_cov @ model.loading.T
    marginal = model.loading @ cross + model.noise_cov
    gain = cross @ np.linalg.inv(marginal)
    mean = model.prior_mean + gain @ (x - model.loading @ model.prior_mean - model.offset)
    np.testing.assert_allclose(posterior.mean[0], mean, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(posterior.cov, model.prior_cov - gain @ cross.T, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(posterior.precision @ posterior.cov, np.eye(dims[0]), atol=1e-11)
    np.testing.assert_allclose(posterior.root @ posterior.precision_root, np.eye(dims[0]), atol=1e-12)


def test_rows_are_conditioned_one_by_one():
    problem = random_problem(5, 3, 2, rows=6)
    together = condition(problem.model, problem.data.x)
    for n, x in enumerate(problem.data.x):
        alone = condition(problem.model, x)
        np.testing.assert_allclose(together.mean[n], alone.mean[0], rtol=1e-13)
        np.testing.assert_allclose(together.log_evidence[n], alone.log_evidence[0], rtol=1e-13)


def test_log_density_agrees_with_scipy():
    rng = np.random.default_rng(11)
    mean, cov, x = rng.normal(size=4), random_cov(rng, 4, 2.1), rng.normal(size=(3, 5, 4))
    np.testing.assert_allclose(
        gaussian.log_density(x, mean, cov),
        multivariate_normal.logpdf(x, mean, cov),  # pyright: ignore[reportArgumentType]
        rtol=1e-12,
    )


@pytest.mark.parametrize("smallest", [1e-10, 1e-5, 1.0])
@pytest.mark.parametrize("field", ["prior_cov", "noise_cov"])
def test_nearly_singular_covariances_keep_their_digits(field, smallest):
    """Against the marginal density in 40 digits."""
    rng, problem = np.random.default_rng(3), random_problem(4, 3, 3)
    turn = rng.normal(size=(3, 3))
    fields = {name: getattr(problem.model, name) for name in Model.__annotations__}
    model = Model(**fields | {field: symmetric(turn @ np.diag([1.7, 0.6, smallest]) @ turn.T)})
    with mpmath.workdps(40):
        loading, noise_cov = mpmath.matrix(model.loading), mpmath.matrix(model.noise_cov)
        cov = loading * mpmath.matrix(model.prior_cov) * loading.T + noise_cov
        gap = mpmath.matrix(problem.data.x) - loading * mpmath.matrix(model.prior_mean)
        gap -= mpmath.matrix(model.offset)
        distance, log_det = (gap.T * mpmath.lu_solve(cov, gap))[0], mpmath.log(mpmath.det(cov))
        expected = float(-(distance + log_det + 3 * mpmath.log(2 * mpmath.pi)) / 2)
    lost = 2e-15 / np.sqrt(smallest) if field == "noise_cov" else 0.0  # the noise's root is inverted
    assert condition(model, problem.data.x).log_evidence[0] == pytest.approx(expected, rel=1e-13 + lost)


@given(SEEDS, st.integers(1, 5))
def test_kl_is_the_textbook_formula(seed, dim):
    rng = np.random.default_rng(seed)
    q_mean, p_mean = rng.normal(size=(3, dim)), rng.normal(size=dim)
    q_cov, p_cov = random_cov(rng, dim, 0.7), random_cov(rng, dim, 1.4)
    precision, difference = np.linalg.inv(p_cov), p_mean - q_mean
    log_dets = np.linalg.slogdet(p_cov)[1] - np.linalg.slogdet(q_cov)[1]
    mahalanobis = np.einsum("ni,ij,nj->n", difference, precision, difference)
    expected = 0.5 * (np.trace(precision @ q_cov) - dim + log_dets + mahalanobis)
    np.testing.assert_allclose(gaussian.kl(q_mean, q_cov, p_mean, p_cov), expected, rtol=1e-11)


@pytest.mark.parametrize("order", [-0.3, 0.5, 1.0, 1.7])
def test_kl_and_renyi_agree_with_quadrature(order):
    rng = np.random.default_rng(8)
    p_mean, q_mean = np.array([0.3, -0.4]), np.array([-0.1, 0.2])
    p_cov, q_cov = random_cov(rng, 2, 0.8), random_cov(rng, 2, 1.1)
    z, cell = grid_2d(14.0, 401)
    log_p, log_q = gaussian.log_density(z, p_mean, p_cov), gaussian.log_density(z, q_mean, q_cov)
    if order == 1:
        expected = np.sum(np.exp(log_p) * (log_p - log_q)) * cell
        assert gaussian.kl(p_mean, p_cov, q_mean, q_cov) == pytest.approx(expected, rel=1e-11)
    else:
        integral = np.sum(np.exp(order * log_p + (1 - order) * log_q)) * cell
        expected = np.log(integral) / (order - 1)
    value = gaussian.renyi(order, p_mean, p_cov, q_mean, q_cov)
    assert value == pytest.approx(expected, rel=1e-11)


def test_kl_agrees_with_gauss_hermite_in_one_dimension():
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    q_mean, q_cov, p_mean, p_cov = np.array([0.4]), np.array([[0.7]]), np.array([-0.3]), np.array([[1.9]])
    z = (q_mean + np.sqrt(0.7) * nodes)[:, None]
    difference = gaussian.log_density(z, q_mean, q_cov) - gaussian.log_density(z, p_mean, p_cov)
    expected = weights @ difference / weights.sum()
    assert gaussian.kl(q_mean, q_cov, p_mean, p_cov) == pytest.approx(expected, rel=1e-12)


@given(SEEDS, st.sampled_from([-0.4, -1e-9, 1e-12, 0.3, 1 - 1e-10, 1 + 1e-7, 1.6]))
def test_renyi_is_skew_symmetric(seed, order):
    """(1−α) D_α(p‖q) = α D_{1−α}(q‖p): two different branches of the code."""
    ratio = ratio_of(random_problem(seed, 3, 2))
    back = Ratio(-ratio.beta / (1 + ratio.beta), -ratio.shift * np.sqrt(1 + ratio.beta), ratio.axes)
    if ratio.exists(order) and back.exists(1 - order):
        left, right = (1 - order) * ratio.renyi(order), order * back.renyi(1 - order)
        np.testing.assert_allclose(left, right, rtol=1e-12)


@given(SEEDS, st.sampled_from(CASES))
def test_the_coordinates_give_the_log_weight(seed, dims):
    problem = random_problem(seed, *dims)
    ratio, posterior = ratio_of(problem), condition(problem.model, problem.data.x)
    noise = np.random.default_rng(seed).normal(size=(4, dims[0]))
    mean = problem.rows().proposal_mean[0]
    z = mean + noise @ ratio.axes.T
    expected = gaussian.log_density(z, posterior.mean, posterior.cov) - gaussian.log_density(
        z, mean, problem.proposal.cov
    )
    spread = np.log1p(ratio.beta) + noise**2 - (1 + ratio.beta) * (noise - ratio.shift) ** 2
    np.testing.assert_allclose(0.5 * spread.sum(axis=-1), expected, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(ratio.axes @ ratio.axes.T, problem.proposal.cov, atol=1e-13)


@given(SEEDS, st.sampled_from([2.0, -0.7, 0.5, 1e-7, 1 + 2.5j, 1e-3 - 4j]))
def test_moments_agree_with_the_form_in_noise_coordinates(seed, order):
    """Theory's M(s) = exp(s c₀ + Σ −½ log(1+sβ) + s²h²/(2(1+sβ))), h = UᵀLᵀP⁻¹(μ_q − m)."""
    problem = random_problem(seed, 3, 4)
    ratio, posterior = ratio_of(problem), condition(problem.model, problem.data.x)
    chol, difference = np.linalg.cholesky(problem.proposal.cov), problem.proposal.mean - posterior.mean[0]
    beta, rotation = np.linalg.eigh(chol.T @ posterior.precision @ chol - np.eye(3))
    h = rotation.T @ chol.T @ posterior.precision @ difference
    c0 = 0.5 * np.linalg.slogdet(problem.proposal.cov)[1] + 0.5 * np.linalg.slogdet(posterior.precision)[1]
    c0 -= 0.5 * difference @ posterior.precision @ difference
    if np.all(1 + np.real(order) * beta > 0):
        expected = order * c0 + np.sum(
            -0.5 * np.log(1 + order * beta) + order**2 * h**2 / (2 + 2 * order * beta)
        )
        np.testing.assert_allclose(ratio.log_moment(order), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ratio.moment(order), np.exp(expected), rtol=1e-9)


@pytest.mark.parametrize("order", [2.0, -0.5, 0.3 + 2j, 1.5 - 3j])
def test_moments_agree_with_quadrature(order):
    problem = random_problem(21, 2, 3)
    ratio = ratio_of(problem)
    noise, cell = grid_2d(12.0, 601)
    spread = np.log1p(ratio.beta) + noise**2 - (1 + ratio.beta) * (noise - ratio.shift) ** 2
    log_w, log_q = 0.5 * spread.sum(axis=-1), -0.5 * np.sum(noise**2, axis=-1) - np.log(2 * np.pi)
    expected = np.sum(np.exp(order * log_w + log_q)) * cell
    np.testing.assert_allclose(ratio.moment(order)[0], expected, rtol=1e-11)


def test_moments_of_order_zero_and_one_are_one():
    ratio = ratio_of(random_problem(2, 4, 3, rows=5, amortised=True))
    np.testing.assert_array_equal(ratio.moment(0.0), 1)
    np.testing.assert_allclose(ratio.moment(1.0), 1, rtol=1e-15)


@given(SEEDS)
def test_variance_is_the_second_moment_less_one(seed):
    ratio = ratio_of(random_problem(seed, 2, 3))
    if ratio.exists(2):
        np.testing.assert_allclose(ratio.variance, ratio.moment(2.0) - 1, rtol=1e-9)


def test_small_divergences_keep_their_digits():
    """Q differs from p by 1e-9: KL and Var are about 1e-18, and agree with their leading terms."""
    beta, shift = np.array([2e-9, -1e-9]), np.array([[1e-9, 3e-9]])
    ratio = Ratio(beta, shift, np.eye(2))
    leading = 0.5 * np.sum(beta**2) / 2 + 0.5 * np.sum(shift**2)
    assert ratio.kl_to_target[0] == pytest.approx(leading, rel=1e-8)
    assert ratio.kl_from_target[0] == pytest.approx(leading, rel=1e-8)
    assert ratio.variance[0] == pytest.approx(2 * leading, rel=1e-8)
    assert Ratio(np.zeros(2), np.zeros((1, 2)), np.eye(2)).kl_to_target[0] == 0


@pytest.mark.parametrize(("order", "beta"), [(2.0, -0.5), (4.0, -0.25), (-1.0, 1.0), (2 + 3j, -0.6)])
def test_a_moment_on_the_edge_is_refused_by_name(order, beta):
    ratio = Ratio(np.array([0.3, beta]) if beta < 0 else np.array([beta, -0.2]), np.zeros((1, 2)), np.eye(2))
    assert not ratio.exists(order)
    with pytest.raises(
        MissingMomentError, match=r"E_q\[\(w/Z\)\^.*does not exist.*orders (below|above)"
    ) as caught:
        ratio.moment(order)
    assert f"β = {beta:g}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_moment_exists_just_inside_the_edge():
    ratio = Ratio(np.array([-0.5 + 1e-9]), np.zeros((1, 1)), np.eye(1))
    expected = (0.5 + 1e-9) / np.sqrt(2e-9)
    np.testing.assert_allclose(ratio.variance, expected - 1, rtol=1e-6)
    assert ratio.tail_index == pytest.approx(0.5 - 1e-9)


def test_a_moment_beyond_float64_is_refused():
    ratio = Ratio(np.array([0.4]), np.array([[60.0]]), np.eye(1))
    with pytest.raises(PrecisionError, match="beyond the range of float64"):
        _ = ratio.variance
    assert ratio.log_moment(2.0)[0] > 1000


def test_tail_index_is_one_less_the_variance_ratio_in_one_dimension():
    for p_var, q_var in [(1.7, 0.9), (0.8, 1.3)]:
        p_root = np.array([[1 / np.sqrt(p_var)]])
        ratio = Ratio.between(np.zeros((1, 1)), p_root, np.ones((1, 1)), np.array([[np.sqrt(q_var)]]))
        assert ratio.tail_index == pytest.approx(max(0, 1 - q_var / p_var), rel=1e-14)


@pytest.mark.parametrize("name", ["two_in_three", "narrow", "twelve"])
def test_reference_values(name):
    case = reference()[name]
    problem, truth = Problem.from_dict(case["problem"]), case["truth"]
    posterior, ratio = condition(problem.model, problem.data.x), ratio_of(problem)
    np.testing.assert_allclose(posterior.log_evidence[0], truth["log_evidence"], rtol=1e-13)
    np.testing.assert_allclose(posterior.mean[0], truth["posterior"]["mean"], rtol=1e-12)
    np.testing.assert_allclose(posterior.cov, truth["posterior"]["cov"], rtol=1e-12)
    np.testing.assert_allclose(np.sort(ratio.beta), truth["beta"], rtol=1e-11)
    np.testing.assert_allclose(ratio.kl_to_target[0], truth["rows"][0]["gap"], rtol=1e-12)
