"""Moments of the weight against forty digits: within their bounds for weights nearly equal and far from it."""

from typing import Any

import mpmath
import numpy as np
import pytest

from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.gaussian import GaussianLaw

SCALES = (1e-9, 1e-6, 1e-2, 0.1, 1.0, 1e2, 1e4, 1e6, 1e9)  # of β


def exact_log_moment(beta: np.ndarray, h: np.ndarray, s: float) -> Any:
    """½Σ [s log(1+β) - log(1+sβ)] + Σ h² s(s-1) / (2(1+sβ)(1+β))."""
    total, s = mpmath.mpf(0), mpmath.mpf(s)
    for b, shift in zip(map(mpmath.mpf, map(float, beta)), map(mpmath.mpf, map(float, h)), strict=True):
        total += (s * mpmath.log(1 + b) - mpmath.log(1 + s * b)) / 2
        total += shift**2 * s * (s - 1) / (2 * (1 + s * b) * (1 + b))
    return total


@pytest.mark.parametrize("scale", SCALES)
def test_moments_are_within_their_bounds(scale: float) -> None:
    rng, size = np.random.default_rng(1), min(1.0, scale)
    with mpmath.workdps(40):
        for _ in range(25):
            beta, h = np.abs(rng.normal(size=3)) * scale, rng.normal(size=3) * size
            law = GaussianLaw(beta, h[None], np.zeros(3), np.zeros((1, 3)))
            for s in (-0.3 / max(beta.max(), 1.0), 0.5, 2.0, 3.0, 5.0):
                value, error = law.log_moment(s)[0, 0], law.log_moment_error(s)[0, 0]
                assert abs(value - exact_log_moment(beta, h, s)) <= error
            for power in (2, 3, 5):
                found = law.moment_less_one(power)
                truth = mpmath.expm1(exact_log_moment(beta, h, power))
                assert abs(found.value.item() - truth) <= found.error.item()
                assert found.error.item() <= 1e-12 * truth * (1.0 + abs(law.log_moment(power)[0, 0]))


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0])
def test_errors_of_beta_and_h_move_moments_by_no_more_than_is_said(scale: float) -> None:
    """Nearly equal weights: E[w²] - 1 is of the order β², and an error of β moves it by β times that error."""
    rng = np.random.default_rng(2)
    with mpmath.workdps(40):
        for _ in range(25):
            beta, h = np.abs(rng.normal(size=2)) * scale, rng.normal(size=2) * scale
            off = 1e-9 * scale
            law = GaussianLaw(beta, h[None], np.full(2, off), np.full((1, 2), off))
            found = law.moment_less_one(2)
            moved = [x + 0.99 * off * np.sign(rng.normal(size=2)) for x in (beta, h)]
            truth = mpmath.expm1(exact_log_moment(moved[0], moved[1], 2.0))
            assert abs(found.value.item() - truth) <= found.error.item()
            assert found.error.item() <= 1e-7 * truth


def test_moments_of_states_less_one() -> None:
    law = DiscreteLaw(np.log([0.2, 0.5, 0.3]), np.array([0.4, -1.1, 0.9]))
    w, prob = np.exp(law.log_w), np.exp(law.log_prob)
    found = law.moment_less_one(3)
    assert abs(found.value.item() - (prob @ w**3 - 1.0)) <= found.error.item()
