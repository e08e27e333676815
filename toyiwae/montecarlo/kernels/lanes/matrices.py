"""Small matrices in vector instructions, of which Numba's own loops are too short to be made into any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from toyiwae.montecarlo.kernels.lanes.vectors import WIDTH, Sum, View, index, spread, steps

Body = Callable[[list[Any], int], None]
"""Writes code for vectors of some width that start at each of some columns."""


def _columns(builder: Any, count: Any, body: Body) -> None:
    """Code for all columns: by four vectors, by two, by one, by half of one, and one by one."""
    start = index(0)
    for number, width in ((4, WIDTH), (2, WIDTH), (1, WIDTH), (1, WIDTH // 2), (1, 1)):
        stop = builder.and_(count, index(-number * width))
        with steps(builder, start, stop, number * width) as j:
            body([builder.add(j, index(k * width)) for k in range(number)], width)
        start = stop


def _views(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> list[View]:
    return [
        View(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _add_product(typing: Any, a: Any, b: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        left, right, given = _views(context, builder, signature, arguments)

        def rows(which: list[Any], columns: list[Any], width: int) -> None:
            sums = [[Sum(builder, given.vector(i, column, width=width)) for column in columns] for i in which]
            with steps(builder, index(0), left.shape[1], 1) as k:
                own = [right.vector(k, column, width=width) for column in columns]
                for i, totals in zip(which, sums, strict=True):
                    factor = spread(builder, left.number(i, k), width)
                    for vector, total in zip(own, totals, strict=True):
                        total.add(factor * vector)
            for i, totals in zip(which, sums, strict=True):
                for column, total in zip(columns, totals, strict=True):
                    given.put(total.now, i, column)

        def body(columns: list[Any], width: int) -> None:
            even = builder.and_(given.shape[0], index(-2))
            with steps(builder, index(0), even, 2) as i:
                rows([i, builder.add(i, index(1))], columns, width)
            with steps(builder, even, given.shape[0], 1) as i:
                rows([i], columns, width)

        _columns(builder, given.shape[1], body)
        return context.get_dummy_value()

    return types.none(a, b, out), generate


def _put_outer(typing: Any, a: Any, b: Any, c: Any, d: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        one, two, three, four, given = _views(context, builder, signature, arguments)

        def body(columns: list[Any], width: int) -> None:
            own, others = ([view.vector(j, width=width) for j in columns] for view in (two, four))
            with steps(builder, index(0), given.shape[0], 1) as i:
                first, other = (spread(builder, view.number(i), width) for view in (one, three))
                for column, x, y in zip(columns, own, others, strict=True):
                    given.put(first * x + other * y, i, column)

        _columns(builder, given.shape[1], body)
        return context.get_dummy_value()

    return types.none(a, b, c, d, out), generate


def _add_between(typing: Any, a: Any, matrix: Any, b: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        left, middle, right, given = _views(context, builder, signature, arguments)

        def body(columns: list[Any], width: int) -> None:
            own = [right.vector(j, width=width) for j in columns]
            with steps(builder, index(0), given.shape[0], 1) as i:
                factor = spread(builder, left.number(i), width)
                for column, x in zip(columns, own, strict=True):
                    given.add(factor * x * middle.vector(i, column, width=width), i, column)

        _columns(builder, given.shape[1], body)
        return context.get_dummy_value()

    return types.none(a, matrix, b, out), generate


def _keep_lower(typing: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        (given,) = _views(context, builder, signature, arguments)

        def body(columns: list[Any], width: int) -> None:
            with steps(builder, index(0), given.shape[0], 1) as i:
                for column in columns:
                    found = given.vector(i, column, width=width)
                    given.put(found.first(builder.sub(builder.add(i, index(1)), column)), i, column)

        _columns(builder, given.shape[1], body)
        return context.get_dummy_value()

    return types.none(out), generate


def _put_zeros(typing: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        cgutils.memset(builder, array.data, builder.mul(array.nitems, array.itemsize), 0)
        return context.get_dummy_value()

    return types.none(out), generate


add_product: Any = intrinsic(_add_product)
"""`add_product(a, b, out)`: `out += a @ b`, each number in the order of b's rows."""

put_outer: Any = intrinsic(_put_outer)
"""`put_outer(a, b, c, d, out)`: `out = a ⊗ b + c ⊗ d`."""

add_between: Any = intrinsic(_add_between)
"""`add_between(a, matrix, b, out)`: `out += diag(a) matrix diag(b)`; of the matrix, the rows and columns of `out`."""

put_zeros: Any = intrinsic(_put_zeros)
"""`put_zeros(out)`: `out = 0`, of an array without gaps."""

keep_lower: Any = intrinsic(_keep_lower)
"""`keep_lower(out)`: zeros above the diagonal."""
