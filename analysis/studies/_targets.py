"""Linear-Gaussian problems whose posterior is given: what studies of a mismatch start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyiwae.problems.linear_gaussian import Data, Model, Problem
from toyiwae.problems.proposal import Proposal


def problem_with(posterior_mean: Any, posterior_cov: Any, proposal_mean: Any, proposal_cov: Any) -> Problem:
    """One observation of a model with the posterior N(m, P) asked for.

    The prior is N(−m, 3P) and x | z ~ N(z + b, 3P/2), so that the precisions are a third and two thirds of P⁻¹, and
    the posterior's mean, (−m + 2(x − b))/3, is m for x = 2m + b; b is 0.1 everywhere.

    Args:
        posterior_mean: m [D].
        posterior_cov: P [D, D].
        proposal_mean: of q [D].
        proposal_cov: of q [D, D].
    """
    mean, cov = np.asarray(posterior_mean, dtype=float), np.asarray(posterior_cov, dtype=float)
    offset = np.full(len(mean), 0.1)
    model = Model(-mean, 3.0 * cov, np.eye(len(mean)), offset, 1.5 * cov)
    return Problem(model, Proposal(proposal_cov, mean=proposal_mean), Data(2.0 * mean + offset))
