"""Coarse grids in log t, for proposals far from the posterior or far wider: two witnesses, and the limits of both."""

# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae import estimators
from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid, Smoothness
from toyiwae.problems.linear_gaussian import Data, Problem, Proposal


def gap_by_quadrature(beta: float, h: float, particles: int, low: float, high: float) -> float:
    """`∫ (Λ^K - e^{-Kt}) dt/t`, Λ by a rule over the noise, on a uniform grid however long."""
    u = np.arange(np.floor(low / 0.22), np.ceil(high / 0.22) + 1) * 0.22
    stretch = np.arcsinh(30.0 * max(1.0, np.sqrt(beta)))
    v = np.linspace(-1.0, 1.0, 6001)
    noise = 9.2 * np.sinh(v * stretch) / np.sinh(stretch)
    rule = 9.2 * np.cosh(v * stretch) * stretch / np.sinh(stretch) * (v[1] - v[0])
    density = rule * np.exp(-0.5 * noise**2) / np.sqrt(2 * np.pi)
    log_w = 0.5 * np.log1p(beta) - 0.5 * h**2 / (1 + beta) - 0.5 * beta * noise**2 - h * noise
    total = 0.0
    for part in np.array_split(u, len(u) // 400 + 1):
        tw = np.exp(np.minimum(part[:, None] + log_w, 50.0))
        rest = -np.expm1(-tw) @ density
        power = np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), np.log(np.exp(-tw) @ density + 1e-300))
        total += 0.22 * float(
            np.sum(np.exp(particles * power) - np.exp(-particles * np.exp(np.minimum(part, 50))))
        )
    return total


@pytest.mark.parametrize(
    ("beta", "h", "particles"),
    [
        (2.0, 0.3, 2),
        (9.0, 0.3, 2),
        (29.0, 2.0, 16),
        (99.0, 0.3, 4),
        (1.0, 6.0, 2),
        (0.01, 12.0, 3),
        (3.0, 15.0, 2),
    ],
)
def test_gaps_of_wide_and_far_proposals(beta: float, h: float, particles: int) -> None:
    engine = FiniteK(GaussianLaw(np.array([beta]), np.array([[h]])), [particles])
    assert engine.grid.breaks, "this case is there for a coarse grid"
    gap, log_t = engine.gap(), engine.grid.log_t
    expected = gap_by_quadrature(beta, h, particles, log_t.min(), log_t.max())
    assert gap.value[0, 0] == pytest.approx(expected, rel=3e-12)
    assert gap.error[0, 0] <= 1e-11 * gap.value[0, 0]


def test_windows_add_up() -> None:
    """What varies on the scale of its distance is integrated to the last digits, though most points are far apart."""
    grid = Grid.covering(-50.0, 400_000.0, Smoothness(3.0, 0.0))
    assert len(grid.log_t) < 1300
    near = np.exp(-0.5 * (grid.log_t + 3.0) ** 2) / np.sqrt(2 * np.pi)
    assert grid.weight @ near == pytest.approx(1.0, abs=1e-14)
    distance = np.maximum(grid.log_t - 3.0, 1e-9)
    for middle in (10.0, 40.0, 200.0, 5_000.0, 30_000.0):
        density = np.exp(-0.5 * (np.log(distance / middle) / 0.3) ** 2) / (
            distance * 0.3 * np.sqrt(2 * np.pi)
        )
        assert grid.weight @ density == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_coarse_grids_agree_with_uniform_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `exact` gives of a wide, far proposal in three dimensions, by either grid within the stated errors."""
    base = random_problem(seed, dim_z=3, dim_x=2)
    far = Proposal(
        base.proposal.cov * (2.0 + seed), mean=np.add(np.asarray(base.proposal.mean), [2.0, -1.0, 3.0])
    )
    problem = Problem(base.model, far, base.data)
    asked = {
        "K": [2, 1000],
        "estimators": [
            e
            for e in estimators.all()
            if e.form and not e.form.leave_one_out and not e.form.leave_one_out_geometric
        ],
        "parameters": "all",
    }
    coarse = toyiwae.exact(problem, **asked)
    used: list[Grid] = []
    covering = Grid.covering
    monkeypatch.setattr(
        Grid, "covering", lambda low, high, smooth: used.append(covering(low, high, None)) or used[-1]
    )
    uniform = toyiwae.exact(problem, **asked)
    assert max(len(grid.log_t) for grid in used) > 600
    for one, other in zip(coarse.results, uniform.results, strict=True):
        assert abs(one.gap - other.gap) <= one.gap_error + other.gap_error
        assert abs(one.ess - other.ess) <= one.ess_error + other.ess_error
        for name, truth in one.gradients.items():
            for parameter, moments in truth.parameters.items():
                second = other.gradients[name].parameters[parameter]
                for field in ("mean", "var"):
                    values = [getattr(m, field) for m in (moments, second)]
                    errors = [getattr(m, f"{field}_error") for m in (moments, second)]
                    assert np.all(np.abs(values[0] - values[1]) <= errors[0] + errors[1])


def with_proposal(scale: float = 1.0, x: float | None = None) -> Problem:
    """A problem whose proposal is the prior times a scale, or whose observation is far off."""
    base = random_problem(5)
    data = base.data if x is None else Data([x, 1.0, 1.0])
    proposal = (
        base.proposal if x is not None else Proposal(base.model.prior_cov * scale, mean=base.model.prior_mean)
    )
    return Problem(base.model, proposal, data)


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(with_proposal(1.0), id="prior"),
        pytest.param(with_proposal(1e3), id="prior × 10³", marks=pytest.mark.slow),
        pytest.param(with_proposal(1e6), id="prior × 10⁶"),
        pytest.param(with_proposal(x=100.0), id="x = 100"),
        pytest.param(with_proposal(x=2e3), id="x = 2000"),
    ],
)
def test_extreme_proposals_have_answers(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few points, where uniform grids took minutes and gigabytes."""
    used: list[Grid] = []
    covering = Grid.covering
    monkeypatch.setattr(Grid, "covering", lambda *args: used.append(covering(*args)) or used[-1])
    exact = toyiwae.exact(problem, K=4, estimators=["iwae", "dreg"])
    cell = exact.cell(4)
    assert used
    assert max(len(grid.log_t) for grid in used) < 10_000
    assert 0.0 < cell.gap_error < 1e-9 * cell.gap
    assert 1.0 < cell.ess < 4.0
    assert np.isclose(cell.bound, exact.log_evidence - cell.gap)


@pytest.mark.parametrize("x", [1e6, 1e100])
def test_what_is_too_far_is_refused_by_name(x: float) -> None:
    with pytest.raises(PrecisionError, match=r"the weights reach over .* < log t < "):
        toyiwae.exact(with_proposal(x=x), K=4)
