"""NumPyro: `RenyiELBO`, reparameterised and not, with all rows and with a subsampled plate.

The library's loss is that of one group of particles, summed over the rows of the data; so the adapter averages M
independent losses and divides by the number of rows. Keys are vectorised with `vmap`, in blocks of one size: compiling
takes longer than running.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import RenyiELBO

jax.config.update("jax_enable_x64", True)
BLOCK = 1000  # replicates


class Opaque(dist.MultivariateNormal):
    """A Gaussian that declares no reparameterised sampler."""

    reparametrized_params = ()


def programs(start, fixed, rows, family):
    """Model and guide, for one row of data or many; `rows` makes the plate."""

    def model(x):
        own = {name: numpyro.param(name, start[name]) for name in ("prior_mean", "loading", "offset")}
        with rows(x):
            batch = numpyro.subsample(x, event_dim=1)
            z = numpyro.sample("z", dist.MultivariateNormal(own["prior_mean"], fixed["prior_cov"]))
            mean = z @ own["loading"].T + own["offset"]
            numpyro.sample("x", dist.MultivariateNormal(mean, fixed["noise_cov"]), obs=batch)

    def guide(x):
        own = {name: numpyro.param(name, start[name]) for name in start if name.startswith("proposal")}
        with rows(x):
            batch = numpyro.subsample(x, event_dim=1)
            if "proposal_weight" in own:
                mean = batch @ own["proposal_weight"].T + own["proposal_offset"]
            else:
                mean = own["proposal_mean"]
            numpyro.sample("z", family(mean, scale_tril=own["proposal_chol"]))

    return model, guide


@partial(jax.jit, static_argnames=("K", "M", "alpha", "subsample", "family"))
def replicate(start, fixed, x, keys, K, M, alpha, subsample, family):
    """Values and gradients, one replicate for each key: of the average of M losses per row, as a bound."""

    def rows(x):
        return numpyro.plate("rows", len(x), subsample_size=subsample and min(subsample, len(x)))

    model, guide = programs(start, fixed, rows, family)
    objective = RenyiELBO(alpha=alpha, num_particles=K)

    def bound(own, key):
        keys = jax.random.split(key, M)
        losses = jax.vmap(lambda key: objective.loss(key, own, model, guide, x))(keys)
        return -losses.mean() / len(x)

    return jax.vmap(jax.value_and_grad(bound), in_axes=(None, 0))(start, keys)


def renyi(problem, K, M, replicates, seed, alpha=0.0, subsample=None, family=dist.MultivariateNormal):
    """Values and gradients of a problem."""
    model, q = problem.model, problem.proposal
    start = {"prior_mean": model.prior_mean, "loading": model.loading, "offset": model.offset}
    if q.mean is None:
        start |= {"proposal_weight": q.weight, "proposal_offset": q.offset}
    else:
        start |= {"proposal_mean": q.mean}
    start = {name: jnp.asarray(array) for name, array in start.items()}
    start["proposal_chol"] = jnp.linalg.cholesky(q.cov)
    fixed = {"prior_cov": model.prior_cov, "noise_cov": model.noise_cov}
    x = jnp.atleast_2d(problem.data.x)
    keys = jax.random.split(jax.random.key(seed), (-(-replicates // BLOCK), BLOCK))
    found = [replicate(start, fixed, x, block, K, M, alpha, subsample, family) for block in keys]
    values, gradients = jax.tree.map(lambda *parts: jnp.concatenate(parts)[:replicates], *found)
    return values, gradients | {"proposal_chol": jnp.tril(gradients["proposal_chol"])}


def order_0(problem, *, K, M, replicates, seed):
    """RenyiELBO(alpha=0), reparameterised guide: IWAE."""
    return renyi(problem, K, M, replicates, seed)


def order_03(problem, *, K, M, replicates, seed):
    """RenyiELBO(alpha=0.3), reparameterised guide: VR-IWAE."""
    return renyi(problem, K, M, replicates, seed, alpha=0.3)


def subsampled(problem, *, K, M, replicates, seed):
    """RenyiELBO(alpha=0) with a plate that draws one row of the data."""
    return renyi(problem, K, M, replicates, seed, subsample=1)


def opaque(problem, *, K, M, replicates, seed):
    """RenyiELBO(alpha=0) with a guide that has no reparameterised sampler."""
    return renyi(problem, K, M, replicates, seed, family=Opaque)
