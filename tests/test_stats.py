"""Statistics against SciPy, closed forms, and their own claims about rates and power."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from toyiwae import stats
from toyiwae.errors import InputError
from toyiwae.stats import Moments


def gamma_sample(seed, n=5000, shape=()):
    return 3.0 - 0.7 * np.random.default_rng(seed).gamma(1.7, size=(n, *shape))


def test_moments_agree_with_scipy():
    x = gamma_sample(1, shape=(3, 2))
    moments = Moments.of(x)
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.var, x.var(axis=0, ddof=1), rtol=1e-13)
    np.testing.assert_allclose(moments.mean_se, scipy.stats.sem(x, axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.skewness, scipy.stats.skew(x, axis=0), rtol=1e-11)
    np.testing.assert_allclose(moments.kurtosis, scipy.stats.kurtosis(x, axis=0, fisher=False), rtol=1e-12)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**20), st.floats(-1e3, 1e3))
def test_merging_chunks_in_any_order_equals_the_whole(sizes, seed, offset):
    rng = np.random.default_rng(seed)
    chunks = [offset + rng.gamma(0.8, size=(n, 2)) for n in sizes]
    whole = Moments.of(np.concatenate(chunks))
    parts = [Moments.of(chunk) for chunk in chunks]
    forward, backward = parts[0], parts[-1]
    for part in parts[1:]:
        forward = forward.merge(part)
    for part in parts[-2::-1]:
        backward = part.merge(backward)
    for merged in (forward, backward):
        assert merged.count == whole.count
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
        for name in ("sum2", "sum3", "sum4"):
            size = np.maximum(whole.sum2, 1e-20) ** (int(name[-1]) / 2)
            np.testing.assert_allclose(getattr(merged, name) / size, getattr(whole, name) / size, atol=1e-9)


def test_a_large_offset_costs_no_digits():
    x = np.random.default_rng(5).normal(size=4000)
    far = Moments.of(1e8 + x[:1000]).merge(Moments.of(1e8 + x[1000:]))
    np.testing.assert_allclose(far.var, x.var(ddof=1), rtol=1e-6)


def test_stream_equals_one_call():
    x = gamma_sample(3, n=101, shape=(2,))
    stream = stats.Stream()
    for chunk in np.array_split(x, 7):
        stream.add(chunk)
    np.testing.assert_allclose(stream.moments.sum4, Moments.of(x).sum4, rtol=1e-12)
    with pytest.raises(InputError, match="no replicates"):
        _ = stats.Stream().moments


def test_standard_errors_are_the_spread_over_repetitions():
    """Each standard error against the spread over 4,000 repeated experiments, in its own standard error."""
    repeats, n, truth = 4000, 2000, 1.5
    moments = Moments.of(np.moveaxis(gamma_sample(7, n=repeats * n).reshape(repeats, n), 1, 0))
    rmse, rmse_se = moments.rmse(truth)
    claims = {
        "mean": (moments.mean, moments.mean_se),
        "var": (moments.var, moments.var_se),
        "snr": (moments.snr, moments.snr_se),
        "rmse": (rmse, rmse_se),
    }
    threshold = stats.family_threshold(len(claims), 1e-6)
    for name, (values, errors) in claims.items():
        spread = Moments.of(values)
        size = np.sqrt(np.mean(errors**2))
        spread_se = spread.var_se / (2 * spread.std)
        # the claim itself is right to order 1/n; 3/n covers it, far below the sampling error of 1/√8000
        assert abs(spread.std - size) < threshold * spread_se + 3.0 / n * size, name


def test_snr_and_rmse_in_closed_form():
    x = np.array([1.0, 2.0, 3.0, 6.0])
    moments = Moments.of(x)
    assert moments.snr == pytest.approx(3.0 / x.std(ddof=1))
    rmse, _ = moments.rmse(2.0)
    assert rmse == pytest.approx(math.sqrt(((x - 2.0) ** 2).mean()))
    square = (x - 2.0) ** 2
    assert moments.rmse(2.0)[1] == pytest.approx(square.std() / math.sqrt(4) / (2 * rmse))


def test_replicates_without_spread():
    zero = Moments.of(np.zeros((5, 2)))
    assert np.isnan(zero.snr).all()
    assert (zero.var_se == 0).all()
    assert [part.tolist() for part in zero.rmse(0.0)] == [[0.0, 0.0], [0.0, 0.0]]
    assert np.isinf(Moments.of(np.ones(5)).snr)
    assert stats.z_score([0.0, 1.0], [0.0, 0.0], [0.0, 0.0]).tolist() == [0.0, math.inf]
    assert np.isnan(Moments.of(np.ones((1, 3))).var).all()


def test_p_values_and_thresholds_agree_with_scipy():
    z = np.array([0.0, -1.3, 5.0])
    np.testing.assert_allclose(stats.p_value(z), 2 * scipy.stats.norm.sf(abs(z)), rtol=1e-12)
    np.testing.assert_allclose(stats.p_value(z, dof=7.0), 2 * scipy.stats.t.sf(abs(z), 7), rtol=1e-12)
    assert stats.family_threshold(16, 1e-6) == pytest.approx(scipy.stats.norm.isf(1e-6 / 32), rel=1e-12)
    assert stats.family_threshold(5, 0.01, dof=9.0) == pytest.approx(scipy.stats.t.isf(0.001, 9), rel=1e-9)
    normal = stats.family_threshold(1, 0.05)
    assert stats.family_threshold(1, 0.05, dof=1e9) == pytest.approx(normal, rel=1e-6)


def test_the_power_calculation_of_the_design():
    n = stats.required_replicates(0.05, tests=16, rate=1e-6, power=0.999)
    assert 28_800 < n < 29_200
    seen = [stats.smallest_detectable_shift(m, tests=16) for m in (n - 1, n)]
    assert seen[1] <= 0.05 < seen[0]
    assert stats.detection_power(0.05, n, tests=16) == pytest.approx(0.999, abs=1e-5)
    assert stats.detection_power(0.0, n, tests=16, rate=0.02) == pytest.approx(0.02 / 16)


def test_the_family_wise_rate_holds():
    """20,000 families of 10 true hypotheses at rate 0.05: false alarms within the binomial bound at 1e-6."""
    families, rate = 20_000, 0.05
    z = np.random.default_rng(11).normal(size=(families, 10))
    alarms = (np.abs(z).max(axis=1) > stats.family_threshold(10, rate)).sum()
    assert scipy.stats.binom.sf(alarms - 1, families, rate) > 1e-6
    assert alarms > 0.8 * rate * families  # and it is no looser than it has to be: 1 − (1 − 0.005)^10 = 0.049


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.family_threshold(0, 0.1), "tests is 0"),
        (lambda: stats.family_threshold(3, 1.0), "rate is 1.0"),
        (lambda: stats.family_threshold(3, 0.1, dof=0.0), "dof is 0"),
        (lambda: stats.required_replicates(0.0), "shift is 0.0"),
        (lambda: stats.required_replicates(math.nan), "shift is nan"),
        (lambda: stats.smallest_detectable_shift(0), "replicates is 0"),
        (lambda: stats.smallest_detectable_shift(9, power=0.0), "power is 0.0"),
        (lambda: Moments.of(1.0), "along the first axis"),
        (lambda: Moments.of(np.zeros((0, 3))), "along the first axis"),
        (lambda: Moments.of(np.zeros((2, 3))).merge(Moments.of(np.zeros((2, 2)))), "cannot merge"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
