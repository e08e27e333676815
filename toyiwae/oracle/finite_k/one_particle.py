"""Moments of one particle's log-weight, in closed form, and the gap of K = 1 with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyiwae.oracle.laws.bounded import Bounded, where
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.spectrum import log1pmx


def mean_log(law: Any) -> Bounded:
    """E[log w] in units of the evidence: Σ ½ (log(1+β) - β) - h²/(2(1+β)): [N]."""
    if isinstance(law, DiscreteLaw):
        return law.log_moments((), 1)[1][:, 0]
    assert isinstance(law, GaussianLaw)
    beta, h = (Bounded(x, np.asarray(e)) for x, e in ((law.beta, law.beta_error), (law.h, law.h_error)))
    slope = (np.abs(beta.value) + beta.error) / (1.0 + beta.value - beta.error)
    of_beta = Bounded.rounded(log1pmx(beta.value), 4.0).widened(slope * beta.error)
    return (of_beta * 0.5 - h * h / (beta * 2.0 + 2.0)).sum(axis=-1)


def var_log(law: Any) -> Bounded:
    """Var[log w]: Σ β²/2 + h²: [N]."""
    if isinstance(law, DiscreteLaw):
        return law.log_moments((), 2, mean_log(law).value)[2][:, 0]
    beta, h = (Bounded(x, np.asarray(e)) for x, e in ((law.beta, law.beta_error), (law.h, law.h_error)))
    return (beta * beta * 0.5 + h * h).sum(axis=-1)


def first_gap(law: Any) -> Bounded:
    """KL(q‖p) of each observation: -E[log w] = Σ [h²/(2(1+β)) - ½(log(1+β) - β)]: [N, 1]. Formula: kl.

    Of finitely many states it is E[w - 1 - log w]: no term is negative, and what rounding leaves of E[w] - 1, which
    -E[log w] takes in as it is, enters to second order alone.
    """
    if not isinstance(law, DiscreteLaw):
        return -mean_log(law)[:, None]
    prob, near = Bounded.exact(law.log_prob).exp(), np.abs(law.log_w) < 1.0
    small = -prob * Bounded.rounded(log1pmx(np.expm1(np.where(near, law.log_w, 0.0))), 8.0)
    large = Bounded.rounded(law.log_prob + law.log_w).exp() - prob * (1.0 + law.log_w)
    return where(near, small, large).sum().reshape(1, 1)
