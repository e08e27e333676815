"""The evidence lower bound, the average of the log-weights."""

from array_api_compat import array_namespace

from toyiwae.estimators.claims import both, elbo_bound
from toyiwae.estimators.registry import estimator
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array


def _equal(log_w: Array) -> Array:
    """`1/(MK)` for every particle."""
    return array_namespace(log_w).full_like(log_w, 1.0 / (log_w.shape[-2] * log_w.shape[-1]))


@estimator(
    target=both(elbo_bound),
    value=elbo_bound,
    form=Form(model={0: 1}, path={0: 1}, score={0: -1}),
    cite="kingma2014vae",
)
def elbo(log_w: Array) -> Coefficients:
    """ELBO (VAE): the reparameterised gradient of the mean log-weight.

    `a = b = 1/(MK)`, `c = −1/(MK)`; unbiased for `∇L_1`.

    References:
        kingma2014vae
    """
    equal = _equal(log_w)
    return Coefficients(model=equal, path=equal, score=-equal)


@estimator(
    target=both(elbo_bound),
    value=elbo_bound,
    form=Form(model={0: 1}, path={0: 1}),
    vanishes_at_posterior=True,
    cite="roeder2017sticking",
)
def elbo_stl(log_w: Array) -> Coefficients:
    """ELBO, sticking the landing: without the score, whose mean is 0.

    `a = b = 1/(MK)`, `c = 0`; unbiased for `∇L_1`.

    References:
        roeder2017sticking
    """
    equal = _equal(log_w)
    return Coefficients(model=equal, path=equal, score=0.0 * equal)


@estimator(
    target=both(elbo_bound),
    value=elbo_bound,
    form=Form(model={0: 1}, exponent=0.0, log_evidence=1, leave_one_out=-1),
    vanishes_at_posterior=True,
    min_particles=2,
    cite="richter2020vargrad",
)
def elbo_vargrad(log_w: Array) -> Coefficients:
    """VarGrad: the score function of the ELBO with the others' mean log-weight as the baseline of each particle.

    `a = 1/(MK)`, `b = 0`, `c = (ℓ_k − mean of the other ℓ)/(MK) = (ℓ_k − ℓ̄)/(M(K−1))`; unbiased for `∇L_1`. The
    proposal's gradient is minus half that of the log-variance loss, the sample variance of ℓ.

    References:
        richter2020vargrad
    """
    equal, particles = _equal(log_w), log_w.shape[-1]
    below = log_w - array_namespace(log_w).mean(log_w, axis=-1, keepdims=True)
    return Coefficients(model=equal, path=0.0 * equal, score=below * equal * (particles / (particles - 1)))
