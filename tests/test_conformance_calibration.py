"""The arithmetic of `tests.calibrate`: exact counts, and suites whose p-values are wrong are found."""

import numpy as np
import pytest
from scipy.special import bdtr, bdtrc

from tests import calibrate
from tests.calibrate import Count, counted, judge
from toyiwae.conformance.report import Check, CheckReport

RUNS, GROUPS, COORDINATES = 300, 4, (1, 2, 2, 3, 6, 6)


def simulated(rng, power=1.0, shared=False):
    """Reports whose p-values are those of uniform coordinates, to a power; all checks of a group alike if shared."""
    reports = []
    for _ in range(RUNS):
        checks = []
        for group in range(GROUPS):
            alike = rng.random()
            for tier in calibrate.SAMPLED:
                for coordinates in COORDINATES:
                    p = 1.0 - (1.0 - alike) ** (1 / coordinates) if shared else rng.random(coordinates).min()
                    where = {"problem": str(group), "K": 2, "M": 1}
                    checks.append(
                        Check(
                            "any",
                            tier,
                            **where,
                            coordinates=coordinates,
                            p_value=float(p**power),
                            passed=True,
                        )
                    )
        reports.append(CheckReport("any", tuple(checks), calibrate.RATE, 1))
    return reports


def wrong(reports):
    return {(count.what, count.few) for count in judge(reports) if not count.passed}


def test_counts_have_their_exact_law():
    n, p = 40, 0.3
    law = counted(np.full(n, p), 25)
    np.testing.assert_allclose(law.cumsum(), bdtr(np.arange(26), n, p), rtol=1e-12)
    assert Count("", 20, np.full(n, p)).p_value == pytest.approx(bdtrc(19, n, p), rel=1e-10)
    assert Count("", 5, np.full(n, p), few=True).p_value == pytest.approx(bdtr(5, n, p), rel=1e-12)
    assert Count("", 0, np.full(n, p)).p_value == 1.0
    np.testing.assert_allclose(counted(np.array([0.1, 0.5]), 2), [0.45, 0.5, 0.05], rtol=1e-15)


def test_there_are_as_many_tests_as_share_the_rate():
    assert len(judge(simulated(np.random.default_rng(0)))) == calibrate.TESTS == 13


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "all checks of a group alike"])
@pytest.mark.parametrize("seed", range(3))
def test_right_p_values_pass_however_they_depend_on_one_another(shared, seed):
    assert not wrong(simulated(np.random.default_rng(seed), shared=shared))


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "all checks of a group alike"])
def test_p_values_that_are_too_small_are_found(shared):
    """Each p is p^1.6 too small: at τ = 1e-3 thirteen times too many."""
    found = wrong(simulated(np.random.default_rng(1), power=1.6, shared=shared))
    assert {what[:6] for what, few in found if not few} == {f"tier {tier}" for tier in calibrate.SAMPLED}


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "all checks of a group alike"])
def test_p_values_of_means_that_are_too_large_are_found(shared):
    found = wrong(simulated(np.random.default_rng(1), power=0.5, shared=shared))
    assert {(what[:6], few) for what, few in found} == {("tier 2", True)}


def test_too_many_failed_runs_are_found():
    """At rate 0.05, 300 runs: 15 are expected, and too many are those that SciPy's binomial law calls so."""
    right = simulated(np.random.default_rng(2))
    failed = Check("any", 0, "one", passed=False)
    bar = next(k for k in range(1, RUNS) if bdtrc(k - 1, RUNS, 0.05) <= 1e-3 / 13)
    assert bar == 32
    for many, passed in ((bar - 1, True), (bar, False)):
        reports = [CheckReport("any", (*r.checks, failed), 0.05, 1) for r in right[:many]] + right[many:]
        assert judge(reports)[0].found == many
        assert judge(reports)[0].passed is passed
