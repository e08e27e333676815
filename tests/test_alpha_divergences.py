"""The α-divergences of Gaussians: definitions by quadrature, limits, duality, and what does not exist."""

import numpy as np
import pytest

from tests.problems import random_problem
from toyiwae.errors import MissingMomentError, PrecisionError
from toyiwae.oracle.closed_form import alpha, gaussian
from toyiwae.oracle.closed_form.gaussian import Ratio
from toyiwae.oracle.closed_form.renyi import ClosedForms

P = (np.array([0.4, -0.2]), np.array([[0.8, 0.3], [0.3, 0.6]]))
Q = (np.array([-0.1, 0.3]), np.array([[1.1, -0.2], [-0.2, 0.9]]))


def between(p, q):
    """The ratio of two Gaussians (mean, cov)."""
    return Ratio.between(p[0], np.linalg.inv(np.linalg.cholesky(p[1])), q[0], np.linalg.cholesky(q[1]))


def test_the_values_are_those_of_the_definitions():
    order, line = 0.3, np.arange(-9.0, 9.0, 0.1)
    z = np.stack(np.meshgrid(line, line), axis=-1)
    log_mass = order * gaussian.log_density(z, *P) + (1 - order) * gaussian.log_density(z, *Q)
    mass = 0.01 * np.exp(log_mass).sum()
    ratio = between(P, Q)
    assert alpha.minka(ratio, order) == pytest.approx((1 - mass) / (order * (1 - order)), rel=1e-12)
    a = 2 * order - 1
    assert alpha.amari(ratio, a) == pytest.approx(4 * (1 - mass) / (1 - a**2), rel=1e-12)
    assert alpha.per_order(ratio, order) == pytest.approx(np.log(mass) / (order * (order - 1)), rel=1e-12)


def test_the_limits_are_the_two_divergences_of_kullback_and_leibler():
    ratio = between(P, Q)
    np.testing.assert_allclose(alpha.minka(ratio, 0.0), gaussian.kl(*Q, *P), rtol=1e-14)
    np.testing.assert_allclose(alpha.minka(ratio, 1.0), gaussian.kl(*P, *Q), rtol=1e-14)
    assert alpha.amari(ratio, -1.0) == alpha.minka(ratio, 0.0)


def test_orders_on_both_sides_of_a_half_belong_together():
    ratio, dual = between(P, Q), between(Q, P)
    for order in (-0.3, 0.0, 0.2, 0.5, 0.9, 1.0, 1.2):
        np.testing.assert_allclose(alpha.minka(ratio, order), alpha.minka(dual, 1 - order), rtol=1e-13)


def test_twice_the_value_of_order_2_is_the_variance_of_the_weight_for_every_row():
    forms = ClosedForms(random_problem(5, rows=3))
    np.testing.assert_allclose(2 * alpha.minka(forms.ratio, 2.0), forms.variance, rtol=1e-12)


def test_what_does_not_exist_or_exceeds_float64_is_refused():
    ratio = between(P, Q)
    with pytest.raises(MissingMomentError, match="positive definite"):
        alpha.minka(ratio, -30.0)
    far = between((np.array([60.0, 0.0]), P[1]), (Q[0], 1.5 * Q[1]))
    with pytest.raises(PrecisionError, match="order 2"):
        alpha.minka(far, 2.0)
