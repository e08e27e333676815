"""TensorFlow Probability: `monte_carlo_variational_loss`, with one copy of the parameters for each replicate.

The batch shape of the surrogate posterior is the replicates, so one backward pass of the sum of their losses gives the
gradient of each.
"""

from functools import partial

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions
Ways = tfp.vi.GradientEstimators


def loss_and_gradients(problem, *, K, M, replicates, seed, way, discrepancy):
    """Losses [R] and their gradients by every parameter."""
    model, q = problem.model, problem.proposal
    start = {
        "prior_mean": tf.constant(model.prior_mean),
        "loading": tf.constant(model.loading),
        "offset": tf.constant(model.offset),
        "proposal_mean": tf.constant(q.mean),
        "proposal_chol": tf.linalg.cholesky(q.cov),
    }
    own = {name: tf.repeat(array[None], replicates, axis=0) for name, array in start.items()}

    def log_joint(z):
        prior = tfd.MultivariateNormalTriL(own["prior_mean"], tf.linalg.cholesky(model.prior_cov))
        mean = tf.linalg.matvec(own["loading"], z) + own["offset"]
        likelihood = tfd.MultivariateNormalTriL(mean, tf.linalg.cholesky(model.noise_cov))
        return prior.log_prob(z) + likelihood.log_prob(problem.data.x)

    with tf.GradientTape() as tape:
        tape.watch(own)
        mean, chol = own["proposal_mean"], own["proposal_chol"]
        losses = tfp.vi.monte_carlo_variational_loss(
            log_joint,
            tfd.MultivariateNormalTriL(mean, chol),
            sample_size=M,
            importance_sample_size=K,
            discrepancy_fn=discrepancy,
            gradient_estimator=way,
            stopped_surrogate_posterior=tfd.MultivariateNormalTriL(
                tf.stop_gradient(mean), tf.stop_gradient(chol)
            ),
            seed=[seed, 0],
        )
    gradients = tape.gradient(losses, own, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients["proposal_chol"] = tf.linalg.band_part(gradients["proposal_chol"], -1, 0)
    return losses, gradients


def bound(way, discrepancy=tfp.vi.kl_reverse):
    """A contract function that returns the loss with the sign of a bound."""

    def estimator(problem, **call):
        losses, gradients = loss_and_gradients(problem, way=way, discrepancy=discrepancy, **call)
        return -losses, {name: -gradient for name, gradient in gradients.items()}

    return estimator


def divergence(way, discrepancy):
    """A contract function that returns the loss as it is."""
    return partial(loss_and_gradients, way=way, discrepancy=discrepancy)


reparameterized = bound(Ways.REPARAMETERIZATION)
amari_0 = bound(Ways.REPARAMETERIZATION, partial(tfp.vi.amari_alpha, alpha=0.0))
doubly_reparameterized = bound(Ways.DOUBLY_REPARAMETERIZED)
vimco = bound(Ways.VIMCO)
score_function = bound(Ways.SCORE_FUNCTION)


def score_function_of_one(problem, *, K, M, **call):
    """SCORE_FUNCTION with importance_sample_size=1 and sample_size=M·K: the bound of one particle."""
    return score_function(problem, K=1, M=M * K, **call)


kl_forward = divergence(Ways.REPARAMETERIZATION, tfp.vi.kl_forward)
pearson = divergence(Ways.REPARAMETERIZATION, tfp.vi.pearson)
squared_hellinger = divergence(Ways.REPARAMETERIZATION, tfp.vi.squared_hellinger)
amari_half = divergence(Ways.REPARAMETERIZATION, partial(tfp.vi.amari_alpha, alpha=0.5))
kl_forward_doubly = divergence(Ways.DOUBLY_REPARAMETERIZED, tfp.vi.kl_forward)
pearson_doubly = divergence(Ways.DOUBLY_REPARAMETERIZED, tfp.vi.pearson)
squared_hellinger_doubly = divergence(Ways.DOUBLY_REPARAMETERIZED, tfp.vi.squared_hellinger)
amari_half_doubly = divergence(Ways.DOUBLY_REPARAMETERIZED, partial(tfp.vi.amari_alpha, alpha=0.5))
