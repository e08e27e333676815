"""From the oracle's answers to cells: bounds, and every estimator's mean, variance, SNR, bias and RMSE, with errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.forms import Bound, Form
from toyiwae.oracle.finite_k.directional import directional_snr
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth.accuracy import withheld, zero_scale
from toyiwae.truth.bounds import Mixtures
from toyiwae.truth.refine import Answers, GradientAnswer
from toyiwae.truth.request import at_particles, log_part, pooling, reference, targets
from toyiwae.truth.results import Cell, GradientTruth, Moments

_NO_FORM = "no closed form: the estimator has no Form and declares no target"
_NO_VARIANCE = "no closed form: the variance of {name} at this parameter is not derived"


class Cells:
    """The cells of one result.

    Args:
        answers: what the oracle said.
        refused: estimator -> why nothing of it exists.
        joint: also covariances between coordinates and directional SNRs.
    """

    def __init__(self, answers: Answers, refused: dict[str, str], *, joint: bool):
        """Asks for the covariances, if they are wanted."""
        self.answers, self.refused = answers, refused
        self.questions, self.source = answers.questions, answers.source
        self.mixtures = Mixtures(answers)
        self.covariances = self._joint() if joint else None

    def cell(self, estimators: Sequence[Estimator], k: int, m: int) -> Cell:
        """The cell (k, m)."""
        known = self.answers.bounds[1.0]
        column = known.particles.index(k)
        gap, ess = (Bounded(e.value[:, column], e.error[:, column]) for e in (known.gap, known.ess))
        evidence = Bounded(self.source.log_evidence, self.source.log_evidence_error)
        bound = _average(
            Bounded(evidence.value - gap.value, evidence.error + gap.error + EPS * np.abs(evidence.value))
        )
        per_row = None
        if self.source.many_rows:
            per_row = {"gap": gap.value, "gap_error": gap.error, "ess": ess.value, "ess_error": ess.error}
        why = known.why or "it is not told from zero"
        mean_gap, mean_ess = _average(gap), _average(ess)
        numbers: dict[str, Any] = {}
        reasons = []
        for name, found, scale in (
            ("bound", bound, 1.0),
            ("gap", mean_gap, zero_scale(mean_gap.value, 1.0)),
            ("ess", mean_ess, 0.0),
        ):
            kept, reason = withheld(f"{name} at K = {k}", found, scale, why)
            numbers |= {name: _number(kept.value), f"{name}_error": _number(kept.error)}
            reasons.append(reason)
        truths = {e.name: self._truth(e, k, m) for e in estimators}
        return Cell(
            k,
            m,
            **numbers,
            gradients=truths,
            per_row=per_row,
            reason=_joined(reasons),
            decimals=self._bound_decimals(column),
        )

    def _bound_decimals(self, column: int) -> dict[str, str] | None:
        exact = self.answers.bounds[1.0].exact
        if exact is None or self.answers.digits is None:
            return None
        finer = self.answers.precise
        gap = finer.average(exact.gap[:, column])
        return {
            "bound": finer.text(finer.average(finer.log_evidence) - gap),
            "gap": finer.text(gap),
            "ess": finer.text(finer.average(exact.ess[:, column])),
        }

    # one estimator ---------------------------------------------------------------------------------------------------

    def _truth(self, estimator: Estimator, k: int, m: int) -> GradientTruth:
        if estimator.name in self.refused:
            reason = self.refused[estimator.name]
            nothing = Moments(None, None, None, None, None, reason=reason)
            return GradientTruth(None, None, dict.fromkeys(self.questions.parameters, nothing), reason=reason)
        model, proposal = targets(estimator, k, m)
        parameters = {}
        for name in self.questions.parameters:
            target = model if self.questions.part(name) == "model" else proposal
            parameters[name] = self._moments(estimator, name, target, k, m)
        climbed = proposal or model
        value = error = reason = decimals = None
        if climbed is not None:
            found = self.mixtures.value(climbed)
            kept, reason = withheld("target_bound", found.estimate, 1.0, found.why)
            value, error = _number(kept.value), _number(kept.error)
            decimals = None if found.text is None else {"target_bound": found.text}
        joint, missing = self._directions(estimator, parameters, k, m)
        reason = _joined([reason, missing])
        return GradientTruth(value, error, parameters, *joint, reason=reason, decimals=decimals)

    def _moments(self, estimator: Estimator, name: str, target: Bound | None, k: int, m: int) -> Moments:
        form = estimator.form
        if form is None:
            return self._formless(estimator, name, target)
        answer = self.answers.gradients[form, name]
        total, repeats = pooling(form, self.questions.part(name), k, m)
        index = self.questions.particles.index(total)
        scale = self.answers.spread(self.answers.gradients, (form, name))[index]
        label = f"the mean of {estimator.name} at K = {k}"
        why = answer.why or "mpmath did not help"
        mean, reason = withheld(label, _at(answer.mean, index), scale, why)
        bias = self._bias(answer, index, Bound.iwae(k), name) if target is None else _zeros(mean.value)
        distance = self._from_evidence(answer, index, name)
        spread, missing = self._spread(estimator, name, total, scale)
        derived = {"bias": bias.value, "bias_error": bias.error}
        decimals = self._moment_decimals(answer, index, repeats)
        if spread is None:
            reason = _joined([reason, missing])
            none = {"snr": None, "mean_error": mean.error, "var_error": None}
            return Moments(mean.value, None, **none, **derived, reason=reason, decimals=decimals)
        var = Bounded(spread.value / repeats, spread.error / repeats)
        var = Bounded(np.maximum(var.value, 0.0), var.error)
        numbers = {"mean": mean, "var": var, "snr": _snr(mean, var)}
        numbers |= {"bias": bias, "rmse": _rmse(bias, var), "rmse_evidence": _rmse(distance, var)}
        fields = {key: found.value for key, found in numbers.items()}
        fields |= {f"{key}_error": found.error for key, found in numbers.items()}
        return Moments(**fields, reason=_joined([reason, missing]), decimals=decimals)

    def _formless(self, estimator: Estimator, name: str, target: Bound | None) -> Moments:
        """What is known of an estimator without a Form: its mean, by its target."""
        if target is None:
            return Moments(None, None, None, None, None, reason=_NO_FORM)
        found = self.mixtures.mean(target, name)
        kept, reason = withheld(f"the mean of {estimator.name}", found.estimate, found.scale, found.why)
        zero = np.zeros_like(kept.value)
        reason = _joined([reason, _NO_VARIANCE.format(name=estimator.name)])
        decimals = None if found.text is None else {"mean": found.text}
        return Moments(
            kept.value, None, None, kept.error, None, zero, bias_error=zero, reason=reason, decimals=decimals
        )

    def _spread(
        self, estimator: Estimator, name: str, total: int, scale: np.ndarray
    ) -> tuple[Bounded | None, str | None]:
        """The variance of one group's gradient, with NaN where it is not accurate; or why there is none."""
        form = estimator.form
        assert form is not None
        what = f"the variance of {estimator.name} at K = {total}"
        if log_part(form, self.questions.part(name)):
            found, missing = self.answers.log_variance((at_particles(form, total), name), total)
            if found is None:
                return None, f"the variance of {estimator.name} at this parameter is {missing}"
            return withheld(what, found, 0.0, "logarithms are not computed with mpmath")
        answer = self.answers.gradients[form, name]
        found = _at(answer.var, self.questions.particles.index(total))
        why = answer.why or "mpmath did not help"
        return withheld(what, found, zero_scale(found.value, scale**2), why)

    def _moment_decimals(self, answer: GradientAnswer, index: int, repeats: int) -> dict[str, Any] | None:
        if not answer.exact:
            return None
        finer = self.answers.precise
        divided = {"mean": 1, "var": repeats}
        return {name: finer.texts(array[index] / divided[name]) for name, array in answer.exact.items()}

    def _bias(self, answer: GradientAnswer, index: int, bound: Bound, name: str) -> Bounded:
        """The mean less the gradient of a bound of one term."""
        (k, _), *_ = bound.terms
        other = self.answers.gradients[reference(bound.exponent), name]
        at = self.questions.particles.index(k)
        return _difference(answer, index, other.limit, _at(other.shift, at))

    def _from_evidence(self, answer: GradientAnswer, index: int, name: str) -> Bounded:
        limit = self.answers.gradients[reference(1.0), name].limit
        return _difference(answer, index, limit, _zeros(limit))

    # all coordinates together ----------------------------------------------------------------------------------------

    def _joint(self) -> dict[Any, Bounded]:
        """Covariances of every form that is polynomial in the part."""
        forms = {e.form for e in self.questions.estimators if e.form is not None}
        return {
            (form, part): self.source.covariance(form, names, self.questions.particles)
            for form in forms
            for part, names in self.questions.parts.items()
            if part == "model" or not form.has_log_terms
        }

    def _covariance(
        self, found: Bounded, form: Form, names: Sequence[str], total: int, repeats: int
    ) -> Bounded:
        """Of one replicate; on the diagonal stand the variances, which may be more accurate."""
        index = self.questions.particles.index(total)
        value, error = found.value[index].copy(), found.error[index].copy()
        variances = [_at(self.answers.gradients[form, name].var, index) for name in names]
        np.fill_diagonal(value, np.concatenate([np.ravel(var.value) for var in variances]))
        np.fill_diagonal(error, np.concatenate([np.ravel(var.error) for var in variances]))
        return Bounded(value / repeats, error / repeats)

    def _directions(
        self, estimator: Estimator, parameters: dict[str, Moments], k: int, m: int
    ) -> tuple[tuple[Any, Any, Any, Any], str | None]:
        """Covariances and directional SNRs of both parts with their errors, and why one is missing."""
        form = estimator.form
        joint: tuple[dict, dict, dict, dict] = ({}, {}, {}, {})
        reasons: list[str | None] = []
        if self.covariances is None:
            return (None, None, None, None), None
        for part, names in self.questions.parts.items():
            found = None if form is None else self.covariances.get((form, part))
            if form is None or found is None:
                reasons.append(f"no closed form: the covariance of {estimator.name} is not derived")
                entry: tuple[Any, ...] = (None, None, None, None)
            else:
                total, repeats = pooling(form, part, k, m)
                cov = self._covariance(found, form, names, total, repeats)
                std = np.sqrt(np.maximum(np.diag(cov.value), 0.0))
                what = f"the covariance of {estimator.name} at K = {k}"
                kept, reason = withheld(
                    what, cov, np.multiply.outer(std, std), "mpmath serves variances only"
                )
                values, errors = (
                    np.concatenate([np.ravel(getattr(parameters[name], field)) for name in names])
                    for field in ("mean", "mean_error")
                )
                what = f"the directional SNR of {estimator.name} at K = {k}"
                snr, error, worse = _along(what, part, Bounded(values, errors), cov)
                reasons += [reason, worse]
                entry = (kept.value, kept.error, snr, error)
            for into, value in zip(joint, entry, strict=True):
                into[part] = value
        return joint, _joined(reasons)


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
    found, reason = withheld(what, found, 0.0, "mpmath serves neither covariances nor what follows from them")
    return _number(found.value), _number(found.error), reason


