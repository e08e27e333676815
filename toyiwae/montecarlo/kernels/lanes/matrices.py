"""Small matrices in vector instructions, of which Numba's own loops are too short to be made into any."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from toyiwae.montecarlo.kernels.lanes.vectors import MANY, WIDTH, Sum, View, index, spread, steps

_ROWS = 4
"""Rows that are written together."""

Body = Callable[[list[Any], int], None]
"""Writes code for vectors of some width that start at each of some columns."""


def _columns(builder: Any, count: Any, most: int, body: Body) -> None:
    """Code for all columns: by as many vectors as registers hold, by fewer, by half of one, and one by one."""
    start, numbers = index(0), [number for number in (4, 2, 1) if number <= most]
    for number, width in (*((number, WIDTH) for number in numbers), (1, WIDTH // 2), (1, 1)):
        stop = builder.and_(count, index(-number * width))
        with steps(builder, start, stop, number * width) as j:
            body([builder.add(j, index(k * width)) for k in range(number)], width)
        start = stop


def _rows(builder: Any, count: Any, most: int) -> Iterator[list[Any]]:
    """Loops over all rows: by as many as are told, and one by one."""
    whole = builder.and_(count, index(-most))
    for start, stop, step in ((index(0), whole, most), (whole, count, 1)):
        with steps(builder, start, stop, step) as i:
            yield [builder.add(i, index(k)) for k in range(step)]


def _views(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> list[View]:
    return [
        View(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _add_product(typing: Any, a: Any, b: Any, out: Any) -> Any:
    if a.ndim > 2 and a.layout != "C":
        return None  # a typing error: its inner axes have gaps

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        left, right, given = _views(context, builder, signature, arguments)

        def rows(which: list[Any], columns: list[Any], width: int) -> None:
            sums = [[Sum(builder, given.vector(i, column, width=width)) for column in columns] for i in which]
            with steps(builder, index(0), right.shape[0], 1) as k:
                own = [right.vector(k, column, width=width) for column in columns]
                for i, totals in zip(which, sums, strict=True):
                    factor = spread(builder, left.number(i, k), width)
                    for vector, total in zip(own, totals, strict=True):
                        total.add(factor * vector)
            for i, totals in zip(which, sums, strict=True):
                for column, total in zip(columns, totals, strict=True):
                    given.put(total.now, i, column)

        def body(columns: list[Any], width: int) -> None:
            for which in _rows(builder, given.shape[0], 2):
                rows(which, columns, width)

        _columns(builder, given.shape[1], 4 if MANY else 2, body)
        return context.get_dummy_value()

    return types.none(a, b, out), generate


def _put_sum(typing: Any, lines: Any, left: Any, stack: Any, right: Any, lower: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        kinds, values = signature.args, list(arguments)
        vectors = zip(kinds[0], cgutils.unpack_tuple(builder, values[0], 4), strict=True)
        a, b, c, d = (View(context, builder, kind, value) for kind, value in vectors)
        rows, middle, others, given = (View(context, builder, kinds[k], values[k]) for k in (1, 2, 3, 5))
        wide = builder.select(values[4], index(1), index(1 + WIDTH))  # what is kept from the diagonal on

        def body(which: list[Any], columns: list[Any], width: int) -> None:
            (j,) = columns
            first, other, factor = (view.vector(j, width=width) for view in (b, d, others))
            sums = [
                Sum(
                    builder,
                    spread(builder, a.number(i), width) * first + spread(builder, c.number(i), width) * other,
                )
                for i in which
            ]

            def take(p: Any) -> None:
                for i, total in zip(which, sums, strict=True):
                    z = spread(builder, rows.number(p, i), width)
                    total.add(z * factor * middle.vector(p, i, j, width=width))

            take(index(0))
            with steps(builder, index(1), middle.shape[0], 1) as p:
                take(p)
            kept = builder.sub(wide, builder.select(values[4], j, index(0)))
            for i, total in zip(which, sums, strict=True):
                given.put(total.now.first(builder.add(i, kept)), i, j)

        # Rows are outside: they are written in the order of the memory, which is seldom at hand.
        for which in _rows(builder, given.shape[0], _ROWS):
            _columns(builder, given.shape[1], 1, functools.partial(body, which))
        return context.get_dummy_value()

    return types.none(lines, left, stack, right, types.boolean, out), generate


def _put_zeros(typing: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        cgutils.memset(builder, array.data, builder.mul(array.nitems, array.itemsize), 0)
        return context.get_dummy_value()

    return types.none(out), generate


def _copy(typing: Any, given: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        source, target = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        cgutils.raw_memcpy(builder, target.data, source.data, source.nitems, source.itemsize)
        return context.get_dummy_value()

    return types.none(given, out), generate


add_product: Any = intrinsic(_add_product)
"""`add_product(a, b, out)`: `out += a @ b`, each number in the order of b's rows; the axes of a but the first count as
one, and have no gaps."""

put_sum: Any = intrinsic(_put_sum)
"""`put_sum((a, b, c, d), left, stack, right, lower, out)`: `out = a ⊗ b + c ⊗ d + Σ_p diag(left_p) stack_p diag(right)`
and zeros above the diagonal where `lower` is true. The stack has one matrix or more, of which the rows and columns of
`out` count."""

put_zeros: Any = intrinsic(_put_zeros)
"""`put_zeros(out)`: `out = 0`, of an array without gaps."""

copy: Any = intrinsic(_copy)
"""`copy(given, out)`: of arrays without gaps, of one shape and apart from each other."""
