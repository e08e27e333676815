"""Forms and bounds: one way of writing each, and what is refused."""

import math
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest

from toyiwae.errors import InputError
from toyiwae.estimators.evaluate import Summary, coefficients
from toyiwae.forms import Bound, Form


def test_equal_forms_are_equal_however_written():
    one = Form({2: 0.5, 1: 1}, {1: 1, 2: 0.0}, pooled=("score", "model"))
    other = Form(model={1: 1.0, 2: 0.5}, path={1: 1.0}, score={}, pooled=("model", "score"))
    assert one == other
    assert hash(one) == hash(other)
    assert list(one.model) == [1, 2]
    assert one != Form({1: 1, 2: 0.5}, {1: 1})


def test_exponent_zero_is_equal_weights():
    assert Form({1: 1}, {1: 1}, {1: -1}, exponent=0.0) == Form({0: 1}, {0: 1}, {0: -1})
    squared = Form({1: 1}, {2: 1}, exponent=0.0)
    assert squared.exponent == 0.0
    np.testing.assert_allclose(coefficients(squared, np.zeros((2, 4)) + np.arange(4.0)).path, 1 / 32)


def test_forms_cannot_be_changed_and_survive_pickling():
    form = Form({1: 1}, {2: 1}, exponent=0.5, log_evidence=1, leave_one_out=-1)
    with pytest.raises(TypeError):
        form.model[1] = 2.0  # pyright: ignore[reportIndexIssue]
    assert pickle.loads(pickle.dumps(form)) == form
    assert pickle.loads(pickle.dumps(Bound.iwae(3))) == Bound.iwae(3)


