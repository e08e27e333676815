"""Two stochastic layers: path-only rules are unbiased beside quadrature, and the usual wrong detachment is not."""

import itertools

import numpy as np
import pytest
import torch

from tests import naive_networks
from tests.test_networks_step import relative
from toyiwae import estimators
from toyiwae.networks import models
from toyiwae.networks.members import Member

K, NODES = 2, (8, 12, 16)


def quadrature(count):
    """Noise of two particles with two latents each [1, K, B, 2], and weights [B], of Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = np.array(list(itertools.product(nodes, repeat=4))).reshape(-1, K, 2)
    mass = np.array([np.prod(w) for w in itertools.product(weights / weights.sum(), repeat=4)])
    return torch.tensor(grid).movedim(1, 0)[None], torch.tensor(mass)


@pytest.fixture(scope="module")
def setting():
    """A small nonlinear model, its proposal wide enough for weights without heavy tails, and one observation."""
    sizes = {"latents": (1, 1), "hidden": (), "inner_hidden": (3,)}
    model = models.two_layer_vae([5], torch.tensor([0.3, 0.6]), dtype=torch.float64, **sizes)
    starts = {
        "encoder.0.bias": (0.2, -0.15),
        "inner_encoder.1.bias": (-0.2, -0.05),
        "inner_decoder.1.bias": (0.1, -0.2),
    }
    generator = torch.Generator().manual_seed(2)
    for name, value in model.parameters.items():
        weight = 0.4 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        value[:] = weight if name.endswith("weight") else torch.tensor(starts.get(name, 0.0))
    return model, torch.tensor([[1.0, 0.0]], dtype=torch.float64)


def expected_gradients(model, x, name, count):
    """The mean of an estimator's gradients over quadrature's noise, by the model's own backward pass."""
    noise, mass = quadrature(count)
    x = x.expand(1, len(mass), -1)
    encoded = model.encode(x)
    found = model.weigh(x, encoded.stats, noise)
    made = estimators.get(name)(found.log_w.mT[:, :, None])
    parts = ((part[:, :, 0] * mass[:, None]).mT for part in (made.model, made.path, made.score))
    gradients, upstream = model.backward(found, *parts)
    return gradients | model.encode_backward(encoded, upstream)


def slopes_of_the_bound(model, x, count):
    """∇L_K: quadrature's sum differentiated by autograd through the naive twin."""
    twin = naive_networks.NaiveTwoLayers((1, 1))
    noise, mass = quadrature(count)
    leaves = {name: value[0].clone().requires_grad_(True) for name, value in model.parameters.items()}
    z = twin.sample(leaves, x, noise[0])
    log_w = twin.log_joint(leaves, x, z) - twin.log_q(leaves, x, z)
    bound = (mass * torch.logsumexp(log_w, 0)).sum()
    return {
        k: v[None] for k, v in zip(leaves, torch.autograd.grad(bound, list(leaves.values())), strict=True)
    }


def falls(errors):
    """Whether errors fall at least threefold from one quadrature to the next."""
    return all(later < earlier / 3.0 for earlier, later in itertools.pairwise(errors))


def test_unbiased_rules_have_the_gradient_of_the_bound(setting):
    """IWAE's mean is the derivative of quadrature's own sum; that of the path alone agrees as quadrature converges."""
    model, x = setting
    truths = {count: slopes_of_the_bound(model, x, count) for count in NODES}
    assert relative(expected_gradients(model, x, "iwae", 12), truths[12]) < 1e-12
    errors = [relative(expected_gradients(model, x, "dreg", count), truth) for count, truth in truths.items()]
    assert falls(errors)
    assert errors[-1] < 2e-4


def test_the_detached_variant_is_seen(setting):
    """Its bias stays where quadrature converges; the naive twin without it converges too."""
    model, x = setting
    own = {name: value[0] for name, value in model.parameters.items()}
    errors = {False: [], True: []}
    for count in NODES:
        truth, (noise, mass) = slopes_of_the_bound(model, x, count), quadrature(count)
        for detached, found in errors.items():
            twin = naive_networks.NaiveTwoLayers((1, 1), detached)
            images = x.expand(len(mass), -1)
            made = naive_networks.gradients(
                twin, own, Member("dreg", "dreg", 1, K, 0), images, noise[0], mass
            )[1]
            found.append(relative({name: value[None] for name, value in made.items()}, truth))
    assert falls(errors[False])
    assert not falls(errors[True])
    assert errors[True][-1] > 500 * errors[False][-1], errors
