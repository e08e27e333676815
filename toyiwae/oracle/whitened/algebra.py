"""Linear algebra of small symmetric matrices in more digits than double precision has.

The oracle's integrals are accurate to many digits in terms of β and h, but β and h come out of the problem's matrices
by inversions and a subtraction, which would lose digits in double precision. So a problem is whitened in 31 digits
(double-double, little slower than NumPy's own), and where those are too few (ill-conditioned covariances, a proposal
close to the posterior) in 50; only the results are rounded.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.oracle.whitened import double_double
from toyiwae.oracle.whitened.double_double import DoubleDouble

_SWEEPS = 12
_PANEL = 32
_MOST_EXTENDED = 300
"""Largest dimension of a matrix, not diagonal, that is factorised in 50 digits: five seconds."""


class Double:
    """Double-double arithmetic."""

    unit = double_double.UNIT

    @staticmethod
    def array(values: Any) -> DoubleDouble:
        """The values, each exactly; what is in this precision already stays as it is."""
        return values if isinstance(values, DoubleDouble) else DoubleDouble(values)

    @staticmethod
    def cholesky(matrix: DoubleDouble) -> DoubleDouble:
        """Lower-triangular root, in panels that fit a processor's cache."""
        n, root = len(matrix), DoubleDouble(np.zeros(matrix.shape))
        if is_diagonal(matrix.hi):
            root[np.diag_indices(n)] = double_double.sqrt(matrix[np.diag_indices(n)])
            return root
        for first in range(0, n, _PANEL):
            last = min(first + _PANEL, n)
            rest = matrix[first:, first:last] - root[first:, :first] @ root[first:last, :first].T
            for j in range(last - first):
                column = rest[j:, j] / double_double.sqrt(rest[j, j])
                root[first + j :, first + j] = column
                across = column[None, 1 : last - first - j]
                rest[j + 1 :, j + 1 :] = rest[j + 1 :, j + 1 :] - column[1:, None] * across
        return root

    @staticmethod
    def forward(lower: DoubleDouble, right: DoubleDouble) -> DoubleDouble:
        """lower⁻¹ right, for a lower-triangular matrix."""
        if is_diagonal(lower.hi):
            return right / lower[np.diag_indices(len(lower))][:, None]
        result = right + 0.0
        for first in range(0, len(lower), _PANEL):
            last = min(first + _PANEL, len(lower))
            if first:
                result[first:last] = result[first:last] - lower[first:last, :first] @ result[:first]
            for i in range(first, last):
                found = result[i] / lower[i, i]
                result[i] = found
                result[i + 1 : last] = result[i + 1 : last] - lower[i + 1 : last, i, None] * found
        return result

    def eigh(self, matrix: DoubleDouble) -> tuple[DoubleDouble, DoubleDouble]:
        """Eigenvalues and eigenvectors of a symmetric matrix, refined from those of double precision.

        Every sweep rotates each pair by its first-order angle (ogita2018iterative) and each group of eigenvalues that
        are closer than their coupling by the eigenvectors of its own small block, until the rest is round-off.
        """
        plain = np.asarray(matrix)
        off = np.abs(plain - np.diag(np.diag(plain)))
        if (
            off.max() <= 8 * len(plain) * self.unit * np.abs(plain).max()
        ):  # else round-off would choose the axes
            return matrix[np.diag_indices(len(plain))], DoubleDouble(np.eye(len(plain)))
        vectors = _orthonormal(DoubleDouble(np.linalg.eigh(plain)[1]))
        for _ in range(_SWEEPS):
            rotated = vectors.T @ (matrix @ vectors)
            values = rotated[np.diag_indices(len(matrix))]
            coupling = np.asarray(rotated + rotated.T) / 2
            np.fill_diagonal(coupling, 0.0)
            rounding = 8 * len(matrix) * self.unit * np.abs(np.asarray(values)).max()
            if np.abs(coupling).max() <= rounding:
                break
            gap = np.asarray(values[None, :] - values[:, None])
            close = (np.abs(coupling) > 0.02 * np.abs(gap)) & (np.abs(coupling) > rounding)
            angle = np.divide(coupling, gap, out=np.zeros_like(gap), where=~close & (gap != 0.0))
            vectors = vectors + vectors @ angle
            for group in _groups(close):
                block = rotated[np.ix_(group, group)] - np.eye(len(group)) * values[group[0]]
                vectors[:, group] = vectors[:, group] @ np.linalg.eigh(np.asarray(block))[1]
            vectors = _orthonormal(vectors)
        rotated = vectors.T @ (matrix @ vectors)
        return rotated[np.diag_indices(len(matrix))], vectors


