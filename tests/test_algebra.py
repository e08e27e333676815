"""Double-double arithmetic and the linear algebra on it, against mpmath."""

import mpmath
import numpy as np
import pytest

from tests.problems import random_problem
from toyiwae.oracle.whitened import double_double
from toyiwae.oracle.whitened.algebra import Double, Extended, solve, solve_root
from toyiwae.oracle.whitened.double_double import UNIT, DoubleDouble
from toyiwae.oracle.whitened.whitening import Whitened


def exact(values):
    """The numbers as a flat list of mpmath's."""
    if isinstance(values, DoubleDouble):
        pairs = zip(np.ravel(values.hi), np.ravel(values.lo), strict=True)
        return [mpmath.mpf(float(hi)) + mpmath.mpf(float(lo)) for hi, lo in pairs]
    return [mpmath.mpf(float(value)) for value in np.ravel(values)]


def test_operations_are_right_to_their_unit():
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-8, 8, (2, 200))
    a, b = (DoubleDouble(s * rng.normal(size=200), 1e-17 * s * rng.normal(size=200)) for s in scale)
    with mpmath.workdps(60):
        x, y = exact(a), exact(b)
        cases = {
            "sum": (a + b, [p + q for p, q in zip(x, y, strict=True)]),
            "difference": (1.0 - a, [1 - p for p in x]),
            "product": (a * b, [p * q for p, q in zip(x, y, strict=True)]),
            "quotient": (a / b, [p / q for p, q in zip(x, y, strict=True)]),
            "root": (double_double.sqrt(abs(a)), [mpmath.sqrt(abs(p)) for p in x]),
        }
        for name, (found, expected) in cases.items():
            for f, e in zip(exact(found), expected, strict=True):
                assert abs(f - e) <= UNIT * abs(e), name


def symmetric(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, n))
    if kind == "graded":
        root = np.linalg.qr(root)[0] * 10.0 ** np.linspace(-4, 4, n)
        return root @ root.T
    matrix = root + root.T
    return matrix if kind == "plain" else np.eye(n) / 3 + 1e-16 * matrix


@pytest.mark.parametrize("kind", ["plain", "equal", "graded"])
@pytest.mark.parametrize("n", [1, 5, 12])
def test_eigenvectors_diagonalise_to_all_digits(kind, n):
    """Also eigenvalues that agree in all digits of double precision, and those over sixteen orders of magnitude."""
    matrix, algebra = symmetric(kind, n), Double()
    values, vectors = algebra.eigh(algebra.array(0.5 * (matrix + matrix.T)))
    rest = vectors.T @ (algebra.array(0.5 * (matrix + matrix.T)) @ vectors) - np.eye(n) * values[None, :]
    assert np.abs(np.asarray(rest)).max() <= 64 * n * UNIT * np.abs(np.asarray(values)).max()
    assert np.abs(np.asarray(vectors.T @ vectors - np.eye(n))).max() <= 64 * n * UNIT


@pytest.mark.parametrize("algebra", [Double(), Extended()], ids=["double", "extended"])
def test_solutions_solve(algebra):
    matrix = symmetric("graded", 6) + 1e-3 * np.eye(6)
    lifted = algebra.array(0.5 * (matrix + matrix.T))
    root, right = algebra.cholesky(lifted), algebra.array(np.eye(6)[:, :4])
    back = lifted @ solve(algebra, root, right) - right
    assert np.abs(np.asarray(back, dtype=float)).max() <= 1e12 * algebra.unit
    back = root.T @ solve_root(algebra, root, right) - right
    assert np.abs(np.asarray(back, dtype=float)).max() <= 1e7 * algebra.unit


@pytest.mark.parametrize("case", [random_problem(3, 2, 3, rows=2, amortised=True), random_problem(5, 6, 4)])
def test_whitening_agrees_with_fifty_digits_to_one_rounding(case, monkeypatch):
    quick = Whitened(case)
    monkeypatch.setattr("toyiwae.oracle.whitened.whitening.Double", Extended)
    full = Whitened(case)
    assert isinstance(quick.model.algebra, Double)
    np.testing.assert_array_max_ulp(quick.beta, full.beta, 1)
    np.testing.assert_array_max_ulp(np.abs(quick.h), np.abs(full.h), 1)


@pytest.mark.parametrize("kind", ["plain", "graded rows", "graded axis", "zeros"])
def test_large_products_are_right_to_the_sum_of_absolute_terms(kind):
    """Those made of slices, and where slices would not do, those made term by term."""
    rng = np.random.default_rng(4)
    left, right = rng.normal(size=(40, 60)), rng.normal(size=(60, 30))
    if kind == "graded rows":
        left *= 10.0 ** rng.uniform(-9, 9, (40, 1))
    elif kind == "graded axis":
        scale = 10.0 ** rng.uniform(-12, 12, 60)
        left, right = left * scale, right / scale[:, None]
    elif kind == "zeros":
        left[:, ::2], left[3], right[:, 5] = 0.0, 0.0, 0.0
        left[7, 1], right[1] = 1e20, 1e-20 * right[1]
    a, b = (DoubleDouble(x, 2.0**-54 * x * rng.uniform(-1, 1, x.shape)) for x in (left, right))
    found, size = a @ b, np.abs(left) @ np.abs(right)
    with mpmath.workdps(60):
        for i in range(0, 40, 3):
            x = exact(a[i])
            for j in range(0, 30, 4):
                term = sum(p * q for p, q in zip(x, exact(b[:, j]), strict=True))
                assert abs(exact(found[i, [j]])[0] - term) <= UNIT * size[i, j]
