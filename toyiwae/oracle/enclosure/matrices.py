"""Linear algebra on balls: exact float64 entries, inverses, Cholesky factors, and diagonalisation with a remainder.

Eigenvectors of nearly equal eigenvalues cannot be enclosed; nothing here needs them. An approximately orthogonal matrix
is enlarged to a ball matrix that contains an orthogonal one, `Q`, exactly; `QᵀBQ` is then diagonal but for a remainder
of norm `e`, which `laws` carries through as a perturbation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

from toyiwae.oracle.whitened.algebra import is_diagonal

Balls = np.ndarray  # of dtype object: arb or acb


def balls(values: Any) -> Balls:
    """A vector of Python objects."""
    values = list(values)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def exact(array: Any) -> Balls:
    """float64 numbers as balls of radius 0."""
    array = np.asarray(array, float)
    return balls(arb(float(x)) for x in array.ravel()).reshape(array.shape)


def radius(size: Any) -> arb:
    """The ball around 0 that holds every number of absolute value up to the upper end of `size`."""
    return arb(0, size)


def product(a: Balls, b: Balls) -> Balls:
    """Matrix product of real balls; `b` may be a vector."""
    if not a.size or not b.size:
        return np.full((*a.shape[:1], *b.shape[1:]), arb(0), dtype=object)
    right = b.reshape(len(b), -1)
    found = arb_mat(len(a), a.shape[1], list(a.ravel())) * arb_mat(
        len(right), right.shape[1], list(right.ravel())
    )
    return balls(found.entries()).reshape(*a.shape[:1], *b.shape[1:])


class Inverse:
    """The inverse of a positive definite matrix of balls, or of a diagonal float64 covariance.

    Attributes:
        log_det: log |cov|.
    """

    def __init__(self, cov: Any):
        """From a float64 array or an array of balls."""
        cov = np.asarray(cov)
        self._diagonal = cov.dtype != object and is_diagonal(cov)
        cov = cov if cov.dtype == object else exact(np.diag(cov) if self._diagonal else cov)
        self._pivots = cov
        if self._diagonal:
            self.log_det = sum((x.log() for x in cov), arb(0))
        else:
            self._cov = arb_mat(len(cov), len(cov), list(cov.ravel()))
            self.log_det = self._cov.det().log()

    def dot(self, right: Balls) -> Balls:
        """cov⁻¹ right, of a vector or a matrix."""
        if self._diagonal:
            return (right.T / self._pivots).T
        columns = right.reshape(len(right), -1)
        found = self._cov.solve(arb_mat(len(columns), columns.shape[1], list(columns.ravel())))
        return balls(found.entries()).reshape(right.shape)


def cholesky(a: Balls) -> Balls:
    """Lower Cholesky factor; entries are not finite where the balls are too wide to tell that it exists."""
    n = len(a)
    factor = np.full((n, n), arb(0), dtype=object)
    for j in range(n):
        rest = a[j:, j] - factor[j:, :j].dot(factor[j, :j]) if j else a[j:, j]
        factor[j:, j] = rest / rest[0].sqrt()
    return factor


def diagonalised(b: Balls) -> tuple[Balls, Balls, arb]:
    """Q, the diagonal of QᵀBQ and a bound on the spectral norm of the rest, for an exactly orthogonal Q."""
    q = _eigenvectors(b)
    n = len(b)
    gram = product(q.T, q) - exact(np.eye(n))
    error = sum((x * x for x in gram.ravel()), arb(0)).abs_upper().sqrt()
    q = q + radius(1.5 * error if error < 0.5 else arb("inf"))  # the polar factor of q
    found = product(q.T, product(b, q))
    rest = found.copy()
    rest[np.diag_indices(n)] = arb(0)
    size = sum((x.abs_upper() * x.abs_upper() for x in rest.ravel()), arb(0)).sqrt().abs_upper()
    return q, np.diag(found).copy(), size


def _eigenvectors(b: Balls) -> Balls:
    """Approximate eigenvectors of the mid-points: quadratically convergent rotations by first-order angles.

    Groups of eigenvalues too close for a first-order angle are turned by the float64 eigenvectors of their own block.
    """
    n, middle = len(b), balls(x.mid() for x in b.ravel()).reshape(b.shape)
    if n == 1:
        return exact([[1.0]])
    unit, scale = exact(np.eye(n)), max(x.abs_upper() for x in b.ravel())
    noise = scale * arb(2) ** (16 - ctx.prec)
    q = exact(np.linalg.eigh(_floats(middle, scale))[1])
    for _ in range(200):
        for _ in range(2):
            q = _mid(product(q, 1.5 * unit - 0.5 * product(q.T, q)))
        found = _mid(product(q.T, product(middle, q)))
        turn, groups, small = np.full((n, n), arb(0), dtype=object), np.arange(n), True
        for i, j in zip(*np.tril_indices(n, -1), strict=True):
            if abs(found[i, j]) <= noise:
                continue
            small, gap = False, found[j, j] - found[i, i]
            if abs(gap) > 8 * abs(found[i, j]):
                turn[i, j] = found[i, j] / gap
                turn[j, i] = -turn[i, j]
            else:
                groups[groups == groups[i]] = groups[j]
        if small:
            break
        q = _mid(q + product(q, turn))
        for group in np.unique(groups):
            at = np.flatnonzero(groups == group)
            if len(at) > 1:
                block = found[np.ix_(at, at)]
                block = block - block[0, 0] * exact(np.eye(len(at)))
                size = max(x.abs_upper() for x in block.ravel())
                q[:, at] = _mid(product(q[:, at], exact(np.linalg.eigh(_floats(block, size))[1])))
    return q


def _mid(a: Balls) -> Balls:
    return balls(x.mid() for x in a.ravel()).reshape(a.shape)


def _floats(a: Balls, scale: arb) -> np.ndarray:
    found = np.array([float(x / scale) if scale > 0 else 0.0 for x in a.ravel()]).reshape(a.shape)
    return 0.5 * (found + found.T)
