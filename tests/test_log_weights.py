"""Variances with logarithms of normalised weights: against tensor quadrature, sampling and the laws in K."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import toyiwae
from tests.problems import random_problem
from toyiwae import estimators
from toyiwae.oracle.finite_k import weight_kernels, weight_ratios
from toyiwae.oracle.finite_k.bounds import common_grid
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.problems.linear_gaussian import Data, Model, Proposal

NAMES = ("vimco_arithmetic", "ovis:0", "ovis:0.3", "vimco_star:0.3")
FAMILY = 1e-6


def one_dimension(cov: float, mean: float) -> toyiwae.Problem:
    model = Model(np.zeros(1), np.array([[1.3]]), np.array([[0.8]]), np.zeros(1), np.array([[0.7]]))
    return toyiwae.Problem(model, Proposal(np.array([[cov]]), mean=np.array([mean])), Data(np.array([0.6])))


def log_weight_and_score(cov, mean, noise):
    z = mean + np.sqrt(cov) * noise
    log_w = norm.logpdf(z, 0.0, np.sqrt(1.3)) + norm.logpdf(0.6, 0.8 * z, np.sqrt(0.7))
    return log_w - norm.logpdf(z, mean, np.sqrt(cov)), noise / np.sqrt(cov)


def moments(cov, mean, particles, name) -> Any:
    return toyiwae.exact(one_dimension(cov, mean), K=particles, estimators=name).results


@pytest.mark.parametrize(("cov", "mean"), [(0.7, 0.1), (0.45, 0.3)])  # β above and below 0
@pytest.mark.parametrize("particles", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", [NAMES, ("score_function", "elbo_vargrad")], ids=["leave one out", "plain"])
def test_tensor_quadrature(cov, mean, particles, names):
    nodes, weights = np.polynomial.hermite_e.hermegauss(110)
    weights = weights / weights.sum()
    kept = weights > 1e-26
    log_w, score = log_weight_and_score(cov, mean, nodes[kept])
    axes = np.meshgrid(*[np.arange(kept.sum())] * particles, indexing="ij")
    index = np.stack([axis.ravel() for axis in axes], axis=-1)[:, None]
    prob = weights[kept][index[:, 0]].prod(axis=-1)
    cell = moments(cov, mean, particles, ",".join(names))[0]
    scores = score[index].sum(axis=(1, 2))
    for name in names:
        drawn = (estimators.get(name)(log_w[index]).score * score[index]).sum(axis=(1, 2))
        found = cell.gradients[name].parameters["proposal_mean"]
        expected = prob @ drawn
        var, best = prob @ (drawn - expected) ** 2, -(prob @ (drawn * scores)) / (prob @ scores**2)
        assert found.var.item() == pytest.approx(var, rel=1e-12)
        assert found.best_constant.item() == pytest.approx(best, rel=1e-12, abs=1e-14)
        assert found.best_constant_error.item() < 1e-11
        if name != "ovis:0.3":  # biased, and its mean is another's business
            assert found.mean.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [pytest.param("vimco_star:0.3", marks=pytest.mark.slow), "elbo_vargrad"])
@pytest.mark.parametrize(("particles", "groups"), [(5, 1), (64, 3)])
def test_the_best_constant_makes_the_variance_smallest(name, particles, groups):
    """The exact variance is a parabola in the constant, with its bottom there; constant 0 is the estimator itself."""
    problem, plain = random_problem(4, 2, 3), estimators.get(name)
    own: Any = toyiwae.exact(problem, K=particles, M=groups, estimators=name).results[0].gradients[name]
    best = own.parameters["proposal_mean"].best_constant[0]

    def var(constant):
        assert plain.form is not None
        added = plain.form.constant + groups * constant / np.log1p(-1.0 / particles)
        moved = replace(plain, form=replace(plain.form, constant=added))
        found: Any = toyiwae.exact(
            problem, K=particles, M=groups, estimators=[moved], parameters="proposal_mean"
        )
        return found.results[0].gradients[name].parameters["proposal_mean"].var[0]

    least, step = var(best), 0.5 * best
    assert var(0.0) == own.parameters["proposal_mean"].var[0] > least
    assert var(best + step) - least == pytest.approx(var(best - step) - least, rel=1e-8)
    assert var(best + step) - least == pytest.approx((var(0.0) - least) / 4, rel=1e-8)


def test_chol_coordinates_have_their_own_best_constants():
    problem = random_problem(4, 2, 3)
    found: Any = toyiwae.exact(
        problem, K=8, estimators="iwae,vimco_star:0.3", parameters="proposal_chol"
    ).results[0]
    best = found.gradients["vimco_star:0.3"].parameters["proposal_chol"].best_constant
    np.testing.assert_array_equal(
        np.isnan(best), [[False, True], [False, False]]
    )  # nothing above the diagonal
    assert found.gradients["iwae"].parameters["proposal_chol"].best_constant is None
    documents = {name: truth.to_dict()["proposal_chol"] for name, truth in found.gradients.items()}
    assert ["best_constant" in document for document in documents.values()] == [False, True]


@pytest.mark.parametrize(
    ("particles", "names"),
    [
        (64, NAMES),
        pytest.param(1024, NAMES, marks=pytest.mark.slow),
        (64, ["elbo_vargrad"]),
        pytest.param(10**6, NAMES, marks=pytest.mark.slow),
    ],
    ids=["64", "1024", "plain", "1000000"],
)
def test_sampling(particles, names):
    """Where the weights are bounded, so that the sampled squares have every moment."""
    cov, mean, draws = 0.8, 0.3, max(2_000_000 // particles, 1000)
    rng, at_once = np.random.default_rng(3), max(1, 2_000_000 // particles)
    gradients: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for first in range(0, draws, at_once):
        noise = rng.normal(size=(min(at_once, draws - first), 1, particles))
        log_w, score = log_weight_and_score(cov, mean, noise)
        for name in names:
            gradients[name].append((estimators.get(name)(log_w).score * score).sum(axis=(1, 2)))
    cell = moments(cov, mean, particles, ",".join(names))[0]
    limit = norm.isf(FAMILY / (2 * 4 * len(NAMES)))
    for name in names:
        drawn = np.concatenate(gradients[name])
        found = cell.gradients[name].parameters["proposal_mean"].var.item()
        square = (drawn - drawn.mean()) ** 2
        assert abs(square.mean() - found) < limit * square.std() / np.sqrt(draws)


@pytest.mark.parametrize("cov", [pytest.param(0.7, marks=pytest.mark.slow), 0.48])  # the fourth moment exists
@pytest.mark.parametrize(
    ("name", "slope"), [("vimco_arithmetic", -0.5), ("ovis:0", 0.5), ("vimco_star:0.3", 0.5)]
)
def test_the_laws_of_the_signal_to_noise_ratio(cov, name, slope):
    particles = [10**6, 4 * 10**6, 10**9]
    cells = moments(cov, 0.3, particles, name)
    snr, error = (
        np.array([getattr(c.gradients[name].parameters["proposal_mean"], part).item() for c in cells])
        for part in ("snr", "snr_error")
    )
    assert (error < 1e-8 * snr).all()
    assert np.diff(np.log(snr)) / np.diff(np.log(particles)) == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("cov", [0.7, 0.48])
def test_without_a_constant_next_to_none_is_missing(cov):
    """VIMCO-★ at α = 0 is best but for -(E[w²s²]/2 - E[w²s]E[ws])/(K² E[s²]), of the next order; VIMCO lacks 1/K.

    The remainder of the expansion falls like 1/K: that of 2·10⁵ particles is half that of 10⁵.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    log_w, s = log_weight_and_score(cov, 0.3, nodes)
    prob, w = weights / weights.sum(), np.exp(log_w)
    w = w / (prob @ w)
    limit = -(prob @ (w * s) ** 2 / 2 - (prob @ (w * w * s)) * (prob @ (w * s))) / (prob @ s**2)
    particles = np.array([10**5, 2 * 10**5])
    best = {
        name: np.array(
            [
                cell.gradients[name].parameters["proposal_mean"].best_constant.item()
                for cell in moments(cov, 0.3, particles.tolist(), name)
            ]
        )
        for name in ("vimco_star:0", "vimco_arithmetic")
    }
    rest = particles**2.0 * best["vimco_star:0"] - limit
    assert (np.abs(rest) < 1e-3 * abs(limit)).all()
    assert rest[0] / rest[1] == pytest.approx(2.0, abs=1e-3)
    np.testing.assert_allclose(
        best["vimco_arithmetic"], best["vimco_star:0"] - np.log1p(-1.0 / particles), rtol=1e-9
    )


