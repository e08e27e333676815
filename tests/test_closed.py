"""Closed forms of a problem and their gradients, against 60-digit textbook algebra and finite differences."""

import mpmath
import numpy as np
import pytest

from tests.problems import random_problem, reference
from toyiwae.errors import MissingMomentError
from toyiwae.oracle.closed_form.renyi import ClosedForms, averaged
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

CASES = {
    "one_row": random_problem(1, 2, 3),
    "many_rows": random_problem(2, 3, 2, rows=2),
    "amortised": random_problem(3, 2, 3, rows=2, amortised=True),
    "amortised_one_row": random_problem(4, 1, 2, amortised=True),
}
DIGITS = 60


class Textbook:
    """The same quantities in mpmath from p(z), p(x|z), q(z|x) as quadratics in z; averages over the rows."""

    def __init__(self, problem: Problem):
        """Takes the float64 values as they are."""
        model, proposal = problem.model, problem.proposal
        self.values = {
            "prior_mean": model.prior_mean,
            "loading": model.loading,
            "offset": model.offset,
            "proposal_chol": np.linalg.cholesky(proposal.cov),
        }
        if problem.amortised:
            self.values |= {"proposal_weight": proposal.weight, "proposal_offset": proposal.offset}
        else:
            self.values |= {"proposal_mean": proposal.mean}
        self.values = {name: mpmath.matrix(value.tolist()) for name, value in self.values.items()}
        self.prior_precision = mpmath.matrix(model.prior_cov.tolist()) ** -1
        self.noise_precision = mpmath.matrix(model.noise_cov.tolist()) ** -1
        self.x = [mpmath.matrix(x.tolist()) for x in problem.rows().x]

    def quadratics(self, x):
        """Log p(x, z) and log q(z|x) as (A, b, c) for −½zᵀAz + bᵀz + c."""
        v = self.values
        if "proposal_mean" in v:
            mean = v["proposal_mean"]
        else:
            mean = v["proposal_weight"] * x + v["proposal_offset"]
        q_precision = (v["proposal_chol"] * v["proposal_chol"].T) ** -1
        residual = x - v["offset"]
        joint = gaussian_quadratic(v["prior_mean"], self.prior_precision)
        pulled = self.noise_precision * residual
        loading = v["loading"]
        likelihood = (
            loading.T * self.noise_precision * loading,
            loading.T * pulled,
            gaussian_quadratic(residual, self.noise_precision)[2],
        )
        return [a + b for a, b in zip(joint, likelihood, strict=True)], gaussian_quadratic(mean, q_precision)

    def log_power(self, order, x):
        """Log E_q[w^s]."""
        joint, q = self.quadratics(x)
        a, b, c = (order * left + (1 - order) * right for left, right in zip(joint, q, strict=True))
        dim = a.rows
        return (c + (b.T * mpmath.lu_solve(a, b))[0] / 2 - mpmath.log(mpmath.det(a)) / 2) + dim * mpmath.log(
            2 * mpmath.pi
        ) / 2

    def __call__(self, quantity: str):
        """The average over the rows."""
        return mpmath.fsum(self.row(quantity, x) for x in self.x) / len(self.x)

    def row(self, quantity: str, x):
        """The value at one observation."""
        tiny = mpmath.mpf(10) ** (-DIGITS // 3)
        if quantity == "variance":
            return mpmath.exp(self.log_power(2, x) - 2 * self.log_power(1, x)) - 1
        if quantity == "elbo":
            return (self.log_power(tiny, x) - self.log_power(-tiny, x)) / (2 * tiny)
        if quantity == "eubo":
            return (self.log_power(1 + tiny, x) - self.log_power(1 - tiny, x)) / (2 * tiny)
        if quantity == "kl_to_posterior":
            return self.row("log_evidence", x) - self.row("elbo", x)
        if quantity == "kl_from_posterior":
            return self.row("eubo", x) - self.row("log_evidence", x)
        order = mpmath.mpf(ORDERS[quantity])
        return self.log_power(order, x) / order

    def gradient(self, quantity: str, name: str) -> np.ndarray:
        """Central differences in 60 digits; of proposal_chol the lower triangle only."""
        step = mpmath.mpf(10) ** (-DIGITS // 6)
        value = self.values[name]
        result = np.zeros((value.rows, value.cols))
        for i in range(value.rows):
            for j in range(value.cols if name != "proposal_chol" else i + 1):
                kept = value[i, j]
                sides = []
                for side in (kept + step, kept - step):
                    value[i, j] = side
                    sides.append(self(quantity))
                value[i, j] = kept
                result[i, j] = float((sides[0] - sides[1]) / (2 * step))
        return result


ORDERS = {"log_evidence": "1", "cubo": "2", "half": "0.5", "negative": "-0.25"}


def gaussian_quadratic(mean, precision):
    log_det = mpmath.log(mpmath.det(precision))
    constant = (log_det - (mean.T * precision * mean)[0] - mean.rows * mpmath.log(2 * mpmath.pi)) / 2
    return precision, precision * mean, constant


def values_of(problem: Problem, quantity: str) -> np.ndarray:
    forms = ClosedForms(problem)
    if quantity in ORDERS and quantity != "log_evidence":
        return forms.renyi_bound(float(ORDERS[quantity]))
    return getattr(forms, quantity)


def gradients_of(problem: Problem, quantity: str) -> dict[str, np.ndarray]:
    forms = ClosedForms(problem)
    if quantity in ORDERS or quantity == "elbo":
        return averaged(forms.renyi_bound_gradients(float(ORDERS.get(quantity, 0))))
    return averaged(getattr(forms, f"{quantity}_gradients")())


QUANTITIES = ["elbo", "eubo", "kl_to_posterior", "kl_from_posterior", "variance", *ORDERS]


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("case", CASES)
def test_values_agree_with_the_textbook(case, quantity):
    with mpmath.workdps(DIGITS):
        expected = float(Textbook(CASES[case])(quantity))
    np.testing.assert_allclose(values_of(CASES[case], quantity).mean(), expected, rtol=1e-12)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_agree_with_derivatives_of_the_textbook(case, quantity):
    problem = CASES[case]
    gradients = gradients_of(problem, quantity)
    assert list(gradients) == list(problem.parameters)
    with mpmath.workdps(DIGITS):
        textbook = Textbook(problem)
        for name, shape in problem.parameters.items():
            expected = textbook.gradient(quantity, name).reshape(shape)
            np.testing.assert_allclose(gradients[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_averages_are_over_rows():
    problem = random_problem(6, 2, 3, rows=4, amortised=True)
    together = ClosedForms(problem)
    for n in range(4):
        alone = ClosedForms(problem.row(n))
        for quantity in ("log_evidence", "elbo", "eubo", "variance"):
            np.testing.assert_allclose(
                getattr(together, quantity)[n], getattr(alone, quantity)[0], rtol=1e-12
            )
        left, right = together.variance_gradients(), alone.variance_gradients()
        np.testing.assert_allclose(left["proposal_offset"][n], right["proposal_mean"][0], rtol=1e-10)
        outer = np.outer(right["proposal_mean"][0], problem.data.x[n])
        np.testing.assert_allclose(left["proposal_weight"][n], outer, rtol=1e-10)


def test_named_bounds_are_members_of_the_family():
    forms = ClosedForms(CASES["one_row"])
    np.testing.assert_array_equal(forms.vr_bound(1.0), forms.elbo)
    np.testing.assert_array_equal(forms.vr_bound(0.0), forms.log_evidence)
    np.testing.assert_array_equal(forms.vr_bound(-1.0), forms.cubo())
    assert forms.elbo < forms.vr_bound(0.5) < forms.log_evidence < forms.cubo(1.5) < forms.cubo(2.0)
    assert forms.log_evidence < forms.eubo


def test_at_the_posterior_all_bounds_meet_and_the_proposal_is_stationary():
    problem = CASES["one_row"]
    posterior = ClosedForms(problem).posterior
    cov = (posterior.cov + posterior.cov.T) / 2
    forms = ClosedForms(Problem(problem.model, Proposal(cov, mean=posterior.mean[0]), problem.data))
    for order in (0.0, 0.5, 2.0):
        np.testing.assert_allclose(forms.renyi_bound(order), forms.log_evidence, rtol=1e-14)
        gradients = forms.renyi_bound_gradients(order)
        for name in ("proposal_mean", "proposal_chol"):
            np.testing.assert_allclose(gradients[name], 0, atol=1e-13)
        for name in ("prior_mean", "loading", "offset"):
            np.testing.assert_allclose(gradients[name], forms.renyi_bound_gradients(1.0)[name], rtol=1e-12)
    assert abs(forms.variance[0]) < 1e-15


def test_an_infinite_variance_is_refused_and_the_bounds_stay():
    model = Model([0.3], [[1.4]], [[0.2], [-0.3]], [0.1, -0.2], [[0.8, 0.1], [0.1, 0.7]])
    forms = ClosedForms(Problem(model, Proposal([[0.3]], mean=[0.4]), Data([0.5, -0.6])))
    assert forms.ratio.tail_index > 0.5
    assert forms.elbo < forms.log_evidence < forms.eubo
    for refused in (lambda: forms.variance, forms.variance_gradients, forms.cubo):
        with pytest.raises(MissingMomentError, match=r"E_q\[\(w/Z\)\^2\] does not exist"):
            refused()


@pytest.mark.parametrize("name", ["two_in_three", "narrow", "twelve"])
def test_elbo_gradients_are_the_reference_means_at_one_particle(name):
    case = reference()[name]
    problem, row = Problem.from_dict(case["problem"]), case["truth"]["rows"][0]
    gradients = averaged(ClosedForms(problem).renyi_bound_gradients(0.0))
    assert row["K"] == 1
    for parameter in ("prior_mean", "proposal_mean"):
        expected = row["gradients"][f"iwae/{parameter}"]["mean"]
        np.testing.assert_allclose(gradients[parameter][: len(expected)], expected, rtol=1e-10)


def test_variance_gradient_is_the_limit_of_the_reference_means():
    """E[Δ(φ)] = −∇Var[w/Z]/(2K) + O(K⁻²)."""
    case = reference()["two_in_three"]
    limit = (
        -averaged(ClosedForms(Problem.from_dict(case["problem"])).variance_gradients())["proposal_mean"] / 2
    )
    errors = []
    for row in case["truth"]["rows"]:
        mean = row.get("gradients", {}).get("iwae/proposal_mean")
        if mean and row["K"] >= 64:
            errors.append((row["K"], np.abs(row["K"] * np.array(mean["mean"]) / limit - 1).max()))
    assert len(errors) >= 2
    assert all(error < 10 / particles for particles, error in errors)
