"""Exact fourth moments against quadrature over the noise, enumeration of states, and sampling."""

from itertools import product

import numpy as np
import pytest

from tests import quadrature
from tests.quadrature import Toy
from tests.test_truth import LABELS, as_problem
from toyiwae import estimators
from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.checks.hypothesis_tests import compare
from toyiwae.estimators import evaluate
from toyiwae.forms import Form
from toyiwae.oracle.finite_k.bounds import common_grid
from toyiwae.oracle.finite_k.fourth_moments import FourthEngine, Spread
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.truth import fourth_moments

FORMS = [(e.form, e.min_particles) for e in estimators.all() if e.form is not None and not e.form.pooled]


def form_of(name: str) -> Form:
    """The form of a registered estimator."""
    form = estimators.get(name).form
    assert form is not None
    return form


def drawn_at_nodes(toy: Toy, form: Form, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The gradient of one group at every node of a tensor rule, and the weights of the nodes."""
    noise, log_w, weights = quadrature.log_weights(toy, 1, count)
    made = evaluate.coefficients(form, log_w)
    result = {}
    for name, (first, second) in toy.gradients(noise).items():
        parts = (made.model, 0.0) if name in quadrature.MODEL else (made.path, made.score)
        result[name] = (parts[0] * first + parts[1] * second).sum(axis=(-2, -1))
    return result, weights


@pytest.mark.parametrize(
    ("toy", "most"),
    [
        pytest.param(Toy(), 3, id="narrow", marks=pytest.mark.slow),
        pytest.param(Toy.wide(), 2, id="wide, two particles"),
        pytest.param(Toy.wide(), 3, id="wide", marks=pytest.mark.slow),
    ],
)
def test_fourth_moments_agree_with_tensor_quadrature(toy: Toy, most: int) -> None:
    """Every form at up to three particles, but for what is the same integral as another's."""
    whitened, judged, seen = Whitened(as_problem(toy)), 0, set()
    for form, least in FORMS:
        for parameters in (quadrature_names(whitened, "model"), quadrature_names(whitened, "proposal")):
            parts = (form.path, form.score) if parameters[0].startswith("proposal") else (form.model,)
            key = (parameters[0], form.exponent, form.has_log_terms, str(parts))
            if key in seen:
                continue
            seen.add(key)
            counts = range(least, most + 1)
            spreads = fourth_moments.gradients(whitened, form, parameters, counts)
            assert spreads.keys() == set(parameters) or form.has_log_terms or form.constant
            for i, count in enumerate(counts):
                drawn, weights = drawn_at_nodes(toy, form, count)
                for parameter, spread in spreads.items():
                    judged += agrees(drawn, weights, parameter, spread.at(i))
    assert judged > (100 if most == 3 else 50)


def quadrature_names(whitened: Whitened, part: str) -> list[str]:
    """The parameters of the model, or of the proposal."""
    return [n for n in whitened.problem.parameters if n.startswith("proposal") == (part == "proposal")]


def agrees(drawn: dict[str, np.ndarray], weights: np.ndarray, parameter: str, spread: Spread) -> int:
    """Judges one parameter's spread; returns the number of its coordinates."""
    fourth = spread.fourth_cumulant
    columns = (np.ravel(array) for array in (spread.var.value, fourth.value, fourth.error))
    for name, var, cumulant, error in zip(LABELS[parameter], *columns, strict=True):
        centred = drawn[name] - weights @ drawn[name]
        second, expected = weights @ centred**2, weights @ centred**4
        assert var == pytest.approx(second, rel=1e-9, abs=1e-12)
        assert cumulant + 3 * var**2 == pytest.approx(expected, rel=1e-8, abs=1e-12)
        assert error <= 1e-4 * expected + 1e-12  # tests that it serves need it to 1 %
    return len(LABELS[parameter])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_fourth_moments_agree_with_enumeration(count: int) -> None:
    rng = np.random.default_rng(4)
    law = DiscreteLaw(np.log([0.2, 0.5, 0.3]), np.array([0.4, -1.1, 0.9]))
    functions = {r: law.table(rng.normal(size=(2, 3))) for r in (0, 1, 2)}
    engine = FourthEngine(law, [count], common_grid(law, [count]))
    second, last = engine.central(functions)
    states = np.array(list(product(range(3), repeat=count)))
    prob, w = np.exp(law.log_prob)[states].prod(axis=1), np.exp(law.log_w)[states]
    shares = w / w.sum(axis=1, keepdims=True)
    parts = [(shares**r if r else 1.0 / count) * g.plain[:, states] for r, g in functions.items()]
    drawn = sum(part.sum(axis=-1) for part in parts)
    centred = drawn - (drawn @ prob)[:, None]
    np.testing.assert_allclose(second.value[0, 0], centred**2 @ prob, rtol=1e-11)
    np.testing.assert_allclose(last.value[0, 0], centred**4 @ prob, rtol=1e-10)
    assert (np.abs(last.value[0, 0] - centred**4 @ prob) <= last.error[0, 0]).all()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("exponent", [1.0, 0.4])
def test_the_value_agrees_with_tensor_quadrature(count: int, exponent: float) -> None:
    toy = Toy()
    _, log_w, weights = quadrature.log_weights(toy, 1, count)
    values = np.log(np.mean(np.exp(exponent * log_w[:, 0]), axis=-1)) / exponent
    centred = values - weights @ values
    spread = fourth_moments.value(Whitened(as_problem(toy)), count, exponent)
    assert spread.var.value == pytest.approx(weights @ centred**2, rel=1e-9)
    assert spread.fourth_cumulant.value + 3 * spread.var.value**2 == pytest.approx(
        weights @ centred**4, rel=1e-8
    )
    assert spread.fourth_cumulant.error <= 1e-8 * (weights @ centred**4)


@pytest.mark.slow
def test_sampled_fourth_moments_on_the_bank() -> None:
    """Family-wise at 1e-6: the mean of the fourth power of the distance from the mean."""
    p_values = []
    for entry in (e for e in bank() if e.name in ("far", "rows")):
        (K, M), whitened = entry.cells[0], Whitened(entry.problem)
        drawn = particles.draw(entry.problem, K, M, 8_000, 7)
        for name in ("ciwae:0.3", "vr_iwae_dreg:0.4"):
            estimator = estimators.get(name)
            gradients = drawn.gradients(estimator(drawn.log_w))
            spreads = fourth_moments.gradients(whitened, form_of(name), gradients, [K])
            for parameter, samples in gradients.items():
                spread = spreads[parameter]
                exact = spread.kurtosis(M)[0] * (spread.var.value[0] / M) ** 2
                found = (samples - samples.mean(axis=0)) ** 4
                free = exact > 0
                p_values.append(compare(found[:, free], exact[free]).p_value)
    p = np.concatenate(p_values)
    assert len(p) > 50
    assert p.min() > 1e-6 / len(p)


def test_what_has_logarithms_has_no_exact_fourth_moment() -> None:
    form = form_of("score_function")
    spreads = fourth_moments.gradients(
        Whitened(as_problem(Toy())), form, ["proposal_mean", "prior_mean"], [2]
    )
    assert spreads.keys() == {"prior_mean"}
