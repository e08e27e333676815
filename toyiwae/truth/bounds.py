"""Linear combinations of bounds, such as the jackknife's: their values, and the means of their gradients.

`B = Σ_t c_t L_{k_t}` with `Σ c_t = 1`, so that log Z, and the part of a gradient that no K changes, enter once, and
only gaps and shifts are weighted. The jackknife's weights grow like K^m/m! and cancel all but a part `K^-m` of the
gaps, more than float64 has for large K: then `refine` computes the terms with so many digits that the rest is accurate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import Bound
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.truth.averages import Averaged, Bounds
from toyiwae.truth.request import Job, reference


@dataclass(frozen=True, eq=False)
class Combined:
    """The number of a linear combination.

    Attributes:
        number: with its error.
        scale: its natural scale.
        size: Σ of the absolute values of the terms that it is the sum of.
        why: why it was not computed more accurately, for a message.
        text: with the digits that were asked for.
    """

    number: Bounded
    scale: Any
    size: Any
    why: str = "ball arithmetic did not help"
    text: Any = None


def value(bound: Bound, evidence: Bounded, known: Bounds, particles: Sequence[int]) -> Combined:
    """`B = Σ_t c_t (log Z + log E[w^e]/e - gap_t/e)`, averaged over the observations.

    Formula: linear-combination.

    Args:
        bound: the combination.
        evidence: log Z of each observation [N].
        known: the bounds of w^e.
        particles: K of their columns.
    """
    whole = (evidence + known.log_mean / bound.exponent) * Bounded.rounded(float(bound.total))
    parts = [
        known.gap[:, particles.index(k)] * Bounded.rounded(-c / bound.exponent, 2) for k, c in bound.terms
    ]
    return Combined(sum(parts, whole).mean(), 1.0, abs(whole.value))


def mean(bound: Bound, name: str, gradients: Mapping[Job, Averaged], particles: Sequence[int]) -> Combined:
    """`∇B = Σ_t c_t (limit + shift_t)`, in the parameter's shape; its scale is the deviation of its last term."""
    job = (reference(bound.exponent), name)
    known, columns = gradients[job], [particles.index(k) for k, _ in bound.terms]
    whole = known.limit * Bounded.rounded(float(bound.total))
    parts = [known.shift[i] * Bounded.rounded(c) for i, (_, c) in zip(columns, bound.terms, strict=True)]
    size = sum((abs(part.value) for part in parts), abs(whole.value))
    return Combined(sum(parts, whole), deviation(gradients, job, columns[-1]), size)


def deviation(gradients: Mapping[Job, Averaged], job: Job, at: int | slice = slice(None)) -> np.ndarray:
    """The natural scale of a mean, at each K `[nK, *shape]` or at one: the larger deviation of it and of IWAE's."""
    variances = [gradients[one].var.value[at] for one in (job, (reference(1.0), job[1]))]
    return np.sqrt(np.maximum(np.maximum(*variances), 0.0))