def test_log_terms_decide_about_shifts():
    assert Form({1: 1}).shift_invariant
    assert not Form({1: 1}).has_log_terms
    assert not Form({1: 1}, log_evidence=1).shift_invariant
    assert Form({1: 1}, log_evidence=1, leave_one_out_geometric=-1).shift_invariant
    assert Form({1: 1}, leave_one_out=1).has_log_terms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": {-1: 1}}, "Form.model: power is -1"),
        ({"model": {1: math.nan}}, "Form.model: factor of power 1 is nan"),
        ({"model": {1: 1}, "score": {2: math.inf}}, "Form.score: factor of power 2 is inf"),
        ({"model": {1: 1}, "exponent": math.inf}, "Form.exponent is inf"),
        ({"model": {1: 1}, "pooled": ("modell",)}, "Form.pooled: ['modell']"),
    ],
)
def test_bad_forms_are_refused(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Form(**arguments)


def test_every_term_of_a_form_by_its_definition():
    form = Form(
        {0: 0.3, 2: 2.0},
        {0: 0.5, 1: 1.5, 3: -1.0},
        {1: 0.7},
        exponent=0.6,
        pooled=("path",),
        log_evidence=1.1,
        leave_one_out=-0.4,
        leave_one_out_geometric=0.25,
        constant=2.0,
    )
    log_w = np.random.default_rng(0).normal(size=(2, 3, 4))
    v, K, M = np.exp(0.6 * log_w), 4, 3
    within = v / v.sum(-1, keepdims=True)
    pooled = v / v.sum((-2, -1), keepdims=True)
    others = v.sum(-1, keepdims=True) - v
    geometric = np.exp(0.6 * (log_w.sum(-1, keepdims=True) - log_w) / (K - 1))
    logs = 1.1 * np.log(v.mean(-1, keepdims=True)) - 0.4 * np.log(others / (K - 1))
    logs = (logs + 0.25 * np.log((others + geometric) / K)) / 0.6 + 2.0 * math.log(1 - 1 / K)
    made = coefficients(form, log_w)
    np.testing.assert_allclose(made.model, (0.3 / K + 2 * within**2) / M, rtol=1e-13)
    np.testing.assert_allclose(made.path, 0.5 / (K * M) + 1.5 * pooled - pooled**3, rtol=1e-13)
    np.testing.assert_allclose(made.score, (0.7 * within + logs) / M, rtol=1e-13)


def test_logarithms_at_exponent_zero_are_the_limit():
    """That of a small exponent: means of the log-weights, of all and of the others."""
    log_w = np.random.default_rng(1).normal(-500.0, 2.0, size=(2, 3, 4))
    for evidence, others, geometric in ((1, 0, 0), (0, -1, 0), (0, 0, 0.5)):
        limit, near = (
            Form(
                {1: 1},
                exponent=e,
                log_evidence=evidence,
                leave_one_out=others,
                leave_one_out_geometric=geometric,
            )
            for e in (0.0, 1e-9)
        )
        assert limit.exponent == 0.0
        np.testing.assert_allclose(
            coefficients(limit, log_w).score, coefficients(near, log_w).score, rtol=1e-6
        )


def test_evaluation_refuses_what_it_cannot_know():
    with pytest.raises(InputError, match="ask for it as well"):
        coefficients(Form({1: 1}, exponent=0.5), np.zeros((2, 3)), Summary.of(np.zeros((2, 3))))
    with pytest.raises(InputError, match="do not merge"):
        Summary.of(np.zeros((2, 3))).merge(Summary.of(np.zeros((2, 3)), (2.0,)))
    with pytest.raises(InputError, match="not K = 1"):
        coefficients(Form({1: 1}, leave_one_out=1), np.zeros((2, 1)))


def test_equal_bounds_are_equal_however_written():
    assert Bound(((3, 0.5), (1, 0.5))) == Bound.ciwae(0.5, 3)
    assert Bound.ciwae(0.5, 1) == Bound.elbo() == Bound.iwae(1) == Bound.ciwae(1.0, 7)
    assert Bound.vr_iwae(1.0, 5) == Bound.elbo() == Bound.vr_iwae(0.3, 1)
    assert Bound.vr_iwae(0.0, 5) == Bound.iwae(5) == Bound.jackknife(0, 5)
    assert Bound.vr_iwae(0.25, 5).exponent == 0.75
    assert Bound.iwae(np.int64(4)) == Bound.iwae(4)  # pyright: ignore[reportArgumentType]


def test_mixtures_sum_to_one_exactly():
    for beta in (0.1, 0.3, 1.0 / 3.0):
        assert Bound.ciwae(beta, 7).total == 1
        assert Bound.ciwae(beta, 7).terms == ((1, beta), (7, 1.0 - beta))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("particles", [5, 9, 10**15])
def test_jackknife_removes_the_leading_orders(order, particles):
    """With `L_k = L + a_1/k + ... + a_m/k^m` the weighted sum is `L`, whatever the a's."""
    bound = Bound.jackknife(order, particles)
    terms = bound.exact
    assert bound.terms == tuple((k, float(weight)) for k, weight in terms)
    assert bound.total == 1
    assert sum(weight for _, weight in terms) == 1
    for power in range(1, order + 1):
        assert sum(weight / Fraction(k) ** power for k, weight in terms) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bound(()), "Bound.terms is empty"),
        (lambda: Bound(((2, 0.0),)), "Bound.terms is empty"),
        (lambda: Bound.iwae(0), "Bound.terms: particles is 0"),
        (lambda: Bound(((2, math.nan),)), "Bound.terms: weight is nan"),
        (lambda: Bound.jackknife(3, 3), "jackknife order 3 needs more than 3 particles"),
        (lambda: Bound.jackknife(-1, 3), "jackknife order is -1"),
        (lambda: Bound.jackknife(25, 10**15), "its weights exceed float64"),
    ],
)
def test_bad_bounds_are_refused(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("bound", "label"),
    [
        (Bound.iwae(5), ""),
        (Bound.iwae(5, "K"), "L_K"),
        (Bound.iwae(15, "MK"), "L_MK"),
        (Bound.ciwae(0.25, 5, "K"), "0.25 L_1 + 0.75 L_K"),
        (Bound.vr_iwae(0.3, 5, "K"), "VR_K(0.3)"),
    ],
)
def test_a_bound_carries_its_label(bound: Bound, label: str) -> None:
    """And is equal to the same bound under another name."""
    assert bound.label == label
    assert bound == Bound(bound.terms, bound.exponent)


@pytest.mark.parametrize(
    ("order", "label"),
    [(2, "jackknife of L_K, L_{K−1}, L_{K−2}"), (1, "jackknife of L_K, L_{K−1}"), (0, "L_K")],
)
def test_a_jackknifed_bound_carries_the_label_of_its_terms(order: int, label: str) -> None:
    """And is equal to the same bound under another name."""
    bound = Bound.jackknife(order, 5, "K")
    assert bound.label == label
    assert bound == Bound(bound.exact, bound.exponent)


def test_the_label_of_a_single_particles_bound_needs_no_name() -> None:
    assert Bound.elbo().label == "L_1"
