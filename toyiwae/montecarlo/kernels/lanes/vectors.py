"""Vector instructions written by Python's operators while Numba generates code, where its own loops fall short.

A loop of Numba's becomes vector instructions as LLVM sees fit: it neither keeps what several loops share in registers
nor adds up the lanes of several vectors at once. Here the code says both. A vector has `WIDTH` float64 whatever the
processor: LLVM makes it of one register or of several.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.codegen import get_host_cpu_features

WIDTH = 8
MANY = "+avx512f" in (getattr(config, "CPU_FEATURES", None) or get_host_cpu_features())
"""Whether the processor has registers for 32 vectors; others have them for about 8."""

_INDEX, _LANE, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.DoubleType()
VECTOR = ir.VectorType(_DOUBLE, WIDTH)
_FLAGS = ("contract", "nsz", "nnan", "ninf")
_EVEN, _ODD = (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)
_FRONT, _BACK = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)


def index(number: int) -> Any:
    """A constant of the type of indices."""
    return _INDEX(number)


class Vector:
    """A vector of float64, known when the compiled code runs."""

    def __init__(self, builder: Any, value: Any):
        """Of an instruction's result."""
        self.builder, self.value = builder, value

    def __add__(self, other: Vector) -> Vector:
        """Lane by lane."""
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other: Vector) -> Vector:
        """Lane by lane."""
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FLAGS))

    def first(self, count: Any) -> Vector:
        """Its first lanes, zeros in the others; none where the count is negative, all where it is large."""
        width = self.value.type.count
        places = ir.Constant(ir.VectorType(_INDEX, width), list(range(width)))
        below = self.builder.icmp_signed("<", places, _spread(self.builder, count, _INDEX, width))
        zeros = ir.Constant(self.value.type, None)
        return Vector(self.builder, self.builder.select(below, self.value, zeros))

    def lanes(self, other: Vector, which: Sequence[int]) -> Vector:
        """Some lanes of this one and, counted on, of another."""
        mask = ir.Constant(ir.VectorType(_LANE, len(which)), list(which))
        return Vector(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))


class Sum:
    """A running sum of vectors: a variable that LLVM keeps in a register."""

    def __init__(self, builder: Any, start: Vector | None = None):
        """A vector or zeros, in each execution of the code here."""
        value = ir.Constant(VECTOR, None) if start is None else start.value
        self._builder = builder
        self._place = cgutils.alloca_once(builder, value.type)
        builder.store(value, self._place)

    def add(self, term: Vector) -> None:
        """Adds a vector."""
        self._builder.store((self.now + term).value, self._place)

    @property
    def now(self) -> Vector:
        """What it is."""
        return Vector(self._builder, self._builder.load(self._place))


def _spread(builder: Any, value: Any, kind: Any, width: int) -> Any:
    lane = builder.insert_element(ir.Constant(ir.VectorType(kind, width), ir.Undefined), value, _LANE(0))
    return builder.shuffle_vector(lane, lane, ir.Constant(ir.VectorType(_LANE, width), None))


def spread(builder: Any, number: Any, width: int = WIDTH) -> Vector:
    """A number in all lanes."""
    return Vector(builder, _spread(builder, number, _DOUBLE, width))


def transposed(rows: Sequence[Vector]) -> list[Vector]:
    """The columns of four vectors of four."""
    first, second, third, fourth = rows
    even, odd = first.lanes(second, (0, 4, 2, 6)), first.lanes(second, (1, 5, 3, 7))
    other_even, other_odd = third.lanes(fourth, (0, 4, 2, 6)), third.lanes(fourth, (1, 5, 3, 7))
    front, back = (0, 1, 4, 5), (2, 3, 6, 7)
    return [
        even.lanes(other_even, front),
        odd.lanes(other_odd, front),
        even.lanes(other_even, back),
        odd.lanes(other_odd, back),
    ]


def _total(builder: Any) -> Any:
    """LLVM's sum over lanes."""
    kind = ir.FunctionType(_DOUBLE, [_DOUBLE, VECTOR])
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{WIDTH}f64")


