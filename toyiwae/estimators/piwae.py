"""The partially importance-weighted autoencoder: a target for each network."""

from toyiwae.estimators.claims import Target, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import Array, normalise


@estimator(
    target=Target(model=lambda particles, groups: Bound.iwae(groups * particles, "MK"), proposal=iwae_bound),
    form=Form(model={1: 1}, path={1: 1}, score={1: -1}, pooled=("model",)),
    cite="rainforth2018tighter",
)
def piwae(log_w: Array) -> Coefficients:
    """PIWAE: one bound over all `M·K` particles for the model, the average of M bounds for the proposal.

    `a = w / Σ_mk w_mk`, `b = w̃/M`, `c = −w̃/M`; unbiased for `∇θ L_MK` and `∇φ L_K`.

    References:
        rainforth2018tighter
    """
    weights = normalise(log_w) / log_w.shape[-2]
    return Coefficients(model=normalise(log_w, axis=(-2, -1)), path=weights, score=-weights)
