"""The numbers of `exact` with digits, for a linear-Gaussian problem: mid-points of enclosures and their radii."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.forms import Bound, Form
from toyiwae.oracle.enclosure import enclose, joint
from toyiwae.oracle.enclosure.law import objects
from toyiwae.oracle.enclosure.log_moments import log_variances
from toyiwae.oracle.enclosure.matrices import Balls
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.problems.linear_gaussian import Data, Problem, Proposal


@dataclass(frozen=True, eq=False)
class Exactly:
    """Multiprecision numbers and bounds on their absolute errors, of one shape."""

    value: np.ndarray
    error: np.ndarray

    def rounded(self) -> Bounded:
        """To float64, the rounding added to the error."""
        value = np.array([float(x) for x in self.value.ravel()]).reshape(self.value.shape)
        return Bounded(value, np.asarray(self.error + EPS * np.abs(value)))


@dataclass(frozen=True, eq=False)
class PreciseBounds:
    """Log E[w^e] [N]; gap `log E[w^e] - E log mean(w^e)`, sample size `E[(Σw^e)²/Σw^2e]`, and their errors [N, nK]."""

    log_mean: np.ndarray
    gap: np.ndarray
    gap_error: np.ndarray
    ess: np.ndarray
    ess_error: np.ndarray


@dataclass(frozen=True, eq=False)
class PreciseMoments:
    """Mean, its limit [F] and the rest, and variance of one replicate (M = 1) of a gradient [nK, F], with errors."""

    coordinates: tuple[tuple[int, ...], ...]
    limit: np.ndarray
    shift: np.ndarray
    shift_error: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray
    var: np.ndarray
    var_error: np.ndarray


def rows_of(problem: Problem, rows: np.ndarray) -> Problem:
    """Some rows of the data; the proposal stays amortised, so that nothing is rounded."""
    if problem.data.x.ndim == 1:
        return problem
    proposal = problem.proposal
    if proposal.per_observation:
        own, shared = proposal.given(), len(proposal.cov_shape) == 2
        given = {
            name: value if value is None or (shared and name != "mean") else value[rows]
            for name, value in own.items()
        }
        proposal = Proposal(**given)
    return Problem(problem.model, proposal, Data(problem.data.x[rows]))


class Multiprecision:
    """One problem's numbers with `digits` significant decimal digits, of which text shows `shown`."""

    def __init__(self, problem: Problem, digits: int, shown: int | None = None):
        """Computes nothing yet."""
        self.problem, self.digits, self._shown = problem, digits, shown or digits
        self._ctx = MPContext()
        self._ctx.dps = 2 * digits + 60

    @cached_property
    def log_evidence(self) -> list[Any]:
        """Log p(x) of each row."""
        return list(self._numbers(enclose.log_evidence(self.problem, self.digits))[0])

    def average(self, values: Iterable[Any]) -> Any:
        """Mean over rows."""
        numbers = [self._ctx.mpf(value) for value in values]
        return sum(numbers, self._ctx.zero) / len(numbers)

    def text(self, value: Any) -> str:
        """A number with the digits to be shown."""
        return str(self._ctx.nstr(self._ctx.mpf(value), self._shown, min_fixed=-5))

    def texts(self, values: np.ndarray) -> np.ndarray:
        """The same of an array."""
        found = np.empty(values.size, dtype=object)
        found[:] = [self.text(value) for value in values.ravel()]
        return found.reshape(values.shape)

    def bounds(self, particles: Sequence[int], exponent: float, *, with_ess: bool) -> PreciseBounds:
        """Gaps and sample sizes, per row and number of particles; of the latter none without `with_ess`."""
        found = enclose.bounds(
            self.problem, particles, digits=self.digits, exponent=exponent, with_ess=with_ess
        )
        ess = self._numbers(found.ess) if with_ess else (np.zeros(found.gap.shape), np.zeros(found.gap.shape))
        return PreciseBounds(self._numbers(found.log_mean)[0], *self._numbers(found.gap), *ess)

    def gradients(self, jobs: Mapping[Any, Any], particles: Sequence[int]) -> dict[Any, PreciseMoments]:
        """Limit, shift and variance of gradients."""
        found = enclose.gradients(self.problem, jobs, particles, digits=self.digits)
        return {
            key: PreciseMoments(
                one.coordinates,
                self._numbers(one.limit)[0],
                *self._numbers(one.shift),
                *self._numbers(one.mean),
                *self._numbers(one.var),
            )
            for key, one in found.items()
        }

    def log_variance(
        self, form: Form, parameter: str, coordinates: Sequence[Any], k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Variances of a form with log terms at K ≥ 2, and their errors [F]."""
        job = {0: (form, parameter, coordinates)}
        return self._numbers(log_variances(self.problem, job, [k], digits=self.digits)[0][0])

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Covariances between all entries of some parameters, rounded to float64 [nK, F, F]."""
        found = joint.covariances(self.problem, form, parameters, particles, digits=self.digits)
        return enclose.rounded(found)

    def _numbers(self, values: Balls) -> tuple[np.ndarray, np.ndarray]:
        """Mid-points of balls as numbers of mpmath, 0 where that is in the ball, and bounds on what they are off by."""
        middle, error = [], []
        for x in values.ravel():
            if x.contains(0):
                middle.append(self._ctx.zero)
                error.append(float(x.abs_upper()) * (1 + 2 * EPS))
            else:
                middle.append(self._ctx.ldexp(*map(int, x.mid().man_exp())))
                error.append(
                    float(x.rad()) * (1 + 2 * EPS) + float(abs(middle[-1])) * 10.0 ** -(2 * self.digits)
                )
        return objects(middle).reshape(values.shape), np.array(error).reshape(values.shape)

    def value(self, bound: Bound) -> Exactly:
        """A bound's value averaged over the rows; of a jackknife too, whose terms cancel, all digits are right."""
        particles = [k for k, _ in bound.exact]
        more = math.ceil(max(0.0, math.log10(sum(abs(float(weight)) for _, weight in bound.exact))))
        finer = Multiprecision(self.problem, self.digits + more)
        found = finer.bounds(particles, bound.exponent, with_ess=False)
        ctx, e = finer._ctx, finer._ctx.mpf(bound.exponent)
        weights = [_number(ctx, weight) for _, weight in bound.exact]
        total = _number(ctx, bound.total)
        values, errors = [], []
        for n, log_evidence in enumerate(finer.log_evidence):
            gaps = [ctx.mpf(gap) for gap in found.gap[n]]
            combined = sum((w * gap for w, gap in zip(weights, gaps, strict=True)), ctx.zero)
            values.append(
                total * (ctx.mpf(log_evidence) + ctx.mpf(found.log_mean[n]) / e) - ctx.mpf(combined) / e
            )
            errors.append(_combined_error(bound, found.gap_error[n]) / abs(bound.exponent))
        return Exactly(np.array(self.average(values), dtype=object), np.array(np.mean(errors)))

    def mean(self, bound: Bound, form: Form, parameter: str, coordinates: Sequence[Any]) -> Exactly:
        """The mean of the gradient of a linear combination of bounds, at some coordinates [F]."""
        particles = [k for k, _ in bound.exact]
        found = self.gradients({0: (form, parameter, coordinates)}, particles)[0]
        ctx = self._ctx
        total = _number(ctx, bound.total)
        values = [total * ctx.mpf(limit) for limit in found.limit]
        for i, (_, weight) in enumerate(bound.exact):
            factor = _number(ctx, weight)
            values = [v + factor * ctx.mpf(s) for v, s in zip(values, found.shift[i], strict=True)]
        return Exactly(objects(values), _combined_error(bound, found.shift_error))


def _number(ctx: MPContext, value: Fraction) -> Any:
    return ctx.mpf(value.numerator) / value.denominator


def _combined_error(bound: Bound, errors: np.ndarray) -> Any:
    """Σ |weight| · error over the terms, along the first axis."""
    return sum(abs(float(weight)) * errors[i] for i, (_, weight) in enumerate(bound.exact))
