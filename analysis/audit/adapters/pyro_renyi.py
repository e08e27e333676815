"""Pyro: `RenyiELBO`, reparameterised and not, vectorised over replicates, in a loop, and with a subsampled plate.

Rows of a plate that encloses the whole model are independent for `RenyiELBO`, each with a bound of its own. So a
plate of groups inside a plate of replicates, with one copy of the parameters for each replicate, gives the gradients
of all replicates in one call. The value that it returns is their sum; values come from a loop. Pyro draws from torch's
global generator, which the adapter puts back.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO


class Opaque(dist.MultivariateNormal):
    """A Gaussian that declares no reparameterised sampler."""

    has_rsample = False


def tensor(array):
    """A copy, in double precision."""
    return torch.tensor(array, dtype=torch.float64)


def parameters(problem):
    """Name and value of every parameter."""
    model, q = problem.model, problem.proposal
    start = {"prior_mean": model.prior_mean, "loading": model.loading, "offset": model.offset}
    if q.mean is None:
        start |= {"proposal_weight": q.weight, "proposal_offset": q.offset}
    else:
        start |= {"proposal_mean": q.mean}
    start = {name: tensor(array) for name, array in start.items()}
    return start | {"proposal_chol": torch.linalg.cholesky(tensor(q.cov))}


def seeded(run):
    """A contract function whose noise depends on its seed alone, and that leaves nothing behind."""

    def estimator(problem, *, K, M, replicates, seed):
        with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
            torch.manual_seed(seed)
            return run(problem, K, M, replicates)

    return estimator


def batched(problem, alpha, K, M, replicates, guide_family=dist.MultivariateNormal):
    """Gradients of all replicates from one call; no values."""
    given, x = problem.model, tensor(problem.data.x)
    start = {
        name: array.expand(replicates, 1, *array.shape).clone() for name, array in parameters(problem).items()
    }

    def plates():
        return pyro.plate("replicates", replicates, dim=-2), pyro.plate("groups", M, dim=-1)

    def model():
        own = {name: pyro.param(name, start[name]) for name in ("prior_mean", "loading", "offset")}
        replicate, group = plates()
        with replicate, group:
            z = pyro.sample("z", dist.MultivariateNormal(own["prior_mean"], tensor(given.prior_cov)))
            mean = (own["loading"] @ z[..., None])[..., 0] + own["offset"]
            pyro.sample("x", dist.MultivariateNormal(mean, tensor(given.noise_cov)), obs=x)

    def guide():
        mean, chol = (pyro.param(name, start[name]) for name in ("proposal_mean", "proposal_chol"))
        replicate, group = plates()
        with replicate, group:
            pyro.sample("z", guide_family(mean, scale_tril=chol))

    objective = RenyiELBO(alpha, num_particles=K, max_plate_nesting=2, vectorize_particles=True)
    objective.loss_and_grads(model, guide)
    return None, {name: gradient(name, start[name])[:, 0] / M for name in start}


def looped(problem, alpha, K, M, replicates, subsample=None, vectorize=True):
    """Values and gradients of the average of M losses per row, one call of the library for each loss."""
    given, q, x = (
        problem.model,
        problem.proposal,
        tensor(problem.data.x).reshape(-1, len(problem.model.offset)),
    )
    start = parameters(problem)

    def rows():
        return pyro.plate("rows", len(x), subsample_size=subsample and min(subsample, len(x)), dim=-1)

    def model():
        own = {name: pyro.param(name, start[name]) for name in ("prior_mean", "loading", "offset")}
        with rows() as chosen:
            z = pyro.sample("z", dist.MultivariateNormal(own["prior_mean"], tensor(given.prior_cov)))
            mean = z @ own["loading"].T + own["offset"]
            pyro.sample("x", dist.MultivariateNormal(mean, tensor(given.noise_cov)), obs=x[chosen])

    def guide():
        own = {name: pyro.param(name, start[name]) for name in start if name.startswith("proposal")}
        with rows() as chosen:
            if q.mean is None:
                mean = x[chosen] @ own["proposal_weight"].T + own["proposal_offset"]
            else:
                mean = own["proposal_mean"]
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=own["proposal_chol"]))

    objective = RenyiELBO(alpha, num_particles=K, max_plate_nesting=1, vectorize_particles=vectorize)
    values, gradients = [], {name: [] for name in start}
    for _ in range(replicates):
        losses = [objective.loss_and_grads(model, guide) for _ in range(M)]  # gradients add up
        values.append(-sum(losses) / M / len(x))
        for name in start:
            gradients[name].append(gradient(name, start[name]) / M / len(x))
    return torch.tensor(values), {name: torch.stack(found) for name, found in gradients.items()}


def gradient(name, array):
    """The gradient of the bound that the library left at a parameter, which is then cleared."""
    leaf = pyro.param(name).unconstrained()
    found = torch.zeros_like(array) if leaf.grad is None else -leaf.grad
    leaf.grad = None
    return found.tril() if name == "proposal_chol" else found


order_0 = seeded(lambda problem, K, M, R: batched(problem, 0.0, K, M, R))
order_03 = seeded(lambda problem, K, M, R: batched(problem, 0.3, K, M, R))
opaque_0 = seeded(lambda problem, K, M, R: batched(problem, 0.0, K, M, R, Opaque))
opaque_03 = seeded(lambda problem, K, M, R: batched(problem, 0.3, K, M, R, Opaque))
all_rows = seeded(lambda problem, K, M, R: looped(problem, 0.0, K, M, R))
subsampled = seeded(lambda problem, K, M, R: looped(problem, 0.0, K, M, R, subsample=1))
subsampled_in_turn = seeded(
    lambda problem, K, M, R: looped(problem, 0.0, K, M, R, subsample=1, vectorize=False)
)
