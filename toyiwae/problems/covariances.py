"""Checks of covariances: positive definite, symmetric up to rounding, and the short ways to write a diagonal one."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError, InputWarning

SYMMETRY_TOLERANCE = 1e-12
"""Relative difference between `cov[i, j]` and `cov[j, i]` that counts as float64's rounding: averaged away."""

FLOAT32_SYMMETRY_TOLERANCE = 16 * 2.0**-23
"""The same for float32's rounding: averaged away with a warning."""

_BLOCK = 256  # covariances that are checked at a time


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
        hint = "; variances for each observation go in `var`" if stack and array.ndim == 2 else ""
        raise InputError(f"{field} has shape {rows}×{columns}: a covariance is square{hint}")
    array.setflags(write=True)
    matrices = array.reshape(-1, rows, rows)

    def name(n: int) -> str:
        return f"{field}[{n}]" if array.ndim == 3 else field

    _symmetrise(matrices, name)
    _refuse_indefinite(matrices, name)
    array.setflags(write=False)
    return array


def _symmetrise(matrices: np.ndarray, name: Callable[[int], str]) -> None:
    """Replaces covariances [N, D, D] that are symmetric up to rounding by their symmetric part; see `covariance`."""
    worst, message, factor = 0.0, "", False
    for start in range(0, len(matrices), _BLOCK):
        block = matrices[start : start + _BLOCK]
        transposed = np.swapaxes(block, -1, -2)
        if np.array_equal(block, transposed):
            continue
        root = np.sqrt(np.abs(np.diagonal(block, axis1=-2, axis2=-1)))
        size = np.maximum(np.maximum(np.abs(block), np.abs(transposed)), root[:, :, None] * root[:, None, :])
        relative = 2 * np.abs(block / 2 - transposed / 2) / np.where(size > 0, size, 1.0)
        if relative.max() > worst:
            n, i, j = (int(k) for k in np.unravel_index(np.argmax(relative), relative.shape))
            worst, pair = relative.max(), (float(block[n, i, j]), float(block[n, j, i]))
            message = (
                f"{name(start + n)} is not symmetric: [{i}, {j}] is {pair[0]!r} but [{j}, {i}] is {pair[1]!r}"
            )
            factor = np.array_equal(block[n], np.tril(block[n]))
        block[...] = np.where(block == transposed, block, block / 2 + transposed / 2)
    message += f", relative difference {worst:.2g}"
    if worst > FLOAT32_SYMMETRY_TOLERANCE:
        mend = "give L Lᵀ for a Cholesky factor L" if factor else "if only rounding did that, give (C + Cᵀ)/2"
        raise InputError(f"{message}; {mend}")
    if worst > SYMMETRY_TOLERANCE:
        level, frame = 1, sys._getframe()  # up to the line of the user
        while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "toyiwae":
            level, frame = level + 1, frame.f_back
        text = f"{message}: taken for float32's rounding, (C + Cᵀ)/2 is used"
        warnings.warn(text, InputWarning, stacklevel=level)


def _refuse_indefinite(matrices: np.ndarray, name: Callable[[int], str]) -> None:
    """Refuses what is not positive definite among covariances [N, D, D]; a quick test serves all that are well so."""
    margin = 1e-10 * np.eye(matrices.shape[-1])
    for start in range(0, len(matrices), _BLOCK):
        block = matrices[start : start + _BLOCK]
        var = np.diagonal(block, axis1=-2, axis2=-1)
        if (var > 0).all():
            std = np.sqrt(var)
            with contextlib.suppress(np.linalg.LinAlgError):
                np.linalg.cholesky(block / std[:, :, None] / std[:, None, :] - margin)
                continue
        for n, matrix in enumerate(block, start):
            _refuse_one(matrix, name(n))


def _refuse_one(matrix: np.ndarray, field: str) -> None:
    std = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    if (std > 0).all():
        smallest, eps = np.linalg.eigvalsh(matrix / std[:, None] / std)[0], len(matrix) * np.finfo(float).eps
        if smallest > eps:
            return
        if smallest > -eps:
            raise InputError(
                f"{field} is singular to double precision: smallest eigenvalue of its correlation matrix"
                f" {smallest:.3g}; a covariance must be positive definite"
            )
    smallest = np.linalg.eigvalsh(matrix)[0]
    raise InputError(f"{field} is not positive definite: smallest eigenvalue {smallest:.6g}; all must be > 0")
