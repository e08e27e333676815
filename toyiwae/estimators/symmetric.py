"""Elementary symmetric polynomials of many factors, and derivatives by them: blocks merged by pairs, in log K steps.

A block of n particles has `P_j = e_j(a) / C(n, j)`, the mean over its subsets of j particles, or of n−j where fewer are
left out than chosen. Two blocks make one by sums of positive terms with hypergeometric weights:

    P_j = Σ_i h(i, j−i) P¹_i P²_{j−i},    h(i, l) = C(n₁, i) C(n₂, l) / C(n₁+n₂, i+l)

Arrays are `[j, G, blocks, n]`: coefficients, groups, blocks, nodes of an integral.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from array_api_compat import array_namespace, device

from toyiwae.weights import Array


def chosen(particles: int, size: int) -> bool:
    """Whether coefficients count the particles in a subset, and not those left out."""
    return size <= particles - size


def leaves(inside: Array, outside: Array, size: int) -> Array:
    """Of each particle alone, `[G, K, n] -> [2, G, K, n]`: a factor where it is in the subset, another where not."""
    counted = chosen(inside.shape[1], size)
    return array_namespace(inside).stack([outside, inside] if counted else [inside, outside])


@lru_cache(maxsize=256)
def _hypergeometric(first: int, second: int, states: int) -> tuple[tuple[float, ...], ...]:
    """`h(i, l)` for `i + l < states`, correctly rounded."""
    one, other = ([math.comb(n, i) for i in range(min(states - 1, n) + 1)] for n in (first, second))
    both = [math.comb(first + second, j) for j in range(min(states - 1, first + second) + 1)]
    return tuple(
        tuple(one[i] * other[j] / both[i + j] for j in range(min(len(other), states - i)))
        for i in range(len(one))
    )


def _products(
    first: Array, second: Array, sizes: tuple[int, int], states: int
) -> Iterator[tuple[int, int, Array]]:
    """For each i: i itself, how many l there are, and `h(i, l)` as `[l, 1, 1, 1]`."""
    xp = array_namespace(first)
    for i, row in enumerate(_hypergeometric(*sizes, states)):
        yield i, len(row), xp.asarray(row, dtype=first.dtype, device=device(first))[:, None, None, None]


def _at(start: int, part: Array, stop: int) -> Array:
    """The part within `stop` states, zeros around it."""
    xp = array_namespace(part)
    zeros = [
        xp.zeros((n, *part.shape[1:]), dtype=part.dtype, device=device(part)) for n in (start, stop - start)
    ]
    return xp.concat([zeros[0], part, zeros[1][part.shape[0] :]])


def merge(first: Array, second: Array, sizes: tuple[int, int], states: int) -> tuple[Array, Callable]:
    """The polynomials of two blocks together, and how derivatives by them become derivatives by the two."""
    xp, total = array_namespace(first), min(states, sum(sizes) + 1)
    found = 0.0
    for i, count, chance in _products(first, second, sizes, states):
        found = found + _at(i, chance * first[i] * second[:count], total)

    def backward(adjoint: Array) -> tuple[Array, Array]:
        ones, others = [], 0.0
        for i, count, chance in _products(first, second, sizes, states):
            given = chance * adjoint[i : i + count]
            ones.append(xp.sum(given * second[:count], axis=0))
            others = others + _at(0, given * first[i], second.shape[0])
        return xp.stack(ones), others

    return found, backward


def merge_less(first: Array, second: Array, sizes: tuple[int, int], states: int) -> tuple[Array, None]:
    """The same for `1 − P`."""
    found = 0.0
    for i, count, chance in _products(first, second, sizes, states):
        less = chance * (first[i] + second[:count] * (1.0 - first[i]))
        found = found + _at(i, less, min(states, sum(sizes) + 1))
    return found, None


def root(blocks: Array, sizes: tuple[int, int], rest: Array | None, states: int, join: Callable) -> Any:
    """The polynomials of all particles, and the way back.

    Args:
        blocks: those of blocks of equal size.
        sizes: theirs, and that of the rest.
        rest: those of a smaller block, if particles are left.
        states: how many of the coefficients are needed.
        join: `merge` or `merge_less`.
    """
    xp, (size, left), count = array_namespace(blocks), sizes, blocks.shape[2]
    if count == 1:
        return (
            (blocks, lambda adjoint: (adjoint, None)) if rest is None else join(blocks, rest, sizes, states)
        )
    even, odd = blocks[:, :, : count - 1 : 2, :], blocks[:, :, 1::2, :]
    merged, apart = join(even, odd, (size, size), states)
    last, divided = rest, None
    if count % 2:
        last, left = blocks[:, :, -1:, :], size
        if rest is not None:
            (last, divided), left = join(last, rest, sizes, states), size + sizes[1]
    top, backward = root(merged, (2 * size, left), last, states, join)

    def whole(adjoint: Array) -> tuple[Array, Array | None]:
        pairs, final = backward(adjoint)
        both = xp.stack(apart(pairs), axis=3)
        both = xp.reshape(both, (*both.shape[:2], -1, both.shape[-1]))
        if count % 2 == 0:
            return both, final
        final, remainder = (final, None) if divided is None else divided(final)
        return xp.concat([both, final], axis=2), remainder

    return top, whole
