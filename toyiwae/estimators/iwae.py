"""The importance-weighted bound; with several groups it is the multiply importance-weighted one (MIWAE)."""

from toyiwae.estimators.claims import both, iwae_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, normalise


@estimator(
    target=both(iwae_bound),
    form=Form(model={1: 1}, path={1: 1}, score={1: -1}),
    cite=("burda2016iwae", "rainforth2018tighter"),
)
def iwae(log_w: Array) -> Coefficients:
    """IWAE: the reparameterised gradient of the mean over groups of `log Ẑ_m`; MIWAE when M > 1.

    `a = b = w̃/M`, `c = −w̃/M`; unbiased for `∇L_K`.

    References:
        burda2016iwae, rainforth2018tighter
    """
    weights = normalise(log_w) / log_w.shape[-2]
    return Coefficients(model=weights, path=weights, score=-weights)
