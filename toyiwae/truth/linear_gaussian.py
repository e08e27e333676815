"""The truths of linear-Gaussian problems."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.forms import Form, form_of_mean
from toyiwae.oracle.finite_k import subsets
from toyiwae.oracle.finite_k.bounds import Grids
from toyiwae.oracle.finite_k.every_k import log_moments
from toyiwae.oracle.finite_k.gradients import GradientMoments
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm, LogMoments, refusal
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened import evidence
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents
from toyiwae.oracle.whitened.own_covariances import whiten
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.problems.parameter import Parameter
from toyiwae.truth import averages, covariance
from toyiwae.truth.averages import Average, Averaged, Bounds, grid_of, moments
from toyiwae.truth.request import reference
from toyiwae.truth.source import Jobs, LogAverage, LogVariance, LogVariances, with_errors

MOST_PAIRED = 2000
"""Most coordinates, counted over all rows, whose leave-one-out variances are computed without `digits=`.

Each is a double integral of about 20 ms, so that all take no longer than `accuracy.MOST_EFFORT`.
"""


MOST_SHARED = 100
"""Largest subsets of particles over which the variance of an average is computed: each has as many double integrals."""


class GaussianSource:
    """The truths of a linear-Gaussian problem."""

    def __init__(self, problem: Problem):
        self.problem, self.whitened = problem, whiten(problem)

    @cached_property
    def _evidence(self) -> Bounded:
        return evidence.log_evidence(self.whitened)

    @property
    def evidence(self) -> Bounded:
        """Log p(x) of each row: [N]."""
        return self._evidence

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Mean of each row, and the covariance that all share."""
        mean, cov = self.whitened.posterior()
        return with_errors(mean if self.many_rows else mean[0], cov)

    @property
    def many_rows(self) -> bool:
        """Whether the data were given as rows."""
        return self.problem.data.x.ndim == 2

    def check(self, estimators: Sequence[Any], parameters: Sequence[str]) -> None:
        """Every estimator has an answer, if only an empty one."""

    def missing_mean(self, exponent: float) -> str | None:
        """Why E[w^exponent] does not exist, or None where it does."""
        beta = self.whitened.beta
        if np.all(1.0 + exponent * beta > 0.0):
            return None
        side, worst = (">", beta.min()) if exponent > 0 else ("<", beta.max())
        which = "smallest" if exponent > 0 else "largest"
        return (
            f"E[w^{exponent:g}] is infinite: it exists only where every β {side} {-1 / exponent:.6g}, and the {which}"
            f" β is {worst:.6g}"
        )

    def moments(
        self, exponent: float, particles: Sequence[int], jobs: Jobs, counts: Sequence[int]
    ) -> tuple[Bounds | None, dict[Any, Averaged]]:
        """Bounds of w^exponent, and means (with log terms) and variances (without) of gradients."""
        forms = {key: (form_of_mean(form), name) for key, (form, name) in jobs.items()}
        asked = {job: job for job in forms.values()}
        bounds, found = moments(self.whitened, exponent, particles, asked, counts)
        return bounds, {key: found[job] for key, job in forms.items()}

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Covariance between all coordinates."""
        return covariance.covariance(self.whitened, form, parameters, particles)

    def log_variances(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, LogVariances]:
        """Variances of gradients of the proposal with log terms."""
        result: dict[Any, LogVariances] = {}
        alike: dict[Any, dict[Any, Any]] = {}
        for key, (form, name) in jobs.items():
            refused = self._refused(form, name)
            if refused is None:
                alike.setdefault((form.exponent, bool(form.leave_one_out)), {})[key] = (form, name)
            else:
                result[key] = refused.of_each(len(particles))
        for (exponent, double), chosen in alike.items():
            result |= self._log_variances_known(exponent, chosen, particles, double=double)
        return result

    def _log_variances_known(
        self, exponent: float, jobs: dict[Any, Any], particles: Sequence[int], *, double: bool
    ) -> dict[Any, LogVariances]:
        """Those of every K at once; where these need too wide a range, of each K that needs no more than there is."""
        try:
            found = self._log_variances(exponent, jobs, particles, double=double)
        except PrecisionError as error:
            if len(particles) == 1:
                return {key: [LogVariance(None, f"not computed: {error}")] for key in jobs}
            each = [self._log_variances_known(exponent, jobs, [k], double=double) for k in particles]
            return {key: [found[key][0] for found in each] for key in jobs}
        return {key: one.of_each(len(particles)) for key, one in found.items()}

    def subset_variances(
        self, jobs: Sequence[tuple[int, str]], particles: Sequence[int]
    ) -> dict[tuple[int, str], LogVariance]:
        """Variances of averages of IWAE's gradient over all subsets: by their size and the parameter."""
        result: dict[tuple[int, str], LogVariance] = {}
        for size, name in jobs:
            parameter = self.problem.parameters.record(name)
            count = len(self.whitened.x) * parameter.size
            if size > 1 and (count > MOST_PAIRED or size > MOST_SHARED):
                limits = f"{MOST_PAIRED} coordinates of all rows or subsets of {MOST_SHARED}"
                result[size, name] = LogVariance(
                    None, f"not computed: double integrals for more than {limits}"
                )
                continue
            try:
                result[size, name] = LogVariance(self._subset_variance(size, parameter, particles))
            except PrecisionError as error:
                result[size, name] = LogVariance(None, f"not computed: {error}")
        return result

    def _subset_variance(self, size: int, parameter: Parameter, particles: Sequence[int]) -> Bounded:
        average = Average(self.whitened.x, parameter, len(particles))
        for rows, part in self.whitened.batches(1.0, parameter.size):
            (g,) = GradientComponents(part).of(reference(1.0), parameter).values()
            var = subsets.variance(part.law, g, particles, size)
            nothing = Bounded.zeros(var.shape)
            average.add(rows, GradientMoments(nothing[:, 0], nothing, var, nothing))
        return average.result().var

    def _log_variances(
        self, exponent: float, jobs: dict[Any, Any], particles: Sequence[int], *, double: bool
    ) -> dict[Any, LogVariance]:
        many = [k for k in particles if k > 1]
        record = self.problem.parameters.record
        moved = {key: record(name) for key, (_, name) in jobs.items()}
        sums = {key: LogAverage(self.whitened.x, moved[key], len(particles)) for key in jobs}
        uniform = double and max(particles) > 2  # then pairs of particles shift one grid against another
        grids = Grids(particles, uniform=uniform)
        width = max(parameter.size for parameter in moved.values())
        log_mean = self.evidence * exponent + averages.log_mean(self.whitened.law(), exponent)
        for batch, part in self.whitened.batches(exponent or 1.0, min(width, 2 * self.problem.dim_z**2)):
            grid = grid_of(grids, part.law, batch) if exponent else None
            engine = LogEngine(part.law, many, grid) if grid is not None else None
            known: dict[Any, LogMoments] = {}
            for key, (form, _) in jobs.items():
                kind, reduced = moved[key].moves, LogForm.of(form)
                if (reduced, kind) not in known:
                    args = (part.law, engine, part.score[kind], reduced, log_mean[batch], particles)
                    known[reduced, kind] = log_moments(*args)
                sums[key].add(batch, known[reduced, kind])
        return {key: average.result() for key, average in sums.items()}

    def _refused(self, form: Form, name: str) -> LogVariance | None:
        reason = refusal(form)
        if reason is not None:
            return LogVariance(None, f"not derived: {reason}")
        count = len(self.whitened.x) * self.problem.parameters.record(name).size
        if form.leave_one_out and form.exponent and count > MOST_PAIRED:
            each = f"a double integral for each of {count} coordinates of all rows, more than {MOST_PAIRED}"
            return LogVariance(None, f"not computed: {each}: ask with digits=, for fewer rows or parameters")
        return None
