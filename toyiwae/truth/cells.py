"""From numbers to cells: bounds, and every estimator's mean, variance, SNR, bias and RMSE, with errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flint import arb

from toyiwae.estimators import Estimator
from toyiwae.forms import Bound
from toyiwae.oracle.laws.bounded import Bounded, where
from toyiwae.truth import derived
from toyiwae.truth.accuracy import masked, zero_scale
from toyiwae.truth.averages import Averaged
from toyiwae.truth.bounds import Combined, deviation
from toyiwae.truth.digits import Multiprecision
from toyiwae.truth.directions import directions, number, proven_covariances
from toyiwae.truth.request import Request, at_particles, has_logarithms, pooling, reference, targets
from toyiwae.truth.results import Cell, GradientTruth, Moments
from toyiwae.truth.source import Numbers

_NO_FORM = "no closed form: the estimator has no Form and declares no target"
_NO_VARIANCE = "no closed form: the variance of {name} at this parameter is not derived"
_NOT_HELPED = "ball arithmetic did not help"


def cell(
    numbers: Numbers,
    request: Request,
    truths: dict[str, GradientTruth],
    k: int,
    m: int,
    finer: Multiprecision | None,
    *,
    by_row: bool,
) -> Cell:
    """The cell (k, m).

    Args:
        numbers: what is known.
        request: what was asked for.
        truths: estimator -> what `truth` says of it.
        k: K.
        m: M.
        finer: shows the digits that were asked for.
        by_row: whether gap and sample size are also given for each observation.
    """
    known, column = numbers.bounds[1.0], request.bound_particles[1.0].index(k)
    gap, ess = known.gap[:, column], known.ess[:, column]
    why = numbers.why.get(1.0, "it is not told from zero")
    means = {"bound": (numbers.evidence - gap).mean(), "gap": gap.mean(), "ess": ess.mean()}
    scales = {"bound": 1.0, "gap": zero_scale(means["gap"].value, 1.0), "ess": 0.0}
    fields: dict[str, Any] = {}
    reasons = []
    for name, found in means.items():
        kept, reason = masked(f"{name} at K = {k}", found, scales[name], why)
        fields |= {name: number(kept.value), f"{name}_error": number(kept.error)}
        reasons.append(reason)
    rows = {"gap": gap.value, "gap_error": gap.error, "ess": ess.value, "ess_error": ess.error}
    exact, decimals = numbers.precise.get(1.0), None
    if finer is not None and exact is not None:
        precise_gap = finer.average(exact.gap[:, column])
        decimals = {
            "bound": finer.text(finer.less(finer.average(finer.log_evidence), precise_gap)),
            "gap": finer.text(precise_gap),
            "ess": finer.text(finer.average(exact.ess[:, column])),
        }
    per_row = rows if by_row else None
    return Cell(k, m, **fields, gradients=truths, per_row=per_row, reason=_joined(reasons), decimals=decimals)


def nothing(request: Request, reason: str) -> GradientTruth:
    """An estimator of which no number exists."""
    moments = Moments(None, None, None, None, None, reason=reason)
    return GradientTruth(None, None, dict.fromkeys(request.part, moments), reason=reason)


def truth(
    numbers: Numbers, request: Request, estimator: Estimator, k: int, m: int, finer: Multiprecision | None
) -> GradientTruth:
    """What is known of one estimator at (k, m)."""
    pair, parameters = targets(estimator, k, m), {}
    for name, part in request.part.items():
        known = (numbers, request, estimator, name)
        if estimator.form is not None:
            parameters[name] = _moments(*known, pair[part], k, m, finer)
        else:
            target = pair[part]
            parameters[name] = _by_target(*known, target and numbers.means[target, name], k, m, finer)
    bound = pair["proposal"] or pair["model"]
    value = error = reason = decimals = None
    if bound is not None:
        found = numbers.values[bound]
        kept, reason = masked("target_bound", found.number, found.scale, found.why)
        value, error = number(kept.value), number(kept.error)
        decimals = None if found.text is None else {"target_bound": found.text}
    joint, missing = directions(numbers, request, estimator, parameters, k, m)
    if finer is not None:
        covariances = proven_covariances(numbers, request, estimator, k, m, finer)
        decimals = {**(decimals or {}), **({"cov": covariances} if covariances else {})} or None
    return GradientTruth(
        value, error, parameters, **joint, reason=_joined([reason, *missing]), decimals=decimals
    )


# one parameter -----------------------------------------------------------------------------------------------------


def _moments(
    numbers: Numbers,
    request: Request,
    estimator: Estimator,
    name: str,
    target: Bound | None,
    k: int,
    m: int,
    finer: Multiprecision | None,
) -> Moments:
    """Of an estimator with a Form."""
    form, part = estimator.form, request.part[name]
    assert form is not None
    job, (total, repeats) = (form, name), pooling(form, part, k, m)
    known, index = numbers.gradients[job], request.particles.index(total)
    scale, why = deviation(numbers.gradients, job, index), numbers.why.get(job, _NOT_HELPED)
    mean, reason = masked(f"the mean of {estimator.name} at K = {k}", known.mean[index], scale, why)
    limit = numbers.gradients[reference(1.0), name]
    bias = Bounded.zeros(mean.shape)
    if target is None:
        bias = _difference(known, index, limit.limit, limit.shift[request.particles.index(k)])
    distance = _difference(known, index, limit.limit, Bounded.zeros(mean.shape))
    what, best = f"the variance of {estimator.name}", None
    if not has_logarithms(form, part):
        var = known.var[index]
        var, missing = masked(f"{what} at K = {total}", var, zero_scale(var.value, scale**2), why)
    else:
        found = numbers.log_variances[(at_particles(form, total), name), total]
        var, missing = found.var, f"{what} at this parameter is {found.reason}"
        if var is not None:
            why = numbers.why.get((*job, "var"), "ball arithmetic was not asked for: digits=")
            var, missing = masked(f"{what} at K = {total}", var, 0.0, why)
        if found.best is not None:
            best, unknown = masked(
                f"the best constant of {estimator.name} at K = {total}", found.best, 1.0 / total, _NOT_HELPED
            )
            best, missing = best / float(repeats), _joined([missing, unknown])
    fields: dict[str, Bounded | None] = {
        "mean": mean,
        "var": None,
        "snr": None,
        "bias": bias,
        "best_constant": best,
    }
    if var is not None:
        var = (var / float(repeats)).clip(low=0.0)
        fields |= _ratios(mean, var, bias, distance)
        missing = _joined([missing, _no_ratio(mean, var, request.free[name])])
    decimals, balls = None, finer and derived.enclosed(numbers, request, estimator, name, k, m, finer.bits)
    if finer and balls:
        fields, decimals = derived.rounded(balls, fields), {key: finer.texts(x) for key, x in balls.items()}
    return Moments(**_plain(fields), reason=_joined([reason, missing]), decimals=decimals)


def _by_target(
    numbers: Numbers,
    request: Request,
    estimator: Estimator,
    name: str,
    found: Combined | None,
    k: int,
    m: int,
    finer: Multiprecision | None,
) -> Moments:
    """What is known of an estimator without a Form: its mean, by its target; its variance, if it averages subsets."""
    if found is None:
        return Moments(None, None, None, None, None, reason=_NO_FORM)
    kept, reason = masked(f"the mean of {estimator.name}", found.number, found.scale, found.why)
    fields: dict[str, Bounded | None] = {
        "mean": kept,
        "var": None,
        "snr": None,
        "bias": Bounded.zeros(kept.shape),
    }
    missing = _NO_VARIANCE.format(name=estimator.name)
    if estimator.subsets is not None:
        known = numbers.subset_variances[estimator.subsets, name][request.counts.index(k)]
        missing = f"the variance of {estimator.name} at this parameter is {known.reason}"
        if known.var is not None:
            what = f"the variance of {estimator.name} at K = {k}"
            var, missing = masked(what, known.var, zero_scale(known.var.value, found.scale**2), _NOT_HELPED)
            distance = found.number - numbers.gradients[reference(1.0), name].limit
            fields |= _ratios(kept, (var / float(m)).clip(low=0.0), fields["bias"], distance)
            missing = _joined([missing, _no_ratio(kept, var, request.free[name])])
    decimals = None
    if finer is not None:
        decimals = {"mean": found.text, "bias": finer.texts(np.full(kept.shape, arb(0), dtype=object))}
    return Moments(**_plain(fields), reason=_joined([reason, missing]), decimals=decimals)


def _ratios(mean: Bounded, var: Bounded, bias: Any, distance: Bounded) -> dict[str, Bounded | None]:
    """The variance of one replicate, and what follows from it."""
    rmse, from_evidence = ((error * error + var).sqrt() for error in (bias, distance))
    return {"var": var, "snr": _snr(mean, var), "rmse": rmse, "rmse_evidence": from_evidence}


def _plain(fields: Mapping[str, Bounded | None]) -> dict[str, Any]:
    values = {field: found and found.value for field, found in fields.items()}
    return values | {f"{field}_error": found and found.error for field, found in fields.items()}


def _difference(known: Averaged, index: int, limit: Bounded, shift: Bounded) -> Bounded:
    """Limits and shifts subtracted apart, so that what is small keeps its accuracy.

    Equal limits with equal bounds are the means of the same polynomials: what they are off by cancels.
    """
    same = (known.limit.value == limit.value) & (known.limit.error == limit.error)
    return where(same, 0.0, known.limit - limit) + (known.shift[index] - shift)


def _no_ratio(mean: Bounded, var: Bounded, free: np.ndarray) -> str | None:
    """Why a parameter has no SNR in some entries: zero by definition, or no variance to divide by."""
    still = (var.value == 0.0) & free
    reasons = []
    if not free.all():
        reasons.append("no SNR of the entries above the diagonal, which are zero by definition")
    if (still & (mean.value == 0.0)).any():
        reasons.append("no SNR where mean and variance are zero")
    if (still & (mean.value != 0.0)).any():
        reasons.append("the SNR is infinite where the variance is zero and the mean is not")
    return _joined(reasons)


def _snr(mean: Bounded, var: Bounded) -> Bounded:
    """|mean| / √var; NaN where both are zero."""
    found = abs(mean) / var.sqrt()
    return Bounded(found.value, np.where(np.isnan(found.value), np.nan, found.error))


def _joined(reasons: Sequence[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None
