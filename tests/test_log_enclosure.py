"""Enclosures of variances with logarithms against double precision, closed forms, each other, and the laws in K."""

import numpy as np
import pytest
from flint import arb, ctx

from tests import certify, certify_joint, quadrature
from tests.quadrature import Toy
from tests.test_truth import LABELS, as_problem
from toyiwae import estimators
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.enclosure.log_moments import log_variances
from toyiwae.oracle.finite_k.score_function import refusal
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.linear_gaussian import GaussianSource

FORMS = {
    e.name: e.form
    for e in estimators.all()
    if e.form is not None and e.form.has_log_terms and e.form.exponent and not refusal(e.form)
}


@pytest.mark.parametrize(
    "parameter", ["proposal_mean", pytest.param("proposal_chol", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", FORMS)
def test_variances_agree_with_double_precision(name: str, parameter: str) -> None:
    """K = 2, where pairs are one contour, 3, where one weight is left beside a pair, and more."""
    _compare(as_problem(Toy()), name, parameter, [2, 3, 100])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 100])
@pytest.mark.parametrize("name", FORMS)
def test_variances_of_wide_proposals_agree_with_double_precision(name: str, count: int) -> None:
    """One coordinate and one K at a time: together their transforms need far more nodes."""
    for parameter, coordinate in (("proposal_mean", (0,)), ("proposal_chol", (0, 0))):
        _compare(as_problem(Toy.wide()), name, parameter, [count], [coordinate])


def test_pairs_under_weights_of_large_variance() -> None:
    """Their A_0(t) reaches its t² only far below 1/K; a grid that ends at e^-10/K misses 2e-11 of the variance."""
    model = Model(np.zeros(1), np.eye(1), np.eye(1), np.zeros(1), np.eye(1))
    far = Proposal(np.array([[0.4]]), mean=[0.5 + 5.0 * np.sqrt(0.5)])
    _compare(Problem(model, far, Data(np.ones(1))), "ovis", "proposal_chol", [100, 10**4])


def test_pairs_of_certifications_seed_930() -> None:
    """Found by `make certify`: VIMCO-★ by one entry of a Cholesky factor was off by seven times its stated error."""
    (found,) = certify_joint.logarithms(certify.case(930).problem, "vimco_star", "proposal_chol", [1000], 15)
    _, value, stated, ball = found
    assert abs(ball - value) < stated < 1e-11 * value


def _compare(
    problem: Problem,
    name: str,
    parameter: str,
    counts: list[int],
    coordinates: list[tuple[int, ...]] | None = None,
) -> None:
    """Balls against float64 numbers, which must be within their stated errors."""
    chosen = problem.parameters.record(parameter).indices() if coordinates is None else coordinates
    found = GaussianSource(problem).log_variances({0: (FORMS[name], parameter)}, counts)[0]
    truth = log_variances(problem, {0: (FORMS[name], parameter, chosen)}, counts, digits=16)[0]
    for one, balls in zip(found, truth, strict=True):
        assert one.var is not None
        for index, ball in zip(chosen, balls, strict=True):
            assert abs(ball - one.var.value[index]) < one.var.error[index]
            assert ball.rad() < 1e-10 * ball


def test_equal_weights_have_closed_forms() -> None:
    """The proposal is the posterior: OVIS(0) has the variance of Σ f(1/K) g_k."""
    model = Model(np.zeros(2), np.eye(2), np.eye(2), np.zeros(2), np.eye(2))
    problem = Problem(model, Proposal(0.5 * np.eye(2), mean=[0.0, 0.0]), Data(np.zeros(2)))
    job = (form_of("ovis:0"), "proposal_mean")
    for ball, right in zip(
        log_variances(problem, {0: (*job, [(0,)])}, [2, 10], digits=12)[0][:, 0],
        map(_of_equal_weights, (2, 10)),
        strict=True,
    ):
        assert ball.overlaps(right)
    counts = [2, 3, 10, 100]
    for k, one in zip(counts, GaussianSource(problem).log_variances({0: job}, counts)[0], strict=True):
        assert one.var is not None
        right = _of_equal_weights(k)
        assert abs(right - one.var.value[0]) < one.var.error[0] < 1e-5 * float(right)


def _of_equal_weights(k: int) -> arb:
    with ctx.workprec(100):
        return 2 * k * (-(1 - 1 / arb(k)).log() - 1 / arb(k)) ** 2


def form_of(name: str) -> Form:
    """A registered estimator's."""
    form = estimators.get(name).form
    assert form is not None
    return form


@pytest.mark.slow
def test_the_laws_of_vimco_and_ovis_in_the_number_of_particles() -> None:
    """By K = 10⁶ the SNR of VIMCO falls like K^-½ and that of OVIS(0) grows like K^½, to within 1e-3 of the slope."""
    problem, counts = as_problem(Toy.wide()), [10**6, 2 * 10**6]
    for name, slope in (("vimco_arithmetic", -0.5), ("ovis:0", 0.5)):
        form = form_of(name)
        var = log_variances(problem, {0: (form, "proposal_mean", [(0,)])}, counts, digits=8)[0][:, 0]
        iwae = (form_of("iwae"), "proposal_mean", [(0,)])  # of the same mean
        mean = enclose.gradients(problem, {0: iwae}, counts, digits=8)[0].mean[:, 0]
        first, second = (abs(m) / v.sqrt() for m, v in zip(mean, var, strict=True))
        assert abs((second / first).log() / arb(2).log() - slope) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 4, 9, 11, 14])
@pytest.mark.parametrize("name", ["score_function", "vimco_arithmetic"])
def test_precisions_agree(seed: int, name: str) -> None:
    """Balls of different precision, whose steps, ranges and contours differ, overlap, up to K = 10¹²."""
    one = certify.case(seed)
    job = {0: (form_of(name), "proposal_mean", [(0,)])}
    many = [k for k in one.particles if k > 1]
    short, long = (log_variances(one.problem, job, many, digits=digits)[0].ravel() for digits in (10, 60))
    assert all(a.overlaps(b) and a.rad() != b.rad() for a, b in zip(short, long, strict=True))


@pytest.mark.parametrize("exponent", [1.0, 0.6])
@pytest.mark.parametrize("name", ["proposal_mean", "proposal_chol"])
def test_variances_contain_tensor_quadrature(exponent: float, name: str) -> None:
    """Coefficients -η log(1 - w̃) + θ w̃ + κ of weights to a power, at K = 2 and 3."""
    toy, eta = Toy(), 1.3 / exponent
    form = Form(
        {1: 1.0}, {}, {1: -0.5}, exponent=exponent, log_evidence=1.3, leave_one_out=-1.3, constant=1.3 - eta
    )
    (label,) = LABELS[name]
    for k in (2, 3):
        noise, log_w, weights = quadrature.log_weights(toy, 1, k)
        w = np.exp(exponent * log_w[:, 0])
        normalised = w / w.sum(axis=-1, keepdims=True)
        coefficient = -eta * np.log1p(-normalised) - 0.5 * normalised + 1.3 * np.log1p(-1.0 / k)
        drawn = (coefficient * toy.gradients(noise)[label][1].reshape(normalised.shape)).sum(axis=-1)
        expected = weights @ drawn**2 - (weights @ drawn) ** 2
        found = log_variances(as_problem(toy), {0: (form, name, None)}, [k], digits=12)[0]
        assert float(found[0, 0]) == pytest.approx(expected, rel=1e-9)
