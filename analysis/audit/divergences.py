"""Exact f-divergences `E_q f(w)` of a linear-Gaussian problem, and the mean of a loss judged against them.

With `w = p(x, z)/q(z)`, a function f that is a sum of powers and of `u log u` and `log u` has a mean made of

    F(s) = E_q w^s,    F'(s) = E_q w^s log w

and every derivative of F by a parameter is a Gaussian moment under the density proportional to `q w^s`. Derivatives
by s are complex steps. For K particles inside f, `E f(mean w)` is known for powers up to 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from toyiwae import stats
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.calling import call
from toyiwae.conformance.checks.hypothesis_tests import compare
from toyiwae.conformance.checks.mean_variance import Level, judged, worst_check
from toyiwae.conformance.report import Check, CheckReport
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.problems.linear_gaussian import Problem

Gradients = dict[str, np.ndarray]
STEP = 1e-40  # of a complex step: no digits are lost to a difference
DIVERGENCES: dict[str, tuple[dict[float, float], dict[float, float]]] = {
    "kl_forward": ({}, {1.0: 1.0}),
    "pearson": ({0.0: 1.0, 1.0: -2.0, 2.0: 1.0}, {}),
    "squared_hellinger": ({0.0: 1.0, 0.5: -2.0, 1.0: 1.0}, {}),
    "amari_half": ({0.0: 4.0, 0.5: -4.0}, {}),
}
"""f as {power: coefficient}, and the same for powers times log u."""


def moment(problem: Problem, power: complex) -> tuple[complex, Gradients]:
    """F(s) and its gradient by every parameter, which for a complex s are complex.

    Raises:
        MissingMomentError: where the integral does not exist.
    """
    model, q, x = problem.model, problem.proposal, problem.data.x
    prior, noise, proposal = (np.linalg.inv(cov) for cov in (model.prior_cov, model.noise_cov, q.cov))
    misfit = x - model.offset
    precision = power * (prior + model.loading.T @ noise @ model.loading) + (1 - power) * proposal
    if np.linalg.eigvalsh(precision.real).min() <= 0:
        raise MissingMomentError(f"E_q w^{power.real:g} is infinite")
    slope = power * (prior @ model.prior_mean + model.loading.T @ noise @ misfit)
    slope = slope + (1 - power) * proposal @ q.mean
    cov = np.linalg.inv(precision)
    mean = cov @ slope

    def log_height(at: np.ndarray, of: np.ndarray, covariance: np.ndarray) -> Any:
        return -0.5 * (at @ of @ at + np.linalg.slogdet(2 * np.pi * covariance)[1])

    log_p = log_height(model.prior_mean, prior, model.prior_cov) + log_height(misfit, noise, model.noise_cov)
    log_q = log_height(q.mean, proposal, q.cov)
    size = np.exp(
        power * log_p
        + (1 - power) * log_q
        + 0.5 * (slope @ mean)
        + 0.5 * np.log(np.linalg.det(2 * np.pi * cov))
    )
    second = cov + np.outer(mean, mean)
    chol = np.linalg.cholesky(q.cov)
    gap = np.linalg.solve(chol, mean - q.mean)
    spread = np.linalg.solve(chol, np.linalg.solve(chol, cov).T) + np.outer(gap, gap)
    of_log_p = {
        "prior_mean": prior @ (mean - model.prior_mean),
        "loading": noise @ (np.outer(misfit, mean) - model.loading @ second),
        "offset": noise @ (misfit - model.loading @ mean),
    }
    of_log_q = {
        "proposal_mean": proposal @ (mean - q.mean),
        "proposal_chol": np.tril(np.linalg.solve(chol.T, spread)) - np.diag(1 / np.diag(chol)),
    }
    gradients = {name: power * size * array for name, array in of_log_p.items()}
    return size, gradients | {name: (1 - power) * size * array for name, array in of_log_q.items()}


def truth(problem: Problem, name: str, K: int) -> tuple[float, Gradients]:
    """`E f(mean of K weights)` and its gradient by every parameter.

    Raises:
        InputError: an unknown divergence, or one that has no closed form at this K.
    """
    if name not in DIVERGENCES:
        raise InputError(f"divergence {name!r}: expected one of {', '.join(DIVERGENCES)}")
    powers, logs = DIVERGENCES[name]
    if K > 1 and (logs or set(powers) - {0.0, 1.0, 2.0}):
        raise InputError(f"divergence {name!r} has a closed form at K = 1 only")
    value, gradients = 0.0, {n: np.zeros(shape) for n, shape in problem.parameters.items()}

    def add(size: float, slopes: Gradients) -> None:
        nonlocal value
        value += size
        for key in gradients:
            gradients[key] = gradients[key] + slopes[key]

    for power, coefficient in powers.items():
        size, slopes = moment(problem, power)
        share = coefficient / K if power == 2.0 else coefficient
        add(share * size.real, {key: share * slope.real for key, slope in slopes.items()})
        if power == 2.0 and K > 1:  # E (mean w)² = E w²/K + (1 − 1/K) (E w)²
            size, slopes = moment(problem, 1.0)
            share = coefficient * (1 - 1 / K)
            add(share * size.real**2, {key: share * 2 * size.real * s.real for key, s in slopes.items()})
    for power, coefficient in logs.items():
        size, slopes = moment(problem, power + STEP * 1j)
        add(coefficient * size.imag / STEP, {key: coefficient * s.imag / STEP for key, s in slopes.items()})
    return value, gradients


def judge(
    estimator: Callable[..., Any], name: str, *, K: int, M: int, shift: float, seed: int = 20_260_101
) -> CheckReport:
    """The mean of a divergence's loss and of its gradients, on the bank's first problem, whose weights are bounded.

    Args:
        estimator: a function of the contract, that returns losses and their gradients.
        name: a key of DIVERGENCES.
        K: particles inside f.
        M: losses that are averaged.
        shift: as for `toyiwae.check`, whose rate is kept too.
        seed: same seed, same numbers.
    """
    entry = bank()[0]
    value, gradients = truth(entry.problem, name, K)
    truths = {"value": np.asarray(value), **gradients}
    rate, tests = 1e-6, sum(int(judged(key, array.shape).sum()) for key, array in truths.items())
    level = Level(rate, tests)
    n = stats.required_replicates(shift, tests=tests, rate=rate)
    try:
        sample = call.call(estimator, entry.problem, K, M, n, seed)
    except call.Violation as found:
        checks = [found.check({"problem": entry.name, "K": K, "M": M, "n": n, "seed": seed})]
    else:
        where = {"problem": entry.name, "K": K, "M": M, "n": n}
        checks = [
            _mean(array, truths[key], level, {**where, "parameter": key})
            for key, array in sample.arrays.items()
        ]
    return CheckReport(f"divergence:{name}", tuple(checks), rate, tests)


def _mean(array: np.ndarray, exact: np.ndarray, level: Level, where: dict[str, Any]) -> Check:
    """One check of a mean, by its worst coordinate."""
    compared, free = compare(array, exact), judged(where["parameter"], exact.shape)
    if np.any(free & compared.too_skewed(level.threshold)):
        return Check("mean", 2, **where, reason="tails too heavy for this many replicates")
    base, error = {**where, "name": "mean", "tier": 2}, 1e-12 * (1.0 + np.abs(exact))
    return worst_check(base, compared, exact, error, level, level.detectable(where["n"]), free)
