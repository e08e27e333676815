"""Expansions in 1/K of gradients, their variances and signal-to-noise ratios, against the oracle and each other."""

from dataclasses import replace

import numpy as np
import pytest

from tests.members import MEMBERS
from tests.test_series import IWAE, LARGE, MANY, SMALL, with_beta
from toyiwae import estimators
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.forms import Form
from toyiwae.oracle.closed_form.renyi import ClosedForms, averaged
from toyiwae.oracle.series import expansions
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.ready import paper_problem
from toyiwae.truth.averages import gradients
from toyiwae.truth.request import reference

# gradients -----------------------------------------------------------------------------------------------------------


def moved(problem, parameter, index, step):
    """The problem with one entry of a parameter moved."""
    part = "model" if parameter in ("prior_mean", "loading", "offset") else "proposal"
    field = parameter.removeprefix("proposal_")
    old = getattr(problem, part)
    if field == "chol":
        chol = np.linalg.cholesky(old.cov)
        chol[index] += step
        return replace(problem, proposal=replace(old, cov=chol @ chol.T))
    values = np.array(getattr(old, field))
    values[index] += step
    return replace(problem, **{part: replace(old, **{field: values})})


@pytest.mark.parametrize("problem", [SMALL, MANY], ids=["one_row", "amortised"])
def test_the_mean_gradient_is_the_derivative_of_the_bound(problem):
    """∂ of the coefficients of K^-1 … K^-3, by fourth-order differences of the bound in 30 digits."""
    whitened, step = Whitened(problem), 2.0**-14
    for parameter, shape in problem.parameters.items():
        found = expansions.gradient_mean(whitened, IWAE, parameter, 3).value[1:]
        index = tuple(n - 1 for n in shape)
        ends = [
            expansions.bound(Whitened(moved(problem, parameter, index, n * step)), 3, digits=30).value[1:]
            for n in (-2, -1, 1, 2)
        ]
        slope = ((ends[0] - ends[3]) / 12 + (ends[2] - ends[1]) * 2 / 3) / step
        np.testing.assert_allclose(found[(..., *index)], slope.astype(float), rtol=1e-7)


def test_the_bias_of_the_gradient_is_the_slope_of_the_variance():
    """E[Δ(φ)] = -∇φ Var[w]/(2KZ²) + O(K⁻²), to 10 digits in 20 dimensions, and E[Δ(θ)] likewise."""
    whitened, k = Whitened(LARGE), 10**12
    expected = averaged(ClosedForms(LARGE).variance_gradients())
    names = ("prior_mean", "offset", "proposal_mean")
    found = gradients(whitened, {name: (IWAE, name) for name in names}, [k])
    for name in (*names, "proposal_chol"):
        first = expansions.gradient_mean(whitened, IWAE, name, 1).term(1).value
        np.testing.assert_allclose(first, -0.5 * expected[name], rtol=1e-10, atol=1e-12 * abs(first).max())
    for name in names:
        shift = k * found[name].shift.value[0]
        np.testing.assert_allclose(shift, -0.5 * expected[name], rtol=1e-10)


def forms():
    """The distinct forms of all estimators at several parameters, by name."""
    named = {}
    for member in MEMBERS:
        form = member.form
        if form is not None and form.exponent != 0.0 and form not in named.values():
            named[member.name] = form
    return named


FORMS = forms()


def form_of(name):
    form = estimators.get(name).form
    assert form is not None
    return form


def reparameterised(form):
    return not form.has_log_terms and form.constant == 0.0


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if reparameterised(form)])
def test_mean_and_variance_against_the_oracle(name):
    """Partial sums at K = 3000: what they leave is of the size of the next term."""
    form, whitened, k = FORMS[name], Whitened(SMALL), 3000
    jobs = {p: (form, p) for p in SMALL.parameters}
    for parameter, truth in gradients(whitened, jobs, [k]).items():
        for expand, value in ((expansions.gradient_mean, truth.mean), (expansions.gradient_var, truth.var)):
            expansion = expand(whitened, form, parameter, 4 if form.exponent > 0 else 2)
            scale = max(abs(expansion.at(k)).max(), 1e-300)
            next_term = abs(expansion.value[-1]).max() / k**expansion.last
            atol = value.error[0].max() + 0.1 * next_term + 1e-13 * scale
            np.testing.assert_allclose(expansion.at(k), value.value[0], rtol=0, atol=atol)


