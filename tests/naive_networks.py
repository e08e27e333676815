"""The networks' models a second time, the slow and obvious way: torch.distributions, autograd, one member, no stack."""

import torch

from toyiwae import estimators
from toyiwae.networks.members import Member

normal, bernoulli = torch.distributions.Normal, torch.distributions.Bernoulli


def mlp(parameters, name, x):
    """A fully connected tanh network."""
    depth = sum(key.startswith(f"{name}.") for key in parameters) // 2
    for i in range(depth):
        x = x @ parameters[f"{name}.{i}.weight"] + parameters[f"{name}.{i}.bias"]
        x = x if i == depth - 1 else torch.tanh(x)
    return x


def proposal(kind, stats, dim):
    """q(z|x) as a torch distribution."""
    if kind == "bernoulli":
        return torch.distributions.Independent(bernoulli(logits=stats), 1)
    mean, log_std = stats[..., :dim], stats[..., dim : 2 * dim]
    chol = torch.diag_embed(log_std.exp())
    if kind == "full":
        rows, columns = torch.tril_indices(dim, dim, -1)
        chol[..., rows, columns] = stats[..., 2 * dim :]
    return torch.distributions.MultivariateNormal(mean, scale_tril=chol)


class Naive:
    """One member of a model as functions of its parameters (a dict without the member axis)."""

    def __init__(self, kind, dim, floor_var=None):
        self.kind, self.dim, self.floor_var = kind, dim, floor_var

    def sample(self, parameters, x, noise):
        """Particles [T, B, D] of noise."""
        q = proposal(self.kind, mlp(parameters, "encoder", x), self.dim)
        if isinstance(q, torch.distributions.MultivariateNormal):
            return q.mean + (q.scale_tril @ noise[..., None])[..., 0]
        return (noise < q.mean).to(noise.dtype)

    def log_q(self, parameters, x, z):
        """Log q(z|x) [T, B]."""
        return proposal(self.kind, mlp(parameters, "encoder", x), self.dim).log_prob(z)

    def log_joint(self, parameters, x, z):
        """Log p(x, z) [T, B]."""
        out = mlp(parameters, "decoder", z)
        if "noise.log_var" in parameters:
            likelihood = normal(out, (self.floor_var + parameters["noise.log_var"].exp()).sqrt())
        else:
            likelihood = bernoulli(logits=out, validate_args=False)
        prior = (
            bernoulli(logits=parameters["prior.logit"]) if "prior.logit" in parameters else normal(0.0, 1.0)
        )
        return likelihood.log_prob(x).sum(-1) + prior.log_prob(z).sum(-1)


def gradients(naive, parameters, member: Member, x, noise):
    """Value and gradients of the batch's mean by autograd through a surrogate, for one member.

    Args:
        naive: the model.
        parameters: without the member axis.
        member: whose rules.
        x: images [B, D_x].
        noise: [T, B, D].
    """
    leaves = {name: value.detach().clone().requires_grad_(True) for name, value in parameters.items()}
    held = {name: value.detach() for name, value in leaves.items()}
    with torch.enable_grad():
        z = naive.sample(leaves, x, noise)
        fixed = [part.detach() for part in z] if isinstance(z, tuple) else z.detach()
        log_w = (naive.log_joint(held, x, fixed) - naive.log_q(held, x, fixed)).detach()
        shape = (x.shape[0], member.M, member.K)
        own = log_w.T.reshape(shape)
        by_model, by_proposal = (estimators.get(name)(own) for name in (member.model, member.proposal))
        a, b, c = (
            part.reshape(len(x), -1).T / len(x)
            for part in (by_model.model, by_proposal.path, by_proposal.score)
        )
        loss = (a * naive.log_joint(leaves, x, fixed) + c * naive.log_q(leaves, x, fixed)).sum()
        if naive.kind != "bernoulli":
            loss = loss + (b * (naive.log_joint(held, x, z) - naive.log_q(held, x, z))).sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
    return estimators.get(member.model).value_of(own).mean(), dict(zip(leaves, found, strict=True))
