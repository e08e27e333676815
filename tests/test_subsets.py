"""Averages over subsets of particles, against enumeration, and where weights of two kinds leave sums to hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from tests.members import assert_same, sample_log_weights
from toyiwae.errors import InputError
from toyiwae.estimators import get
from toyiwae.estimators.subsets import subset_average, subset_gradient

EPS = np.finfo(float).eps
SIZES = [(particles, size) for particles in (3, 5, 8) for size in range(1, particles + 1)]


def enumerated(log_w, size):
    """Value and gradient of one group, subset by subset."""
    subsets = np.array(list(itertools.combinations(range(len(log_w)), size)))
    chosen = log_w[subsets]
    peak = chosen.max(-1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    weights = np.exp(chosen - peak)
    with np.errstate(divide="ignore"):
        value = np.log(weights.mean(-1)) + peak[:, 0]
    whole = weights.sum(-1, keepdims=True)
    shares = np.where(whole > 0.0, weights / np.where(whole > 0.0, whole, 1.0), 1.0 / size)
    gradient = np.zeros(len(log_w))
    np.add.at(gradient, subsets, shares)
    return value.mean(), gradient / len(subsets)


@pytest.mark.parametrize(("particles", "size"), [*SIZES, (40, 3), (40, 37), (16, 8)])
@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
def test_every_subset_counts_once(particles, size, spread):
    log_w = np.random.default_rng(particles).normal(-2.0, spread, (2, particles))
    value, gradient = subset_average(log_w, size), subset_gradient(log_w, size)
    for row in range(2):
        expected = enumerated(log_w[row], size)
        rounding = 16 * EPS * (1.0 + np.abs(log_w[row]).max())
        assert value[row] == pytest.approx(expected[0], rel=0, abs=rounding)
        np.testing.assert_allclose(gradient[row], expected[1], rtol=particles * rounding, atol=1e-17)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_far_apart_share_one_and_nothing(dtype):
    """Without an overflow, in either precision."""
    found = subset_gradient(np.array([0.0, -1e4, -2e4, -3e4], dtype), 2)
    assert found.dtype == dtype
    assert found == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0.0], abs=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(("particles", "size"), [(64, 8), (300, 5), (300, 292)])
@pytest.mark.parametrize("apart", [0.0, 2.5, 50.0, 800.0])
def test_weights_of_two_kinds_leave_hypergeometric_sums(particles, size, apart):
    """With j of the large ones in a subset its mean weight is (j + (m-j)e^{-apart})/m; more subsets than atoms."""
    large = np.arange(particles) % 3 == 2
    log_w, many = np.where(large, 1.5, 1.5 - apart)[None], int(large.sum())
    drawn = np.arange(max(0, size - (particles - many)), min(size, many) + 1)
    chance = hypergeom.pmf(drawn, particles, many, size)
    with np.errstate(divide="ignore"):
        log_large, log_small = np.log(drawn), np.log(size - drawn) - apart
    log_sum = np.logaddexp(log_large, log_small)
    expected = 1.5 + chance @ log_sum - math.log(size)
    assert subset_average(log_w, size)[0] == pytest.approx(expected, rel=1e-12)
    share = chance @ np.exp(log_large - log_sum)  # of all the large ones of a subset
    gradient = subset_gradient(log_w, size)[0]
    np.testing.assert_allclose(gradient[large], share / many, rtol=1e-12)
    assert gradient.sum() == pytest.approx(1.0, abs=1e-12)


def test_zero_weights_leave_the_subsets_without_them():
    """Of the six pairs of four particles one has no weight: its value is -∞, its shares are equal."""
    log_w = np.array([0.3, -math.inf, 1.1, -math.inf])
    np.testing.assert_allclose(subset_gradient(log_w[None], 2)[0], enumerated(log_w, 2)[1], rtol=1e-14)
    assert subset_average(log_w[None], 2)[0] == -math.inf
    log_w[3] = -2.0
    assert subset_average(log_w[None], 2)[0] == pytest.approx(enumerated(log_w, 2)[0], rel=1e-15)
    np.testing.assert_allclose(subset_gradient(np.full((1, 5), -math.inf), 2), 0.2, rtol=1e-14)


def test_no_bit_depends_on_the_other_groups():
    """The nodes of a rule reach as far as the widest group needs; what is past a group's own end does not count."""
    log_w = np.random.default_rng(2).normal(size=(5, 9))
    wide = np.concatenate([log_w, 300.0 * log_w])
    for function in (subset_average, subset_gradient):
        np.testing.assert_array_equal(function(wide, 4)[:5], function(log_w, 4))
        np.testing.assert_array_equal(function(log_w[2:3], 4)[0], function(log_w, 4)[2])


def test_groups_that_do_not_fit_into_memory_together_are_taken_in_turn(monkeypatch):
    log_w = np.random.default_rng(3).normal(size=(7, 10))
    whole = [subset_average(log_w, 4), subset_gradient(log_w, 4)]
    monkeypatch.setattr("toyiwae.estimators.subsets._HELD", 500)  # less than one group at all nodes
    np.testing.assert_allclose(subset_average(log_w, 4), whole[0], rtol=1e-14)
    np.testing.assert_allclose(subset_gradient(log_w, 4), whole[1], rtol=1e-13)


@pytest.mark.parametrize("size", [0, 6])
@pytest.mark.parametrize("function", [subset_average, subset_gradient])
def test_sizes_that_no_subset_has_are_refused(function, size):
    with pytest.raises(InputError, match=f"subsets of {size} particles: expected 1 to K = 5"):
        function(np.zeros((1, 5)), size)


def test_the_ends_of_the_family_are_the_elbo_and_iwae():
    log_w = sample_log_weights(3, 5)
    assert_same(get("u_statistic:1")(log_w), get("elbo")(log_w))
    assert_same(get("u_statistic:5")(log_w), get("iwae")(log_w))


def test_the_jackknife_is_a_combination_of_u_statistics():
    log_w = sample_log_weights(2, 6)
    made = get("jackknife:2")(log_w).model
    expected = sum(w * get(f"u_statistic:{n}")(log_w).model for n, w in get("jackknife:2").value(6, 2).terms)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13 * np.abs(made).max())


def test_it_is_the_average_over_all_partitions_into_groups():
    """Of four particles into pairs there are three; MIWAE has one of them, of the same target."""
    log_w = sample_log_weights(1, 4)
    pairs = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]]
    made = np.zeros_like(log_w)
    for order in pairs:
        grouped = log_w[..., order].reshape(3, 2, 2)
        made[..., order] += get("iwae")(grouped).model.reshape(3, 1, 4) / 3
    np.testing.assert_allclose(get("u_statistic:2")(log_w).model, made, rtol=1e-14)
    assert get("u_statistic:2").value(4, 1) == get("iwae").value(2, 2)
