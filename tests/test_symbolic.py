"""The SymPy derivations: proofs whose differences vanish, and numbers that agree with the oracle's."""

import numpy as np
import pytest
import sympy as sp

from analysis.mathml import to_mathml
from toyiwae import estimators
from toyiwae.forms import Form
from toyiwae.oracle.series import expansions
from toyiwae.oracle.series.symbolic import (
    Gaussian,
    about_posterior,
    bound_coefficient,
    bound_derivative,
    central_moment,
    derivations,
    gaussian_moment,
    gradient_coefficient,
    joint_moment,
    leading_terms,
    prove_gradient,
)
from toyiwae.oracle.whitened.evidence import log_evidence
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

VALUES = {"x": 0.7, "m": -0.3, "s": 1.2, "a": 0.8, "b": 0.4, "r": 0.9, "mu": 0.25, "sigma": 0.8}


def numeric(expression):
    """A number from an expression in the symbols of `Gaussian`."""
    values = {symbol: VALUES[symbol.name] for symbol in expression.free_symbols}
    return float(expression.subs(values))


def problem():
    """The problem with the numbers of VALUES."""
    v = VALUES
    model = Model([v["m"]], [[v["s"] ** 2]], [[v["a"]]], [v["b"]], [[v["r"] ** 2]])
    return Problem(model, Proposal([[v["sigma"] ** 2]], mean=[v["mu"]]), Data([v["x"]]))


def test_coefficients_of_the_bound():
    """Theory, section 4."""
    mu2, mu3, mu4 = (central_moment(n) for n in (2, 3, 4))
    expected = {
        1: -mu2 / 2,
        2: mu3 / 3 - 3 * mu2**2 / 4,
        3: -(mu4 - 3 * mu2**2) / 4 + 2 * mu2 * mu3 - sp.Rational(5, 2) * mu2**3,
    }
    for order, value in expected.items():
        assert sp.expand(bound_coefficient(order) - value) == 0


@pytest.mark.parametrize("order", [4, 5, 6])
def test_coefficients_hold_for_gamma_weights(order):
    """Gamma weights of shape a: E log of the mean is ψ(aK) - log(aK), with its asymptotic series."""
    a = sp.Symbol("a", positive=True)
    raw = [sp.rf(a, k) / a**k for k in range(order + 2)]
    moments = {
        central_moment(n): sum(sp.binomial(n, k) * (-1) ** (n - k) * raw[k] for k in range(n + 1))
        for n in range(2, order + 2)
    }
    value = bound_coefficient(order).subs(list(moments.items()))
    assert sp.simplify(value + sp.bernoulli(order) / (order * a**order)) == 0


@pytest.mark.parametrize("order", range(1, 7))
def test_the_mean_gradient_is_the_bound_s_derivative_for_any_weight(order):
    assert sp.expand(gradient_coefficient(order) - bound_derivative(order)) == 0


@pytest.mark.parametrize("parameter", [*Gaussian().proposal, *Gaussian().model])
def test_bias_of_the_gradient_in_one_dimension(parameter):
    """`E[Δ] = ∂ log Z - ∂ Var[w/Z]/(2K) + O(K⁻²)` for the general Gaussian problem, all eight symbols free."""
    proof = prove_gradient(parameter)
    assert proof.limit == 0
    assert proof.difference == 0
    assert proof.by_delta_method != 0
    second = float(np.exp(numeric(Gaussian().log_moment(2) - 2 * Gaussian().log_evidence)))
    form = Form({1: 1.0}, {1: 1.0}, {1: -1.0})
    found = expansions.gradient_mean(Whitened(problem()), form, parameter, 1).term(1).value
    np.testing.assert_allclose(found.ravel(), second * numeric(proof.by_derivative), rtol=1e-12)


def test_moments_and_evidence_of_the_general_problem():
    whitened, gaussian = Whitened(problem()), Gaussian()
    assert numeric(gaussian.log_evidence) == pytest.approx(float(log_evidence(whitened).value[0]), rel=1e-14)
    for s in (2, 3, sp.Rational(1, 2)):
        log_moment = numeric(gaussian.log_moment(s) - s * gaussian.log_evidence)
        assert log_moment == pytest.approx(float(whitened.law().log_moment(float(s))[0, 0]), abs=1e-14)
    numbers = [(gaussian.x, 1), (gaussian.noise_std, 1)]
    assert sp.simplify(sp.exp(gaussian.log_moment(1) - gaussian.log_evidence).subs(numbers)) == 1


@pytest.mark.parametrize("parameter", Gaussian().proposal)
def test_the_posterior_s_moments_are_enough(parameter):
    """The slope shown to readers, in the posterior's mean and deviation, is that of the general problem."""
    gaussian, general = Gaussian(), prove_gradient(parameter).by_derivative
    precision = gaussian.prior_std**-2 + gaussian.loading**2 / gaussian.noise_std**2
    pull = gaussian.prior_mean / gaussian.prior_std**2
    pull = pull + gaussian.loading * (gaussian.x - gaussian.offset) / gaussian.noise_std**2
    posterior = {gaussian.prior_mean: pull / precision, gaussian.prior_std: precision**-0.5}
    shown = about_posterior(general).subs(posterior, simultaneous=True)
    assert numeric(shown) == pytest.approx(numeric(general), rel=1e-12)


def test_leading_terms_by_hand():
    square, mixed = joint_moment(2, 2), joint_moment(2, 1)
    assert leading_terms({1: 1.0}, centred=True) == ((1, -mixed), (1, square))
    (order, mean), (var_order, var) = leading_terms({2: 1.0})
    assert (order, mean, var_order) == (1, mixed, 3)
    spread = (
        joint_moment(4, 2) - 4 * mixed * joint_moment(3, 1) + 4 * mixed**2 * joint_moment(2, 0) - mixed**2
    )
    assert sp.expand(var - spread) == 0
    assert leading_terms({0: 0.5, 1: 0.5})[0] == (0, sp.factor((joint_moment(0, 1) + joint_moment(1, 1)) / 2))


def test_leading_terms_give_the_constants():
    """The symbolic SNR with the oracle's moments in it is the numerical one."""
    whitened = Whitened(problem())
    law = whitened.law()
    path = whitened.gradients(law, slice(None)).path["mean"]
    (n, mean), (m, var) = leading_terms({2: 1.0})
    moments = {}
    for symbol in mean.free_symbols | var.free_symbols:
        for power in range(5):
            for degree in range(3):
                if symbol == joint_moment(power, degree):
                    moments[symbol] = float(law.moment(power, (path,) * degree).value[0, 0])
    limit = expansions.snr_constant(whitened, Form({1: 1.0}, {2: 1.0}), "proposal_mean")
    expected = abs(float(mean.subs(moments))) / float(var.subs(moments)) ** 0.5
    assert limit.constant[0] == pytest.approx(expected, rel=1e-12)
    assert limit.exponent[0] == m / 2 - n


def test_the_moment_shown_is_the_integral():
    found, shown = gaussian_moment()
    assert sp.simplify(found - shown) == 0


def test_derivations_cover_every_form_and_can_be_shown():
    forms = {e.name: e.form for e in estimators.all() if e.form}
    made = derivations(forms)
    titles = " ".join(made)
    assert all(name in titles for name in forms)
    for latex in made.values():
        assert to_mathml(latex, display=True).startswith("<math")
