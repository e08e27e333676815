"""What `exact` asks of a problem: one interface over linear-Gaussian problems and those given by tables of states.

A Source answers for all observations of a problem. All numbers that a request needs are collected in `Numbers`, as
float64 has them; `refine` makes more accurate ones of those whose errors are too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from toyiwae.errors import InputError
from toyiwae.forms import Bound, Form, form_of_mean
from toyiwae.oracle.finite_k.gradients import GradientMoments
from toyiwae.oracle.finite_k.score_function import LogMoments
from toyiwae.oracle.laws.bounded import Bounded, where
from toyiwae.problems.parameter import Parameter
from toyiwae.truth import bounds
from toyiwae.truth.averages import Average, Averaged, Bounds
from toyiwae.truth.bounds import Combined
from toyiwae.truth.request import Job, Request

Jobs = Mapping[Any, tuple[Form, str]]


@dataclass(frozen=True)
class LogVariance:
    """A variance of a group's gradient at one K, or `[nK, *shape]` at all; or what it is instead: "not derived: …".

    Of gradients with log terms, and of averages over subsets.

    Attributes:
        var: the variance.
        reason: why there is none.
        best: what, added to every coefficient of a score, makes the variance smallest; unknown where 0/0.
    """

    var: Bounded | None
    reason: str | None = None
    best: Bounded | None = None

    def __getitem__(self, column: int) -> LogVariance:
        """That of one K."""
        return LogVariance(self.var and self.var[column], self.reason, self.best and self.best[column])

    def of_each(self, count: int) -> LogVariances:
        """Those of the first so many K."""
        return [self[column] for column in range(count)]


LogVariances = Sequence[LogVariance]
"""Those of every K."""


class LogAverage:
    """Running average over rows of moments with log terms, in a parameter's shape.

    Formula: best-constant.
    """

    def __init__(self, x: np.ndarray, parameter: Parameter, count: int):
        """Starts at zero, for `count` numbers of particles."""
        self._parts = [Average(x, parameter, count) for _ in range(3)]

    def add(self, rows: np.ndarray, found: LogMoments) -> None:
        """Add a batch of rows."""
        for average, part in zip(self._parts, (found.var, found.with_scores, found.of_scores), strict=True):
            nothing = Bounded.zeros(part.shape)
            average.add(rows, GradientMoments(nothing[:, 0], nothing, part, nothing))

    def result(self) -> LogVariance:
        """The average over the rows, whose constant is one for all of them."""
        var, both, of_scores = (average.result().var for average in self._parts)
        none = of_scores.value <= 0.0
        return LogVariance(var, best=where(none, np.nan, -both / where(none, 1.0, of_scores)))


@runtime_checkable
class Source(Protocol):
    """A problem whose truths can be computed; see the module's text."""

    @property
    def problem(self) -> Any:
        """The problem itself."""
        ...

    @property
    def evidence(self) -> Bounded:
        """Log p(x) of each observation: [N]."""
        ...

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Mean and covariance of the latents given the data, with bounds on their errors."""
        ...

    @property
    def many_rows(self) -> bool:
        """Whether the data were given as rows."""
        ...

    def check(self, estimators: Sequence[Any], parameters: Sequence[str]) -> None:
        """Refuse estimators that cannot be answered for, by an InputError."""
        ...

    def missing_mean(self, exponent: float) -> str | None:
        """Why E[w^exponent] does not exist, or None where it does."""
        ...

    def moments(
        self, exponent: float, particles: Sequence[int], jobs: Jobs, counts: Sequence[int]
    ) -> tuple[Bounds | None, dict[Any, Averaged]]:
        """Of w^exponent: bounds, if any `particles` are given; gradients' means with log terms, variances without."""
        ...

    def log_variances(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, LogVariances]:
        """Variances of gradients of the proposal with log terms."""
        ...

    def subset_variances(
        self, jobs: Sequence[tuple[int, str]], particles: Sequence[int]
    ) -> dict[tuple[int, str], LogVariance]:
        """Variances of averages of IWAE's gradient over all subsets: by their size and the parameter."""
        ...

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Covariance between all coordinates."""
        ...


@dataclass(frozen=True, eq=False)
class Numbers:
    """All numbers that a request needs.

    Attributes:
        evidence: log p(x) of each observation [N].
        bounds: by exponent, with columns for `Request.bound_particles`.
        gradients: by job, with columns for `Request.particles`.
        log_variances: by job and K.
        subset_variances: by size and parameter, with columns for `Request.counts`.
        covariances: by form and part.
        values: of linear combinations of bounds.
        means: of their gradients, by bound and name of the parameter.
        why: exponent or job -> why what is above tolerance was not recomputed.
        precise: exponent or job -> its numbers with the digits that were asked for.
    """

    evidence: Bounded
    bounds: Mapping[float, Bounds]
    gradients: Mapping[Job, Averaged]
    log_variances: Mapping[tuple[Job, int], LogVariance]
    subset_variances: Mapping[tuple[int, str], LogVariance]
    covariances: Mapping[tuple[Form, str], Bounded]
    values: Mapping[Bound, Combined]
    means: Mapping[tuple[Bound, str], Combined]
    why: Mapping[Any, str] = field(default_factory=dict)
    precise: Mapping[Any, Any] = field(default_factory=dict)


def numbers(source: Source, request: Request) -> Numbers:
    """Everything that a request needs, in float64."""
    evidence, particles = source.evidence, request.particles
    known: dict[float, Bounds] = {}
    gradients: dict[Job, Averaged] = {}
    of_job = {job: form_of_mean(job[0]).exponent for job in request.jobs}
    for exponent in sorted({*request.bound_particles, *of_job.values()}):
        jobs = {job: job for job in request.jobs if of_job[job] == exponent}
        counts = request.bound_particles.get(exponent, [])
        found, averages = source.moments(exponent, counts, jobs, particles)
        known |= {} if found is None else {exponent: found}
        gradients |= averages
    logs: dict[tuple[Job, int], LogVariance] = {}
    for counts, jobs in request.log_jobs.items():
        for job, found in source.log_variances(jobs, counts).items():
            logs |= {(job, k): found[i] for i, k in enumerate(counts)}
    subsets = source.subset_variances(request.subset_jobs, request.counts) if request.subset_jobs else {}
    joint = {
        (form, part): source.covariance(form, request.parts[part], particles)
        for form, part in request.covariances
    }
    values = {
        b: bounds.value(b, evidence, known[b.exponent], request.bound_particles[b.exponent])
        for b in request.reported
    }
    means = {(b, name): bounds.mean(b, name, gradients, particles) for b, name in request.by_target}
    return Numbers(evidence, known, gradients, logs, subsets, joint, values, means)


def with_errors(mean: Bounded, cov: Bounded) -> dict[str, np.ndarray]:
    """A posterior as `exact` reports it."""
    return {"mean": mean.value, "mean_error": mean.error, "cov": cov.value, "cov_error": cov.error}


def no_covariance() -> InputError:
    """The refusal of what only linear-Gaussian problems have."""
    return InputError("covariance between coordinates: it is computed for linear-Gaussian problems only")