def _orthonormal(vectors: DoubleDouble) -> DoubleDouble:
    """The nearest orthonormal vectors, by Newton's iteration."""
    for _ in range(_SWEEPS):
        defect = np.eye(len(vectors)) - vectors.T @ vectors
        if np.abs(np.asarray(defect)).max() <= 4 * len(vectors) * double_double.UNIT:
            break
        vectors = vectors + (vectors @ defect) * 0.5
    return vectors


def _groups(close: np.ndarray) -> list[np.ndarray]:
    """Connected components of more than one index."""
    reached = close | np.eye(len(close), dtype=bool)
    for _ in range(int(np.ceil(np.log2(len(close) + 1)))):
        reached = (reached.astype(float) @ reached) > 0
    firsts = reached.argmax(axis=1)
    groups = [np.flatnonzero(firsts == first) for first in np.unique(firsts)]
    return [group for group in groups if len(group) > 1]


class Extended:
    """Arrays of mpmath numbers with `digits` digits."""

    def __init__(self, digits: int = 50):
        self.unit = 10.0 ** (2 - digits)
        self._context = mpmath.mp.clone()
        self._context.dps = digits

    def array(self, values: np.ndarray) -> np.ndarray:
        """The values, each exactly; what is in this precision already stays as it is."""
        if values.dtype == object:
            return values
        flat = [self._context.mpf(float(value)) for value in np.ravel(values)]
        result = np.empty(len(flat), dtype=object)
        result[:] = flat
        return result.reshape(np.shape(values))

    def _matrix(self, values: np.ndarray) -> Any:
        return self._context.matrix(values.tolist())

    def _back(self, matrix: Any) -> np.ndarray:
        result = np.empty((matrix.rows, matrix.cols), dtype=object)
        for i in range(matrix.rows):
            for j in range(matrix.cols):
                result[i, j] = matrix[i, j]
        return result

    def cholesky(self, matrix: np.ndarray) -> np.ndarray:
        """Lower-triangular root.

        Raises:
            PrecisionError: for more than `_MOST_EXTENDED` dimensions, unless the matrix is diagonal.
        """
        if is_diagonal(matrix):
            root = np.zeros_like(matrix)
            root[np.diag_indices(len(root))] = [self._context.sqrt(value) for value in np.diag(matrix)]
            return root
        if len(matrix) > _MOST_EXTENDED:
            raise PrecisionError(
                f"a covariance of {len(matrix)} dimensions, not diagonal, is too nearly singular, or the proposal too"
                f" near to the posterior, for 31 digits; 50 would take too long beyond {_MOST_EXTENDED} dimensions"
            )
        # mpmath's default tolerance is no scale of ours
        return self._back(self._context.cholesky(self._matrix(matrix), tol=0))

    @staticmethod
    def forward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
        """lower⁻¹ right, for a lower-triangular matrix."""
        if is_diagonal(lower):
            return right / np.diag(lower)[:, None]
        result = np.empty(right.shape, dtype=object)
        for i in range(len(lower)):
            known = lower[i, :i] @ result[:i] if i else 0
            result[i] = (right[i] - known) / lower[i, i]
        return result

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of a symmetric matrix."""
        values, vectors = self._context.eigsy(self._matrix(matrix))
        return self._back(values)[:, 0], self._back(vectors)


def is_diagonal(matrix: np.ndarray) -> bool:
    """Whether all entries off the diagonal are exactly zero; the first row decides most matrices."""
    return bool(not np.any(matrix[:1, 1:]) and np.count_nonzero(matrix) == np.count_nonzero(np.diag(matrix)))


def solve(algebra: Double | Extended, root: Any, right: Any) -> Any:
    """matrix⁻¹ right, for the lower-triangular root of a positive definite matrix."""
    return solve_root(algebra, root, algebra.forward(root, right))


def solve_root(algebra: Double | Extended, root: Any, right: Any) -> Any:
    """root⁻ᵀ right, for a lower-triangular root."""
    return algebra.forward(root.T[::-1, ::-1], right[::-1])[::-1]
