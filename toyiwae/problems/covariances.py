"""Checks of covariances: positive definite, symmetric up to rounding, and the short ways to write a diagonal one."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError, InputWarning

SYMMETRY_TOLERANCE = 1e-12
"""Relative difference between `cov[i, j]` and `cov[j, i]` that counts as float64's rounding: averaged away."""

FLOAT32_SYMMETRY_TOLERANCE = 16 * 2.0**-23
"""The same for float32's rounding: averaged away with a warning."""


def variances(value: Any, field: str, size: int, dimensions: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """Read-only positive float64 variances [D] or [N, D]; a scalar stands for `size` equal ones.

    Raises:
        InputError: if an entry is not positive; and as `real_array` does.
    """
    array = checks.real_array(value, field, dimensions)
    if not (array > 0).all():
        index = [int(i) for i in np.argwhere(array <= 0)[0]]
        raise InputError(
            f"{checks.entry_name(field, index)} is {array[*index]}: a variance must be greater than 0"
        )
    if not array.ndim:
        array = np.full(size, array)
        array.setflags(write=False)
    return array


def covariance(value: Any, field: str, size: int, *, stack: bool = False) -> np.ndarray:
    """A read-only symmetric positive definite float64 matrix [D, D], or with `stack` also many [N, D, D].

    A scalar or a vector stands for the diagonal matrix of these variances. An asymmetry of at most
    `SYMMETRY_TOLERANCE`, relative to the entries and to the standard deviations of their row and column, is taken
    for round-off and replaced by the mean of both entries; up to `FLOAT32_SYMMETRY_TOLERANCE` with a warning; a
    larger one is refused. A matrix is refused as singular where its correlation matrix is so to double precision
    (smallest eigenvalue ≤ D·2⁻⁵²), so different units of the coordinates are no obstacle.

    Args:
        value: what was given.
        field: its name; a matrix of many is named by its index.
        size: the dimension D of a scalar or vector; matrices may have another.
        stack: whether there may be a matrix for each observation.

    Raises:
        InputError: if it is not square, not symmetric, or not positive definite; and as `real_array` does.

    Warns:
        InputWarning: where the asymmetry is that of float32.
    """
    array = checks.real_array(value, field, (0, 1, 2, 3) if stack else (0, 1, 2))
    if array.ndim < 2:
        array = np.diag(variances(array, field, size))
    rows, columns = array.shape[-2:]
    if rows != columns:
        raise InputError(f"{field} has shape {rows}×{columns}: a covariance is square")
    array = _symmetrised(array, field)
    _refuse_indefinite(array, field)
    array.setflags(write=False)
    return array


def _symmetrised(array: np.ndarray, field: str) -> np.ndarray:
    """The symmetric part of a covariance [..., D, D] that is symmetric up to rounding; see `covariance`."""
    transposed = np.swapaxes(array, -1, -2)
    if np.array_equal(array, transposed):
        return array
    root = np.sqrt(np.abs(np.diagonal(array, axis1=-2, axis2=-1)))
    size = np.maximum(np.maximum(np.abs(array), np.abs(transposed)), root[..., :, None] * root[..., None, :])
    relative = 2 * np.abs(array / 2 - transposed / 2) / np.where(size > 0, size, 1.0)
    worst = relative.max()
    if worst > SYMMETRY_TOLERANCE:
        *n, i, j = (int(k) for k in np.unravel_index(np.argmax(relative), relative.shape))
        pair = f"[{i}, {j}] is {float(array[*n, i, j])!r} but [{j}, {i}] is {float(array[*n, j, i])!r}"
        message = f"{checks.entry_name(field, n)} is not symmetric: {pair}, relative difference {worst:.2g}"
        if worst > FLOAT32_SYMMETRY_TOLERANCE:
            triangular = np.array_equal(array, np.tril(array))
            mend = (
                "give L Lᵀ for a Cholesky factor L"
                if triangular
                else "if only rounding did that, give (C + Cᵀ)/2"
            )
            raise InputError(f"{message}; {mend}")
        warnings.warn(
            f"{message}: taken for float32's rounding, (C + Cᵀ)/2 is used", InputWarning, stacklevel=2
        )
    return np.where(array == transposed, array, array / 2 + transposed / 2)


def _refuse_indefinite(array: np.ndarray, field: str) -> None:
    """Refuses what is not positive definite among covariances [..., D, D], one by one only where a quick test fails."""
    var, eps = np.diagonal(array, axis1=-2, axis2=-1), array.shape[-1] * np.finfo(float).eps
    smallest = np.array(-np.inf)
    if (var > 0).all():
        std = np.sqrt(var)
        correlation = array / std[..., :, None] / std[..., None, :]
        with contextlib.suppress(np.linalg.LinAlgError):
            np.linalg.cholesky(correlation - 1e-10 * np.eye(array.shape[-1]))
            return
        smallest = np.linalg.eigvalsh(correlation)[..., 0]
        if (smallest > eps).all():
            return
    if array.ndim > 2:
        for n, matrix_n in enumerate(array):
            _refuse_indefinite(matrix_n, f"{field}[{n}]")
        return
    if smallest > -eps:
        raise InputError(
            f"{field} is singular to double precision: smallest eigenvalue of its correlation matrix {smallest:.3g};"
            " a covariance must be positive definite"
        )
    smallest = np.linalg.eigvalsh(array)[0]
    raise InputError(f"{field} is not positive definite: smallest eigenvalue {smallest:.6g}; all must be > 0")
