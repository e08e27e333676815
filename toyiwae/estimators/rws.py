"""Reweighted wake-sleep's wake-φ update: the proposal maximises `−KL(p‖q)`, self-normalised."""

from array_api_compat import array_namespace

from toyiwae.estimators.claims import Target, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, normalise


@estimator(
    target=Target(model=iwae_bound, proposal=None),
    form=Form(model={1: 1}, score={1: 1}),
    cite=("bornschein2015rws", "le2018aesmc"),
)
def rws_wake_phi(log_w: Array) -> Coefficients:
    """RWS wake-φ: the score, weighted.

    `a = w̃/M`, `b = 0`, `c = w̃/M`; unbiased for `∇θ L_K`. For φ it is unbiased for no bound, and tends to
    `−∇φ KL(p‖q)` as K → ∞.

    References:
        bornschein2015rws, le2018aesmc
    """
    weights = normalise(log_w) / log_w.shape[-2]
    return Coefficients(model=weights, path=array_namespace(weights).zeros_like(weights), score=weights)


@estimator(
    target=Target(model=iwae_bound, proposal=None),
    form=Form(model={1: 1}, path={1: 1, 2: -1}),
    vanishes_at_posterior=True,
    cite=("tucker2019dreg", "finke2019iwae"),
)
def rws_wake_phi_dreg(log_w: Array) -> Coefficients:
    """RWS wake-φ, doubly reparameterised: the same mean, along the path.

    `a = w̃/M`, `b = (w̃ − w̃²)/M`, `c = 0`.

    References:
        tucker2019dreg, finke2019iwae
    """
    weights, groups = normalise(log_w), log_w.shape[-2]
    none = array_namespace(weights).zeros_like(weights)
    return Coefficients(model=weights / groups, path=weights * (1.0 - weights) / groups, score=none)
