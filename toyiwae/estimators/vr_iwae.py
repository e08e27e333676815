"""The variational Rényi importance-weighted bound, between IWAE (α = 0) and the ELBO (α = 1)."""

from array_api_compat import array_namespace

from toyiwae.estimators.claims import BoundOf, both
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import Array, normalise, tempered

_ORDERS = (-1000.0, 1000.0)  # beyond, rounding of the log-weights is all that w^(1-α) shows


def _bound(alpha: float) -> BoundOf:
    """`1/(1−α) E log[(1/K) Σ w^(1−α)]`."""
    return lambda particles, groups: Bound.vr_iwae(alpha, particles, "K")


@estimator(
    target=lambda alpha: both(_bound(alpha)),
    value=_bound,
    form=lambda alpha: Form(model={1: 1}, path={1: 1}, score={1: -1}, exponent=1.0 - alpha),
    between=_ORDERS,
    cite="daudel2023alphadivergence",
)
def vr_iwae(log_w: Array, alpha: float = 0.5) -> Coefficients:
    """VR-IWAE: the reparameterised gradient of the bound of order α.

    `a = b = ṽ/M`, `c = −ṽ/M` with `ṽ = softmax((1−α)ℓ)`; unbiased for the gradient of its bound.

    References:
        daudel2023alphadivergence
    """
    weights = normalise(tempered(log_w, 1.0 - alpha)) / log_w.shape[-2]
    return Coefficients(model=weights, path=weights, score=-weights)


@estimator(
    target=lambda alpha: both(_bound(alpha)),
    value=_bound,
    form=lambda alpha: Form(model={1: 1}, path={1: alpha, 2: 1.0 - alpha}, exponent=1.0 - alpha),
    vanishes_at_posterior=True,
    between=_ORDERS,
    cite="daudel2023alphadivergence",
)
def vr_iwae_dreg(log_w: Array, alpha: float = 0.5) -> Coefficients:
    """VR-IWAE, doubly reparameterised: along the path alone; DReG at α = 0.

    `a = ṽ/M`, `b = (αṽ + (1−α)ṽ²)/M`, `c = 0` with `ṽ = softmax((1−α)ℓ)`; unbiased for the gradient of its
    bound.

    References:
        daudel2023alphadivergence, tucker2019dreg
    """
    weights, groups = normalise(tempered(log_w, 1.0 - alpha)), log_w.shape[-2]
    none = array_namespace(weights).zeros_like(weights)
    path = weights * (alpha + (1.0 - alpha) * weights) / groups
    return Coefficients(model=weights / groups, path=path, score=none)
