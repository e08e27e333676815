"""Binary latents: over all states of all particles, unbiased rules have the gradient of the bound, others do not."""

import itertools

import pytest
import torch

from tests import naive_networks
from tests.test_networks_step import relative
from toyiwae import estimators
from toyiwae.estimators import Bound
from toyiwae.networks import models
from toyiwae.networks.members import has_path

D, K = 3, 2
RULES = [rule for rule in estimators.all() if not has_path(rule)]


@pytest.fixture(scope="module")
def setting():
    """A model away from where it begins, one observation, and the noise of all states of two particles [1, K, S, D]."""
    model = models.bernoulli_vae(
        [4], torch.tensor([0.3, 0.6, 0.5]), latents=D, hidden=(4,), proposal="bernoulli", dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(3)
    for value in model.parameters.values():
        value += 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=K * D)), dtype=torch.float64)
    z = states.view(-1, K, D).movedim(1, 0)[None]
    return model, torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64), z


def mean_gradients(model, x, z, rule):
    """Gradients weighted by the states' probabilities, by the model's own backward pass."""
    x = x.expand(1, z.shape[2], -1)
    encoded = model.encode(x)
    found = model.weigh(x, encoded.stats, 1.0 - z)  # noise 0 is below every mean, and 1 is not
    assert torch.equal(found.sample.z, z)
    mass = found.sample.log_q.sum(1).exp()
    made = rule(found.log_w.mT[:, :, None])
    parts = ((part[:, :, 0] * mass[..., None]).mT for part in (made.model, made.path, made.score))
    gradients, upstream = model.backward(found, *parts)
    return gradients | model.encode_backward(encoded, upstream)


def slopes(model, x, z, bound):
    """Gradients of a bound, summed over all states and differentiated by autograd through the naive twin."""
    twin = naive_networks.Naive("bernoulli", D)
    leaves = {name: value[0].clone().requires_grad_(True) for name, value in model.parameters.items()}
    log_q = twin.log_q(leaves, x, z[0])
    log_w = twin.log_joint(leaves, x, z[0]) - log_q
    mean = (log_q.sum(0).exp() * value_of(log_w, bound)).sum()
    return {k: v[None] for k, v in zip(leaves, torch.autograd.grad(mean, list(leaves.values())), strict=True)}


def value_of(log_w, bound):
    """A bound of two particles' log-weights [K, S]."""
    scaled = bound.exponent * log_w
    terms = {1: scaled.mean(0), 2: torch.logsumexp(scaled, 0) - torch.log(torch.tensor(2.0))}
    return sum(weight * terms[count] for count, weight in bound.terms) / bound.exponent


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_unbiased_rules_have_the_gradient_of_their_bound(setting, rule):
    model, x, z = setting
    found = mean_gradients(model, x, z, rule)
    parts = {"model": rule.target.model, "proposal": rule.target.proposal}
    for part, target in parts.items():
        truth = slopes(model, x, z, Bound.iwae(K) if target is None else target(K, 1))
        own = {name: value for name, value in truth.items() if model.part(name) == part}
        error = relative({name: found[name] for name in own}, own)
        assert (error > 1e-3) if target is None else (error < 1e-10), part
