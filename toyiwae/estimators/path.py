"""IWAE's proposal gradient along the path alone: sticking the landing, and its unbiased form (DReG)."""

from array_api_compat import array_namespace

from toyiwae.estimators.claims import Target, both, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, normalise


@estimator(
    target=Target(model=iwae_bound, proposal=None),
    form=Form(model={1: 1}, path={1: 1}),
    vanishes_at_posterior=True,
    cite="roeder2017sticking",
)
def iwae_stl(log_w: Array) -> Coefficients:
    """IWAE, sticking the landing: without the score, whose mean is not 0 when K > 1.

    `a = b = w̃/M`, `c = 0`; unbiased for `∇θ L_K`. For φ the mean is `∇φ L_K` and that of wake-φ.

    References:
        roeder2017sticking, tucker2019dreg
    """
    weights = normalise(log_w) / log_w.shape[-2]
    return Coefficients(model=weights, path=weights, score=array_namespace(weights).zeros_like(weights))


@estimator(
    target=both(iwae_bound),
    form=Form(model={1: 1}, path={2: 1}),
    vanishes_at_posterior=True,
    cite="tucker2019dreg",
)
def dreg(log_w: Array) -> Coefficients:
    """DReG: the score reparameterised once more, which squares the weights of the path.

    `a = w̃/M`, `b = w̃²/M`, `c = 0`; unbiased for `∇L_K`.

    References:
        tucker2019dreg
    """
    weights, groups = normalise(log_w), log_w.shape[-2]
    none = array_namespace(weights).zeros_like(weights)
    return Coefficients(model=weights / groups, path=weights**2 / groups, score=none)
