"""The oracle's answers, in float64 and, where that is not accurate enough or digits were asked for, with mpmath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.forms import form_of_mean
from toyiwae.oracle.enclosure import precise_problem
from toyiwae.oracle.enclosure.precise import PreciseBounds, PreciseMoments
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth import accuracy
from toyiwae.truth.accuracy import Budget, blurred, poor, zero_scale
from toyiwae.truth.digits import Multiprecision, rows_of
from toyiwae.truth.linear_gaussian import GaussianSource
from toyiwae.truth.request import Job, Questions, log_part, reference
from toyiwae.truth.source import LogVariance, Source

_NO_DIGITS = "mpmath serves linear-Gaussian problems only"


@dataclass(eq=False)
class BoundAnswer:
    """Bounds of w^e: gaps and sample sizes `[N, nK]`, log E[w^e] `[N]`.

    Attributes:
        exact: the same with the digits that were asked for.
        why: why what is poor was not recomputed.
    """

    particles: list[int]
    log_mean: Bounded
    gap: Bounded
    ess: Bounded
    exact: PreciseBounds | None = None
    why: str | None = None


@dataclass(eq=False)
class GradientAnswer:
    """Moments of one group's gradient, `[nK, *shape]`; `limit` is the part of the mean that no K changes.

    Attributes:
        shift: the mean less its limit, with a relative accuracy of its own.
        exact: {"mean", "var"} as multiprecision numbers of the same shape, where digits were asked for.
        why: why what is poor was not recomputed.
    """

    limit: np.ndarray
    shift: Bounded
    mean: Bounded
    var: Bounded
    exact: dict[str, np.ndarray] = field(default_factory=dict)
    why: str | None = None


class Answers:
    """The answers to some questions about one source.

    Args:
        source: the problem's truths.
        questions: what is asked.
        digits: significant decimal digits that are shown; None for float64, and mpmath where its error exceeds the
            tolerance. At least so many are computed as float64 holds.
    """

    def __init__(self, source: Source, questions: Questions, digits: int | None):
        """Asks everything."""
        self.source, self.questions, self._shown = source, questions, digits
        self.digits = None if digits is None else max(digits, accuracy.FLOAT_DIGITS)
        self.budget, self._problem = Budget(), source.problem
        self.bounds = {e: self._bound(e, counts) for e, counts in questions.bound_particles.items()}
        self.gradients = self._gradients() if questions.estimators and questions.parameters else {}
        self._logs: dict[tuple[Job, int], tuple[LogVariance, int]] = {}
        for particles, jobs in questions.log_jobs.items():
            found = source.log_variances(jobs, particles)
            self._logs |= {(job, k): (var, i) for job, var in found.items() for i, k in enumerate(particles)}

    def log_variance(self, job: Job, k: int) -> tuple[Bounded | None, str | None]:
        """Variance of a gradient with logarithms at K = `k`, or why there is none."""
        found, i = self._logs[job, k]
        if found.var is None:
            return None, found.reason
        return Bounded(found.var.value[i], found.var.error[i]), None

    def multiprecision(self, digits: int, rows: Any = None) -> Multiprecision:
        """The same problem, or some of its rows, with so many digits."""
        return Multiprecision(self._problem if rows is None else rows_of(self._problem, rows), digits)

    @cached_property
    def precise(self) -> Multiprecision:
        """The problem with the digits that were asked for."""
        return Multiprecision(self._problem, self.digits or accuracy.DIGITS, shown=self._shown)

    # bounds ----------------------------------------------------------------------------------------------------------

    def _bound(self, exponent: float, particles: list[int]) -> BoundAnswer:
        found = self.source.bounds(particles, exponent)
        log_mean = Bounded(found.log_mean, self.source.log_mean_error(exponent))
        answer = BoundAnswer(particles, log_mean, _copy(found.gap), _copy(found.ess))
        with_ess = exponent == 1.0
        if self.digits is not None:
            answer.exact = self.multiprecision(self.digits).bounds(particles, exponent, with_ess=with_ess)
            self._take(answer, answer.exact, np.arange(len(found.log_mean)), np.arange(len(particles)))
            return answer
        bad_gap = poor(answer.gap, zero_scale(answer.gap.value, 1.0))
        bad_ess = poor(answer.ess) if with_ess else np.zeros_like(bad_gap)
        bad = bad_gap | bad_ess
        rows, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
        if not len(rows):
            return answer
        answer.why = self.afford(exponent, [particles[i] for i in columns], 0, accuracy.DIGITS, rows)
        if answer.why is None:
            try:
                finer = self.multiprecision(accuracy.DIGITS, rows)
                chosen = [particles[i] for i in columns]
                exact = finer.bounds(chosen, exponent, with_ess=bool(bad_ess.any()))
                self._take(answer, exact, rows, columns, gap=bool(bad_gap.any()), ess=bool(bad_ess.any()))
            except PrecisionError as error:
                answer.why = str(error)
        return answer

    @staticmethod
    def _take(
        answer: BoundAnswer,
        exact: PreciseBounds,
        rows: Any,
        columns: Any,
        *,
        gap: bool = True,
        ess: bool = True,
    ) -> None:
        """Replace some rows and columns by multiprecision numbers."""
        at = np.ix_(rows, columns)
        for wanted, into, value, error in (
            (gap, answer.gap, exact.gap, exact.gap_error),
            (ess, answer.ess, exact.ess, exact.ess_error),
        ):
            if wanted:
                into.value[at] = rounded = value.astype(float)
                into.error[at] = error + EPS * np.abs(rounded)

    def afford(
        self, exponent: float, particles: Sequence[int], coordinates: int, digits: float, rows: Any = None
    ) -> str | None:
        """Why mpmath cannot help with some numbers; None if it can, and the effort is taken."""
        if not isinstance(self.source, GaussianSource):
            return _NO_DIGITS
        many = [k for k in particles if k > 1] or [2]
        law = self.source.whitened.law(exponent)
        chosen = law if rows is None else law.take(rows)
        return self.budget.spend(chosen, many, coordinates, digits, self._problem)

    # gradients -------------------------------------------------------------------------------------------------------

    def _gradients(self) -> dict[Job, GradientAnswer]:
        found = self.source.gradients(self.questions.jobs, self.questions.particles)
        answers = {
            job: GradientAnswer(one.limit.copy(), _copy(one.shift), _copy(one.mean), _copy(one.var))
            for job, one in found.items()
        }
        together: dict[tuple[int, ...], dict[Job, list[Any]]] = {}
        for job, (coordinates, columns) in self._wanted(answers).items():
            if self.digits is None:
                chosen = [self.questions.particles[i] for i in columns]
                answers[job].why = self.afford(job[0].exponent, chosen, len(coordinates), accuracy.DIGITS)
            if answers[job].why is None:
                together.setdefault(tuple(columns), {})[job] = coordinates
        for columns, jobs in together.items():
            self._refine(answers, jobs, columns)
        return answers

    def spread(self, answers: dict[Job, GradientAnswer], job: Job) -> np.ndarray:
        """The natural scale of a mean `[nK, *shape]`: the larger std of its gradient and of the IWAE gradient."""
        values = [answers[one].var.value for one in (job, (reference(1.0), job[1]))]
        return np.sqrt(np.maximum(np.maximum(*values), 0.0))

    def _wanted(self, answers: dict[Job, GradientAnswer]) -> dict[Job, tuple[list[Any], list[int]]]:
        """Job -> coordinates and columns to be recomputed; of estimators that were asked for."""
        wanted: dict[Job, tuple[list[Any], list[int]]] = {}
        at = {k: i for i, k in enumerate(self.questions.particles)}
        for estimator in self.questions.estimators:
            form = estimator.form
            for name in self.questions.parameters if form is not None else ():
                assert form is not None
                job = (form, name)
                answer, columns = answers[job], [at[k] for k in self.questions.uses(estimator, name)]
                scale = self.spread(answers, job)
                bad = poor(answer.mean, scale) | blurred(answer.mean)
                if not log_part(job[0], self.questions.part(job[1])):
                    bad |= poor(answer.var, zero_scale(answer.var.value, scale**2))
                bad = bad[columns]
                if self.digits is not None:
                    wanted[job] = (precise_problem.coordinates(self._problem, name), columns)
                elif bad.any():
                    chosen = [i for i, one in enumerate(columns) if bad[i].any()]
                    coordinates = [tuple(map(int, index)) for index in np.argwhere(bad.any(axis=0))]
                    wanted[job] = (coordinates, [columns[i] for i in chosen])
        return wanted

    def _refine(
        self, answers: dict[Job, GradientAnswer], jobs: dict[Job, list[Any]], columns: Sequence[int]
    ) -> None:
        """Recompute some coordinates and columns of some answers."""
        asked = {job: (form_of_mean(job[0]), job[1], coordinates) for job, coordinates in jobs.items()}
        try:
            found = self.precise.gradients(asked, [self.questions.particles[i] for i in columns])
        except PrecisionError as error:
            if self.digits is not None:
                raise
            for job in jobs:
                answers[job].why = str(error)
            return
        for job, coordinates in jobs.items():
            answer, names = answers[job], ("mean", "var")
            if log_part(job[0], self.questions.part(job[1])):
                names = ("mean",)
            _take_moments(answer, found[job], coordinates, columns, var="var" in names)
            if self.digits is not None:
                answer.exact = {name: np.zeros(answer.mean.value.shape, dtype=object) for name in names}
                for name in names:
                    _place(answer.exact[name], getattr(found[job], name), coordinates, columns)


def _take_moments(
    answer: GradientAnswer,
    exact: PreciseMoments,
    coordinates: list[Any],
    columns: Sequence[int],
    *,
    var: bool,
) -> None:
    """Replace some entries of mean, shift and variance; the limit stays, as close as it is to the exact one."""
    limits = [answer.limit[index] for index in coordinates]
    same = [abs(float(a - b)) <= 16 * EPS * abs(float(a)) for a, b in zip(exact.limit, limits, strict=True)]
    offsets = [0 if close else a - float(b) for close, a, b in zip(same, exact.limit, limits, strict=True)]
    shift = exact.shift + np.array(offsets, dtype=object)
    triples = [(answer.shift, shift, exact.shift_error), (answer.mean, exact.mean, exact.mean_error)]
    if var:
        triples.append((answer.var, exact.var, exact.var_error))
    for into, value, error in triples:
        rounded = value.astype(float)
        _place(into.value, rounded, coordinates, columns)
        _place(into.error, error + EPS * np.abs(rounded), coordinates, columns)


def _place(array: np.ndarray, values: np.ndarray, coordinates: list[Any], columns: Sequence[int]) -> None:
    """Write `[nK, F]` values at some columns and coordinates of `[nK, *shape]`."""
    for i, column in enumerate(columns):
        for f, index in enumerate(coordinates):
            array[(column, *index)] = values[i, f]


def _copy(found: Bounded) -> Bounded:
    return Bounded(found.value.copy(), np.array(np.broadcast_to(found.error, found.value.shape)))