def confirmed(problem, form, parameter):
    for expand in (expansions.gradient_mean, expansions.gradient_var):
        plain = expand(Whitened(problem), form, parameter, 2)
        digits = expand(Whitened(problem), form, parameter, 2, digits=20)
        assert plain.first == digits.first
        assert (abs(plain.value - digits.value.astype(float)) <= plain.error).all()


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.leave_one_out_geometric])
def test_digits_confirm_double_precision_and_its_error(name):
    confirmed(SMALL, FORMS[name], "proposal_mean")


@pytest.mark.parametrize("parameter", MANY.parameters)
def test_digits_confirm_every_parameter(parameter):
    confirmed(MANY, IWAE, parameter)


@pytest.mark.parametrize(
    "member", [m for m in MEMBERS if m.form and m.form.has_log_terms], ids=lambda m: m.name
)
def test_unbiased_scores_have_the_expansion_of_their_target(member):
    form = member.form
    if form.leave_one_out_geometric or form.exponent == 0.0:
        with pytest.raises(InputError, match=r"geometric|exponent 0"):
            expansions.gradient_mean(Whitened(SMALL), form, "proposal_mean", 2)
        return
    found = expansions.gradient_mean(Whitened(SMALL), form, "proposal_chol", 2)
    target = expansions.gradient_mean(Whitened(SMALL), reference(form.exponent), "proposal_chol", 2)
    unbiased = member.target.proposal is not None
    for order in (0, 1, 2):
        one = found.term(order).value if order >= found.first else 0 * target.value[0]
        same = np.allclose(one, target.term(order).value, rtol=1e-9, atol=1e-11)
        assert same or not unbiased
    assert unbiased or not same


def test_log_terms_at_another_exponent_are_refused():
    form = Form({1: 1.0}, {}, {1: -1.0}, log_evidence=1.0, exponent=0.5)
    for digits in (None, 15):
        with pytest.raises(InputError, match=r"exponent 0\.5"):
            expansions.gradient_mean(Whitened(SMALL), form, "proposal_mean", 1, digits=digits)
    assert expansions.gradient_mean(Whitened(SMALL), form, "prior_mean", 1).value.any()


# signal-to-noise ratios ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if reparameterised(form)])
def test_every_form_reaches_its_constant(name):
    """SNR/limit - 1 at K = 10⁶ and four times as many: it is small, and falls like 1/K."""
    form, whitened, k = FORMS[name], Whitened(SMALL), 10**6
    found = gradients(whitened, {p: (form, p) for p in SMALL.parameters}, [k, 4 * k])
    for parameter, truth in found.items():
        limit = expansions.snr_constant(whitened, form, parameter)
        if not np.nan_to_num(limit.constant).any():
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.abs(truth.mean.value) / np.sqrt(truth.var.value)
            off = np.array([snr[i] / limit.at(n) - 1 for i, n in enumerate((k, 4 * k))])
        free = np.isfinite(limit.constant) & (limit.constant > 0)
        assert (abs(off[0][free]) < 1e-3).all()
        np.testing.assert_allclose(off[1][free], off[0][free] / 4, rtol=0.02, atol=1e-8)