def test_too_many_double_integrals_are_made_with_digits_alone(monkeypatch):
    """In float64 there is a reason with the way out; balls have no such limit, and agree with the unlimited float64."""
    options = {"K": 3, "estimators": "vimco_arithmetic", "parameters": "proposal_mean"}
    problem = random_problem(4, 2, 3)
    plain: Any = toyiwae.exact(problem, **options).results[0].gradients["vimco_arithmetic"]
    monkeypatch.setattr("toyiwae.truth.linear_gaussian.MOST_PAIRED", 1)
    none, some = (
        toyiwae.exact(problem, digits=digits, **options)
        .results[0]
        .gradients["vimco_arithmetic"]
        .parameters["proposal_mean"]
        for digits in (None, 9)
    )
    assert none.var is None
    assert none.reason is not None
    assert "for each of 2 coordinates of all rows, more than 1: ask with digits=" in none.reason
    assert some.var is not None
    np.testing.assert_allclose(some.var, plain.parameters["proposal_mean"].var, rtol=1e-12)


def test_atoms_agree_with_enumeration():
    """Three states and three particles: every sum over the states, for both powers and the constant."""
    prob, log_w, table = np.array([0.5, 0.3, 0.2]), np.array([0.3, -1.0, 0.9]), np.array([1.0, -0.4, 2.0])
    law, k = DiscreteLaw(np.log(prob), log_w), 3
    table = table - prob @ table
    engine, score = LogEngine(law, [k], common_grid(law, [k])), law.table(table[None])
    index = np.stack(np.meshgrid(*[np.arange(3)] * k, indexing="ij"), axis=-1).reshape(-1, k)
    weight, at = np.exp(log_w)[index], table[index]
    share = weight / weight.sum(axis=1, keepdims=True)
    for eta, theta, constant in [(1.0, -1.0, 0.0), (1.0, -1.0, 1.0), (1.0, 0.5, 0.3)]:
        coefficient = -eta * np.log1p(-share) + theta * share + constant * np.log1p(-1.0 / k)
        drawn, p = (coefficient * at).sum(axis=1), prob[index].prod(axis=1)
        var = engine.log_variance(score, LogForm(0.0, eta, theta, 0.0, constant), np.zeros(1))
        mean = engine.log_mean(score, LogForm(0.0, eta, theta, 0.0, constant))
        assert mean.value.item() == pytest.approx(p @ drawn, rel=1e-12)
        assert var.value.item() == pytest.approx(p @ (drawn - p @ drawn) ** 2, rel=1e-12)
        assert abs(var.value.item() - p @ (drawn - p @ drawn) ** 2) <= var.error.item()


