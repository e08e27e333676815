"""The variational Rényi importance-weighted bound, between IWAE (α = 0) and the ELBO (α = 1)."""

from array_api_compat import array_namespace

from toyiwae.estimators.claims import BoundOf, both
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import Array, log_others, normalise, tempered

_ORDERS = (-1000.0, 1000.0)  # beyond, rounding of the log-weights is all that w^(1-α) shows

_BELOW_ONE = 0.99  # where -log(1-1/K)/(1-α), on every score, has not swamped all else


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


@estimator(
    target=lambda alpha: both(_bound(alpha)),
    value=_bound,
    form=lambda alpha: Form(
        model={1: 1},
        score={1: -1},
        exponent=1.0 - alpha,
        log_evidence=1,
        leave_one_out=-1,
        constant=-1.0 / (1.0 - alpha),
    ),
    min_particles=2,
    between=(0.0, _BELOW_ONE),
    cite="daudel2026vimco",
)
def vimco_star(log_w: Array, alpha: float = 0.5) -> Coefficients:
    """VIMCO-★: the score function of VR-IWAE with a leave-one-out baseline and no constant; OVIS(0) at α = 0.

    `a = ṽ/M`, `b = 0`, `c = (−log(1−ṽ)/(1−α) − ṽ)/M` with `ṽ = softmax((1−α)ℓ)`; unbiased for the gradient of
    its bound. There is no limit α → 1: `−log(1−ṽ)/(1−α)` grows like `−log(1−1/K)/(1−α)` on every score.

    References:
        daudel2026vimco
    """
    scaled, groups = tempered(log_w, 1.0 - alpha), log_w.shape[-2]
    weights = normalise(scaled)
    score = -log_others(scaled) / (1.0 - alpha) - weights
    none = array_namespace(weights).zeros_like(weights)
    return Coefficients(model=weights / groups, path=none, score=score / groups)