SCORE = Form({1: 1.0}, {}, {1: -1.0}, log_evidence=1.0)
RATES = [
    (IWAE, -0.5, 2),
    (Form({1: 1.0}, {1: 1.0}), 0.5, 2),  # sticking the landing: biased, and so not without signal
    (Form({1: 1.0}, {2: 1.0}), 0.5, 4),  # doubly reparameterised
    (SCORE, -1.5, 2),
    (replace(SCORE, leave_one_out=-1.0), -0.5, 2),
    (replace(SCORE, leave_one_out=-1.0, constant=-1.0), 0.5, 4),
    (estimators.get("vimco_star:0.5").form, 0.5, 1),  # its bound moves with φ at K = ∞ too; the square of √w
]


@pytest.mark.parametrize(("form", "exponent", "moment"), RATES)
def test_rates_and_the_moments_they_stand_on(form, exponent, moment):
    limit = expansions.snr_constant(Whitened(SMALL), form, "proposal_mean")
    np.testing.assert_array_equal(limit.exponent, exponent)
    assert limit.max_power == moment
    np.testing.assert_array_equal(expansions.snr_constant(Whitened(SMALL), form, "prior_mean").exponent, 0.5)


def test_a_constant_without_its_moment_is_refused_by_name():
    whitened = Whitened(with_beta(-0.3, 0.2, shift=0.3))
    assert (expansions.snr_constant(whitened, IWAE, "proposal_mean").constant > 0).all()
    with pytest.raises(
        MissingMomentError, match=r"variance of the gradient of proposal_mean.*E\[w\^4\].*β > -0.25"
    ):
        expansions.snr_constant(whitened, form_of("dreg"), "proposal_mean")
    with pytest.raises(MissingMomentError, match=r"E\[w\^2\]"):
        expansions.snr_constant(Whitened(with_beta(-0.6, shift=0.3)), IWAE, "proposal_mean")


def test_coordinates_that_carry_no_signal():
    """With equal means the gradient of the mean vanishes at every order; above the diagonal there is nothing."""
    whitened = Whitened(with_beta(0.3, 0.2))
    limit = expansions.snr_constant(whitened, IWAE, "proposal_mean")
    np.testing.assert_array_equal(limit.constant, 0.0)
    chol = expansions.snr_constant(whitened, IWAE, "proposal_chol")
    assert np.isnan(chol.constant[0, 1])
    assert np.isnan(chol.exponent[0, 1])
    np.testing.assert_array_equal(np.diag(chol.exponent), -0.5)
    posterior = expansions.snr_constant(Whitened(with_beta(0.0, 0.0)), form_of("dreg"), "proposal_mean")
    assert np.isnan(posterior.constant).all()


def test_groups_and_pooled_weights():
    whitened = Whitened(SMALL)
    plain = expansions.snr_constant(whitened, IWAE, "prior_mean")
    np.testing.assert_allclose(plain.at(100, 9), 3 * plain.constant * 10)
    pooled = expansions.snr_constant(whitened, form_of("piwae"), "prior_mean")
    assert pooled.pooled
    np.testing.assert_allclose(pooled.at(100, 9), plain.at(900))
    assert not expansions.snr_constant(whitened, form_of("piwae"), "proposal_mean").pooled


def reaches_its_constants(problem, tolerance):
    whitened, k = Whitened(problem), 10**9
    jobs = {(name, p): (form_of(name), p) for name in ("iwae", "dreg") for p in problem.mean_parameters}
    found = gradients(whitened, jobs, [k])
    for (name, parameter), truth in found.items():
        limit = expansions.snr_constant(whitened, form_of(name), parameter)
        snr = np.abs(truth.mean.value[0]) / np.sqrt(truth.var.value[0])
        signal = parameter == "prior_mean" or name == "dreg"
        np.testing.assert_array_equal(limit.exponent, 0.5 if signal else -0.5)
        np.testing.assert_allclose(snr, limit.at(k), rtol=tolerance)


def test_the_paper_s_problem_reaches_its_constants():
    reaches_its_constants(paper_problem(N=8), 1e-6)


@pytest.mark.slow
def test_the_default_problem_reaches_its_constants():
    reaches_its_constants(paper_problem(), 1e-6)
