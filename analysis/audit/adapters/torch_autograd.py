"""PyTorch: IWAE by automatic differentiation, with one copy of the parameters for each replicate.

Replicates are independent, so one backward pass of the sum of their values gives the gradient of each.
"""

import math

import torch
from torch.distributions import MultivariateNormal


def iwae(problem, *, K, M, replicates, seed):
    """The mean over M groups of log (1/K) Σ w, and its gradient by every parameter."""
    model, q = problem.model, problem.proposal

    def tensor(array):
        return torch.tensor(array, dtype=torch.float64)  # torch.tensor copies: the problem stays as it is

    start = {
        "prior_mean": tensor(model.prior_mean),
        "loading": tensor(model.loading),
        "offset": tensor(model.offset),
        "proposal_mean": tensor(q.mean),
        "proposal_chol": torch.linalg.cholesky(tensor(q.cov)),
    }
    own = {
        name: array.expand(replicates, *array.shape).clone().requires_grad_() for name, array in start.items()
    }
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(M, K, replicates, len(q.cov), generator=generator, dtype=torch.float64)
    posterior = MultivariateNormal(own["proposal_mean"], scale_tril=own["proposal_chol"])
    z = own["proposal_mean"] + (own["proposal_chol"] @ noise[..., None])[..., 0]
    prior = MultivariateNormal(own["prior_mean"], tensor(model.prior_cov))
    likelihood = MultivariateNormal(
        (own["loading"] @ z[..., None])[..., 0] + own["offset"], tensor(model.noise_cov)
    )
    log_w = prior.log_prob(z) + likelihood.log_prob(tensor(problem.data.x)) - posterior.log_prob(z)
    values = (log_w.logsumexp(1) - math.log(K)).mean(0)
    gradients = dict(zip(own, torch.autograd.grad(values.sum(), list(own.values())), strict=True))
    gradients["proposal_chol"] = gradients["proposal_chol"].tril()
    return values, gradients
