"""Enclosures of variances of gradients whose score coefficient carries the logarithm of a sum of weights.

    found = log_variances(problem, {"vimco": (form, "proposal_mean", None)}, [2, 1000, 10**6], digits=30)

All terms are in `log_terms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.coordinates import Job, Polynomials, by_job, by_law, coordinates
from toyiwae.oracle.enclosure.log_grid import LogGrid
from toyiwae.oracle.enclosure.log_terms import AtK, Score
from toyiwae.oracle.enclosure.matrices import Balls
from toyiwae.oracle.enclosure.moments import near_equal
from toyiwae.oracle.enclosure.precision import Found, add, converged
from toyiwae.oracle.enclosure.rows import SCORE
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.enclosure.weight_logs import contour
from toyiwae.oracle.finite_k.score_function import LogForm
from toyiwae.problems.linear_gaussian import Problem

_UPPER = 4.5  # of the grid's upper end: moments of fewer weights fall more slowly
_CANCELLED = 4.5  # powers of K that may cancel between the terms of a variance
_TOGETHER = 24  # scores whose transforms are held at once


def log_variances(
    problem: Problem, jobs: Mapping[Any, Job], particles: Sequence[int], *, digits: int = 30
) -> dict[Any, Balls]:
    """Variances of one replicate's gradient, log terms included, averaged over the observations: [nK, F].

    Args:
        problem: the problem; observations are sampled independently.
        jobs: key -> (form, parameter of the proposal, coordinates or None for all of them).
        particles: numbers of particles, at least 2.
        digits: significant decimal digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough, or for the exponent 0.
    """
    if any(form.exponent == 0.0 for form, _, _ in jobs.values()):
        raise PrecisionError("logarithms of weights to the power 0 are not enclosed")
    asked = coordinates(problem, jobs)

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row, scores in by_law(problem, asked, SCORE):
            if not scores.asked:
                continue
            exponent = scores.asked[0].form.exponent
            log_mean = exponent * row.log_evidence + row.law.log_moment(exponent)
            values = _variances(scores, log_mean, particles, nats)
            for one, which, factor in scores:
                scale = scores.scales[which] * factor.abs_upper()
                for k in particles:
                    var = values[LogForm.of(one.form), which, k]
                    add(found, ("var", k, one.key, one.index), var * factor**2, scale**2)
        return found

    return by_job(converged(evaluate, digits, particles), jobs, asked, "var", particles)


def _variances(
    scores: Polynomials, log_evidence: arb, particles: Sequence[int], nats: float
) -> dict[tuple[LogForm, int, int], arb]:
    """(Form, score, K) -> variance, of one observation."""
    law, wanted = scores.law, {(LogForm.of(one.form), which): None for one, which, _ in scores}
    plain, others = any(form.evidence for form, _ in wanted), any(form.others for form, _ in wanted)
    if plain and near_equal(law, particles, int(nats / 2.3)) is not None:
        raise PrecisionError(
            "the weights are too nearly equal for enclosures with the logarithm of the evidence"
        )
    log_k, found = float(np.log(max(particles))), {}
    nats, bits = nats + (_CANCELLED if others else 1.0) * log_k, int(1.45 * _CANCELLED * log_k) + 64
    every = [Score.of(law, part.parts[0], plain=plain) for part in scores.parts]
    for start in range(0, len(every), _TOGETHER):
        batch = every[start : start + _TOGETHER]
        requests = [request for score in batch for request in score.requests]
        sums = BallSums(law, particles, requests, nats, p=1, orders=[1, 2], upper=_UPPER)
        grid = LogGrid(sums, sums.bits + bits)
        with ctx.workprec(grid.bits):
            for k in particles:
                on = contour(law, grid, k, nats) if others else None
                at = {start + i: AtK(grid, score, k) for i, score in enumerate(batch)}
                for form, which in wanted:
                    if which in at and form.others:
                        assert on is not None
                        found[form, which, k] = at[which].others_var(form, on)
                    elif which in at:
                        found[form, which, k] = at[which].evidence_var(form, log_evidence)
    return found
