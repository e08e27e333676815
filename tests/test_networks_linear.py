"""The linear decoder on scikit-learn's digits: gradients beside formulas in NumPy, the problem beside its samples."""

import numpy as np
import pytest
import torch

from toyiwae import estimators, montecarlo
from toyiwae.networks import models
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.step import step

LATENTS, IMAGES, FLOOR = 4, 5, 0.01
FAMILIES = [family.name for family in estimators.all()]


@pytest.fixture(scope="module")
def digits():
    """Grey values in [0, 1], [1797, 64]."""
    return pytest.importorskip("sklearn.datasets").load_digits().data / 16.0


def stack_of(names):
    return [Member(name, name, *((2, 6), (3, 4))[i % 2], seed=i + 2) for i, name in enumerate(names)]


def made(stack, digits):
    """Factor analysis with an affine encoder, each member at parameters of its own."""
    seeds = [member.seed for member in stack]
    options = {"latents": LATENTS, "per_pixel": True, "floor_var": FLOOR, "dtype": torch.float64}
    model = models.linear_gaussian(seeds, digits.mean(0), **options)
    noise = Noise(tuple(seeds), dtype=torch.float64)
    for name, value in model.parameters.items():
        value += 0.1 * noise.normal(name, value.shape[1], tuple(value.shape[2:]))
    return model


def closed_form(p, x, noise, member):
    """Bound and gradients of one member: sums over particles of coefficients times the terms' own formulas.

    Args:
        p: parameters, NumPy.
        x: images [B, D_x].
        noise: ε [T, B, D].
        member: whose rule.
    """
    rule, count = estimators.get(member.model), len(x)
    var = FLOOR + np.exp(p["noise.log_var"])
    mean, log_std = np.split(x @ p["encoder.0.weight"] + p["encoder.0.bias"], 2, -1)
    std = np.exp(log_std)
    z = mean + std * noise
    residual = x - z @ p["decoder.0.weight"] - p["decoder.0.bias"]
    log_p = -0.5 * (residual**2 / var + np.log(2.0 * np.pi * var)).sum(-1) - 0.5 * (z**2).sum(-1)
    log_q = (-0.5 * noise**2 - log_std).sum(-1)
    log_w = (log_p - log_q).T.reshape(count, member.M, member.K)
    made = rule(log_w)
    a, b, c = (part.reshape(count, -1).T[..., None] / count for part in (made.model, made.path, made.score))
    slope = (residual / var) @ p["decoder.0.weight"].T - z + noise / std
    by_mean = (b * slope + c * noise / std).sum(0)
    by_log_std = (b * slope * std * noise + c * (noise**2 - 1.0)).sum(0)
    stats = np.concatenate([by_mean, by_log_std], -1)
    return rule.value_of(log_w).mean(), {
        "decoder.0.weight": np.einsum("tbi,tbj->ij", a * z, residual / var),
        "decoder.0.bias": (a * residual / var).sum((0, 1)),
        "noise.log_var": 0.5 * (a * (residual**2 / var - 1.0)).sum((0, 1)) / var * np.exp(p["noise.log_var"]),
        "encoder.0.weight": x.T @ stats,
        "encoder.0.bias": stats.sum(0),
    }


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("chunk", [None, 5])
def test_gradients_of_every_estimator_are_the_closed_forms(digits, alone, chunk, monkeypatch):
    monkeypatch.setattr("toyiwae.networks.noise.UNIT", IMAGES * LATENTS)
    stack = stack_of(FAMILIES)
    x = torch.tensor(digits[: len(stack) * IMAGES]).unflatten(0, (len(stack), IMAGES))
    for some in [[e] for e in range(len(stack))] if alone else [list(range(len(stack)))]:
        own = [stack[e] for e in some]
        model, noise = made(own, digits), Noise(tuple(member.seed for member in own), 3, dtype=torch.float64)
        result, drawn = step(model, own, x[some], noise, chunk=chunk), model.draw(noise, 12, IMAGES).numpy()
        for i, member in enumerate(own):
            parameters = {name: value[i].numpy() for name, value in model.parameters.items()}
            bound, expected = closed_form(parameters, x[some[i]].numpy(), drawn[i], member)
            np.testing.assert_allclose(result.bound[i], bound, rtol=1e-12)
            for name, value in expected.items():
                found = result.gradients[name][i].numpy()
                np.testing.assert_allclose(
                    found, value, rtol=0, atol=1e-10 * np.abs(value).max(), err_msg=name
                )


@pytest.mark.parametrize("proposal", ["mean_field", "full"])
def test_the_problem_handed_back_has_the_same_log_weights(digits, proposal):
    """The sampler of problems forms its values and gradients from whitened noise, per image."""
    options = {"latents": LATENTS, "hidden": (6,), "proposal": proposal, "dtype": torch.float64}
    model = models.linear_gaussian([1, 5], digits.mean(0), **options)
    stack, noise = (
        [Member("iwae", "dreg", 2, 3, seed) for seed in (1, 5)],
        Noise((1, 5), 8, dtype=torch.float64),
    )
    x = torch.tensor(digits[:IMAGES])
    result, drawn = step(model, stack, x.expand(2, -1, -1), noise), model.draw(noise, 6, IMAGES)
    for e in range(2):
        problem = model.problem(x, e)
        own = drawn[e].movedim(0, 1).unflatten(1, (2, 3))[None]
        chunk = montecarlo.gradients_of(own, problem, ["iwae"], parameters=["loading", "offset"])
        np.testing.assert_allclose(chunk.values[0], result.bound[e], rtol=1e-9)
        loading, offset = (chunk.gradients["iwae"][name][0] for name in ("loading", "offset"))
        found = result.gradients["decoder.0.weight"][e].mT, result.gradients["decoder.0.bias"][e]
        for mine, theirs in zip(found, (loading, offset), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9 * float(np.abs(theirs).max()))
