"""The jackknife against its definition, subset by subset."""

import itertools
import math

import numpy as np
import pytest

from tests.members import assert_same, sample_log_weights
from toyiwae.estimators import get
from toyiwae.forms import Bound, Coefficients


@pytest.mark.parametrize("order", [1, 2, 3])
def test_jackknife_coefficients_are_the_derivative_of_its_value(order):
    member, tiny = get(f"jackknife:{order}"), 1e-40
    log_w = sample_log_weights(2, 5)
    expected = np.zeros_like(log_w)
    for index in np.ndindex(*log_w.shape):
        moved = log_w.astype(complex)
        moved[index] += 1j * tiny
        expected[index] = jackknife_value(moved, order)[index[0]].imag / tiny
    assert_same(member(log_w), Coefficients(expected, expected, -expected), 1e-11)
    np.testing.assert_allclose(member.value_of(log_w), jackknife_value(log_w, order).real, rtol=1e-12)


def jackknife_value(log_w, order):
    """By its definition: all subsets, one by one."""
    particles, total = log_w.shape[-1], np.zeros(log_w.shape[:-1])
    for j in range(order + 1):
        weight = (-1) ** j * (particles - j) ** order / math.factorial(order - j) / math.factorial(j)
        subsets = list(map(list, itertools.combinations(range(particles), particles - j)))
        logs = [np.log(np.exp(log_w[..., subset]).mean(-1)) for subset in subsets]
        total = total + weight * sum(logs) / len(logs)
    return total.mean(-1)


def test_jackknife_survives_one_dominant_weight():
    log_w = np.array([[0.0, -1e4, -1e4 - 2.0, -1e4 - 1.0, -1e4 + 1.5]])
    made = get("jackknife:2")(log_w).model[0]
    assert made.sum() == pytest.approx(1.0, abs=1e-10)  # log-weights of 1e4 carry no more
    weight = {n - 5: w for n, w in Bound.jackknife(2, 5).terms}
    assert made[0] == pytest.approx(weight[0] + weight[-1] * 4 / 5 + weight[-2] * 3 / 5, rel=1e-10)


def test_jackknife_counts_a_subset_of_zero_weights_as_one_of_equal_weights():
    """Subsets {0, 1}, {0, 2} and {1, 2}, of which the last has no weight: shares (1, 0), (1, 0), (1/2, 1/2)."""
    made = get("jackknife:1")(np.array([[0.7, -math.inf, -math.inf]])).model[0]
    np.testing.assert_allclose(
        made, 3.0 * np.array([1, 0, 0]) - 2.0 / 3.0 * np.array([2, 0.5, 0.5]), atol=1e-15
    )
