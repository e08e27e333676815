"""Covariances and fourth cumulants in double precision against enclosures, for `tests.certify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flint import arb

from toyiwae.forms import Form
from toyiwae.oracle.enclosure import joint
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth import fourth_moments
from toyiwae.truth.covariance import covariance

Value = tuple[str, float, float, arb]
"""Name, value, stated error and enclosure."""


def covariances(
    problem: Problem, form: Form, name: str, particles: Sequence[int], digits: int
) -> Iterator[Value]:
    """Every entry on and below the diagonal, of one parameter."""
    found = covariance(Whitened(problem), form, [name], particles)
    truth = joint.covariances(problem, form, [name], particles, digits=digits)
    free = problem.parameters.record(name).free.ravel()
    for n, k in enumerate(particles):
        for i in free.nonzero()[0]:
            for j in free[: i + 1].nonzero()[0]:
                yield f"{name}[{i}, {j}] K={k}", found.value[n, i, j], found.error[n, i, j], truth[n, i, j]


def fourth(
    problem: Problem,
    form: Form,
    name: str,
    indices: Sequence[tuple[int, ...]],
    particles: Sequence[int],
    digits: int,
) -> Iterator[Value]:
    """Fourth cumulants of some coordinates."""
    found: Bounded = fourth_moments.gradients(Whitened(problem), form, [name], particles)[
        name
    ].fourth_cumulant
    truth = joint.fourth_moments(problem, form, {name: indices}, particles, digits=digits)
    for n, k in enumerate(particles):
        for index in indices:
            at = (n, *index)
            yield f"{name}{list(index)} K={k}", found.value[at], found.error[at], truth[name, tuple(index)][n]
