"""Sums that kernels write in vectors, beside NumPy's: every width that is left over, both precisions."""

from importlib import import_module

import numpy as np
import pytest

numba = pytest.importorskip("numba")
held, matrices, rooms, streams, sums, tiles = (
    import_module(f"toyiwae.montecarlo.kernels.{name}")  # not skipped where it has gone elsewhere
    for name in ("held", "lanes.matrices", "room", "streams", "sums", "tiles")
)
DIMS = (1, 3, 4, 6, 21)
COUNTS = (1, 7, 8, 61, 130)
AHEAD = 5
"""Particles before the first."""


@numba.njit
def log_weights(noise, first, base, slope, curvature, out):
    sums.log_weights(noise, first, base, slope, curvature, out)


@numba.njit
def add_first(noise, first, count, c, out):
    sums.add_first(noise, first, count, c, 0, out, 2)
    sums.add_two_firsts(noise, first, count, c, 1, out, 0)


@numba.njit
def add_second(noise, first, count, c, products, lower, factor, out, fresh):
    tiles.add_second(noise, first, count, c, products, lower)
    sums.add_symmetric(lower, factor, out, fresh)


@numba.njit
def products(a, b, left, stack, right, lower, out):
    lines = a[:, 0].copy(), b[0], a[:, 1].copy(), b[1]
    matrices.put_sum(lines, left, stack, right, lower, out)
    matrices.add_product(a, b, out)


def noise_of(dim, count, precision):
    """Numbers that are finite beyond the last particle too, and large there: nothing may come from them."""
    noise = np.full((dim, AHEAD + count + 8), 1e6, precision)
    noise[:, AHEAD : AHEAD + count] = np.random.default_rng(dim + count).normal(size=(dim, count))
    return noise, noise[:, AHEAD : AHEAD + count].astype(float)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_log_weights(dim, precision):
    rng, size = np.random.default_rng(dim), streams.GRANULE
    noise = rng.normal(size=(dim, 2 * size)).astype(precision)
    slope, curvature = rng.normal(size=(2, dim))
    out = np.full(2 * size, 7.0)
    log_weights(noise, size, 1e4, slope, curvature, out)
    eta = noise[:, size:].astype(float)
    expected = 1e4 + (eta * (slope[:, None] + curvature[:, None] * eta)).sum(0)
    np.testing.assert_allclose(out[size:], expected, rtol=0, atol=4e-12)
    np.testing.assert_array_equal(out[:size], 7.0)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dim", DIMS)
def test_sums_of_first_and_second_order(dim, count, precision):
    """Of three coefficients, one alone and two together, added to what is there; nothing else is written."""
    noise, eta = noise_of(dim, count, precision)
    rng, four = np.random.default_rng(count), rooms.fours(dim)
    c, before = np.full((3, count + 8), np.nan), rng.normal(size=(4, 1 + dim))
    c[:, :count] = rng.normal(size=(3, count))
    found = before.copy()
    add_first(noise, AHEAD, count, c, found)
    expected = before.copy()
    for here, p in enumerate((1, 2, 0)):
        expected[here, 1:] += eta @ c[p, :count]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    lower, out = np.zeros((four, four)), np.ones((four, four))
    add_second(noise, AHEAD, count, c[1], rooms.aligned(2, four, sums.STEP + 8), lower, -0.5, out, False)
    np.testing.assert_allclose(out[:dim, :dim], 1.0 - 0.5 * (c[1, :count] * eta) @ eta.T, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(out[dim:], 1.0)
    put, room = np.full((four, four), np.nan), rooms.aligned(2, four, sums.STEP + 8)
    add_second(noise, AHEAD, count, c[1], room, np.zeros((four, four)), -0.5, put, True)
    np.testing.assert_allclose(put, out - 1.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("matrices_of_sum", [1, 3])
@pytest.mark.parametrize("columns", [1, 4, 7, 16, 63])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_small_matrices(rows, columns, matrices_of_sum):
    rng = np.random.default_rng(columns)
    a, b = rng.normal(size=(rows, 3)), rng.normal(size=(3, columns))
    left, right = rng.normal(size=(matrices_of_sum, rows)), rng.normal(size=columns)
    stack = rng.normal(size=(matrices_of_sum, rows + 1, columns + 2))
    summed = a[:, :2] @ b[:2] + (left[:, :, None] * stack[:, :rows, :columns]).sum(0) * right
    for lower in (False, True):
        out = np.full((rows, columns), np.nan)
        products(a, b, left, stack, right, lower, out)
        expected = (np.tril(summed) if lower else summed) + a @ b
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-14)


def test_which_multiple_a_coefficient_is():
    c = np.random.default_rng(1).normal(size=(2, 3, 70))
    other = c.copy()
    other[1, 2, 69] += 1.0
    assert [held.times(c, x) for x in (c, -c, other, -other, 2.0 * c)] == [1.0, -1.0, 0.0, 0.0, 0.0]
    zero = np.zeros_like(c)
    assert held.times(zero, zero) == 1.0
    assert held.times(zero, c) == held.times(np.full_like(c, np.nan), c) == 0.0
