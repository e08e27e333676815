"""Score-function estimators of `∇L_K`, which need no reparameterisation: plain, and VIMCO's two baselines."""

import math

from array_api_compat import array_namespace

from toyiwae.estimators.claims import both, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, log_mean_exp, log_normalise, log_others, mean_log_others, normalise


def _scored(weights: Array, learning_signal: Array) -> Coefficients:
    """`a = w̃/M`, `b = 0`, `c = signal/M`."""
    groups = weights.shape[-2]
    none = array_namespace(weights).zeros_like(weights)
    return Coefficients(model=weights / groups, path=none, score=learning_signal / groups)


@estimator(
    target=both(iwae_bound),
    form=Form(model={1: 1}, score={1: -1}, log_evidence=1),
    shift_invariant=False,
    cite="mnih2016vimco",
)
def score_function(log_w: Array) -> Coefficients:
    """Score function: naive Monte Carlo, every particle credited with the whole bound.

    `a = w̃/M`, `b = 0`, `c = (log Ẑ − w̃)/M`; unbiased for `∇L_K`. Its variance depends on the scale of
    `p(x)`.

    References:
        mnih2016vimco
    """
    weights = normalise(log_w)
    return _scored(weights, log_mean_exp(log_w)[..., None] - weights)


@estimator(
    target=both(iwae_bound),
    form=Form(model={1: 1}, score={1: -1}, log_evidence=1, leave_one_out=-1),
    min_particles=2,
    cite="mnih2016vimco",
)
def vimco_arithmetic(log_w: Array) -> Coefficients:
    """VIMCO: the baseline is the bound with the others' arithmetic mean in the particle's place.

    `a = w̃/M`, `b = 0`, `c = (log Ẑ − L̂_-k − w̃)/M`; unbiased for `∇L_K`. Since
    `L̂_-k = log (1/K)(S_-k + S_-k/(K−1)) = log S_-k/(K−1)`, the signal is `log(1−1/K) − log(1−w̃) − w̃`.

    References:
        mnih2016vimco
    """
    weights = normalise(log_w)
    return _scored(weights, math.log1p(-1.0 / log_w.shape[-1]) - log_others(log_w) - weights)


@estimator(
    target=both(iwae_bound),
    form=Form(model={1: 1}, score={1: -1}, log_evidence=1, leave_one_out_geometric=-1),
    min_particles=2,
    cite="mnih2016vimco",
)
def vimco_geometric(log_w: Array) -> Coefficients:
    """VIMCO: the baseline is the bound with the others' geometric mean in the particle's place.

    `a = w̃/M`, `b = 0`, `c = (log Ẑ − L̂_-k − w̃)/M`; unbiased for `∇L_K`. In units of the group's sum,
    `log Ẑ − L̂_-k = −log[(1−w̃) + exp 1/(K−1) Σ_{i≠k} log w̃_i]`.

    References:
        mnih2016vimco
    """
    geometric = mean_log_others(log_normalise(log_w))
    weights, others = normalise(log_w), log_others(log_w)
    return _scored(weights, -array_namespace(weights).logaddexp(others, geometric) - weights)
