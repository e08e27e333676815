"""Laws of finitely many atoms, and with them a second witness for the Gaussian law's transforms."""

from math import comb

import mpmath
import numpy as np
import pytest

from toyiwae import memory
from toyiwae.oracle.finite_k.atom_kernels import DiscreteKernels
from toyiwae.oracle.finite_k.gradients import GradientEngine
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm
from toyiwae.oracle.finite_k.weight_kernels import LOG_WEIGHT
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.discrete import DiscreteLaw, Table
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid
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


MANY = 60_000


@pytest.fixture(scope="module")
def many() -> tuple[DiscreteLaw, Table, list[tuple]]:
    """A law of many atoms and a function, each of two values: plain sums would round thousands of times one way.

    Beside them the probability, log-weight and function of either kind of atom, to 40 digits.
    """
    logs, functions = (-1.1, 0.7), (0.3, -1.7)
    law = DiscreteLaw(np.zeros(MANY), np.resize(logs, MANY))
    with mpmath.workdps(40):
        mean = mpmath.log(sum(mpmath.exp(mpmath.mpf(x)) for x in logs) / 2)
        kinds = [
            (mpmath.mpf(0.5), mpmath.mpf(x) - mean, mpmath.mpf(g))
            for x, g in zip(logs, functions, strict=True)
        ]
    return law, law.table(np.resize(functions, MANY)[None]), kinds


def within(found: Bounded, truth: list) -> None:
    """The truths of some numbers lie within their bounds, which are not idle."""
    error = [abs(mpmath.mpf(x) - y) for x, y in zip(found.value.ravel(), truth, strict=True)]
    assert all(e <= b for e, b in zip(error, found.error.ravel(), strict=True))
    assert (found.error <= 1e-12 * (1.0 + np.abs(found.value))).all()


@pytest.mark.parametrize("power", [0, 1, 2])
def test_transforms_of_many_states_keep_their_bounds(many: tuple, power: int) -> None:
    law, table, kinds = many
    grid = Grid.spanning(-8.0, 2.5, 0.9)  # beyond, what rounding of log w does to e^-tw is larger than sums
    with mpmath.workdps(40):
        for factors in ((), (table,)):
            (found,) = law.transform(power, [factors], grid)
            truth = []
            for log_t, split in zip(grid.log_t, found.split, strict=True):
                y = [mpmath.exp(mpmath.mpf(log_t) + w) for _, w, _ in kinds]
                decay = [mpmath.expm1(-x) if split else mpmath.exp(-x) for x in y]
                terms = zip(kinds, y, decay, strict=True)
                truth.append(sum(p * x**power * (g if factors else 1) * d for (p, _, g), x, d in terms))
            within(found.remainder, truth)
        if power < 2:
            truth = []
            for log_t in grid.log_t:
                t = mpmath.exp(mpmath.mpf(log_t))
                terms = [(p, mpmath.exp(w)) for p, w, _ in kinds]
                truth.append(
                    t**power * sum(p * (w**power * mpmath.exp(-t * w) - mpmath.exp(-t)) for p, w in terms)
                )
            within(law.deviation(power, grid), truth)


def test_other_means_of_many_states_keep_their_bounds(many: tuple) -> None:
    """Complex moments, means of kernels, of one kernel after pairs of them too."""
    law, table, kinds = many
    grid = Grid.spanning(-3.0, 3.0, 0.75)
    kernels = DiscreteKernels(law, grid)
    with mpmath.workdps(40):
        value, error = law.complex_moment(-0.4, np.array([0.0, 1.3, 40.0]), (table,))
        truth = [
            sum(p * g * mpmath.exp(mpmath.mpc(-0.4, y) * w) for p, w, g in kinds) for y in (0.0, 1.3, 40.0)
        ]
        for x, e, exact in zip(value.ravel(), error.ravel(), truth, strict=True):
            assert abs(mpmath.mpc(x) - exact) <= e < 1e-12
        lags = np.array([2])
        joint, direct = kernels.joint(lags)
        first, second, _ = kernels.pairs(table, lags)
        single = kernels.single(LOG_WEIGHT, table)
        known: dict[str, list] = {"joint": [], "first": [], "second": [], "single": []}
        for log_t, far in zip(grid.log_t, direct, strict=True):
            sums = dict.fromkeys(known, mpmath.mpf(0))
            for p, w, g in kinds:
                u = mpmath.exp(mpmath.mpf(log_t) + w)
                t = mpmath.exp(mpmath.mpf(log_t) - 2 * mpmath.mpf(grid.step) + w)
                kappa = {x: 1 - mpmath.exp(-x) - x * mpmath.exp(-x) for x in (t, u)}
                grown = {x: -mpmath.expm1(-x) for x in (t, u)}
                sums["joint"] += p * (mpmath.exp(-t - u) if far else grown[t] * grown[u])
                sums["first"] += p * g * kappa[t] * (mpmath.exp(-u) if far else grown[u])
                sums["second"] += p * g * grown[t] * ((1 + u) * mpmath.exp(-u) if far else kappa[u])
                sums["single"] += p * g * kappa[u]
            for name, total in sums.items():
                known[name].append(total)
        for name, found in {"joint": joint, "first": first, "second": second, "single": single}.items():
            within(found, known[name])


@pytest.mark.parametrize(
    "ends", [(-9.0, -1.0), (1.0, 4.0), (0.5, 0.5)], ids=["small t", "large t", "one point"]
)
def test_kernels_on_one_side_of_one(ends: tuple[float, float]) -> None:
    law = DiscreteLaw(np.log([0.2, 0.3, 0.5]), np.array([-1.0, 0.4, 0.1]))
    grid = Grid.spanning(*ends, 0.5)
    table, lags = law.table(np.array([[1.0, -2.0, 0.5]])), np.arange(3)
    kernels = DiscreteKernels(law, grid)
    points = len(grid.log_t)
    assert kernels.joint(lags)[0].shape == (3, 1, points)
    assert kernels.pairs(table, lags)[0].shape == (3, 1, points, 1)
    found = kernels.single(LOG_WEIGHT, table)
    y = np.exp(grid.log_t[:, None] + law.log_w)
    plain = (1.0 - np.exp(-y) - y * np.exp(-y)) @ (np.exp(law.log_prob) * table.plain[0])
    np.testing.assert_allclose(found.value[0, :, 0], plain, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("cached", [1, 2**40])
def test_how_much_is_done_at_a_time_changes_round_off_alone(
    cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of finite states and of the Gaussian law, with logarithms."""
    noise = np.arange(-7.0, 7.0, 0.1)
    atoms = DiscreteLaw(-(noise**2) / 2, -0.2 * noise**2 - 0.3 * noise)
    score = atoms.table(noise[None])
    law = GaussianLaw(np.array([0.4]), np.array([[0.3], [0.5]]))

    def numbers() -> list[Bounded]:
        first, second = LogEngine(atoms, [2, 3, 50]), GradientEngine(law, [2, 3, 50])
        logs = first.log_variance(score, LogForm(1.0, -1.0, 0.0, 0.0, 0.0), np.zeros(1))
        moments = first.moments({1: score}), *first.weights
        return [first.gap(), first.ess(), moments[0].var, *moments[1:], logs, second.gap(), second.ess()]

    known = numbers()
    monkeypatch.setattr(memory, "CACHED", cached)
    for found, other in zip(numbers(), known, strict=True):
        assert found.shape == other.shape
        assert (np.abs(found.value - other.value) <= found.error + other.error).all()
