"""The combination of ELBO and IWAE."""

from toyiwae.estimators.claims import BoundOf, both
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import Array, normalise


def _mixture(beta: float) -> BoundOf:
    """`β L_1 + (1−β) L_K`."""
    return lambda particles, groups: Bound.ciwae(beta, particles, "K")


def _form(beta: float) -> Form:
    """Equal and normalised weights, mixed."""
    mixed = {0: beta, 1: 1.0 - beta}
    return Form(model=mixed, path=mixed, score={0: -beta, 1: beta - 1.0})


@estimator(
    target=lambda beta: both(_mixture(beta)),
    value=_mixture,
    form=_form,
    between=(0.0, 1.0),
    cite="rainforth2018tighter",
)
def ciwae(log_w: Array, beta: float = 0.5) -> Coefficients:
    """CIWAE: the gradients of ELBO and IWAE on the same particles, mixed with weights `β` and `1−β`.

    `a = b = β/(MK) + (1−β)w̃/M`, `c = −a`; unbiased for `∇(β L_1 + (1−β) L_K)`.

    References:
        rainforth2018tighter
    """
    groups, particles = log_w.shape[-2:]
    mixed = (beta / particles + (1.0 - beta) * normalise(log_w)) / groups
    return Coefficients(model=mixed, path=mixed, score=-mixed)
