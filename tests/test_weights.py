"""Log-weights: against mpmath where sums cancel, against other libraries, and by their properties."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toyiwae import weights
from toyiwae.errors import InputError
from toyiwae.weights import LogSum, LogTotal

EPS = np.finfo(float).eps
LIBRARIES = ["numpy", "torch", "jax.numpy"]
REDUCTIONS = [weights.log_sum_exp, weights.log_mean_exp, weights.ess]
ELEMENTWISE = [
    weights.normalise,
    weights.log_normalise,
    weights.log_others,
    weights.log_sum_others,
    weights.mean_log_others,
    weights.leave_one_out,
]
DOMINATED = np.array(
    [
        [0.0, -50.0, -60.0, -55.0],
        [1e4, -1e4, -1e4 + 2.0, -1e4 - 1.0],
        [-700.0, -740.0, -736.0, -1e4],
        [3.0, 3.0, -80.0, 2.0],
        [1.0, 1.5, 0.3, -0.2],
    ]
)

rows = hnp.arrays(float, st.tuples(st.integers(1, 3), st.integers(2, 9)), elements=st.floats(-50, 50))


def exact(log_w, digits=60):
    """By mpmath, for each row: log Σ w, log Σ of the others, effective sample size."""
    with mpmath.workdps(digits):
        w = [mpmath.exp(mpmath.mpf(float(value))) for value in log_w]
        total = mpmath.fsum(w)
        others = [mpmath.log(mpmath.fsum(w[:k] + w[k + 1 :])) for k in range(len(w))]
        return {
            "sum": float(mpmath.log(total)),
            "others": np.array([float(other) for other in others]),
            "share of others": np.array([float(other - mpmath.log(total)) for other in others]),
            "ess": float(total**2 / mpmath.fsum(value**2 for value in w)),
        }


@pytest.mark.parametrize("log_w", DOMINATED)
def test_sums_keep_their_accuracy_where_one_weight_dominates(log_w):
    truth = exact(log_w, 9_000)
    np.testing.assert_allclose(weights.log_sum_exp(log_w), truth["sum"], rtol=4 * EPS, atol=EPS)
    np.testing.assert_allclose(
        weights.log_mean_exp(log_w), truth["sum"] - math.log(4), rtol=4 * EPS, atol=EPS
    )
    np.testing.assert_allclose(weights.log_sum_others(log_w), truth["others"], rtol=4 * EPS, atol=4 * EPS)
    np.testing.assert_allclose(
        weights.leave_one_out(log_w), truth["others"] - math.log(3), rtol=4 * EPS, atol=EPS
    )
    np.testing.assert_allclose(weights.log_others(log_w), truth["share of others"], rtol=1e-11)
    np.testing.assert_allclose(weights.ess(log_w), truth["ess"], rtol=8 * EPS)


@settings(max_examples=60, deadline=None)
@given(log_w=rows)
def test_sums_agree_with_mpmath(log_w):
    for row in log_w:
        truth = exact(row)
        np.testing.assert_allclose(weights.log_sum_exp(row), truth["sum"], rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(weights.log_others(row), truth["share of others"], rtol=1e-12, atol=1e-300)


@settings(max_examples=40, deadline=None)
@given(log_w=rows, cut=st.integers(1, 8), level=st.sampled_from([0.0, 300.0, -300.0]))
def test_sums_of_chunks_merge(log_w, cut, level):
    cut = min(cut, log_w.shape[-1] - 1)
    log_w[..., cut:] += level
    parts = log_w[..., :cut], log_w[..., cut:]
    whole, merged = LogSum.of(log_w), LogSum.of(parts[0]).merge(LogSum.of(parts[1]))
    np.testing.assert_array_equal(merged.peak, whole.peak)
    np.testing.assert_allclose(merged.log_rest, whole.log_rest, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(merged.log_others(log_w), weights.log_others(log_w), rtol=1e-12, atol=1e-300)
    totals = LogTotal.of(parts[0]).merge(LogTotal.of(parts[1]))
    np.testing.assert_allclose(totals.mean_others(log_w), weights.mean_log_others(log_w), atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(log_w=rows)
def test_groups_pool_into_one_sum(log_w):
    pooled, flat = LogSum.of(log_w).pool(), LogSum.of(log_w.reshape(-1))
    np.testing.assert_allclose(pooled.value[0, 0], flat.value[0], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(pooled.log_rest[0, 0], flat.log_rest[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(pooled.share(log_w), weights.normalise(log_w, axis=(-2, -1)), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(log_w=rows, steps=st.integers(-8192, 8192))
def test_a_shift_moves_sums_by_itself_and_shares_not_at_all(log_w, steps):
    log_w = np.round(log_w * 2**20) / 2**20  # so that the shift itself does not round
    moved = log_w + steps
    np.testing.assert_allclose(weights.log_sum_exp(moved), weights.log_sum_exp(log_w) + steps, atol=1e-11)
    np.testing.assert_array_equal(weights.normalise(moved), weights.normalise(log_w))
    np.testing.assert_array_equal(weights.log_others(moved), weights.log_others(log_w))
    np.testing.assert_array_equal(weights.ess(moved), weights.ess(log_w))


@settings(max_examples=40, deadline=None)
@given(log_w=rows)
def test_shares_and_sample_size_are_in_their_ranges(log_w):
    shares, size = weights.normalise(log_w), weights.ess(log_w)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(-1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.exp(weights.log_normalise(log_w)), shares, rtol=1e-12)
    assert (size >= 1 - 1e-14).all()
    assert (size <= log_w.shape[-1] * (1 + 1e-14)).all()


def test_zero_weights_count_as_particles():
    log_w = np.array([[0.0, -math.inf, math.log(3.0), -math.inf]])
    assert weights.log_mean_exp(log_w)[0] == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(weights.normalise(log_w), [[0.25, 0.0, 0.75, 0.0]])
    np.testing.assert_allclose(weights.leave_one_out(log_w), [np.log([1.0, 4 / 3, 1 / 3, 4 / 3])], atol=1e-15)
    np.testing.assert_array_equal(weights.mean_log_others(log_w), [[-math.inf] * 4])
    only = np.array([[0.5, -math.inf, 1.0]])
    np.testing.assert_allclose(weights.mean_log_others(only), [[-math.inf, 0.75, -math.inf]])
    assert weights.leave_one_out(np.array([[2.0, -math.inf]]))[0, 0] == -math.inf


def test_a_group_of_zero_weights_counts_as_one_of_equal_weights():
    log_w = np.array([[-math.inf] * 4, [0.0, 1.0, 2.0, 3.0]])
    assert weights.log_mean_exp(log_w)[0] == -math.inf
    np.testing.assert_array_equal(weights.normalise(log_w)[0], [0.25] * 4)
    np.testing.assert_allclose(weights.log_others(log_w)[0], [math.log(0.75)] * 4)
    assert weights.ess(log_w)[0] == 4.0
    np.testing.assert_array_equal(
        LogSum.of(log_w).pool().value, weights.log_sum_exp(log_w.reshape(1, 1, -1), keepdims=True)[0]
    )


def test_one_particle_has_no_others():
    log_w = np.array([[0.7], [-1e4]])
    np.testing.assert_array_equal(weights.normalise(log_w), [[1.0], [1.0]])
    np.testing.assert_array_equal(weights.log_others(log_w), [[-math.inf], [-math.inf]])
    with pytest.raises(InputError, match="not K = 1"):
        weights.leave_one_out(log_w)


def test_tempering_at_exponent_zero_makes_all_weights_one():
    log_w = np.array([[-math.inf, 0.0, 5.0]])
    np.testing.assert_array_equal(weights.tempered(log_w, 0.0), [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(weights.tempered(log_w, 2.0), 2.0 * log_w)


@pytest.mark.parametrize("function", [*REDUCTIONS, *ELEMENTWISE], ids=lambda function: function.__name__)
@pytest.mark.parametrize("library", LIBRARIES)
def test_array_libraries_agree_and_keep_shape_and_precision(function, library):
    xp = pytest.importorskip(library)
    log_w = np.random.default_rng(0).normal(0.0, 5.0, size=(2, 3, 6)).astype(np.float32)
    log_w[0, 1] = -math.inf
    log_w[1, 1, 2] = -math.inf
    made = function(xp.asarray(log_w))
    assert type(made) is type(xp.asarray(log_w))
    assert np.asarray(made).dtype == np.float32
    assert made.shape == (log_w.shape if function in ELEMENTWISE else log_w.shape[:-1])
    np.testing.assert_allclose(np.asarray(made), function(log_w.astype(float)), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("function", [*REDUCTIONS, *ELEMENTWISE], ids=lambda function: function.__name__)
def test_half_precision_is_promoted(function):
    log_w = np.linspace(-9.0, 9.0, 12).reshape(3, 4).astype(np.float16)
    assert function(log_w).dtype == np.float32
    np.testing.assert_array_equal(function(log_w), function(log_w.astype(np.float32)))
    torch = pytest.importorskip("torch")
    assert function(torch.zeros(3, 4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("function", [*REDUCTIONS, *ELEMENTWISE], ids=lambda function: function.__name__)
def test_nan_stays_in_its_row(function):
    log_w = np.array([[0.0, 1.0, 2.0], [0.5, math.nan, 1.0], [3.0, 2.0, 1.0]])
    made = function(log_w)
    assert np.isnan(made[1]).any()
    np.testing.assert_array_equal(made[::2], function(log_w[::2]))


def test_gradients_pass_through_the_evidence():
    torch = pytest.importorskip("torch")
    log_w = torch.tensor([[0.3, 0.3, -1e4], [5.0, -2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    weights.log_mean_exp(log_w).sum().backward()
    torch.testing.assert_close(log_w.grad, torch.softmax(log_w, dim=-1), rtol=1e-14, atol=1e-16)


# Pareto k ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [25, 30, 100, 224, 226, 1000, 5000])
@pytest.mark.parametrize("heavy", [0.1, 1.0, 4.0])
def test_pareto_k_agrees_with_arviz(particles, heavy):
    witness = pytest.importorskip("arviz_stats.base").array_stats
    log_w = heavy * np.random.default_rng(particles).normal(size=(2, particles)) - 300.0
    expected = [witness.psislw(-row)[1] for row in log_w]
    np.testing.assert_allclose(weights.pareto_k(log_w), expected, rtol=1e-9, atol=1e-10)


def test_pareto_k_finds_the_tail_index():
    quantiles = np.arange(0.5, 100_000) / 100_000
    for index in (0.3, 0.7, 1.2):
        log_w = -index * np.log(quantiles)
        assert weights.pareto_k(log_w) == pytest.approx(index, abs=0.02)
        assert weights.pareto_k(log_w + 1e4) == pytest.approx(weights.pareto_k(log_w), abs=1e-8)


@pytest.mark.parametrize("library", LIBRARIES[1:])
def test_pareto_k_on_other_array_libraries(library):
    xp = pytest.importorskip(library)
    log_w = np.random.default_rng(0).normal(size=(3, 2, 60)).astype(np.float32)
    expected = weights.pareto_k(log_w.astype(float))
    np.testing.assert_allclose(np.asarray(weights.pareto_k(xp.asarray(log_w))), expected, atol=1e-4)


def test_pareto_k_does_not_exist_without_a_tail():
    log_w = np.zeros((2, 100))
    log_w[1] = np.random.default_rng(0).normal(size=100)
    made = weights.pareto_k(log_w)
    assert np.isnan(made[0])
    assert made[1] == weights.pareto_k(log_w[1])


@pytest.mark.parametrize(("particles", "tail"), [(24, None), (100, 4), (100, 100)])
def test_pareto_k_refuses_too_short_a_tail(particles, tail):
    with pytest.raises(InputError, match="it needs 5 to K−1"):
        weights.pareto_k(np.zeros(particles), tail)
