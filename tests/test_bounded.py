"""`Bounded`: every operation's bound holds, against exact rationals and fifty digits."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toyiwae.oracle.laws.bounded import EPS, Bounded, better, concatenate, matmul, stack, where

FRACTIONS = st.sampled_from([-1.0, -0.7, 0.0, 0.3, 1.0])  # where in its interval the truth is
MANTISSAS = st.floats(-4.0, 4.0, allow_nan=False).map(lambda x: x if abs(x) > 1e-100 else 0.0)
EXPONENTS = st.integers(-30, 30)
ROOM = Fraction(1 + 1e-12)  # a bound is a float itself, and rounded as such

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv]
FUNCTIONS = ["exp", "expm1", "log", "log1p", "sqrt"]


@st.composite
def uncertain(draw: st.DrawFn, exponents: st.SearchStrategy[int] = EXPONENTS) -> tuple[Bounded, Fraction]:
    """A number with its bound, and a truth within it."""
    value = draw(MANTISSAS) * 10.0 ** draw(exponents)
    error = abs(draw(MANTISSAS)) * 10.0 ** draw(exponents) * draw(st.sampled_from([0.0, EPS, 1e-6, 1.0]))
    return Bounded(np.array(value), np.array(error)), Fraction(value) + Fraction(draw(FRACTIONS)) * Fraction(
        error
    )


def holds(found: Bounded, truth: Any) -> bool:
    """Whether the truth is within the bound; an infinite one claims nothing."""
    value, error = float(found.value), float(found.error)
    assert error >= 0.0
    if error == np.inf:
        return True
    if isinstance(truth, mpmath.mpf):
        return bool(abs(mpmath.mpf(value) - truth) <= mpmath.mpf(error) * (1 + mpmath.mpf(1e-12)) + 1e-307)
    return abs(Fraction(value) - truth) <= Fraction(error) * ROOM + Fraction(1, 10**307)


@given(uncertain(), uncertain(), st.sampled_from(ARITHMETIC))
def test_arithmetic(
    one: tuple[Bounded, Fraction], two: tuple[Bounded, Fraction], operation: Callable
) -> None:
    (x, truth_x), (y, truth_y) = one, two
    if operation is operator.truediv and truth_y == 0:
        assert operation(x, y).error == np.inf or y.value == 0.0
        return
    assert holds(operation(x, y), operation(truth_x, truth_y))


@given(uncertain(), MANTISSAS, st.sampled_from(ARITHMETIC))
def test_plain_numbers_are_exact(one: tuple[Bounded, Fraction], number: float, operation: Callable) -> None:
    x, truth = one
    plain = np.array(number)
    if operation is not operator.truediv or number:
        assert holds(operation(x, plain), operation(truth, Fraction(number)))
    if operation is not operator.truediv or truth:
        assert holds(operation(plain, x), operation(Fraction(number), truth))


@given(uncertain(), st.integers(1, 5))
def test_signs_and_powers(one: tuple[Bounded, Fraction], power: int) -> None:
    x, truth = one
    assert holds(-x, -truth)
    assert holds(abs(x), abs(truth))
    assert holds(x**power, truth**power)


@given(uncertain(st.integers(-12, 2)), st.sampled_from(FUNCTIONS))
def test_functions(one: tuple[Bounded, Fraction], name: str) -> None:
    x, truth = one
    if (name in ("log", "sqrt") and truth <= 0) or (name == "log1p" and truth <= -1):
        return
    with mpmath.workdps(50):
        exact = getattr(mpmath, name)(mpmath.mpf(truth.numerator) / truth.denominator)
        assert holds(getattr(x, name)(), exact)


@given(uncertain(), uncertain(), uncertain())
def test_clipping(one: tuple[Bounded, Fraction], two: tuple[Bounded, Fraction], three: Any) -> None:
    (x, truth), ends = one, sorted([float(two[0].value), float(three[0].value)])
    inside = min(max(truth, Fraction(ends[0])), Fraction(ends[1]))
    if inside == truth:
        assert holds(x.clip(*ends), truth)


def entries(draw: Any, *shape: int) -> tuple[Bounded, np.ndarray]:
    """An array of uncertain numbers and their truths."""
    pairs = [draw(uncertain()) for _ in range(int(np.prod(shape)))]
    value, error = (np.array([getattr(x, n) for x, _ in pairs]).reshape(shape) for n in ("value", "error"))
    return Bounded(value, error), np.array([truth for _, truth in pairs], dtype=object).reshape(shape)


def hold(found: Bounded, truth: np.ndarray) -> bool:
    """Whether all truths are within their bounds."""
    assert found.shape == truth.shape
    return all(holds(found[index], truth[index]) for index in np.ndindex(truth.shape))


@given(st.data())
def test_sums_and_products_of_arrays(data: st.DataObject) -> None:
    (a, truth_a), (b, truth_b) = entries(data.draw, 2, 3), entries(data.draw, 3, 2)
    plain, exact = b.value, np.vectorize(Fraction, otypes=[object])(b.value)
    assert hold(a @ b, truth_a @ truth_b)
    assert hold(a @ plain, truth_a @ exact)
    assert hold(plain @ a, exact @ truth_a)
    assert hold(a.sum(), np.asarray(truth_a.sum(), dtype=object))
    assert hold(a.sum(axis=1), truth_a.sum(axis=1))
    assert hold(a.mean(axis=0), truth_a.sum(axis=0) / 2)


@given(st.data())
def test_broadcasting_and_shapes(data: st.DataObject) -> None:
    (a, truth_a), (b, truth_b) = entries(data.draw, 2, 3), entries(data.draw, 3)
    narrow = Bounded(a.value, a.error.max(axis=0))
    for x in (a, narrow):
        assert hold(x + b, truth_a + truth_b)
        assert hold(b * x, truth_b * truth_a)
        assert hold(x[:, 1:], truth_a[:, 1:])
        assert hold(x.reshape(3, 2), truth_a.reshape(3, 2))
        assert hold(x.sum(axis=0), truth_a.sum(axis=0))
        assert hold(stack([x, x], axis=1), np.stack([truth_a, truth_a], axis=1))
        assert hold(concatenate([x, b[None]]), np.concatenate([truth_a, truth_b[None]]))
        assert hold(where([True, False, True], x, b), np.where([True, False, True], truth_a, truth_b))
    closer = better(a, Bounded(a.value, 2.0 * a.error))
    np.testing.assert_array_equal(closer.error, a.error)


def test_what_cannot_be_told_has_an_infinite_bound() -> None:
    unknown, zero = Bounded(np.array(1.0), np.array(np.inf)), Bounded(np.array(0.0), np.array(0.0))
    near_zero = Bounded(np.array(1e-20), np.array(1e-19))
    huge = Bounded(np.array(1e300), np.array(1e280))
    for found in (
        unknown * zero,
        unknown * 0.0,
        unknown - unknown,
        unknown.exp(),
        1.0 / near_zero,
        unknown / near_zero,
        near_zero.log(),
        (near_zero - 1.0).log1p(),
        huge * huge,
        huge.exp(),
        unknown.reshape(1, 1) @ zero.reshape(1, 1),
    ):
        assert found.error == np.inf
    assert unknown.clip(0.0, 3.0).error == 2.0
    # what is far below the range of floats is known to be there
    assert Bounded(np.array(-1e5), np.array(1e3)).exp().error == 0.0


@pytest.mark.parametrize("error", [1e-12, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("value", [-40.0, -36.8, -30.0, -1e-9, 700.0])
def test_the_ends_of_an_exponential_are_within_its_bound(value: float, error: float) -> None:
    """Where e^x - 1 has no digit left of e^x, and beside one of a larger error."""
    x = Bounded(np.array([value, value]), np.array([error, 2.0]))
    with mpmath.workdps(50):
        for end in (-error, error):
            truth = mpmath.exp(mpmath.mpf(value) + mpmath.mpf(end))
            assert holds(x.exp()[0], truth)
            assert holds(x[:1].exp()[0], truth)
            assert holds(x[:1].expm1()[0], truth - 1)


def test_an_end_at_infinity_tells_nothing_of_the_error() -> None:
    x = Bounded(np.array([0.5, 0.5]), np.array([3.0, 3.0]))
    np.testing.assert_array_equal(x.clip(0.0, np.array([np.inf, 1.0])).error, [3.0, 3.0])
    np.testing.assert_array_equal(x.clip(0.0, np.array([2.0, 1.0])).error, [1.5, 0.5])


def test_bounds_are_not_much_larger_than_what_happens() -> None:
    """A thousand random terms: errors of one part in 1e12 are not reported a hundred times larger."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(30, 1000)), rng.random(1000)
    moved = x * (1.0 + 1e-12 * rng.uniform(-1.0, 1.0, x.shape))
    found = Bounded(x, 1e-12 * np.abs(x)) @ w
    happened = np.abs(moved @ w - x @ w).max()
    assert happened <= found.error.min()
    assert found.error.max() <= 100.0 * happened
    more = matmul(Bounded(x, 1e-12 * np.abs(x)), w, relative=1e-12)
    np.testing.assert_allclose(more.error, 2.0 * found.error, rtol=0.02)


