"""OVIS: a score-function estimator whose baseline is optimal for many particles."""

import math

from array_api_compat import array_namespace

from toyiwae.estimators.claims import Target, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, log_others, normalise


@estimator(
    target=lambda gamma: Target(model=iwae_bound, proposal=iwae_bound if gamma == 0.0 else None),
    form=lambda gamma: Form(
        model={1: 1}, score={1: gamma - 1.0}, log_evidence=1, leave_one_out=-1, constant=gamma - 1.0
    ),
    vanishes_at_posterior=lambda gamma: gamma == 1.0,
    min_particles=2,
    between=(0.0, 1.0),
    cite="lievin2020ovis",
)
def ovis(log_w: Array, gamma: float = 1.0) -> Coefficients:
    """OVIS, asymptotic form: the score function with its optimal baseline for large effective sample sizes.

    `a = w̃/M`, `b = 0`, `c = (log Ẑ − log Ẑ_[-k] − (1−γ)w̃ − (1−γ) log(1−1/K))/M` with `Ẑ_[-k]` the mean of
    the other K−1 weights. At γ = 0 unbiased for `∇L_K`; at γ = 1 its mean is that of IWAE sticking the
    landing.

    References:
        lievin2020ovis
    """
    weights, (groups, particles) = normalise(log_w), log_w.shape[-2:]
    score = gamma * math.log1p(-1.0 / particles) - log_others(log_w) - (1.0 - gamma) * weights
    none = array_namespace(weights).zeros_like(weights)
    return Coefficients(model=weights / groups, path=none, score=score / groups)