@pytest.mark.parametrize("kernel", [weight_kernels.LOG_WEIGHT, weight_kernels.MIXED])
def test_mellin_transforms_of_kernels(kernel):
    log_y = np.arange(-60.0, 60.0, 0.05)
    for s in (-0.7, -1.3):
        ratio = 0.05 * (np.exp(s * log_y) * kernel.plain(np.exp(log_y))).sum()
        assert kernel.ratio(np.array([s]))[0] * np.exp(weight_ratios.loggamma(s + 0j)).real == pytest.approx(
            ratio
        )


@pytest.mark.parametrize(
    "ratio", [weight_ratios.square, weight_ratios.mixed_power, weight_ratios.first_power]
)
def test_mellin_transforms_of_ratios(ratio):
    log_y = np.arange(-60.0, 60.0, 0.05)
    y, s = np.exp(log_y), -0.6
    f, share = np.log1p(y) - y / (1.0 + y), y / (1.0 + y)
    function = {"square": f * f, "mixed_power": f * share, "first_power": f}[ratio.__name__]
    found = weight_ratios._transform(ratio, np.array([s]))[0]
    assert found == pytest.approx(0.05 * (np.exp(s * log_y) * function).sum(), rel=1e-8)


def test_of_a_wide_proposal_what_few_particles_make_too_dear_is_masked():
    """At K = 3 the pair integral would take minutes; at K = 2 there is none, and at K = 200 a short one."""
    few, three, many = (
        cell.gradients["vimco_star"].parameters["proposal_mean"]
        for cell in moments(30.0, 0.4, (2, 3, 200), "vimco_star")
    )
    assert three.var is None
    assert many.var.item() > 0.0
    assert "would need" in three.reason
    assert "too wide for so few particles" in three.reason
    nodes = np.linspace(
        -9.0, 9.0, 1001
    )  # the trapezoidal rule, exact to round-off for what is smooth and ends
    prob = norm.pdf(nodes) * (nodes[1] - nodes[0])
    log_w, score = log_weight_and_score(30.0, 0.4, nodes)
    pair = np.stack(np.meshgrid(np.arange(1001), np.arange(1001), indexing="ij"), -1).reshape(-1, 1, 2)
    drawn = (estimators.get("vimco_star")(log_w[pair]).score * score[pair]).sum((1, 2))
    both = prob[pair].prod(-1)[:, 0]
    assert few.var.item() == pytest.approx(both @ drawn**2 - (both @ drawn) ** 2, rel=1e-9)