def _at(found: Bounded, index: int) -> Bounded:
    return Bounded(found.value[index], found.error[index])


def _zeros(like: np.ndarray) -> Bounded:
    return Bounded(np.zeros_like(like), np.zeros_like(like))


def _average(found: Bounded) -> Bounded:
    return Bounded(np.asarray(np.mean(found.value)), np.asarray(np.mean(found.error)))


def _number(value: Any) -> float | None:
    return None if math.isnan(float(value)) else float(value)


def _joined(reasons: Sequence[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None


def _difference(answer: GradientAnswer, index: int, limit: np.ndarray, shift: Bounded) -> Bounded:
    """Limits and shifts subtracted apart, so that what is small keeps its accuracy."""
    moved = answer.limit - limit
    own = _at(answer.shift, index)
    rounding = 4 * EPS * np.where(moved == 0.0, 0.0, np.abs(answer.limit) + np.abs(limit))
    value = moved + (own.value - shift.value)
    return Bounded(value, own.error + shift.error + rounding + EPS * np.abs(value))


def _snr(mean: Bounded, var: Bounded) -> Bounded:
    """|mean| / √var."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.abs(mean.value) / np.sqrt(var.value)
        least = np.sqrt(np.maximum(var.value - var.error, 0.0))
        error = mean.error / least + value * var.error / (2 * least * np.sqrt(var.value))
        return Bounded(value, error + 2 * EPS * value)


def _rmse(bias: Bounded, var: Bounded) -> Bounded:
    """√(bias² + var), whose error is that of the square over twice the root, or the root of it near zero."""
    value = np.sqrt(bias.value**2 + var.value)
    squared = 2 * np.abs(bias.value) * bias.error + bias.error**2 + var.error
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(squared < value**2, squared / value, np.sqrt(squared))
    return Bounded(value, error + 2 * EPS * value)
