"""An evaluation where the model is: within a portion of images nothing waits for the device or is made elsewhere."""

import numpy as np
import pytest
import torch

from tests import devices
from tests.short_runs import short
from tests.test_networks_device import CPU
from toyiwae import evaluate, stats
from toyiwae.networks import models
from toyiwae.networks.counters import Counters
from toyiwae.networks.evaluation import annealing, bounds, diagnostics
from toyiwae.networks.evaluation.evaluate import _noise
from toyiwae.networks.members import Member
from toyiwae.networks.step import step

SEEDS = (3, 2**64 + 5)
STACK = [Member("iwae", "dreg", 2, 3, 3), Member("piwae", "piwae", 2, 3, 5)]


def made(kind, device):
    """A model, images and random numbers on a device."""
    mean = np.linspace(0.1, 0.9, 9)
    options = {"device": device, "dtype": torch.float64}
    if kind == "two layers":
        model = models.two_layer_vae(SEEDS, mean, latents=(3, 2), hidden=(5,), inner_hidden=(4,), **options)
    else:
        model = models.bernoulli_vae(SEEDS, mean, latents=3, hidden=(5,), proposal=kind, **options)
    x = torch.rand(1, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    return model, x.expand(2, -1, -1), Counters(SEEDS, device=device, dtype=torch.float64)


def measured(kind, device):
    """All that an evaluation computes, as tensors on the device."""
    model, x, noise = made(kind, device)
    yield lambda: [bounds._of(log_w, (1, 6, 30)) for log_w in bounds.log_weights(model, x, noise, 30)]
    yield lambda: diagnostics.unit_variances(model, x, noise)
    yield lambda: diagnostics.samples(model, noise, 4)
    yield lambda: diagnostics.reconstructions(model, x, noise)
    if kind != "bernoulli":
        yield lambda: diagnostics.moment_sums(
            torch.stack([step(model, STACK, x, noise.at(r)).gradients["encoder.0.weight"] for r in range(2)])
        )
        yield lambda: annealing.pilot(model, x, noise, 2, 2)


@pytest.mark.parametrize("device", [CPU, devices.META], ids=str)
@pytest.mark.parametrize("kind", ["mean_field", "bernoulli", "two layers"])
def test_it_stays_on_the_device(kind, device, monkeypatch):
    """But for numbers that are fetched at the end, and random numbers' keys, which are sent once."""
    monkeypatch.setattr(annealing, "_numpy", lambda tensor: np.zeros(tensor.shape))
    monkeypatch.setattr(annealing, "LEAPFROGS", 2)
    monkeypatch.setattr(diagnostics, "_PARTICLES", 2)
    for call in measured(kind, device):
        with devices.OnDevice(device, strict=False):
            call()
        with devices.OnDevice(device) as mode:
            call()
        assert mode.operations > 3


def test_moments_on_a_device_are_those_of_the_host():
    values = torch.randn(64, 3, 5, generator=torch.Generator().manual_seed(2)).exp() - 40.0
    one = stats.Moments.of(values.numpy())
    for part, other in zip(
        diagnostics.moment_sums(values), (one.mean, one.sum2, one.sum3, one.sum4), strict=True
    ):
        np.testing.assert_allclose(part.numpy(), other, rtol=1e-11)


def test_an_images_particles_do_not_depend_on_the_others(monkeypatch):
    model, x, noise = made("mean_field", CPU)
    whole = bounds.image_bounds(model, x, noise, [5, 60])
    monkeypatch.setattr(bounds, "IMAGES", 2)
    few = bounds.image_bounds(model, x[:, :5], noise, [5, 60])
    np.testing.assert_allclose(few.bound, whole.bound[..., :5], rtol=1e-12)
    np.testing.assert_allclose(few.pareto_k, whole.pareto_k[:, :5], rtol=1e-8)


def test_a_run_by_counters_is_evaluated_by_counters():
    run = short(None, "training.random=philox")
    noise = _noise(run, 4)
    assert isinstance(noise, Counters)
    assert not set(noise.seeds) & set(run.noise.seeds)
    found = evaluate(run, K=(1, 30), snr_replicates=3)
    again = evaluate(run, K=(1, 30), snr_replicates=3)
    assert found.bounds.bound.shape == (4, 2, 10)
    assert np.isfinite(found.bounds.bound).all()
    np.testing.assert_array_equal(found.bounds.bound, again.bounds.bound)
    assert not np.array_equal(found.bounds.bound, evaluate(run, K=(1, 30), seed=1).bounds.bound)
