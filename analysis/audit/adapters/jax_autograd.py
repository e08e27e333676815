"""JAX: IWAE by automatic differentiation, vectorised over replicates with `vmap`.

What is compiled takes the problem's arrays as arguments and a block of keys, so that all calls on problems of one
shape share it: compiling takes longer than running.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.scipy.stats import multivariate_normal

jax.config.update("jax_enable_x64", True)
BLOCK = 1000  # replicates


@partial(jax.jit, static_argnames=("K", "M"))
def replicate(start, fixed, keys, K, M):
    """Values and gradients, one replicate for each key."""

    def value(own, key):
        x, chol = fixed["x"], own["proposal_chol"]
        noise = jax.random.normal(key, (M, K, len(chol)))
        z = own["proposal_mean"] + noise @ chol.T
        log_p = multivariate_normal.logpdf(z, own["prior_mean"], fixed["prior_cov"])
        means = z @ own["loading"].T + own["offset"]
        log_p += multivariate_normal.logpdf(x - means, jnp.zeros(len(x)), fixed["noise_cov"])
        log_w = log_p - multivariate_normal.logpdf(z, own["proposal_mean"], chol @ chol.T)
        return (logsumexp(log_w, axis=-1) - jnp.log(K)).mean()

    return jax.vmap(jax.value_and_grad(value), in_axes=(None, 0))(start, keys)


def iwae(problem, *, K, M, replicates, seed):
    """The mean over M groups of log (1/K) Σ w, and its gradient by every parameter."""
    model, q = problem.model, problem.proposal
    start = {
        "prior_mean": model.prior_mean,
        "loading": model.loading,
        "offset": model.offset,
        "proposal_mean": q.mean,
        "proposal_chol": jnp.linalg.cholesky(q.cov),
    }
    fixed = {"prior_cov": model.prior_cov, "noise_cov": model.noise_cov, "x": problem.data.x}
    keys = jax.random.split(jax.random.key(seed), (-(-replicates // BLOCK), BLOCK))
    found = [replicate(start, fixed, block, K, M) for block in keys]
    values, gradients = jax.tree.map(lambda *parts: jnp.concatenate(parts)[:replicates], *found)
    return values, gradients | {"proposal_chol": jnp.tril(gradients["proposal_chol"])}
