"""The coordinates of gradients that are asked for, and the different polynomials among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb

from toyiwae.errors import InputError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.matrices import Balls, balls
from toyiwae.oracle.enclosure.moments import Components
from toyiwae.oracle.enclosure.rows import SCORE, Index, Row, rows
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.problems.parameter import Parameter

Job = tuple[Form, str, Sequence[Index] | None]
"""A form, a parameter, and which of its entries; None for all."""


@dataclass(frozen=True)
class Coordinate:
    """One entry of a gradient; `key` is that of the job that asks for it."""

    form: Form
    parameter: Parameter
    index: Index
    key: Any = None

    def moved_by(self, row: Row) -> bool:
        """Whether an observation moves it."""
        return not self.parameter.own or self.index[0] == row.n


def coordinates(problem: Problem, jobs: Mapping[Any, Job]) -> list[Coordinate]:
    """All coordinates that some jobs ask for.

    Raises:
        InputError: for an unknown parameter.
    """
    found = []
    for key, (form, name, indices) in jobs.items():
        if name not in problem.parameters:
            raise InputError(f"unknown parameter {name!r}: this problem has {', '.join(problem.parameters)}")
        record = problem.parameters.record(name)
        every = record.indices() if indices is None else indices
        found += [Coordinate(form, record, tuple(index), key) for index in every]
    return found


def by_job(
    values: Mapping[tuple, arb],
    jobs: Mapping[Any, Job],
    asked: Sequence[Coordinate],
    what: str,
    particles: Sequence[int],
) -> dict[Any, Balls]:
    """The values named `(what, K, key, index)` of every job: [nK, F]."""
    found = {}
    for key in jobs:
        mine = [one.index for one in asked if one.key == key]
        vector = balls(values[what, k, key, index] for k in particles for index in mine)
        found[key] = vector.reshape(len(particles), -1)
    return found


@dataclass(frozen=True, eq=False)
class Polynomials:
    """The different polynomials among some coordinates of one observation.

    Attributes:
        law: of the observation's weights, to the power that the coordinates' forms have.
        parts: those polynomials, centred. scales: their scales: paths vanish where q is the posterior, scores do not.
        first: a coordinate that has each.
        asked: the coordinates. which: number of each one's polynomial. factors: what it multiplies that by.
    """

    law: BallLaw
    parts: list[Components]
    scales: list[arb]
    first: list[Coordinate]
    asked: list[Coordinate]
    which: list[int]
    factors: list[arb]

    def __iter__(self) -> Iterator[tuple[Coordinate, int, arb]]:
        """Each coordinate with the number of its polynomial and its factor."""
        return zip(self.asked, self.which, self.factors, strict=True)


def by_law(
    problem: Problem, asked: Sequence[Coordinate], form: Form | None = None
) -> Iterator[tuple[Row, Polynomials]]:
    """Every observation, by the powers of its weights: the polynomials of what is averaged over the observations.

    Args:
        problem: the problem.
        asked: the coordinates; an observation has those that it moves.
        form: that of the polynomials, if not the coordinates' own.

    Raises:
        InputError: for a power of which the mean does not exist.
    """
    for row in rows(problem):
        for exponent in sorted({one.form.exponent for one in asked}):
            mine = [one for one in asked if one.form.exponent == exponent and one.moved_by(row)]
            yield row, _polynomials(row, row.law.power(exponent), mine, form, problem.n_rows)


def _polynomials(
    row: Row, law: BallLaw, asked: list[Coordinate], form: Form | None, count: int
) -> Polynomials:
    known: dict[tuple, Coordinate] = {}
    names = []
    for one in asked:
        parameter = one.parameter
        within = one.index[1:] if parameter.own else one.index
        columns = within[1:2] if parameter.kind in ("chol", "loading") else ()
        names.append((form or one.form, parameter.kind, within[0], *columns))
        known.setdefault(names[-1], one)
    places, first = {name: i for i, name in enumerate(known)}, list(known.values())
    parts, scores = (
        [Components.of(law, row.components(own or one.form, one.parameter, one.index)) for one in first]
        for own in (form, SCORE)
    )
    scales = [part.scale + score.scale for part, score in zip(parts, scores, strict=True)]
    factors = [row.factor(one.parameter, one.index) / count for one in asked]
    return Polynomials(law, parts, scales, first, asked, [places[name] for name in names], factors)