def across(vectors: Sequence[Vector]) -> Vector:
    """The sums over the lanes of four vectors, in a vector of half the width; of one, in a vector of one."""
    builder = vectors[0].builder
    if len(vectors) == 1:
        total = builder.call(_total(builder), [_DOUBLE(0.0), vectors[0].value], fastmath=("reassoc", *_FLAGS))
        single = ir.VectorType(_DOUBLE, 1)
        return Vector(builder, builder.insert_element(ir.Constant(single, ir.Undefined), total, _LANE(0)))
    first, second, third, fourth = vectors
    one = first.lanes(second, _EVEN) + first.lanes(second, _ODD)
    other = third.lanes(fourth, _EVEN) + third.lanes(fourth, _ODD)
    both = one.lanes(other, _FRONT) + one.lanes(other, _BACK)
    return both.lanes(both, range(4)) + both.lanes(both, range(4, 8))


class View:
    """An array of float32 or float64, of one axis or more, the last of them without gaps."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any):
        """Of an argument of compiled code."""
        self._builder = builder
        array = context.make_array(kind)(context, builder, value)
        self._data = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        self._strides = cgutils.unpack_tuple(builder, array.strides, kind.ndim)
        self.shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
        self._single = kind.dtype == types.float32
        self._kind, self._bytes = (ir.FloatType(), 4) if self._single else (_DOUBLE, 8)

    def _at(self, where: Sequence[Any], kind: Any) -> Any:
        """A pointer to an element, as one to another type."""
        builder, offset = self._builder, index(0)
        for place, stride in zip(where[:-1], self._strides, strict=False):
            offset = builder.add(offset, builder.mul(place, stride))
        offset = builder.add(offset, builder.mul(where[-1], index(self._bytes)))
        return builder.bitcast(builder.gep(self._data, [offset]), kind.as_pointer())

    def number(self, *where: Any) -> Any:
        """One element."""
        return self._builder.load(self._at(where, self._kind), align=self._bytes)

    def vector(self, *where: Any, width: int = WIDTH) -> Vector:
        """Some elements from one on, as float64."""
        found = self._builder.load(self._at(where, ir.VectorType(self._kind, width)), align=self._bytes)
        doubles = ir.VectorType(_DOUBLE, width)
        return Vector(self._builder, self._builder.fpext(found, doubles) if self._single else found)

    def put(self, vector: Vector, *where: Any) -> None:
        """Writes a vector of float64."""
        self._builder.store(vector.value, self._at(where, vector.value.type), align=8)

    def add(self, vector: Vector, *where: Any, unless: Any = None) -> None:
        """Adds a vector of float64, or puts it where `unless` is true when the compiled code runs."""
        pointer = self._at(where, vector.value.type)
        sum_ = (Vector(self._builder, self._builder.load(pointer, align=8)) + vector).value
        if unless is not None:
            sum_ = self._builder.select(unless, vector.value, sum_)
        self._builder.store(sum_, pointer, align=8)


@contextlib.contextmanager
def steps(builder: Any, start: Any, stop: Any, step: int) -> Iterator[Any]:
    """A loop over start, start + step, … below stop."""
    with cgutils.for_range_slice(builder, start, stop, index(step), intp=_INDEX) as (where, _):
        yield where


class Padded:
    """The elements of a coefficient from the last multiple of `WIDTH` on, with zeros after them."""

    def __init__(self, builder: Any, coefficient: View, whole: Any, count: Any, *where: Any):
        """Copies elements whole, …, count − 1."""
        self._builder = builder
        self._place = cgutils.alloca_once(builder, VECTOR)
        builder.store(ir.Constant(VECTOR, None), self._place)
        numbers = builder.bitcast(self._place, _DOUBLE.as_pointer())
        with steps(builder, whole, count, 1) as j:
            place = builder.gep(numbers, [builder.sub(j, whole)])
            builder.store(coefficient.number(*where, j), place)

    @property
    def vector(self) -> Vector:
        """All of them."""
        return Vector(self._builder, self._builder.load(self._place))
