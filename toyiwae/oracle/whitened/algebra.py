"""Linear algebra of small symmetric matrices in more digits than double precision has.

The oracle's integrals are accurate to many digits in terms of β and h, but β and h come out of the problem's matrices
by inversions and a subtraction, which would lose digits in double precision. So a problem is whitened in 31 digits
(double-double, little slower than NumPy's own), and where those are too few (ill-conditioned covariances, a proposal
close to the posterior) in 50; only the results are rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.whitened import double_double
from toyiwae.oracle.whitened.double_double import DoubleDouble

_SWEEPS = 12
_PANEL = 32
_MOST_EXTENDED = 300
"""Largest dimension of a matrix, not diagonal, that is factorised in 50 digits: seconds."""

_BITS = 200
"""Of every number that counts for 50 digits, with room."""


class _Algebra:
    """The algorithms, in any kind of numbers.

    Attributes:
        unit: relative error of one operation, with room.
    """

    unit: float

    @staticmethod
    def array(values: Any) -> Any:
        """The values, each exactly; what is in this precision already stays as it is."""
        raise NotImplementedError

    @staticmethod
    def sqrt(values: Any) -> Any:
        """Square roots."""
        raise NotImplementedError

    def cholesky(self, matrix: Any) -> Any:
        """Lower-triangular root, in panels that fit a processor's cache."""
        n, root = len(matrix), self.array(np.zeros(matrix.shape))
        if is_diagonal(_floats(matrix)):
            root[np.diag_indices(n)] = self.sqrt(matrix[np.diag_indices(n)])
            return root
        for first in range(0, n, _PANEL):
            last = min(first + _PANEL, n)
            rest = matrix[first:, first:last] - root[first:, :first] @ root[first:last, :first].T
            for j in range(last - first):
                column = rest[j:, j] / self.sqrt(rest[j : j + 1, j])
                root[first + j :, first + j] = column
                across = column[None, 1 : last - first - j]
                rest[j + 1 :, j + 1 :] = rest[j + 1 :, j + 1 :] - column[1:, None] * across
        return root

    @staticmethod
    def forward(lower: Any, right: Any) -> Any:
        """lower⁻¹ right, for a lower-triangular matrix."""
        if is_diagonal(_floats(lower)):
            return right / lower[np.diag_indices(len(lower))][:, None]
        result = right + 0.0
        for first in range(0, len(lower), _PANEL):
            last = min(first + _PANEL, len(lower))
            if first:
                result[first:last] = result[first:last] - lower[first:last, :first] @ result[:first]
            for i in range(first, last):
                found = result[i] / lower[i : i + 1, i]
                result[i] = found
                result[i + 1 : last] = result[i + 1 : last] - lower[i + 1 : last, i, None] * found
        return result

    def eigh(self, matrix: Any) -> tuple[Any, Any]:
        """Eigenvalues and eigenvectors of a symmetric matrix, refined from those of double precision.

        Every sweep rotates each pair by its first-order angle (ogita2018iterative) and each group of eigenvalues that
        are closer than their coupling by the eigenvectors of its own small block, until the rest is round-off.
        """
        plain = _floats(matrix)
        off = np.abs(plain - np.diag(np.diag(plain)))
        if (
            off.max() <= 8 * len(plain) * self.unit * np.abs(plain).max()
        ):  # else round-off would choose the axes
            return matrix[np.diag_indices(len(plain))], self.array(np.eye(len(plain)))
        vectors = self._orthonormal(self.array(np.linalg.eigh(plain)[1]))
        for _ in range(_SWEEPS):
            rotated = vectors.T @ (matrix @ vectors)
            values = rotated[np.diag_indices(len(matrix))]
            coupling = _floats(rotated + rotated.T) / 2
            np.fill_diagonal(coupling, 0.0)
            rounding = 8 * len(matrix) * self.unit * np.abs(_floats(values)).max()
            if np.abs(coupling).max() <= rounding:
                break
            gap = _floats(values[None, :] - values[:, None])
            close = (np.abs(coupling) > 0.02 * np.abs(gap)) & (np.abs(coupling) > rounding)
            angle = np.divide(coupling, gap, out=np.zeros_like(gap), where=~close & (gap != 0.0))
            vectors = vectors + vectors @ angle
            for group in _groups(close):
                block = rotated[np.ix_(group, group)] - np.eye(len(group)) * values[group[:1]]
                vectors[:, group] = vectors[:, group] @ np.linalg.eigh(_floats(block))[1]
            vectors = self._orthonormal(vectors)
        rotated = vectors.T @ (matrix @ vectors)
        return rotated[np.diag_indices(len(matrix))], vectors

    def _orthonormal(self, vectors: Any) -> Any:
        """The nearest orthonormal vectors, by Newton's iteration."""
        for _ in range(_SWEEPS):
            defect = np.eye(len(vectors)) - vectors.T @ vectors
            if np.abs(_floats(defect)).max() <= 4 * len(vectors) * self.unit:
                break
            vectors = vectors + (vectors @ defect) * 0.5
        return vectors


