"""Enclosures of covariances between coordinates and of fourth central moments of gradients, at any K.

    found = covariances(problem, form, ["proposal_mean", "proposal_chol"], [7, 10**9], digits=30)
    moments = fourth_moments(problem, form, {"proposal_mean": [(0,)]}, [7, 10**9], digits=30)

A covariance is bilinear in what `moments` takes squares of. The n-th moment of a gradient sums over n-tuples of powers
and over the ways in which their positions fall into b blocks of equal particles,

    E[Π_i Σ_k w̃_k^{r_i} g_{i,k}] = 1/Γ(R) Σ_splits K(K-1)…(K-b+1) ∫ Π_B T_B Λ^{K-b} du,   R = Σ r_i,

with `T_B = t^{R_B} E[w^{R_B} Π_B g e^{-tw}]`; the rule's aliases are at most its relative error times
`Π_i (E (Σ w̃ |g_i|)^4)^{1/4} ≤ Π_i (81 K E[g_i²]²)^{1/4}` (Hölder, Jensen and hypercontractivity).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement
from math import prod

import numpy as np
from flint import arb

from toyiwae.errors import PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.coordinates import (
    Coordinate,
    Polynomials,
    by_job,
    by_law,
    coordinates,
)
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.enclosure.matrices import Balls
from toyiwae.oracle.enclosure.moments import covariance, equal_covariance, near_equal, requests
from toyiwae.oracle.enclosure.precision import Found, add, converged
from toyiwae.oracle.enclosure.rows import Index
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.finite_k.fourth_moments import central, raw_moments, splits, tuples
from toyiwae.problems.linear_gaussian import Problem

_TOGETHER = 48  # pairs of coordinates whose transforms are held at once


def covariances(
    problem: Problem, form: Form, parameters: Sequence[str], particles: Sequence[int], *, digits: int = 30
) -> Balls:
    """Covariance of one replicate's gradient between all entries of some parameters: [nK, F, F].

    Entries are those of the parameters in the order given, each flattened by rows; above the diagonal of a Cholesky
    factor they are 0. Log terms of the form are not part of it.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough.
    """
    records = [problem.parameters.record(name) for name in parameters]
    entries = [(p, tuple(map(int, index))) for p in records for index in np.ndindex(p.shape)]
    asked = [Coordinate(form, p, index, i) for i, (p, index) in enumerate(entries) if p.free[index]]

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for _, base in by_law(problem, asked):
            values = _base_covariances(base, particles, nats, digits)
            for first, x, left in base:
                for second, y, right in base:
                    if second.key > first.key:
                        continue
                    scale = base.scales[x] * base.scales[y] * (left * right).abs_upper()
                    for n, k in enumerate(particles):
                        value = values[min(x, y), max(x, y), k] * left * right
                        add(found, ("var", n, first.key, second.key), value, scale)
        return found

    found = converged(evaluate, digits, particles)
    result = np.full((len(particles), len(entries), len(entries)), arb(0), dtype=object)
    for (_, n, i, j), value in found.items():
        result[n, i, j] = result[n, j, i] = value
    return result


def _base_covariances(
    base: Polynomials, particles: Sequence[int], nats: float, digits: int
) -> dict[tuple[int, int, int], arb]:
    law, many = base.law, sorted({k for k in particles if k > 1})
    spread = near_equal(law, many, digits)
    every = list(combinations_with_replacement(range(len(base.parts)), 2))
    found = {}
    for start in range(0, len(every), _TOGETHER):
        pairs, sums = every[start : start + _TOGETHER], None
        if many and spread is None:
            used = [base.parts[i] for i in sorted({i for pair in pairs for i in pair})]
            wanted = requests(used, ((base.parts[x], base.parts[y]) for x, y in pairs))
            orders = sorted(set().union(*(one.orders() for one in used)))
            sums = BallSums(law, many, wanted, nats, p=1, orders=orders)
        for x, y in pairs:
            one, two = base.parts[x], base.parts[y]
            for k in {*particles}:
                if k == 1 or sums is None:
                    rest = arb(0) if spread is None or k == 1 else spread
                    found[x, y, k] = equal_covariance(law, one, two, k, rest)
                else:
                    found[x, y, k] = covariance(sums, law, one, two, k)
    return found


# fourth moments ------------------------------------------------------------------------------------------------------


def fourth_moments(
    problem: Problem,
    form: Form,
    indices: Mapping[str, Sequence[Index]],
    particles: Sequence[int],
    *,
    digits: int = 30,
) -> dict[tuple[str, Index], Balls]:
    """Fourth cumulants of one replicate's gradient at some coordinates, the observations' average: [nK] for each.

    The fourth central moment is that plus `3 var²`. Log terms of the form are not part of it.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough, or weights are equal but for too little.
    """
    jobs = {name: (form, name, every) for name, every in indices.items()}
    asked = coordinates(problem, jobs)

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for _, base in by_law(problem, asked):
            cumulants = _base_cumulants(base, particles, nats, digits)
            for one, which, factor in base:
                scale = base.scales[which] ** 4 * factor.abs_upper() ** 4
                for k in particles:
                    add(found, ("var", k, one.key, one.index), cumulants[which, k] * factor**4, scale)
        return found

    found = by_job(converged(evaluate, digits, particles), jobs, asked, "var", particles)
    return {
        (name, index): found[name][:, i] for name, every in indices.items() for i, index in enumerate(every)
    }


def _base_cumulants(
    base: Polynomials, particles: Sequence[int], nats: float, digits: int
) -> dict[tuple[int, int], arb]:
    law, found, many = base.law, {}, sorted({k for k in particles if k > 1})
    if many and near_equal(law, many, digits) is not None:
        raise PrecisionError("the weights are too nearly equal for enclosures of fourth moments")
    for x, one in enumerate(base.parts):
        parts, sums = one.parts, None
        if many and max(parts):
            blocks = {block: None for powers in tuples(parts) for block in _blocks(powers)}
            wanted = [
                Request(sum(b), tuple(parts[r] for r in b), centred=len(b) == 1 and b[0] < 2) for b in blocks
            ]
            orders = sorted({sum(b) for b in tuples(parts)} - {0})
            sums = BallSums(law, many, wanted, nats, p=1, orders=orders)
        for k in particles:
            at_k = partial(_tuple, sums if k > 1 else None, law, parts, k)
            second, fourth = central(raw_moments(parts, at_k))
            found[x, k] = fourth - 3 * second * second
    return found


def _blocks(powers: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for split in splits(len(powers)):
        yield from (tuple(powers[i] for i in block) for block in split)


def _tuple(
    sums: BallSums | None, law: BallLaw, parts: Mapping[int, Quadratic], k: int, powers: tuple[int, ...]
) -> arb:
    """E[Π_i Σ_k w̃_k^{r_i} g_{i,k}], a power of 0 standing for 1/K; without sums of one particle, or powers 0 alone."""
    total, plain = arb(0), sums is None or not sum(powers)
    for split in splits(len(powers)):
        falling = prod(k - i for i in range(len(split)))
        blocks = [tuple(powers[i] for i in block) for block in split]
        if not falling:
            continue
        if plain:
            means = [law.mean(0.0, *(parts[r] for r in block)) for block in blocks]
            total += falling * prod(means[1:], start=means[0])
        else:
            assert sums is not None
            requests = [Request(sum(block), tuple(parts[r] for r in block)) for block in blocks]
            total += sums.product(requests, len(split), k) * falling
    found = total / arb(k) ** powers.count(0)
    if plain:
        return found
    assert sums is not None
    sizes = [law.mean(0.0, parts[r], parts[r]).abs_upper() for r in powers]
    size = prod((81 * arb(k) * x * x for x in sizes[1:]), start=81 * arb(k) * sizes[0] * sizes[0])
    return found / arb(sum(powers)).gamma() + sums.aliases(sum(powers), size.abs_upper() ** arb("0.25"))
