"""TensorFlow Probability on JAX: `monte_carlo_variational_loss` of `tensorflow_probability.substrates.jax`."""

import jax
import jax.numpy as jnp
import tensorflow_probability.substrates.jax as tfp

jax.config.update("jax_enable_x64", True)
tfd = tfp.distributions


def doubly_reparameterized(problem, *, K, M, replicates, seed):
    """kl_reverse, DOUBLY_REPARAMETERIZED: DReG."""
    model, q = problem.model, problem.proposal
    start = {
        "prior_mean": jnp.asarray(model.prior_mean),
        "loading": jnp.asarray(model.loading),
        "offset": jnp.asarray(model.offset),
        "proposal_mean": jnp.asarray(q.mean),
        "proposal_chol": jnp.linalg.cholesky(q.cov),
    }

    def bound(own, key):
        def log_joint(z):
            prior = tfd.MultivariateNormalTriL(own["prior_mean"], jnp.linalg.cholesky(model.prior_cov))
            mean = z @ own["loading"].T + own["offset"]
            likelihood = tfd.MultivariateNormalTriL(mean, jnp.linalg.cholesky(model.noise_cov))
            return prior.log_prob(z) + likelihood.log_prob(problem.data.x)

        pair = own["proposal_mean"], own["proposal_chol"]
        return -tfp.vi.monte_carlo_variational_loss(
            log_joint,
            tfd.MultivariateNormalTriL(*pair),
            sample_size=M,
            importance_sample_size=K,
            gradient_estimator=tfp.vi.GradientEstimators.DOUBLY_REPARAMETERIZED,
            stopped_surrogate_posterior=tfd.MultivariateNormalTriL(*jax.lax.stop_gradient(pair)),
            seed=key,
        )

    replicate = jax.jit(jax.vmap(jax.value_and_grad(bound), in_axes=(None, 0)))
    values, gradients = replicate(start, jax.random.split(jax.random.PRNGKey(seed), replicates))
    return values, gradients | {"proposal_chol": jnp.tril(gradients["proposal_chol"])}
