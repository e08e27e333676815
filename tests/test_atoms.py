"""Laws of finitely many atoms, and with them a second witness for the Gaussian law's transforms."""

from math import comb

import numpy as np
import pytest

from toyiwae.oracle.finite_k.gradients import GradientEngine
from toyiwae.oracle.laws.discrete import DiscreteLaw, Table
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.polynomials import Affine, Polynomial

PARTICLES = [2, 10, 1000, 10**6, 10**9]
FACTORS = [
    {1: (1.0, -1.0)},
    {1: (1.0, 0.0)},
    {2: (1.0, 0.0)},
    {0: (0.3, -0.3), 1: (0.7, -0.7)},
    {1: (1.0, 0.0), 2: (-1.0, 0.0)},
]


@pytest.mark.parametrize(("beta", "h"), [(0.4, 0.6), (-0.3, 0.2), (-0.7, -0.4), (2.5, 1.5), (0.0, 1.0)])
def test_gaussian_law_agrees_with_nodes_of_a_quadrature(beta: float, h: float) -> None:
    """The contour and a plain sum over fine nodes of the noise give the same numbers, to their stated errors."""
    reach = 12.0 / np.sqrt(1.0 + min(beta, 0.0)) + 6.0 * abs(h) / (1.0 + min(beta, 0.0))
    noise = np.arange(-reach, reach, 0.02)
    atoms = DiscreteLaw(-(noise**2) / 2, -beta * noise**2 / 2 - h * noise)
    law = GaussianLaw(np.array([beta]), np.array([[h]]))
    first, second = GradientEngine(atoms, PARTICLES), GradientEngine(law, PARTICLES)
    np.testing.assert_allclose(first.gap().value, second.gap().value, rtol=1e-11)
    np.testing.assert_allclose(first.ess().value, second.ess().value, rtol=1e-11)
    q = np.array([[-h / (1.0 + beta)]])
    path, score = (Polynomial(q, Affine(q, np.array([[slope]]))) for slope in (-beta, 1.0))
    path_table, score_table = atoms.table(-(beta * noise + h)[None]), atoms.table(noise[None])
    for factors in FACTORS:
        tabled = {r: Table.combine([(f, path_table), (g, score_table)]) for r, (f, g) in factors.items()}
        closed = {r: Polynomial.combine([(f, path), (g, score)]) for r, (f, g) in factors.items()}
        a, b = first.moments(tabled), second.moments(closed)
        np.testing.assert_allclose(a.limit.value, b.limit.value, rtol=1e-12, atol=1e-13)
        slack = 1e-10 * np.abs(b.shift.value) + a.shift.error + b.shift.error
        assert np.all(np.abs(a.shift.value - b.shift.value) <= slack)
        np.testing.assert_allclose(a.var.value, b.var.value, rtol=1e-9, atol=1e-30)


def test_two_atoms_against_the_binomial_sum() -> None:
    """With two states the number of particles in the first is binomial, and the bound a finite sum."""
    p, w, k = 0.3, np.array([0.4, 1.9]), 6
    law = DiscreteLaw(np.log([p, 1 - p]), np.log(w))
    mean = p * w[0] + (1 - p) * w[1]
    counts = range(k + 1)
    weights = [comb(k, n) * p**n * (1 - p) ** (k - n) for n in counts]
    totals = [(n * w[0] + (k - n) * w[1]) / mean for n in counts]
    squares = [(n * w[0] ** 2 + (k - n) * w[1] ** 2) / mean**2 for n in counts]
    expected = -sum(a * np.log(s / k) for a, s in zip(weights, totals, strict=True))
    engine = GradientEngine(law, [k])
    assert engine.gap().value[0, 0] == pytest.approx(expected, rel=1e-13)
    size = sum(a * s**2 / q for a, s, q in zip(weights, totals, squares, strict=True))
    assert engine.ess().value[0, 0] == pytest.approx(size, rel=1e-13)
