"""What follows from the mean and the variance of a gradient, on balls: SNR, bias and RMSE with proven digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.estimators import Estimator
from toyiwae.oracle.enclosure.matrices import Balls
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth.request import Request, pooling, reference, targets
from toyiwae.truth.source import Numbers


def evidence_key(name: str) -> tuple[str, str]:
    """Where `Numbers.precise` has ∇ log p(x) by a parameter."""
    return ("evidence", name)


def enclosed(
    numbers: Numbers, request: Request, estimator: Estimator, name: str, k: int, m: int, bits: int
) -> dict[str, Balls] | None:
    """The quantities of `Moments` as balls, None where one does not exist; None where no balls are known.

    Formula: snr-bias-rmse.

    Args:
        numbers: what is known.
        request: what was asked for.
        estimator: one with a Form.
        name: the parameter.
        k: K.
        m: M.
        bits: the working precision.
    """
    assert estimator.form is not None
    part = request.part[name]
    known = numbers.precise.get((estimator.form, name))
    if known is None:
        return None
    total, repeats = pooling(estimator.form, part, k, m)
    index = request.particles.index(total)
    with ctx.workprec(bits):
        mean, limit, shift = known["mean"][index], known["limit"], known["shift"][index]
        bias = np.full(mean.shape, arb(0), dtype=object)
        if targets(estimator, k, m)[part] is None:
            other = numbers.precise[reference(1.0), name]
            bias = limit - other["limit"] + (shift - other["shift"][request.particles.index(k)])
        if "var" not in known:
            return {"mean": mean, "bias": bias}
        var, distance = known["var"][index] / repeats, limit - numbers.precise[evidence_key(name)] + shift
        rmse, from_evidence = (_root(error * error + var) for error in (bias, distance))
        return {
            "mean": mean,
            "var": var,
            "snr": _snr(mean, var),
            "bias": bias,
            "rmse": rmse,
            "rmse_evidence": from_evidence,
        }


def rounded(found: dict[str, Balls], known: Mapping[str, Bounded | None]) -> dict[str, Bounded | None]:
    """The numbers that are not recomputed elsewhere, as float64 with errors; where there is no ball, the known ones."""
    result = dict(known)
    for name in ("snr", "bias", "rmse", "rmse_evidence"):
        plain = known.get(name)
        if plain is not None and name in found:
            result[name] = Bounded(
                *np.vectorize(_rounded, otypes=[float, float])(found[name], plain.value, plain.error)
            )
    return result


def _rounded(ball: arb | None, value: float, error: float) -> tuple[float, float]:
    if ball is None:
        return value, error
    middle = float(ball.mid())
    return middle, float(ball.rad()) * (1 + 2 * EPS) + EPS * abs(middle)


def _snr(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """|mean| / √var; None where the variance is not told from 0."""
    pairs = zip(mean.ravel(), var.ravel(), strict=True)
    found = [abs(arb(a)) / arb(b).sqrt() if arb(b) > 0 else None for a, b in pairs]
    return _array(found, mean.shape)


def _root(squares: np.ndarray) -> np.ndarray:
    """√x of balls of numbers x ≥ 0."""
    found = []
    for x in map(arb, squares.ravel()):
        half = x.abs_upper().sqrt() / 2
        found.append(x.sqrt() if x > 0 else half + arb(0, half.upper()))
    return _array(found, squares.shape)


def _array(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found.reshape(shape)
