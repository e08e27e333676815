"""What covers all coordinates of a part together: covariances and directional SNRs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.oracle.finite_k.directional import directional_snr
from toyiwae.oracle.laws.bounded import Bounded, concatenate
from toyiwae.truth.accuracy import masked
from toyiwae.truth.digits import Multiprecision
from toyiwae.truth.request import Request, pooling
from toyiwae.truth.results import Moments
from toyiwae.truth.source import Numbers


def directions(
    numbers: Numbers,
    request: Request,
    estimator: Estimator,
    parameters: dict[str, Moments],
    k: int,
    m: int,
) -> tuple[dict[str, Any], list[str | None]]:
    """Covariances and directional SNRs of both parts with their errors, and why one is missing."""
    names = ("cov", "cov_error", "directional_snr", "directional_snr_error")
    joint: dict[str, dict[str, Any]] = {name: {} for name in names}
    reasons: list[str | None] = []
    if not request.joint:
        return {}, []
    for part, members in request.parts.items():
        found = numbers.covariances.get((estimator.form, part)) if estimator.form is not None else None
        entry: tuple[Any, ...] = (None, None, None, None)
        if found is None:
            reasons.append(f"no closed form: the covariance of {estimator.name} is not derived")
        else:
            cov = _covariance(numbers, request, estimator.form, part, k, m)
            std = np.sqrt(np.maximum(np.diag(cov.value), 0.0))
            scale, why = np.multiply.outer(std, std), "ask with digits="
            kept, reason = masked(f"the covariance of {estimator.name} at K = {k}", cov, scale, why)
            mean = concatenate([_flat(parameters[n].mean, parameters[n].mean_error) for n in members])
            what = f"the directional SNR of {estimator.name} at K = {k}"
            snr, error, worse = _along(what, part, mean, cov)
            reasons += [reason, worse]
            entry = (kept.value, kept.error, snr, error)
        for name, value in zip(names, entry, strict=True):
            joint[name][part] = value
    return joint, reasons


def _covariance(numbers: Numbers, request: Request, form: Any, part: str, k: int, m: int) -> Bounded:
    """Of one replicate; on the diagonal stand the variances, which may be more accurate."""
    total, repeats = pooling(form, part, k, m)
    index = request.particles.index(total)
    found = numbers.covariances[form, part][index].copy()
    variances = [numbers.gradients[form, name].var[index] for name in request.parts[part]]
    diagonal = concatenate([_flat(var.value, var.error) for var in variances])
    one = np.eye(len(diagonal.value), dtype=bool)
    value, error = (
        np.where(one, d, f) for d, f in ((diagonal.value, found.value), (diagonal.error, found.error))
    )
    return Bounded(value, error) / float(repeats)


def proven_covariances(
    numbers: Numbers, request: Request, estimator: Estimator, k: int, m: int, finer: Multiprecision
) -> dict[str, np.ndarray]:
    """Part -> covariances of one replicate with the digits that were asked for."""
    found, form = {}, estimator.form
    for part in request.parts:
        balls = numbers.precise.get(("cov", form, part))
        if form is not None and balls is not None:
            total, repeats = pooling(form, part, k, m)
            found[part] = finer.texts(finer.divided(balls[request.particles.index(total)], repeats))
    return found


def _along(
    what: str, part: str, mean: Bounded, cov: Bounded
) -> tuple[float | None, float | None, str | None]:
    """A directional SNR with its error, or why there is none."""
    if not mean.value.any():
        return None, None, f"{what}: the mean of the {part}'s gradient is zero and has no direction"
    found = directional_snr(mean, cov)
    if np.isinf(found.value):
        return None, None, f"{what} is infinite: the {part}'s gradient does not vary across its mean"
    if np.isnan(found.value):
        return None, None, f"{what}: how the {part}'s gradient varies across its mean is not told from zero"
    found, reason = masked(what, found, 0.0, "ball arithmetic does not serve it")
    return number(found.value), number(found.error), reason


def _flat(value: Any, error: Any) -> Bounded:
    return Bounded(np.ravel(value), np.ravel(error))


def number(value: Any) -> float | None:
    """A float; None for NaN."""
    return None if math.isnan(float(value)) else float(value)
