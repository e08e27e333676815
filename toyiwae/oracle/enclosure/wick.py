"""Means of products of any number of polynomials under tilted Gaussian noise, by Wick's rule."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

from flint import acb


def mean_of_product(tilted: Any, factors: tuple[Any, ...]) -> Any:
    """E_s[Π g] at the nodes of a `laws.Tilted`: [Y].

    Each `constant + left·right` is one of two products of affine functions; of those,
    `E[a_1 … a_n] = E[a_1] E[a_2 … a_n] + Σ_j Cov(a_1, a_j) E[Π_{i≠1,j} a_i]`.
    """
    tilted.prepare([factors])
    known = {id(a): a for g in factors for a in (g.left, g.right) if a is not None}

    @cache
    def moment(sides: tuple[int, ...]) -> Any:
        if not sides:
            return acb(1)
        first, rest = sides[0], sides[1:]
        found = tilted.affine(known[first]) * moment(rest)
        for j, other in enumerate(rest):
            found = found + tilted.covariance(known[first], known[other]) * moment(rest[:j] + rest[j + 1 :])
        return found

    choices = [
        [
            ((id(g.left),) if g.right is None else (id(g.left), id(g.right)), acb(1)),
            ((), acb(g.constant)),
        ]
        for g in factors
    ]
    total: Any = 0
    for chosen in product(*choices):
        coefficient = acb(1)
        for _, one in chosen:
            coefficient = coefficient * one
        sides = tuple(sorted(side for some, _ in chosen for side in some))
        total = total + coefficient * moment(sides)
    return total
