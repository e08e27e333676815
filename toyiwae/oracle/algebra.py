"""Linear algebra of small symmetric matrices, in double precision or in as many digits as it takes.

The oracle's integrals are accurate to many digits in terms of β and h, but β and h come out of the problem's matrices
by inversions and a subtraction. Where those would lose digits (ill-conditioned covariances, a proposal close to the
posterior) the same few lines run on arrays of mpmath numbers instead, and only their results are rounded.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

EPS = float(np.finfo(np.float64).eps)


class Double:
    """Float64."""

    digits = 15.6

    @staticmethod
    def array(values: np.ndarray) -> np.ndarray:
        """The values in this precision."""
        return values

    @staticmethod
    def cholesky(matrix: np.ndarray) -> np.ndarray:
        """Lower-triangular root."""
        return np.linalg.cholesky(matrix)

    @staticmethod
    def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        """matrix⁻¹ right, for a positive definite matrix."""
        return cho_solve(cho_factor(matrix, lower=True), right)

    @staticmethod
    def solve_root(root: np.ndarray, right: np.ndarray) -> np.ndarray:
        """root⁻ᵀ right, for a lower-triangular root."""
        return solve_triangular(root, right, lower=True, trans=1)

    @staticmethod
    def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of a symmetric matrix."""
        return np.linalg.eigh(matrix)


class Extended:
    """Arrays of mpmath numbers with `digits` digits."""

    def __init__(self, digits: int = 50):
        self.digits = digits
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
        """Lower-triangular root."""
        return self._back(self._context.cholesky(self._matrix(matrix)))

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        """matrix⁻¹ right, for a positive definite matrix."""
        root = self.cholesky(matrix)
        return self.solve_root(root, _forward(root, right))

    def solve_root(self, root: np.ndarray, right: np.ndarray) -> np.ndarray:
        """root⁻ᵀ right, for a lower-triangular root."""
        return _forward(root.T[::-1, ::-1], right[::-1])[::-1]

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of a symmetric matrix."""
        values, vectors = self._context.eigsy(self._matrix(matrix))
        return self._back(values)[:, 0], self._back(vectors)


def _forward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """lower⁻¹ right by forward substitution, for arrays of any number type."""
    result = np.empty(right.shape, dtype=object)
    for i in range(len(lower)):
        known = lower[i, :i] @ result[:i] if i else 0
        result[i] = (right[i] - known) / lower[i, i]
    return result
