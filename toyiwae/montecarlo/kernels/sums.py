"""Sums over particles that are most of the work beside the noise: log-weights, Σ c η and Σ c ηηᵀ.

All are written in `vectors`: what is added up stays in registers, and the lanes of four sums are added up together.
Noise is read up to `WIDTH − 1` particles beyond the last, and must be finite there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from toyiwae.montecarlo.kernels.lanes.vectors import (
    MANY,
    WIDTH,
    Padded,
    Sum,
    Vector,
    View,
    across,
    index,
    spread,
    steps,
    transposed,
)
from toyiwae.montecarlo.kernels.streams import GRANULE

STEP = 64
"""Particles whose products are formed at once: few enough for a core's nearest cache."""

_TILE = 4
"""Coordinates, or vectors of particles, whose sums are in registers at once."""


def _log_weights(typing: Any, noise: Any, first: Any, base: Any, slope: Any, curvature: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        eta, lines, bends, w = (View(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 4, 5))
        begin, constant = arguments[1], spread(builder, arguments[2])
        with steps(builder, begin, builder.add(begin, index(GRANULE)), _TILE * WIDTH) as j:
            places = [builder.add(j, index(k * WIDTH)) for k in range(_TILE)]
            sums = [Sum(builder) for _ in places]
            with steps(builder, index(0), eta.shape[0], 1) as i:
                a, b = spread(builder, lines.number(i)), spread(builder, bends.number(i))
                for place, total in zip(places, sums, strict=True):
                    y = eta.vector(i, place)
                    total.add(y * (a + b * y))
            for place, total in zip(places, sums, strict=True):
                w.put(total.now + constant, place)
        return context.get_dummy_value()

    return types.none(noise, types.intp, types.float64, slope, curvature, out), generate


def _add_first(coefficients: int) -> Callable[..., Any]:
    """Of one coefficient, or of several that follow each other."""

    def typed(typing: Any, noise: Any, first: Any, count: Any, c: Any, p: Any, out: Any, q: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
            eta, weights, sums = (View(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
            _, begin, length, _, p, _, q = arguments
            which, given = ([builder.add(at, index(k)) for k in range(coefficients)] for at in (p, q))
            whole = builder.and_(length, index(-WIDTH))
            left = builder.icmp_signed("<", whole, length)
            rests = [Padded(builder, weights, whole, length, own) for own in which]

            def block(i: Any, size: int) -> None:
                rows = [builder.add(i, index(k)) for k in range(size)]
                found = [[Sum(builder) for _ in rows] for _ in which]

                def take(j: Any, factors: Sequence[Vector]) -> None:
                    for k, row in enumerate(rows):
                        y = eta.vector(row, builder.add(begin, j))
                        for totals, factor in zip(found, factors, strict=True):
                            totals[k].add(factor * y)

                with steps(builder, index(0), whole, WIDTH) as j:
                    take(j, [weights.vector(own, j) for own in which])
                with builder.if_then(left):
                    take(whole, [rest.vector for rest in rests])
                for out, totals in zip(given, found, strict=True):
                    sums.add(across([total.now for total in totals]), out, builder.add(i, index(1)))

            _by_tiles(builder, eta.shape[0], block)
            return context.get_dummy_value()

        return types.none(noise, types.intp, types.intp, c, types.intp, out, types.intp), generate

    return typed


def _by_tiles(builder: Any, dim: Any, block: Callable[[Any, int], None]) -> None:
    """Code for tiles of coordinates, and for each of those that are left."""
    whole = builder.and_(dim, index(-_TILE))
    with steps(builder, index(0), whole, _TILE) as i:
        block(i, _TILE)
    with steps(builder, whole, dim, 1) as i:
        block(i, 1)


def _add_tile(typing: Any, plain: Any, scaled: Any, i: Any, j: Any, count: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        left, right, sums = (View(context, builder, signature.args[k], arguments[k]) for k in (1, 0, 5))
        _, _, i, j, length, _ = arguments
        side = _TILE if MANY else 2  # sums of a tile that registers hold at once
        for rows, columns in itertools.product(*(_parts(builder, at, side) for at in (i, j))):
            own = [[Sum(builder) for _ in columns] for _ in rows]
            with steps(builder, index(0), length, WIDTH) as k:
                factors = [right.vector(column, k) for column in columns]
                for row, totals in zip(rows, own, strict=True):
                    y = left.vector(row, k)
                    for factor, total in zip(factors, totals, strict=True):
                        total.add(y * factor)
            numbers = [total.now for totals in own for total in totals]
            found = [across(numbers[first : first + 4]) for first in range(0, len(numbers), 4)]
            for k, row in enumerate(rows):
                first = k * side
                own_part = found[first // 4]
                if side < 4:
                    own_part = own_part.lanes(own_part, range(first % 4, first % 4 + side))
                sums.add(own_part, row, columns[0])
        return context.get_dummy_value()

    return types.none(plain, scaled, types.intp, types.intp, types.intp, out), generate


def _parts(builder: Any, first: Any, side: int) -> list[list[Any]]:
    """The coordinates of a tile, in groups."""
    return [
        [builder.add(first, index(k)) for k in range(start, start + side)] for start in range(0, _TILE, side)
    ]


def _add_symmetric(typing: Any, lower: Any, factor: Any, out: Any, fresh: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        given, sums = (View(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        scale = spread(builder, arguments[1], _TILE)
        with (
            steps(builder, index(0), given.shape[0], _TILE) as i,
            steps(builder, index(0), builder.add(i, index(_TILE)), _TILE) as j,
        ):
            rows, columns = ([builder.add(at, index(k)) for k in range(_TILE)] for at in (i, j))
            tile = [given.vector(row, j, width=_TILE) * scale for row in rows]
            for row, own in zip(rows, tile, strict=True):
                sums.add(own, row, j, unless=arguments[3])
            with builder.if_then(builder.icmp_signed("<", j, i)):
                for column, own in zip(columns, transposed(tile), strict=True):
                    sums.add(own, column, i, unless=arguments[3])
        return context.get_dummy_value()

    return types.none(lower, types.float64, out, types.boolean), generate


log_weights: Any = intrinsic(_log_weights)
"""`log_weights(noise, first, base, slope, curvature, out)`, of a granule:
`out[l] = base + Σ_i η_il (slope_i + curvature_i η_il)`, l from `first` on."""

add_first: Any = intrinsic(_add_first(1))
"""`add_first(noise, first, count, c, p, out, q)`: `out[q, 1 + i] += Σ_j c[p, j] η_i,first+j` for `count` particles."""

add_two_firsts: Any = intrinsic(_add_first(2))
"""`add_first` for the coefficients p and p + 1, into q and q + 1."""

add_tile: Any = intrinsic(_add_tile)
"""`add_tile(plain, scaled, i, j, count, out)`: `out[i', j'] += Σ_k scaled[i', k] plain[j', k]` for four i' and j'."""

add_symmetric: Any = intrinsic(_add_symmetric)
"""`add_symmetric(lower, factor, out, fresh)`: `out += factor ·` the symmetric matrix whose tiles up to the diagonal are
given, or `=` that where `fresh`; both are `[D4, D4]`, the tiles on the diagonal whole."""
