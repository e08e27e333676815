"""One answer for every K: closed forms at K = 1, integrals elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toyiwae.oracle.finite_k.gradients import GradientEngine, GradientMoments, moments_of_one
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm, variance_of_one
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.special import log1pmx


def moments_for_all(
    law: Any,
    components: dict[int, Any],
    particles: Sequence[int],
    engine: GradientEngine | None,
) -> GradientMoments:
    """The moments for every K: closed form at K = 1 (and for uniform weights), integrals elsewhere."""
    many = engine.moments(components) if engine is not None else None
    found, position = [], 0
    for k in particles:
        if k == 1 or many is None:
            found.append((moments_of_one(law, components, float(k)), 0))
        else:
            found.append((many, position))
            position += 1
    stacked = (
        _stack([getattr(source, name) for source, _ in found], [at for _, at in found])
        for name in ("shift", "var", "mean")
    )
    return GradientMoments(found[0][0].limit, *stacked)


def _stack(parts: list[Bounded], columns: list[int]) -> Bounded:
    pairs = list(zip(parts, columns, strict=True))
    value, error = (
        np.stack([getattr(part, n)[:, at] for part, at in pairs], axis=1) for n in ("value", "error")
    )
    return Bounded(value, error)


def insert_single(particles: Sequence[int], many: Bounded | None, one: Bounded) -> Bounded:
    """Columns for all K, from those with K > 1 and that of K = 1."""
    column = np.cumsum([k > 1 for k in particles]) - 1
    pick = [(many, int(c)) if k > 1 else (one, 0) for k, c in zip(particles, column, strict=True)]
    return Bounded(
        np.stack([source.value[:, c] for source, c in pick if source], axis=1),
        np.stack([source.error[:, c] for source, c in pick if source], axis=1),
    )


def joined(parts: list[Bounded], back: np.ndarray) -> Bounded:
    """One batch of rows below the other, brought back to the rows' own order by the indices `back`."""
    value, error = (np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "error"))
    return Bounded(value[back], error[back])


def first_gap(law: GaussianLaw) -> Bounded:
    """KL(q‖p) of each row: -E[log w] = Σ [h²/(2(1+β)) - ½(log(1+β) - β)]: [N, 1]."""
    beta, size = law.beta, 1.0 + law.beta
    terms = law.h**2 / (2.0 * size) - 0.5 * log1pmx(beta)
    slack = (
        law.beta_error / (2 * size) * (np.abs(beta) + law.h**2 / size) + law.h_error * np.abs(law.h) / size
    )
    slack = slack + 0.5 * law.h_error**2 + 0.25 * law.beta_error**2
    error = 8 * EPS * np.abs(terms).sum(axis=1) + slack.sum(axis=1)
    return Bounded(terms.sum(axis=1)[:, None], error[:, None])


def log_variance(
    law: Any,
    engine: LogEngine | None,
    score: Any,
    form: LogForm,
    log_evidence: Bounded,
    particles: Sequence[int],
) -> Bounded:
    """Variance for every K; at K = 1 with leave-one-out terms an infinite error says that there is none: [N, nK, F].

    What log Z is off by moves it by at most 2|λ| √(Var[Σ s] Var[Δ]) times that, to first order.
    """
    many = engine.log_variance(score, form, log_evidence.value) if engine is not None else None
    one = variance_of_one(law, score, form, log_evidence.value)
    if form.others or form.constant:
        one = Bounded(np.zeros_like(one.value), np.full_like(one.value, np.inf))
    found = insert_single(particles, many, one)
    if not form.evidence:
        return found
    centred = score.less(law.moment(0, (score,)).value)
    of_scores = law.moment(0, (centred, centred)).value[:, None, :]
    of_scores = of_scores * np.asarray(particles, dtype=float)[:, None]
    moved = 2.0 * abs(form.evidence) * np.sqrt(of_scores * np.maximum(found.value, 0.0))
    return Bounded(found.value, found.error + moved * log_evidence.error[:, None, None])
