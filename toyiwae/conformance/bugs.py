"""Planted bugs: wrong estimators of the kinds that people write, each to be killed by the suite.

Each is an estimator in NumPy. The table of bug × problem × effect size in the documentation is made by

    python -m toyiwae.conformance.bugs > docs/conformance-bugs.txt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyiwae import estimators
from toyiwae.conformance.api import check
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.bank.particles import Particles
from toyiwae.forms import Coefficients
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Problem, Proposal
from toyiwae.weights import leave_one_out, log_mean_exp, log_sum_exp, mean_log_others, normalise

Array = np.ndarray
Formula = Callable[[Array], tuple[Array, Array, Array]]


@dataclass(frozen=True)
class Bug:
    """A planted bug.

    Attributes:
        name: what is wrong.
        target: what it claims to be.
        estimator: the wrong estimator.
        tier: the tier that must kill it, at the latest.
        rows: whether it shows only on many rows of data.
    """

    name: str
    target: str
    estimator: Callable[..., Any]
    tier: int = 2
    rows: bool = False


def _formula(name: str) -> Formula:
    """A registered estimator's coefficients."""
    claimed = estimators.get(name)

    def formula(log_w: Array) -> tuple[Array, Array, Array]:
        made = claimed(log_w)
        return made.model, made.path, made.score

    return formula


_iwae, _dreg, _equal = (_formula(name) for name in ("iwae", "dreg", "elbo"))


def _score(baseline: Callable[[Array], Array], bound: Callable[[Array], Array] = log_mean_exp) -> Formula:
    """A score-function estimator with a baseline (VIMCO's coefficients)."""

    def formula(log_w: Array) -> tuple[Array, Array, Array]:
        weights, groups = normalise(log_w), log_w.shape[-2]
        score = bound(log_w)[..., None] - baseline(log_w) - weights
        return weights / groups, 0.0 * weights, score / groups

    return formula


def _value(log_w: Array) -> Array:
    return log_mean_exp(log_w).mean((-1, -2))


@dataclass(frozen=True)
class _Planted:
    """An estimator with places to plant a bug: the problem, the noise, the log-weights, the formula, the value."""

    formula: Formula
    value: Callable[[Array], Array] = _value
    problem: Callable[[Problem], Problem] = lambda problem: problem
    noise: Callable[[Array], Array] = lambda noise: noise
    log_w: Callable[[Particles], Array] = lambda particles: particles.log_w
    after: Callable[[Particles, dict[str, Array]], dict[str, Array]] = lambda particles, gradients: gradients

    def __call__(self, problem: Problem, *, K: int, M: int, replicates: int, seed: int):
        changed = self.problem(problem)
        shape = (replicates, problem.n_rows, M, K, problem.dim_z)
        noise = self.noise(np.random.default_rng(seed).standard_normal(shape))
        drawn = Particles.of(changed, noise)
        log_w = self.log_w(drawn)
        gradients = drawn.gradients(Coefficients(*self.formula(log_w)))
        return self.value(log_w), self.after(drawn, gradients)


def _with_proposal(change: Callable[[Array], Array]) -> Callable[[Problem], Problem]:
    """The problem with another Cholesky factor of the proposal's covariance."""

    def changed(problem: Problem) -> Problem:
        factor = change(np.linalg.cholesky(problem.proposal.cov))
        proposal, cov = problem.proposal, factor @ factor.T
        made = Proposal(0.5 * (cov + cov.T), proposal.mean, proposal.weight, proposal.offset)
        return replace(problem, proposal=made)

    return changed


def _not_detached(log_w: Array) -> tuple[Array, Array, Array]:
    weights = normalise(log_w)
    average = (weights * log_w).sum(-1, keepdims=True)
    made = weights * (1.0 + log_w - average) / log_w.shape[-2]
    return made, made, -made


def _score_times(factor: float) -> Formula:
    return lambda log_w: (*_iwae(log_w)[:2], factor * _iwae(log_w)[2])


def _swapped(log_w: Array) -> tuple[Array, Array, Array]:
    weights = normalise(log_w, axis=-2) / log_w.shape[-1]
    return weights, weights, -weights


def _exchanged_pooling(log_w: Array) -> tuple[Array, Array, Array]:
    pooled = normalise(log_w, axis=(-2, -1))
    return normalise(log_w) / log_w.shape[-2], pooled, -pooled