def test_results_are_those_of_plain_arrays() -> None:
    x, y = np.array([[1.5, -2.0]]), np.array([3.0, 0.25])
    for operation in ARITHMETIC:
        np.testing.assert_array_equal(operation(Bounded.exact(x), y).value, operation(x, y))
        np.testing.assert_array_equal(operation(x, Bounded.exact(y)).value, operation(x, y))
    assert (Bounded.exact(x) + 0).value is x
    assert Bounded.exact(Bounded.exact(x)).value.shape == x.shape
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        _ = Bounded.exact(x) + np.ones(3)


@pytest.mark.parametrize("power", [0, -1])
def test_powers_below_one_are_refused(power: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        _ = Bounded.exact(np.ones(2)) ** power


def test_sums_of_equal_terms_are_within_their_bounds() -> None:
    """Their roundings all point one way: added one by one they miss by n/4 of them."""
    tenth = Fraction(0.1)
    total = Bounded.exact(np.full((10000, 3), 0.1)).sum(axis=0)
    assert all(holds(total[i], 10000 * tenth) for i in range(3))
    product = np.full((2, 1000), 0.1) @ Bounded.exact(np.ones(1000))
    assert all(holds(product[i], 1000 * tenth) for i in range(2))
    assert np.all(total.error < 1e-11)
