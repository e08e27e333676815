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


class NaiveTwoLayers:
    """The same for two stochastic layers; z is a pair.

    Attributes:
        detached: where q's parameters are held constant, hold the mean and the scale of q(z2|z1) constant with them,
            and so their dependence on z1: the wrong variant of path-only estimators.
    """

    kind = "two layers"

    def __init__(self, dims, detached=False):
        self.dims, self.detached = dims, detached

    def q(self, parameters, name, x, dim):
        """One layer of the proposal."""
        stats = mlp(parameters, name, x)
        if (
            self.detached
            and name == "inner_encoder"
            and not any(p.requires_grad for p in parameters.values())
        ):
            stats = stats.detach()
        return normal(stats[..., :dim], stats[..., dim:].exp())

    def sample(self, parameters, x, noise):
        """Particles [T, B, D_1] and [T, B, D_2] of noise."""
        first, second = noise.split(self.dims, -1)
        outer = self.q(parameters, "encoder", x, self.dims[0])
        z1 = outer.mean + outer.stddev * first
        inner = self.q(parameters, "inner_encoder", z1, self.dims[1])
        return z1, inner.mean + inner.stddev * second

    def log_q(self, parameters, x, z):
        """Log q(z1|x) + log q(z2|z1) [T, B]."""
        first = self.q(parameters, "encoder", x, self.dims[0]).log_prob(z[0]).sum(-1)
        return first + self.q(parameters, "inner_encoder", z[0], self.dims[1]).log_prob(z[1]).sum(-1)

    def log_joint(self, parameters, x, z):
        """Log p(x, z1, z2) [T, B]."""
        likelihood = bernoulli(logits=mlp(parameters, "decoder", z[0]), validate_args=False)
        stats, dim = mlp(parameters, "inner_decoder", z[1]), self.dims[0]
        between = normal(stats[..., :dim], stats[..., dim:].exp()).log_prob(z[0]).sum(-1)
        return likelihood.log_prob(x).sum(-1) + between + normal(0.0, 1.0).log_prob(z[1]).sum(-1)


def gradients(naive, parameters, member: Member, x, noise, mass=None):
    """Value and gradients of the batch's mean by autograd through a surrogate, for one member.

    Args:
        naive: the model.
        parameters: without the member axis.
        member: whose rules.
        x: images [B, D_x].
        noise: [T, B, D].
        mass: weights of the images [B]; by default equal ones.
    """
    leaves = {name: value.detach().clone().requires_grad_(True) for name, value in parameters.items()}
    held = {name: value.detach() for name, value in leaves.items()}
    with torch.enable_grad():
        z = naive.sample(leaves, x, noise)
        fixed = tuple(part.detach() for part in z) if isinstance(z, tuple) else z.detach()
        log_w = (naive.log_joint(held, x, fixed) - naive.log_q(held, x, fixed)).detach()
        shape = (x.shape[0], member.M, member.K)
        own = log_w.T.reshape(shape)
        by_model, by_proposal = (estimators.get(name)(own) for name in (member.model, member.proposal))
        a, b, c = (
            part.reshape(len(x), -1).T * (1.0 / len(x) if mass is None else mass)
            for part in (by_model.model, by_proposal.path, by_proposal.score)
        )
        loss = (a * naive.log_joint(leaves, x, fixed) + c * naive.log_q(leaves, x, fixed)).sum()
        if naive.kind != "bernoulli":
            loss = loss + (b * (naive.log_joint(held, x, z) - naive.log_q(held, x, z))).sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
    return estimators.get(member.model).value_of(own).mean(), dict(zip(leaves, found, strict=True))
