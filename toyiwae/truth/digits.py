"""The numbers of `exact` with digits, for a linear-Gaussian problem: enclosures, their radii, and proven decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import (
    MAX_EMAX,
    MAX_PREC,
    MIN_EMIN,
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
)
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.forms import Bound, Form
from toyiwae.oracle.enclosure import enclose, joint
from toyiwae.oracle.enclosure.enclose import EnclosedBounds, EnclosedMoments
from toyiwae.oracle.enclosure.log_moments import log_variances
from toyiwae.oracle.enclosure.matrices import Balls, balls
from toyiwae.oracle.enclosure.precision import centred
from toyiwae.problems.linear_gaussian import Data, Problem, Proposal
from toyiwae.problems.parameter import Parameter

_EXACTLY = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)


class Proven(str):
    """A decimal number within one unit of its last place of the truth, which lies between `low` and `high`.

    Of a number of which not even the sign is known the text is 0.0, and only its ends say more.
    """

    low: str
    high: str

    def __new__(cls, text: str, low: str, high: str) -> Proven:
        """With its ends, decimal strings rounded outwards."""
        found = super().__new__(cls, text)
        found.low, found.high = low, high
        return found

    def __getnewargs__(self) -> tuple[str, str, str]:
        """What a copy is made from."""
        return str(self), self.low, self.high


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
        self.bits = int(3.33 * (2 * digits + 60))

    @cached_property
    def log_evidence(self) -> list[Any]:
        """Log p(x) of each row."""
        return list(enclose.log_evidence(self.problem, self.digits))

    def average(self, values: Iterable[Any]) -> arb:
        """Mean over rows."""
        with ctx.workprec(self.bits):
            numbers = [arb(value) for value in values]
            return sum(numbers, arb(0)) / len(numbers)

    def divided(self, values: np.ndarray, divisor: int) -> np.ndarray:
        """Numbers divided by a whole one."""
        with ctx.workprec(self.bits):
            return values / divisor

    def less(self, a: arb, b: arb) -> arb:
        """The difference of two numbers."""
        with ctx.workprec(self.bits):
            return a - b

    def text(self, value: Any) -> Proven | None:
        """A number with the digits to be shown; None of None."""
        with ctx.workprec(self.bits):
            return None if value is None else proven(arb(value), self._shown)

    def texts(self, values: np.ndarray) -> np.ndarray:
        """The same of an array."""
        return balls(self.text(value) for value in values.ravel()).reshape(values.shape)

    def bounds(self, particles: Sequence[int], exponent: float, *, with_ess: bool) -> EnclosedBounds:
        """Gaps and sample sizes, per row and number of particles; of the latter none without `with_ess`."""
        return enclose.bounds(
            self.problem, particles, digits=self.digits, exponent=exponent, with_ess=with_ess
        )

    def gradients(self, jobs: Mapping[Any, Any], particles: Sequence[int]) -> dict[Any, EnclosedMoments]:
        """Limit, shift, mean and variance of gradients."""
        return enclose.gradients(self.problem, jobs, particles, digits=self.digits)

    def log_variance(self, form: Form, parameter: str, coordinates: Sequence[Any], k: int) -> Balls:
        """Variances of a form with log terms at K ≥ 2 [F]."""
        job = {0: (form, parameter, coordinates)}
        return log_variances(self.problem, job, [k], digits=self.digits)[0][0]

    def evidence_gradient(self, parameter: Parameter) -> np.ndarray:
        """∇ log p(x), averaged over the rows, in the parameter's shape: what no K changes of IWAE's mean gradient."""
        result = np.full(parameter.shape, arb(0), dtype=object)
        if parameter.part == "model":
            jobs = {0: (Form({1: 1.0}), parameter.name, None)}
            found = enclose.gradients(self.problem, jobs, [1], digits=self.digits)[0]
            for index, value in zip(found.coordinates, centred(found.limit)[0], strict=True):
                result[index] = value
        return result

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Balls:
        """Covariances between all entries of some parameters [nK, F, F]."""
        return joint.covariances(self.problem, form, parameters, particles, digits=self.digits)

    def value(self, bound: Bound) -> arb:
        """A bound's value averaged over the rows; of a jackknife too, whose terms cancel, all digits are right."""
        particles = [k for k, _ in bound.exact]
        more = math.ceil(max(0.0, math.log10(sum(abs(float(weight)) for _, weight in bound.exact))))
        finer = Multiprecision(self.problem, self.digits + more)
        found = finer.bounds(particles, bound.exponent, with_ess=False)
        with ctx.workprec(finer.bits):
            e, total = arb(bound.exponent), _number(bound.total)
            weights = [_number(weight) for _, weight in bound.exact]
            values = []
            for n, log_evidence in enumerate(finer.log_evidence):
                combined = sum((w * gap for w, gap in zip(weights, found.gap[n], strict=True)), arb(0))
                values.append(total * (log_evidence + found.log_mean[n] / e) - combined / e)
        return finer.average(values)

    def mean(self, bound: Bound, form: Form, parameter: str, coordinates: Sequence[Any]) -> Balls:
        """The mean of the gradient of a linear combination of bounds, at some coordinates [F]."""
        particles = [k for k, _ in bound.exact]
        found = self.gradients({0: (form, parameter, coordinates)}, particles)[0]
        with ctx.workprec(self.bits):
            values = _number(bound.total) * found.limit
            for i, (_, weight) in enumerate(bound.exact):
                values = values + _number(weight) * found.shift[i]
        return values


def proven(value: arb, digits: int) -> Proven:
    """The decimals of a ball, at most so many: as many as leave its numbers within one unit of the last place."""
    middle, size = _decimal(value.mid()), _decimal(value.rad())
    lower, upper = _EXACTLY.subtract(middle, size), _EXACTLY.add(middle, size)
    ends = [_rounded(x, digits + 6, how) for x, how in ((lower, ROUND_FLOOR), (upper, ROUND_CEILING))]
    while digits and not value.contains(0):
        found = _rounded(middle, digits, ROUND_HALF_EVEN)
        if _EXACTLY.multiply(2, size) <= Decimal(1).scaleb(middle.adjusted() - digits + 1, context=_EXACTLY):
            return Proven(_shown(found, digits), *map(str, ends))
        digits -= 1
    return Proven("0.0", *map(str, ends))


def _decimal(x: arb) -> Decimal:
    """An exact binary number, exactly."""
    mantissa, exponent = map(int, x.man_exp())
    if exponent >= 0:
        return Decimal(mantissa << exponent)
    return Decimal(mantissa * 5**-exponent).scaleb(exponent, context=_EXACTLY)


def _rounded(x: Decimal, digits: int, how: str) -> Decimal:
    return Context(digits, how, Emin=MIN_EMIN, Emax=MAX_EMAX).plus(x)


def _shown(x: Decimal, digits: int) -> str:
    """Without trailing zeros; with an exponent for what is very small, or has more figures than digits."""
    exponent, figures = x.adjusted(), "".join(map(str, x.as_tuple().digits)).rstrip("0")
    if -5 <= exponent < digits:
        found = format(x, "f").rstrip("0") if "." in format(x, "f") else format(x, "f")
        return found if "." in found and not found.endswith(".") else found.rstrip(".") + ".0"
    return f"{'-' * x.is_signed()}{figures[0]}.{figures[1:] or '0'}e{exponent:+d}"


def _number(value: Fraction) -> arb:
    return arb(value.numerator) / value.denominator
