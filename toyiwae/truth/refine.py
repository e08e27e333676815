"""More accurate numbers, in ball arithmetic: of what is above tolerance, or of everything where digits were asked for.

Each step takes `Numbers` and the seconds that may still be spent, and returns both anew. The order of the steps is the
order of importance: bounds, gradients, values of targets, means of estimators that have only a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from flint import arb

from toyiwae.errors import PrecisionError
from toyiwae.forms import Bound, form_of_mean
from toyiwae.oracle.enclosure.enclose import EnclosedMoments
from toyiwae.oracle.enclosure.matrices import Balls, balls
from toyiwae.oracle.enclosure.precision import centred, nearest
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth import accuracy, enclosed
from toyiwae.truth.accuracy import above_tolerance, unresolved, zero_scale
from toyiwae.truth.averages import Averaged
from toyiwae.truth.bounds import deviation
from toyiwae.truth.digits import Multiprecision, rows_of
from toyiwae.truth.linear_gaussian import GaussianSource
from toyiwae.truth.request import Job, Request, has_logarithms, reference
from toyiwae.truth.source import Numbers, Source

Coordinates = Sequence[tuple[int, ...]]
Step = tuple[Numbers, float]


def refined(numbers: Numbers, request: Request, source: Source) -> Numbers:
    """The numbers of a request, those that need it recomputed within `accuracy.MOST_EFFORT` seconds."""
    left = accuracy.MOST_EFFORT
    for step in (_bounds, _gradients, _values, _means):
        numbers, left = step(numbers, request, source, left)
    if request.digits is not None:
        numbers = enclosed.refined(numbers, request, Multiprecision(source.problem, asked_digits(request)))
    return numbers


def asked_digits(request: Request) -> int:
    """Digits that are computed: at least as many as float64 holds, where any were asked for."""
    return accuracy.DIGITS if request.digits is None else max(request.digits, accuracy.FLOAT_DIGITS)


def _affordable(
    source: Source,
    exponent: float,
    particles: Sequence[int],
    coordinates: int,
    digits: float,
    left: float,
    rows: Any = None,
) -> tuple[str | None, float]:
    """Why ball arithmetic cannot help with some numbers, None if it can; and the seconds left after that."""
    if not isinstance(source, GaussianSource):
        return "ball arithmetic serves linear-Gaussian problems only", left
    law = source.whitened.law(exponent)
    law, many = law if rows is None else law.take(rows), [k for k in particles if k > 1] or [2]
    return accuracy.seconds(law, many, coordinates, digits, source.problem, left)


def _bounds(numbers: Numbers, request: Request, source: Source, left: float) -> Step:
    bounds, why, precise = dict(numbers.bounds), dict(numbers.why), dict(numbers.precise)
    for exponent, particles in request.bound_particles.items():
        known, every = bounds[exponent], request.digits is not None
        gap = above_tolerance(known.gap, zero_scale(known.gap.value, 1.0)) | every
        ess = (above_tolerance(known.ess) | every) & (exponent == 1.0)
        rows, columns = (np.flatnonzero((gap | ess).any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        chosen = [particles[i] for i in columns]
        if not every:
            reason, left = _affordable(source, exponent, chosen, 0, accuracy.DIGITS, left, rows)
            if reason is not None:
                why[exponent] = reason
                continue
        try:
            finer = Multiprecision(rows_of(source.problem, rows), asked_digits(request))
            exact = finer.bounds(chosen, exponent, with_ess=bool(ess.any()))
        except PrecisionError as error:
            if every:
                raise
            why[exponent] = str(error)
            continue
        at, fields = np.ix_(rows, columns), {"gap": gap, "ess": ess}
        bounds[exponent] = replace(
            known,
            **{
                name: _replaced(getattr(known, name), at, getattr(exact, name))
                for name, bad in fields.items()
                if bad.any()
            },
        )
        precise |= {exponent: exact} if every else {}
    return replace(numbers, bounds=bounds, why=why, precise=precise), left


def _gradients(numbers: Numbers, request: Request, source: Source, left: float) -> Step:
    gradients, why, precise = dict(numbers.gradients), dict(numbers.why), dict(numbers.precise)
    together: dict[tuple[int, ...], dict[Job, Coordinates]] = {}
    for job, (coordinates, columns) in _inaccurate(numbers, request).items():
        if request.digits is None:
            chosen = [request.particles[i] for i in columns]
            reason, left = _affordable(
                source, form_of_mean(job[0]).exponent, chosen, len(coordinates), accuracy.DIGITS, left
            )
            if reason is not None:
                why[job] = reason
                continue
        together.setdefault(columns, {})[job] = coordinates
    for columns, jobs in together.items():
        asked = {job: (form_of_mean(job[0]), job[1], coordinates) for job, coordinates in jobs.items()}
        try:
            finer = Multiprecision(source.problem, asked_digits(request))
            found = finer.gradients(asked, [request.particles[i] for i in columns])
        except PrecisionError as error:
            if request.digits is not None:
                raise
            why |= dict.fromkeys(jobs, str(error))
            continue
        for job, coordinates in jobs.items():
            names = ("mean",) if has_logarithms(job[0], request.part[job[1]]) else ("mean", "var")
            at = _index(coordinates, columns)
            gradients[job] = _moments(gradients[job], found[job], at, coordinates, names)
            if request.digits is not None:
                precise[job] = enclosed.placed(found[job], at, gradients[job].mean.shape, (*names, "shift"))
    return replace(numbers, gradients=gradients, why=why, precise=precise), left


def _inaccurate(numbers: Numbers, request: Request) -> dict[Job, tuple[Coordinates, tuple[int, ...]]]:
    """Job -> coordinates and columns to be recomputed; of estimators that were asked for."""
    if request.digits is not None:
        return enclosed.wanted(request)
    wanted: dict[Job, tuple[Coordinates, tuple[int, ...]]] = {}
    forms = [(estimator, estimator.form) for estimator in request.estimators if estimator.form is not None]
    for (estimator, form), parameter in product(forms, request.parameters):
        job = (form, parameter.name)
        known = numbers.gradients[job]
        columns = np.array([request.particles.index(k) for k in request.uses(estimator, parameter.name)])
        scale = deviation(numbers.gradients, job)
        bad = above_tolerance(known.mean, scale) | unresolved(known.mean)
        if not has_logarithms(form, parameter.part):
            bad |= above_tolerance(known.var, zero_scale(known.var.value, scale**2))
        bad = bad[columns]
        if np.any(bad):
            chosen = columns[bad.any(axis=tuple(range(1, bad.ndim)))]
            wanted[job] = (_where(np.any(bad, axis=0)), tuple(map(int, chosen)))
    return wanted


def _moments(
    known: Averaged, exact: EnclosedMoments, at: tuple, coordinates: Coordinates, names: Sequence[str]
) -> Averaged:
    """Some entries of mean, shift and variance replaced; limits that are not near the exact one too."""
    limit = known.limit.copy()
    for index, one in zip(coordinates, nearest(exact.limit).value, strict=True):
        if abs(one - limit.value[index]) > 16 * EPS * abs(one):
            limit.value[index], limit.error[index] = one, EPS * abs(one)
    replaced = {name: _replaced(getattr(known, name), at, getattr(exact, name)) for name in {*names, "shift"}}
    return replace(known, limit=limit, **replaced)


# linear combinations of bounds -----------------------------------------------------------------------------------


def _values(numbers: Numbers, request: Request, source: Source, left: float) -> Step:
    values = dict(numbers.values)
    for bound, known in numbers.values.items():
        if request.digits is None:
            if not above_tolerance(known.number, known.scale).any():
                continue
            digits = accuracy.DIGITS + math.log10(sum(abs(float(weight)) for _, weight in bound.exact))
            reason, particles = numbers.why.get(bound.exponent), [k for k, _ in bound.terms]
            if reason is None:
                reason, left = _affordable(source, bound.exponent, particles, 0, digits, left)
            if reason is not None:
                values[bound] = replace(known, why=reason)
                continue
        try:
            finer = Multiprecision(source.problem, asked_digits(request), request.digits)
            exact = finer.value(bound)
        except PrecisionError as error:
            if request.digits is not None:
                raise
            values[bound] = replace(known, why=str(error))
            continue
        text = None if request.digits is None else finer.text(exact)
        values[bound] = replace(known, number=nearest(balls([exact])).map(np.squeeze), text=text)
    return replace(numbers, values=values), left


def _means(numbers: Numbers, request: Request, source: Source, left: float) -> Step:
    means, shapes = dict(numbers.means), {parameter.name: parameter for parameter in request.parameters}
    for (bound, name), known in numbers.means.items():
        bad = above_tolerance(known.number, known.scale if len(bound.terms) == 1 else 0.0)
        bad = bad | unresolved(known.number) if request.digits is None else shapes[name].free
        if not bad.any():
            continue
        found, reason, left = _mean(bound, name, bad, numbers, request, source, left)
        if found is None:
            means[bound, name] = replace(known, why=reason)
            continue
        at, text = tuple(np.argwhere(bad).T), None
        if request.digits is not None:
            finer = Multiprecision(source.problem, asked_digits(request), request.digits)
            text = finer.texts(np.full(bad.shape, arb(0), dtype=object))
            text[at] = finer.texts(found)
        number = _replaced(known.number, at, found)
        means[bound, name] = replace(known, number=number, text=text)
    return replace(numbers, means=means), left


def _mean(
    bound: Bound,
    name: str,
    bad: np.ndarray,
    numbers: Numbers,
    request: Request,
    source: Source,
    left: float,
) -> tuple[Balls | None, str | None, float]:
    """The mean where it is bad, with enough digits for what is left of its terms; or why not.

    Where the gradient of log p(x) vanishes, what is left of T terms at K particles is expected near K^(½-T) of the
    scale. Where it is smaller, more digits are taken; where that takes too long, as many as the scale alone needs.
    """
    known, limit = numbers.means[bound, name], numbers.gradients[reference(bound.exponent), name].limit.value
    small = bool((limit[bad] == 0.0).any())
    particles, coordinates, job = [k for k, _ in bound.terms], _where(bad), reference(bound.exponent)

    def attempt(digits: int, left: float) -> tuple[Balls | None, str | None, float]:
        reason = None
        if request.digits is None:
            reason, left = _affordable(source, bound.exponent, particles, len(coordinates), digits, left)
        if reason is not None:
            return None, reason, left
        try:
            return Multiprecision(source.problem, digits).mean(bound, job, name, coordinates), None, left
        except PrecisionError as error:
            if request.digits is not None:
                raise
            return None, str(error), left

    asked = asked_digits(request)
    digits = asked + _digits_lost(known.size[bad], known.scale[bad])
    rest = (len(bound.terms) - 0.5) * math.log10(bound.terms[-1][0]) if small else 0.0
    found, reason, left = attempt(math.ceil(digits + rest), left)
    if found is None:
        return attempt(math.ceil(digits), left)
    if _lacking(found, 10.0 ** -(asked if request.digits is not None else asked - 2)):
        more, _, left = attempt(math.ceil(2 * (digits + rest)), left)
        found = found if more is None else more
    return found, reason, left


def _digits_lost(size: np.ndarray, scale: np.ndarray) -> float:
    """Decimal digits by which the scale lies below the size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.log10(np.where((size > scale) & (scale > 0.0), size / scale, 1.0))
    return float(np.max(lost, initial=0.0))


def _lacking(exact: Balls, wanted: float) -> bool:
    """Whether a number has a larger relative error than wanted."""
    value, error = centred(exact)
    return bool((error > wanted * np.abs(value.astype(float))).any())


def _where(bad: np.ndarray) -> Coordinates:
    return [tuple(map(int, index)) for index in np.argwhere(bad)]


def _index(coordinates: Coordinates, columns: Sequence[int]) -> tuple[np.ndarray, ...]:
    """What picks `[columns, coordinates]` out of an array `[nK, *shape]`."""
    return (np.array(columns)[:, None], *(axis[None] for axis in np.array(coordinates).T))


def _replaced(found: Bounded, at: Any, exact: Balls) -> Bounded:
    """The same numbers but for some, which are those given, rounded."""
    values, errors, right = (
        found.value.copy(),
        np.array(np.broadcast_to(found.error, found.value.shape)),
        nearest(exact),
    )
    values[at], errors[at] = right.value, right.error
    return Bounded(values, errors)
