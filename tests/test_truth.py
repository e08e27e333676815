"""The oracle against independent witnesses: tensor quadrature, a separate program's values, closed forms."""

# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

import json

import numpy as np
import pytest

import toyiwae
from tests import quadrature
from tests.problems import random_problem, reference
from tests.quadrature import NOISE_PRECISION, PRIOR_VAR, Toy, X
from toyiwae import estimators
from toyiwae.estimators import Estimator
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth import GradientTruth

FORMS = [e for e in estimators.all() if e.form is not None and not e.form.has_log_terms]
# where it is not about the estimators, one for each set of powers of the weights, exponent 1 or not, pooled or not
KINDS = list(
    {
        (frozenset({*e.form.model, *e.form.path}), e.form.exponent == 1.0, e.form.pooled): e for e in FORMS
    }.values()
)


def as_problem(toy: Toy) -> Problem:
    """The quadrature's toy as a problem."""
    return Problem.from_dict(
        {
            "model": {
                "prior_mean": [toy.prior_mean],
                "prior_cov": [[PRIOR_VAR]],
                "loading": [[toy.loading_0], [toy.loading_1]],
                "offset": [toy.offset_0, toy.offset_1],
                "noise_cov": np.linalg.inv(NOISE_PRECISION),
            },
            "proposal": {"mean": [toy.mean], "cov": [[toy.std**2]]},
            "data": {"x": X},
        }
    )


LABELS = {  # a parameter's coordinates, by the quadrature's names
    "prior_mean": ["prior_mean"],
    "loading": ["loading_0", "loading_1"],
    "offset": ["offset_0", "offset_1"],
    "proposal_mean": ["mean"],
    "proposal_chol": ["std"],
}


def flat(truth: GradientTruth, field: str) -> dict[str, float]:
    """A field of the exact moments, by the quadrature's parameter names, where there is a closed form."""
    found = {name: getattr(moments, field) for name, moments in truth.parameters.items()}
    return {
        label: value
        for parameter, array in found.items()
        if array is not None
        for label, value in zip(LABELS[parameter], np.ravel(array), strict=True)
    }


def moments_by_quadrature(
    toy: Toy, estimator: Estimator, groups: int, particles: int
) -> dict[str, tuple[float, float]]:
    """Mean and variance of each parameter's gradient by tensor quadrature."""
    noise, log_w, weights = quadrature.log_weights(toy, groups, particles)
    made, result = estimator(log_w), {}
    for name, (first, second) in toy.gradients(noise).items():
        parts = (made.model, 0.0) if name in quadrature.MODEL else (made.path, made.score)
        drawn = (parts[0] * first + parts[1] * second).sum(axis=(-2, -1))
        mean = float(weights @ drawn)
        result[name] = mean, float(weights @ drawn**2) - mean**2
    return result


