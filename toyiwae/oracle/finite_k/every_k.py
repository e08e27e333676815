"""One answer for every K: closed forms at K = 1, integrals elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from toyiwae.oracle.finite_k.gradients import GradientEngine, GradientMoments, limit_of, moments_of_one
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm, LogMoments, sample_covariance
from toyiwae.oracle.finite_k.score_function import moments_of_one as logs_of_one
from toyiwae.oracle.laws.bounded import Bounded, concatenate, stack


def moments_for_all(
    law: Any,
    components: dict[int, Any],
    particles: Sequence[int],
    engine: GradientEngine | None,
) -> GradientMoments:
    """The moments for every K: closed form at K = 1 (and for equal weights), integrals elsewhere."""
    many = engine and engine.moments(components)
    one = cache(lambda k: moments_of_one(law, components, k))
    shift, var, mean = (
        insert_single(particles, many and getattr(many, name), lambda k, name=name: getattr(one(k), name))
        for name in ("shift", "var", "mean")
    )
    return GradientMoments(limit_of(law, components), shift, var, mean)


def insert_single(
    particles: Sequence[int], many: Bounded | None, one: Bounded | Callable[[float], Bounded]
) -> Bounded:
    """Columns [N, nK, ...] for all K: those of the integrals for K ≥ 2, and that of a closed form [N, 1, ...] at K = 1.

    Where there are no integrals (equal weights, at any K) the closed form is a function of K.
    """
    closed = one if callable(one) else lambda k: one
    at, columns = 0, []
    for k in particles:
        columns.append(closed(float(k))[:, 0] if k == 1 or many is None else many[:, at])
        at += k != 1
    return stack(columns, axis=1)


def joined(parts: list[Bounded], back: np.ndarray) -> Bounded:
    """One batch of observations below the other, brought back to their own order by the indices `back`."""
    return concatenate(parts)[back]


def log_moments(
    law: Any,
    engine: LogEngine | None,
    score: Any,
    form: LogForm,
    log_evidence: Bounded,
    particles: Sequence[int],
) -> LogMoments:
    """Moments with logarithms for every K; at K = 1 with leave-one-out terms infinite errors say that there are none.

    What log Z is off by moves the variance by at most 2|λ| √(Var[T] Var[Δ]) times that, to first order, and the
    covariance with the sum T of scores by |λ| Var[T] times that.
    """
    if form.exponent == 0.0:
        return sample_covariance(law, score, form, particles)
    one = logs_of_one(law, score, form, log_evidence.value)
    var, both, none = one.var, one.with_scores, Bounded(np.zeros_like(one.var.value), np.array(np.inf))
    if form.others or form.constant:
        var = both = none
    many = engine and engine.log_variance(score, form, log_evidence.value)
    var = insert_single(particles, many, var)
    both = insert_single(particles, engine and engine.with_scores(score, form, log_evidence.value), both)
    of_scores = one.of_scores * np.asarray(particles, dtype=float)[:, None]
    if form.evidence:
        off = abs(form.evidence) * log_evidence.error[:, None, None]
        moved = (of_scores * var.clip(0.0)).sqrt() * 2.0
        var = var.widened((moved.value + moved.error) * off)
        both = both.widened((of_scores.value + of_scores.error) * off)
    return LogMoments(var, both, of_scores)
