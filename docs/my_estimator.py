"""An estimator of one's own: half sticking the landing, half DReG."""

from toyiwae import Coefficients, Form, estimator
from toyiwae.estimators import Target, iwae_bound
from toyiwae.weights import normalise


@estimator(
    target=Target(
        iwae_bound, None
    ),  # the model's gradient is unbiased for L_K, the proposal's for nothing known
    form=Form(
        model={1: 1.0}, path={1: 0.5, 2: 0.5}, score={}
    ),  # powers of the normalised weights and their factors
    vanishes_at_posterior=True,
)
def halfway(log_w):
    """The path derivative weighted by the mean of w̃ and w̃²."""
    shares, groups = normalise(log_w), log_w.shape[-2]
    return Coefficients(shares / groups, (shares + shares**2) / (2 * groups), 0 * shares)