def _of_posterior(drawn: Particles, gradients: dict[str, Array]) -> dict[str, Array]:
    """The model's gradients of log p(z|x): less those of log p(x), which the posterior would need."""
    problem = drawn.problem
    model, rows = problem.model, problem.rows()
    cov = model.loading @ model.prior_cov @ model.loading.T + model.noise_cov
    by_offset = np.linalg.solve(cov, (rows.x - model.loading @ model.prior_mean - model.offset).T).T.mean(0)
    return {
        **gradients,
        "offset": gradients["offset"] - by_offset,
        "prior_mean": gradients["prior_mean"] - model.loading.T @ by_offset,
    }


def _log_evidence(drawn: Particles) -> Array:
    """Log p(x) of each row, shaped to be taken from log-weights."""
    model, rows = drawn.problem.model, drawn.problem.rows()
    return condition(model, rows.x).log_evidence[:, None, None]


def _half(log_w: Array) -> Array:
    with np.errstate(over="ignore", divide="ignore"):
        return np.log(np.exp(log_w).astype(np.float16).astype(float))


def _same(axis: int) -> Callable[[Array], Array]:
    return lambda noise: np.broadcast_to(np.take(noise, [0], axis=axis), noise.shape)


def _halves(change: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The second half of a batch has the noise of the first, changed."""

    def changed(noise: Array) -> Array:
        half = noise[: -(-len(noise) // 2)]
        return np.concatenate([half, change(half)])[: len(noise)]

    return changed


def _weighted_mean_of_logs(log_w: Array) -> Array:
    return (normalise(log_w) * log_w).sum(-1).mean((-1, -2))


def _outside(log_w: Array) -> Array:
    """VIMCO's baseline as the slides print it: the leave-one-out mean outside the log."""
    others = leave_one_out(log_w)
    return others + np.log((log_w.shape[-1] - 1) / log_w.shape[-1]) + np.exp(others)


def _by_count(log_w: Array) -> Array:
    """VIMCO's baseline with the leave-one-out mean divided by K instead of K−1."""
    particles = log_w.shape[-1]
    return leave_one_out(log_w) + np.log((particles - 1) / particles * (1 + 1 / particles))


def _geometric_by_count(log_w: Array) -> Array:
    """The geometric baseline with the mean of the logs divided by K instead of K−1."""
    particles = log_w.shape[-1]
    others = leave_one_out(log_w) + np.log(particles - 1)
    mean = mean_log_others(log_w) * (particles - 1) / particles
    return np.logaddexp(others, mean) - np.log(particles)


_IWAE = _Planted(_iwae)


def catalogue() -> tuple[Bug, ...]:
    """All planted bugs."""
    return (*_of_weights(), *_of_densities(), *_of_score(), *_of_noise())


def _of_weights() -> Iterator[Bug]:
    yield Bug("weights not detached", "iwae", _Planted(_not_detached))
    yield Bug("mean of logs for log of mean", "iwae", _Planted(_equal, lambda w: w.mean((-1, -2, -3))))
    elbo = _Planted(lambda w: tuple(w.shape[-1] * c for c in _equal(w)), lambda w: w.sum(-1).mean((-1, -2)))  # pyright: ignore
    yield Bug("sum for mean over K", "elbo", elbo)
    swapped = _Planted(_swapped, lambda w: log_mean_exp(w, axis=-2).mean((-1, -2)))
    yield Bug("M and K swapped", "iwae", swapped)
    yield Bug("log K missing", "iwae", replace(_IWAE, value=lambda w: log_sum_exp(w).mean((-1, -2))))
    yield Bug("value is Σ w̃ log w", "iwae", replace(_IWAE, value=_weighted_mean_of_logs))
    squared = _Planted(lambda w: (_dreg(w)[1], *_dreg(w)[1:]))
    yield Bug("squared weights on the model's gradient", "dreg", squared)
    yield Bug("θ and φ targets exchanged", "piwae", _Planted(_exchanged_pooling))
    mixed = estimators.get("ciwae:0.7")
    other = _Planted(_formula("ciwae:0.7"), lambda w: mixed.value_of(w).mean(-1))
    yield Bug("β and 1−β exchanged", "ciwae:0.3", other)
    scaled = _Planted(lambda w: _iwae(3.0 * w), lambda w: _value(3.0 * w) / 3.0)
    yield Bug("data-set factor inside the log", "iwae", scaled)
    half = _Planted(lambda w: _iwae(_half(w)), lambda w: _value(_half(w)))
    yield Bug("weights in float16", "iwae", half)
    yield Bug("clamped log-weights", "iwae", replace(_IWAE, log_w=lambda p: np.clip(p.log_w, -20.0, 20.0)))


def _of_densities() -> Iterator[Bug]:
    posterior = replace(_IWAE, log_w=lambda p: p.log_w - _log_evidence(p), after=_of_posterior)
    yield Bug("p(z|x) for p(x,z)", "iwae", posterior)
    yield Bug("log p(z) missing", "iwae", replace(_IWAE, log_w=lambda p: p.log_w - p.log_prior))
    variance = replace(_IWAE, problem=_with_proposal(lambda chol: chol @ chol.T))
    yield Bug("variance where a standard deviation belongs", "iwae", variance)
    exponential = _with_proposal(lambda chol: np.tril(chol, -1) + np.diag(np.exp(np.diag(chol))))
    yield Bug("σ for log σ", "iwae", replace(_IWAE, problem=exponential))


def _of_score() -> Iterator[Bug]:
    for name, factor in (("dropped", 0.0), ("doubled", 2.0), ("with the wrong sign", -1.0)):
        yield Bug(f"score term {name}", "iwae", _Planted(_score_times(factor)))
    arithmetic = "vimco_arithmetic"
    yield Bug("VIMCO: leave-one-out mean outside the log", arithmetic, _Planted(_score(_outside)), tier=3)
    yield Bug(
        "VIMCO: the particle itself included",
        arithmetic,
        _Planted(_score(lambda w: log_mean_exp(w)[..., None])),
    )
    yield Bug("VIMCO: divided by K instead of K−1", arithmetic, _Planted(_score(_by_count)), tier=3)
    geometric = _Planted(_score(_geometric_by_count))
    yield Bug("VIMCO: logs divided by K instead of K−1", "vimco_geometric", geometric, tier=3)
    yield Bug("VIMCO without its baseline", arithmetic, _Planted(_score(lambda w: 0.0 * w)), tier=3)
    no_count = _Planted(_score(leave_one_out, log_sum_exp))
    yield Bug("VIMCO without −log K", arithmetic, no_count, tier=3)


def _of_noise() -> Iterator[Bug]:
    yield Bug("one noise for the whole batch", "iwae", replace(_IWAE, noise=_same(0)), tier=0)
    yield Bug(
        "noise of the batch used twice",
        "iwae",
        replace(_IWAE, noise=_halves(lambda half: half[:, :, :, ::-1])),
        tier=4,
    )
    yield Bug("antithetic replicates", "iwae", replace(_IWAE, noise=_halves(np.negative)), tier=4)
    yield Bug("noise reused over M", "iwae", replace(_IWAE, noise=_same(2)), tier=3)
    yield Bug("noise reused over M, bound only", "bound:iwae", replace(_IWAE, noise=_same(2)), tier=4)
    yield Bug("noise reused over K", "iwae", replace(_IWAE, noise=_same(3)))
    yield Bug("noise reused over the rows", "iwae", replace(_IWAE, noise=_same(1)), tier=3, rows=True)


def effects(report: Any) -> Mapping[str, float | str]:
    """Problem -> the largest shift in standard deviations of a failed check of a mean, or what failed."""
    found: dict[str, float | str] = {}
    for failure in report.failures:
        name, known = failure.problem or "", found.get(failure.problem or "")
        if failure.tier == 2 and failure.shift_in_sd is not None:
            found[name] = max(abs(failure.shift_in_sd), known if isinstance(known, float) else 0.0)
        elif failure.tier == 3 and failure.truth and failure.estimate is not None:
            found.setdefault(name, f"variance × {failure.estimate / failure.truth:.3g}")
        else:
            found.setdefault(name, failure.name)
    return found


def main() -> None:
    """Prints the table of bug × problem × effect size, in Markdown."""
    names = [entry.name for entry in bank()]
    columns = ["posterior", *names]
    print(f"| planted bug | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for bug in catalogue():
        found = effects(check(bug.estimator, bug.target, rows=True))
        cells = [found.get(name, "") for name in columns]
        words = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
        name = bug.name.replace("|", "∣")
        print(f"| {name} | {' | '.join(words)} |", flush=True)


if __name__ == "__main__":
    main()