@pytest.mark.parametrize(
    "toy",
    [
        pytest.param(Toy(), id="narrow", marks=pytest.mark.slow),
        pytest.param(Toy.wide(), id="wide"),
        pytest.param(Toy(mean=0.3, std=0.45), id="far", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([(1, 2)], id="two particles"),
        pytest.param([(1, 1), (1, 2), (1, 3), (2, 1)], id="up to three particles", marks=pytest.mark.slow),
        pytest.param([(2, 2)], id="four particles", marks=pytest.mark.slow),
    ],
)
def test_moments_agree_with_tensor_quadrature(toy: Toy, cells: list[tuple[int, int]]) -> None:
    """Mean and variance of every estimator and parameter, to what the quadrature carries."""
    least = {e.min_particles for e in estimators.all()}
    exact = {
        few: toyiwae.exact(
            as_problem(toy),
            K=sorted({k for _, k in cells if k >= few}),
            M=[1, 2],
            estimators=[e for e in estimators.all() if e.min_particles == few],
            parameters="all",
        )
        for few in least
    }
    judged = [(e, *cell) for e in estimators.all() for cell in cells if e.min_particles <= cell[1]]
    assert {estimator.name for estimator, *_ in judged} == set(estimators.names()) or cells == [(2, 2)]
    for estimator, groups, particles in judged:
        # the rule's own error: four particles take a coarse step
        tolerance = 1e-9 if groups * particles < 4 else 1e-6
        truth = exact[estimator.min_particles].cell(particles, groups).gradients[estimator.name]
        expected = moments_by_quadrature(toy, estimator, groups, particles)
        means, variances = flat(truth, "mean"), flat(truth, "var")
        assert means.keys() == expected.keys()
        np.testing.assert_allclose(
            list(means.values()), [expected[k][0] for k in means], rtol=tolerance, atol=tolerance
        )
        np.testing.assert_allclose(
            list(variances.values()), [expected[k][1] for k in variances], rtol=10 * tolerance, atol=tolerance
        )


@pytest.mark.parametrize("particles", [1, 2, 3])
def test_bound_and_sample_size_agree_with_tensor_quadrature(particles: int) -> None:
    """L_K and the expected effective sample size."""
    toy = Toy()
    cell = toyiwae.exact(as_problem(toy), K=particles).cell(particles)
    assert cell.bound == pytest.approx(quadrature.term(toy, particles, 1.0).real, abs=1e-10)
    _, log_w, weights = quadrature.log_weights(toy, 1, particles)
    w = np.exp(log_w[:, 0])
    assert cell.ess == pytest.approx(float(weights @ (w.sum(-1) ** 2 / (w**2).sum(-1))), rel=1e-10)


# a separate program's values ----------------------------------------------------------------------------------------

# The program's DReG variance loses log10 K digits; at K = 10⁶ that is more than 1e-8 shows. What it should be, from a
# computation of the oracle's integrals with 40 digits on two independent plans:
CERTIFIED = {
    ("twelve", 10**6, "dreg/proposal_mean"): [
        1.1601333975379918545e-19,
        1.2366102889589094373e-19,
        9.4200943272179139613e-20,
    ]
}


@pytest.mark.parametrize("name", ["two_in_three", "narrow", "twelve"])
def test_agrees_with_the_reference(name: str) -> None:
    """Every gap, sample size, mean and variance to 1e-8."""
    entry = reference()[name]
    problem, rows = Problem.from_dict(entry["problem"]), entry["truth"]["rows"]
    asked = {key.split("/")[0] for row in rows for key in row.get("gradients", {})}
    exact = toyiwae.exact(problem, K=[row["K"] for row in rows], estimators=sorted(asked))
    assert exact.log_evidence == pytest.approx(entry["truth"]["log_evidence"], rel=1e-12)
    np.testing.assert_allclose(
        exact.posterior["mean"], entry["truth"]["posterior"]["mean"], rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(
        exact.posterior["cov"], entry["truth"]["posterior"]["cov"], rtol=1e-11, atol=1e-12
    )
    for row in rows:
        cell = exact.cell(row["K"])
        assert cell.gap == pytest.approx(row["gap"], rel=1e-8)
        assert cell.ess == pytest.approx(row["ess"], rel=1e-8)
        for key, moments in row.get("gradients", {}).items():
            estimator, parameter = key.split("/")
            truth = cell.gradients[estimator].parameters[parameter]
            np.testing.assert_allclose(truth.mean[:3], moments["mean"], rtol=1e-8, atol=1e-14)
            certified = CERTIFIED.get((name, row["K"], key))
            np.testing.assert_allclose(
                truth.var[:3], certified or moments["var"], rtol=1e-11 if certified else 1e-8
            )


def test_results_are_frozen_and_strict() -> None:
    """Results convert to plain data and frames; unknown cells are refused."""
    exact = toyiwae.exact(as_problem(Toy()), K=[2, 4], M=[1, 3], estimators="iwae,ciwae:0.5")
    assert [(cell.K, cell.M) for cell in exact.results] == [(2, 1), (2, 3), (4, 1), (4, 3)]
    assert exact.cell(4, 3) is exact.results[3]
    with pytest.raises(KeyError):
        exact.cell(5)
    frame = exact.to_dataframe()
    assert set(frame["estimator"]) == {"iwae", "ciwae:0.5"}
    json.dumps(exact.to_dict(), allow_nan=False)
    with pytest.raises(toyiwae.InputError, match="K"):
        toyiwae.exact(as_problem(Toy()), K=0)


@pytest.mark.parametrize(
    "chosen", [pytest.param(KINDS, id="kinds"), pytest.param(FORMS, id="all", marks=pytest.mark.slow)]
)
def test_covariance_agrees_with_variances_and_quadrature(chosen: list[Estimator]) -> None:
    """Its diagonal holds the variances; off it, two parameters of one latent against tensor quadrature."""
    toy, particles = Toy(), 2
    exact = toyiwae.exact(
        as_problem(toy), K=particles, M=3, estimators=chosen, parameters="all", covariance=True
    )
    noise, log_w, weights = quadrature.log_weights(toy, 1, particles)
    factors = toy.gradients(noise)
    for estimator in chosen:
        truth = exact.cell(particles, 3).gradients[estimator.name]
        for part, names in (("model", quadrature.MODEL), ("proposal", quadrature.PROPOSAL)):
            cov = truth.cov[part]
            variances = np.concatenate(
                [
                    np.ravel(m.var)
                    for p, m in truth.parameters.items()
                    if (p[:8] == "proposal") == (part == "proposal")
                ]
            )
            np.testing.assert_allclose(np.diagonal(cov), variances, rtol=1e-9, atol=1e-14)
            if estimator.form.pooled and part == "model":
                continue
            made = estimator(log_w)
            first, second = (made.model, 0.0) if part == "model" else (made.path, made.score)
            drawn = [(first * factors[n][0] + second * factors[n][1]).sum(axis=(-2, -1)) for n in names]
            order = range(len(names))
            means = [weights @ d for d in drawn]
            expected = [
                [(weights @ (drawn[i] * drawn[j]) - means[i] * means[j]) / 3 for j in order] for i in order
            ]
            np.testing.assert_allclose(cov, expected, rtol=1e-8, atol=1e-9)
            assert truth.directional_snr[part] > 0.0


def test_rows_far_apart_do_not_spoil_each_other() -> None:
    """A row whose proposal is far off shares neither grid nor lines with the others."""
    problem = toyiwae.paper_problem(D=3, N=4, perturbation_std=0.1, seed=2)
    x = problem.data.x * np.array([[1.0], [40.0], [1.0], [300.0]])
    problem = Problem(problem.model, problem.proposal, toyiwae.Data(x))
    together = toyiwae.exact(problem, K=64, estimators="iwae").cell(64)
    rows = [toyiwae.exact(problem.row(n), K=64, estimators="iwae").cell(64) for n in range(4)]
    np.testing.assert_allclose(together.per_row["gap"], [row.gap for row in rows], rtol=1e-10)
    np.testing.assert_allclose(together.per_row["ess"], [row.ess for row in rows], rtol=1e-9)


def test_a_directional_snr_that_does_not_exist_has_its_reason() -> None:
    """At K = 1 wake-φ is a score, of mean zero; and one coordinate has nothing across it."""
    problem = random_problem(3, 2, 3)
    two = toyiwae.exact(problem, K=1, estimators="rws_wake_phi", covariance=True).cell(1)
    one = toyiwae.exact(as_problem(Toy()), K=4, parameters="proposal_mean", covariance=True).cell(4)
    for cell, name, word in ((two, "rws_wake_phi", "no direction"), (one, "iwae", "infinite")):
        found = cell.gradients[name]
        assert found.directional_snr is not None
        assert found.directional_snr["proposal"] is None
        assert word in (found.reason or "")
