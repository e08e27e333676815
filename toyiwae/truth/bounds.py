"""Bounds that are mixtures of others, such as the jackknife's: their values, and the means of their gradients.

`B = Σ_t c_t L_{k_t}` with `Σ c_t = 1`, so that log Z, and the part of a gradient that no K changes, enter once, and
only gaps and shifts are weighted. The jackknife's weights grow like K^m/m! and cancel all but a part `K^-m` of the
gaps, more than float64 has for large K: then the terms are computed with so many digits that the rest is accurate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.forms import Bound
from toyiwae.oracle.enclosure import precise_problem
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth import accuracy
from toyiwae.truth.accuracy import blurred, poor
from toyiwae.truth.digits import Exactly
from toyiwae.truth.refine import Answers
from toyiwae.truth.request import reference


@dataclass(frozen=True, eq=False)
class Mixed:
    """A mixture's number.

    Attributes:
        estimate: in float64, with its error.
        scale: its natural scale.
        why: why it was not computed more accurately, for a message.
        text: with the digits that were asked for.
    """

    estimate: Bounded
    scale: Any
    why: str
    text: Any = None


class Mixtures:
    """Values and gradients' means of bounds, each computed once."""

    def __init__(self, answers: Answers):
        """Computes the values that are reported first: gradients may use up the budget."""
        self._answers = answers
        self._values: dict[Bound, Mixed] = {}
        self._means: dict[tuple[Bound, str], Mixed] = {}
        for bound in answers.questions.climbed:
            self.value(bound)

    def value(self, bound: Bound) -> Mixed:
        """A bound's value, averaged over the rows."""
        if bound not in self._values:
            self._values[bound] = self._value(bound)
        return self._values[bound]

    def mean(self, bound: Bound, name: str) -> Mixed:
        """The mean of its gradient by one parameter, in the parameter's shape."""
        if (bound, name) not in self._means:
            self._means[bound, name] = self._mean(bound, name)
        return self._means[bound, name]

    def _value(self, bound: Bound) -> Mixed:
        answers, found = self._answers, self._float_value(bound)
        known = answers.bounds[bound.exponent]
        if answers.digits is not None:
            exact = answers.multiprecision(answers.digits).value(bound)
            return Mixed(exact.rounded(), 1.0, "", answers.precise.text(exact.value.item()))
        if not poor(found, 1.0):
            return Mixed(found, 1.0, "")
        digits = accuracy.DIGITS + math.log10(sum(abs(float(weight)) for _, weight in bound.exact))
        why = known.why or answers.afford(bound.exponent, [k for k, _ in bound.terms], 0, digits)
        if why is None:
            try:
                return Mixed(
                    answers.multiprecision(accuracy.DIGITS).value(bound).rounded(), 1.0, "mpmath did not help"
                )
            except PrecisionError as error:
                why = str(error)
        return Mixed(found, 1.0, why)

    def _float_value(self, bound: Bound) -> Bounded:
        source, known = self._answers.source, self._answers.bounds[bound.exponent]
        e, total = bound.exponent, float(bound.total)
        rows = total * (source.log_evidence + known.log_mean.value / e)
        error = abs(total) * (source.log_evidence_error + known.log_mean.error / abs(e)) + EPS * np.abs(rows)
        for particles, weight in bound.terms:
            column = known.particles.index(particles)
            gap, slack = known.gap.value[:, column], known.gap.error[:, column]
            rows = rows - float(weight) / e * gap
            error = error + abs(float(weight) / e) * (slack + 4 * EPS * np.abs(gap)) + EPS * np.abs(rows)
        return Bounded(np.asarray(np.mean(rows)), np.asarray(np.mean(error)))

    def _mean(self, bound: Bound, name: str) -> Mixed:
        found, size, scale = self._float_mean(bound, name)
        answers = self._answers
        if answers.digits is not None:
            coordinates = precise_problem.coordinates(answers.source.problem, name)
            exact, _ = self._finer(bound, name, coordinates, size, scale)
            assert exact is not None
            self._place(found, exact, coordinates)
            text = np.full(found.value.shape, "0.0", dtype=object)
            for index, value in zip(coordinates, exact.value, strict=True):
                text[index] = answers.precise.text(value)
            return Mixed(found, scale, "", text)
        bad = poor(found, scale if len(bound.terms) == 1 else 0.0) | blurred(found)
        why = None
        if bad.any():
            coordinates = [tuple(map(int, index)) for index in np.argwhere(bad)]
            exact, why = self._finer(bound, name, coordinates, size[bad], scale[bad])
            if exact is not None:
                self._place(found, exact, coordinates)
        return Mixed(found, scale, why or "mpmath did not help")

    def _float_mean(self, bound: Bound, name: str) -> tuple[Bounded, np.ndarray, np.ndarray]:
        """The mean, the sum of the sizes of its terms, and its scale."""
        answers, job = self._answers, (reference(bound.exponent), name)
        answer, total = answers.gradients[job], float(bound.total)
        value = total * answer.limit
        size, error = np.abs(value), 4 * EPS * np.abs(value)
        index = 0
        for particles, weight in bound.terms:
            index, factor = answers.questions.particles.index(particles), float(weight)
            term = factor * answer.shift.value[index]
            value, size = value + term, size + np.abs(term)
            error = (
                error + abs(factor) * answer.shift.error[index] + 4 * EPS * np.abs(term) + EPS * np.abs(value)
            )
        return Bounded(value, error), size, answers.spread(answers.gradients, job)[index]

    def _finer(
        self, bound: Bound, name: str, coordinates: Sequence[Any], size: np.ndarray, scale: np.ndarray
    ) -> tuple[Exactly | None, str | None]:
        """The mean at some coordinates with enough digits for what is left of `size`, or why not.

        Where the gradient of log p(x) vanishes, what is left of T terms at K particles is expected near K^(½-T) of the
        scale. Where it is smaller, more digits are taken; where that many cannot be afforded, as many as the scale
        alone needs.
        """
        answers = self._answers
        limit = answers.gradients[reference(bound.exponent), name].limit
        small = any(limit[index] == 0.0 for index in coordinates)
        digits = (answers.digits or accuracy.DIGITS) + _lost(size, scale)
        rest = (len(bound.terms) - 0.5) * math.log10(bound.terms[-1][0]) if small else 0.0
        tried = [math.ceil(digits + rest), math.ceil(2 * (digits + rest))]
        exact, why = self._with_digits(bound, name, coordinates, tried[0])
        if exact is None:
            exact, why = self._with_digits(bound, name, coordinates, math.ceil(digits))
        elif _lacking(exact, 10.0 ** -(answers.digits or accuracy.DIGITS - 2)):
            more, _ = self._with_digits(bound, name, coordinates, tried[1])
            exact = more or exact
        return exact, why

    def _with_digits(
        self, bound: Bound, name: str, coordinates: Sequence[Any], digits: int
    ) -> tuple[Exactly | None, str | None]:
        answers = self._answers
        particles, why = [k for k, _ in bound.terms], None
        if answers.digits is None:
            why = answers.afford(bound.exponent, particles, len(coordinates), digits)
        if why is not None:
            return None, why
        try:
            finer = answers.multiprecision(digits)
            return finer.mean(bound, reference(bound.exponent), name, coordinates), None
        except PrecisionError as error:
            if answers.digits is not None:
                raise
            return None, str(error)

    @staticmethod
    def _place(found: Bounded, exact: Exactly, coordinates: Sequence[Any]) -> None:
        rounded = exact.rounded()
        for f, index in enumerate(coordinates):
            found.value[index], found.error[index] = rounded.value[f], rounded.error[f]


def _lost(size: np.ndarray, scale: np.ndarray) -> float:
    """Decimal digits by which the scale lies below the size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.log10(np.where((size > scale) & (scale > 0.0), size / scale, 1.0))
    return float(np.max(lost, initial=0.0))


def _lacking(exact: Exactly, wanted: float) -> bool:
    """Whether a number has a larger relative error than wanted."""
    return bool((exact.error > wanted * np.abs(exact.value.astype(float))).any())
