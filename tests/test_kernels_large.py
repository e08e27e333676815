"""The kernels at many particles: agreement with exact means and variances, far from zero, and in little memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae import Problem, Proposal, stats
from toyiwae.problems.linear_gaussian import Data

pytest.importorskip("numba")
ROOT = Path(__file__).resolve().parents[1]
FORMS = [e for e in toyiwae.estimators.all() if e.form is not None and not e.form.has_log_terms]


def beside_its_posterior(model, x):
    """A problem whose proposal is wider than the posterior: weights are bounded, and variances well estimated.

    With the narrow proposal of `random_problem(1, 5, 3)` the exact kurtosis of DReG's gradients at K = 1000 is above
    10⁵ (`fourth_moments`): 25,000 replicates know their variance to a factor of 3, and no test of it means anything.
    """
    precision = np.linalg.inv(model.prior_cov) + model.loading.T @ np.linalg.solve(
        model.noise_cov, model.loading
    )
    cov = np.linalg.inv(precision)
    pull = np.linalg.solve(model.prior_cov, model.prior_mean)
    pull = pull + model.loading.T @ np.linalg.solve(model.noise_cov, x - model.offset)
    mean = cov @ pull + 0.2 * np.sqrt(np.diag(cov))
    return Problem(model, Proposal(1.1 * (cov + cov.T) / 2, mean=mean), Data(x))


def near_zero():
    """An ordinary observation."""
    problem = random_problem(10, 5, 3)
    return beside_its_posterior(problem.model, np.asarray(problem.data.x))


def far_below():
    """An observation of log-evidence near −10⁴."""
    model = random_problem(11, 3, 4).model
    return beside_its_posterior(model, np.asarray(model.offset) + np.array([140.0, -90.0, 60.0, 20.0]))


def far_above():
    """An observation in many dimensions with little noise, of log-evidence near 10⁴."""
    model, rng = random_problem(12, 3, 1000).model, np.random.default_rng(13)
    model = replace(model, noise_cov=np.diag(rng.uniform(0.5e-9, 2e-9, 1000)))
    x = model.loading @ rng.normal(size=3) + model.offset + 3e-5 * rng.normal(size=1000)
    return beside_its_posterior(model, x)


CASES = {
    "near zero": (near_zero, (-100.0, 100.0)),
    "far below": (far_below, (-3e4, -3e3)),
    "far above": (far_above, (3e3, 3e4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_hundred_million_particles_agree_with_exact_means_and_variances(case, capsys):
    """Every Form without logarithms; 10⁸ particles over the three cases and two cells, a rate of 1e-6 over all."""
    make, (least, most) = CASES[case]
    problem = make()
    names = [e.name for e in FORMS]
    largest, tests = 0.0, 0
    for K, count in ((8, 1_000_000), (1000, 25_000)):
        result = toyiwae.estimate(problem, K=K, estimators=names, replicates=count, seed=K, engine="numba")
        cell = result.cell(K)
        assert cell.bound.estimate is not None
        assert least < cell.bound.estimate < most
        scores = [
            np.ravel(m.z) for parts in cell.gradients.values() for m in parts.values() if m.z is not None
        ]
        spreads = [
            np.ravel(m.z_var)
            for parts in cell.gradients.values()
            for m in parts.values()
            if m.z_var is not None
        ]
        found = np.concatenate([np.array([cell.bound.z, cell.ess.z], dtype=float), *scores, *spreads])
        assert np.isfinite(found).all()
        largest, tests = max(largest, float(np.max(np.abs(found)))), tests + len(found)
    threshold = stats.family_threshold(3 * tests, 1e-6)
    with capsys.disabled():
        print(f"\n{case}: {tests} tests, largest |z| {largest:.2f}, threshold {threshold:.2f}")
    assert tests > 60
    assert largest < threshold


MEMORY = """
from tests.memory import peak_gib
from tests.problems import random_problem
from toyiwae.montecarlo import replicates
options = {"seed": 1, "parameters": "all", "engine": "numba", "threads": 1}
def draw(K, R):
    for chunk in replicates(random_problem(1, 20, 10), "iwae,dreg,piwae", K=K, replicates=R, **options):
        pass
    return peak_gib()
print(draw(10, 2), draw(10**7, 1), draw(64, 20_000), draw(64, 100_000))
"""


@pytest.mark.slow
def test_memory_depends_neither_on_particles_nor_on_replicates():
    """Peaks in MiB of a process that has drawn a little, at K = 10⁷, and at more and more replicates."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    idle, large, many, more = (1024 * float(word) for word in run.stdout.split())
    assert large - idle < 300
    assert more - many < 16
