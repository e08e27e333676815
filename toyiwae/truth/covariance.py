"""The covariance matrix of a gradient over all its coordinates, and with it the directional SNR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toyiwae.errors import InputError
from toyiwae.forms import Form
from toyiwae.oracle.finite_k.bounds import Grids
from toyiwae.oracle.finite_k.every_k import insert_single
from toyiwae.oracle.finite_k.gradients import GradientEngine, covariance_of_one
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents
from toyiwae.oracle.whitened.own_covariances import OwnWhitened
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.parameter import Parameter

MOST_COORDINATES = 1000
_PAIRS = 1500  # pairs of coordinates whose transforms are held at once

Parts = dict[int, Polynomial]


def covariance(
    whitened: Whitened | OwnWhitened, form: Form, parameters: Sequence[str], particles: Sequence[int]
) -> Bounded:
    """Covariance of one group's gradient of the average over rows, between all coordinates of some parameters.

    Coordinates are those of the parameters in the order given, each flattened by rows; `proposal_chol` as the full
    matrix, whose upper triangle is zero. Rows are independent, so their covariances add up, over N².

    Args:
        whitened: the problem.
        form: a Form without log terms.
        parameters: names, all of the model or all of the proposal.
        particles: the numbers of particles.

    Returns:
        `[nK, F, F]`.

    Raises:
        InputError: more than MOST_COORDINATES coordinates.
    """
    records = [whitened.problem.parameters.record(name) for name in parameters]
    count = sum(parameter.size for parameter in records)
    if count > MOST_COORDINATES:
        raise InputError(f"covariance of {count} coordinates: expected at most {MOST_COORDINATES}")
    many = [k for k in particles if k > 1]
    grids = Grids(particles if form.exponent != 0.0 else ())
    value, error = np.zeros((2, len(particles), count, count))
    kinds = {
        parameter.kind: parameter for parameter in reversed(records)
    }  # which share their base coordinates
    for rows, part in whitened.batches(form.exponent, _PAIRS):
        built = GradientComponents(part)
        blocks = [built.of(form, parameter) for parameter in kinds.values()]
        if not any(blocks):
            return Bounded(value, error)
        grid = grids(part.law)
        engine = GradientEngine(part.law, many, grid) if grid is not None else None
        base, slack = _base_covariance(part.law, blocks, particles, engine)  # [N, nK, B, B]
        widths = {k: next(iter(block.values())).base.shape[1] for k, block in zip(kinds, blocks, strict=True)}
        design = _design(records, whitened.x[rows], widths, rows)  # [N, F, B]
        value += np.einsum("nfb,nkbc,ngc->kfg", design, base, design, optimize=True)
        design = np.abs(design)
        slack = slack + 4 * EPS * np.abs(base)
        error += np.einsum("nfb,nkbc,ngc->kfg", design, slack, design, optimize=True)
    return Bounded(value / len(whitened.x) ** 2, error / len(whitened.x) ** 2)


def _base_covariance(
    law, blocks: list[Parts], particles: Sequence[int], engine
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance between the coordinates of all blocks, and its error: [N, nK, B, B]."""
    sizes = [next(iter(block.values())).base.shape[1] for block in blocks]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    both = np.zeros((2, len(law), len(particles), starts[-1], starts[-1]))
    for a, left in enumerate(blocks):
        for b in range(a, len(blocks)):
            for i, j in _pairs(sizes[a], sizes[b], same=a == b):
                found = _covariances(law, _chosen(left, i), _chosen(blocks[b], j), particles, engine)
                for array, values in zip(both, found, strict=True):
                    array[:, :, starts[a] + i, starts[b] + j] = values
                    array[:, :, starts[b] + j, starts[a] + i] = values
    return both[0], both[1]


def _chosen(parts: Parts, index: np.ndarray) -> Parts:
    """Some coordinates; what shares its right-hand factor still does, so that it can be added up."""
    rights: dict[Any, Any] = {}
    result = {}
    for r, g in parts.items():
        chosen = g[index]
        result[r] = replace(chosen, right=rights.setdefault(g.right, chosen.right))
    return result


def _pairs(rows: int, columns: int, *, same: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    i, j = np.triu_indices(rows) if same else (x.ravel() for x in np.indices((rows, columns)))
    for start in range(0, len(i), _PAIRS):
        yield i[start : start + _PAIRS], j[start : start + _PAIRS]


def _covariances(
    law, f: Parts, h: Parts, particles: Sequence[int], engine: GradientEngine | None
) -> tuple[np.ndarray, np.ndarray]:
    """Of aligned coordinates, for every K, and the error: [N, nK, F]."""
    many = engine and engine.covariance(f, h)
    found = insert_single(particles, many, lambda k: covariance_of_one(law, f, h, k))
    if engine is not None:
        engine.forget()
    return found.value, np.broadcast_to(found.error, found.shape)


def _design(
    parameters: Sequence[Parameter], x: np.ndarray, widths: dict[str, int], rows: np.ndarray
) -> np.ndarray:
    """How each coordinate asked for is made of the base coordinates, row by row: [N, F, B]."""
    starts = dict(zip(widths, np.cumsum([0, *widths.values()]), strict=False))
    pieces = []
    for parameter in parameters:
        start, width = starts[parameter.kind], widths[parameter.kind]
        wide = np.zeros((len(x), parameter.size, sum(widths.values())))
        wide[:, :, start : start + width] = parameter.design(x, width, rows)
        pieces.append(wide)
    return np.concatenate(pieces, axis=1)