class Double(_Algebra):
    """Double-double arithmetic."""

    unit = double_double.UNIT

    @staticmethod
    def array(values: Any) -> DoubleDouble:
        """The values, each exactly; what is in this precision already stays as it is."""
        return values if isinstance(values, DoubleDouble) else DoubleDouble(values)

    @staticmethod
    def sqrt(values: DoubleDouble) -> DoubleDouble:
        """Square roots."""
        return double_double.sqrt(values)


class Extended(_Algebra):
    """Arrays of binary numbers of 50 digits and more (python-flint's, without radii)."""

    unit = 1e-48

    @staticmethod
    def array(values: Any) -> ExtendedArray:
        """The values, each exactly; what is in this precision already stays as it is."""
        if isinstance(values, ExtendedArray):
            return values
        return _numbers([arb(x) for x in np.ravel(values).tolist()], np.shape(values))

    @staticmethod
    def sqrt(values: ExtendedArray) -> ExtendedArray:
        """Square roots; what has none is not finite."""
        with ctx.workprec(_BITS):
            return _numbers([x.sqrt().mid() for x in values.ravel()], values.shape)

    def cholesky(self, matrix: ExtendedArray) -> ExtendedArray:
        """Lower-triangular root.

        Raises:
            PrecisionError: for more than `_MOST_EXTENDED` dimensions, unless the matrix is diagonal.
        """
        if len(matrix) > _MOST_EXTENDED and not is_diagonal(_floats(matrix)):
            raise PrecisionError(
                f"a covariance of {len(matrix)} dimensions, not diagonal, is too nearly singular, or the proposal too"
                f" near to the posterior, for 31 digits; 50 would take too long beyond {_MOST_EXTENDED} dimensions"
            )
        return super().cholesky(matrix)


class ExtendedArray(np.ndarray):
    """An array of numbers whose operations keep `_BITS` bits, whatever the precision outside."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Operations of NumPy, element by element but for matrix products."""
        plain = [x.view(np.ndarray) if isinstance(x, ExtendedArray) else x for x in inputs]
        with ctx.workprec(_BITS):
            if ufunc is np.matmul:
                return _product(*map(np.asarray, plain))
            found = np.asarray(getattr(ufunc, method)(*plain, **kwargs), dtype=object)
            return _numbers([x.mid() for x in found.ravel()], found.shape)


def _numbers(values: list[arb], shape: tuple[int, ...]) -> ExtendedArray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found.reshape(shape).view(ExtendedArray)


def _product(a: np.ndarray, b: np.ndarray) -> ExtendedArray:
    """The product of two matrices; the second may be a vector."""
    right = b if b.ndim == 2 else b[:, None]
    found = arb_mat(len(a), len(b), a.ravel().tolist()) * arb_mat(
        len(right), right.shape[1], right.ravel().tolist()
    )
    return _numbers([x.mid() for x in found.entries()], (len(a), *b.shape[1:]))


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _groups(close: np.ndarray) -> list[np.ndarray]:
    """Connected components of more than one index."""
    reached = close | np.eye(len(close), dtype=bool)
    for _ in range(int(np.ceil(np.log2(len(close) + 1)))):
        reached = (reached.astype(float) @ reached) > 0
    firsts = reached.argmax(axis=1)
    groups = [np.flatnonzero(firsts == first) for first in np.unique(firsts)]
    return [group for group in groups if len(group) > 1]


def is_diagonal(matrix: np.ndarray) -> bool:
    """Whether all entries off the diagonal are exactly zero; the first row decides most matrices."""
    return bool(not np.any(matrix[:1, 1:]) and np.count_nonzero(matrix) == np.count_nonzero(np.diag(matrix)))


def solve(algebra: Double | Extended, root: Any, right: Any) -> Any:
    """matrix⁻¹ right, for the lower-triangular root of a positive definite matrix."""
    return solve_root(algebra, root, algebra.forward(root, right))


def solve_root(algebra: Double | Extended, root: Any, right: Any) -> Any:
    """root⁻ᵀ right, for a lower-triangular root."""
    return algebra.forward(root.T[::-1, ::-1], right[::-1])[::-1]
