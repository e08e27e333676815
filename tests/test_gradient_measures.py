"""What the studies of networks measure gradients with: unbiased ratios, their standard errors, and limit constants."""

import dataclasses

import numpy as np
import pytest

from toyiwae import stats

torch = pytest.importorskip("torch")

from analysis import gradients, particles  # noqa: E402
from analysis.closed_limits import ClosedLimits  # noqa: E402
from tests.short_runs import short  # noqa: E402
from toyiwae.networks import models  # noqa: E402
from toyiwae.networks.noise import Noise  # noqa: E402
from toyiwae.networks.step import step  # noqa: E402
from toyiwae.problems.linear_gaussian import Proposal  # noqa: E402

RATE = 1e-6


def estimate(means, count, seed, groups=gradients.GROUPS):
    """Of normal replicates with these means and standard deviation 1."""
    draws = np.random.default_rng(seed).normal(size=(groups, count, len(means))) + means
    return gradients.snr_of(draws.sum(1), (draws**2).sum(1), count)


def test_squared_ratios_are_unbiased_and_their_standard_errors_are_their_spread():
    """The unbiased estimate of μ²/σ² from n normals is (n − 3)/(n − 1) of the plain one less 1/n: 1 % here at most."""
    means = np.array([0.0, 0.3, -0.2, 0.0])
    found = [estimate(means, 10, seed) for seed in range(400)]
    squares = np.array([one.squared for one in found])
    z = (squares.mean() - (means**2).mean()) / (squares.std(ddof=1) / np.sqrt(len(squares)))
    assert abs(z) < stats.family_threshold(1, RATE)
    ratio = np.mean([one.squared_se**2 for one in found]) / squares.var(ddof=1)
    assert abs(np.log(ratio)) < stats.family_threshold(1, RATE) * np.sqrt(
        2 / (len(squares) - 1) + 2 / (400 * 19)
    )
    assert min(one.squared for one in found) < (means**2).mean() < max(one.squared for one in found)


def test_coordinates_that_never_move_do_not_count():
    alone = estimate(np.array([0.5]), 50, 1)
    draws = np.random.default_rng(1).normal(size=(gradients.GROUPS, 50, 1)) + 0.5
    both = np.concatenate([draws, np.zeros_like(draws)], -1)
    found = gradients.snr_of(both.sum(1), (both**2).sum(1), 50)
    assert found.snr == pytest.approx(alone.snr, rel=1e-12)
    assert found.log_snr_se == pytest.approx(alone.log_snr_se, rel=1e-12)


@pytest.fixture(scope="module")
def pool():
    """Many particles of one image under a linear decoder, from a proposal wide enough for eight moments."""
    model = models.linear_gaussian(
        [3], np.linspace(0.2, 0.7, 5), latents=2, noise_var=0.5, dtype=torch.float64
    )
    model.parameters["encoder.0.bias"] += torch.tensor([0.3, -0.2, 0.1, 0.05], dtype=torch.float64)
    x = Noise((8,), dtype=torch.float64).uniform("x", 1, (5,))
    return model, x, next(particles.pools(model, x, 2**17, seed=4))


def test_a_pool_holds_log_weights_and_derivatives_of_the_problem(pool):
    """At a shifted mean, log w of the same noise changes by path − score; the score is that of a normal."""
    model, x, found = pool
    step = 1e-5
    for coordinate in range(2):
        ends = []
        for sign in (1.0, -1.0):
            moved = model.parameters["encoder.0.bias"].clone()
            model.parameters["encoder.0.bias"][0, coordinate] += sign * step
            ends.append(next(particles.pools(model, x, 64, seed=4)).log_w)
            model.parameters["encoder.0.bias"].copy_(moved)
        slope = (ends[0] - ends[1]) / (2 * step)
        small = next(particles.pools(model, x, 64, seed=4))
        torch.testing.assert_close(slope, (small.path - small.score)[:, coordinate], rtol=1e-6, atol=1e-6)
    mean = found.score.mean(0) / (found.score.std(0) / len(found.score) ** 0.5)
    assert mean.abs().max() < stats.family_threshold(2, RATE)


def test_constants_from_moments_are_the_closed_limits(pool):
    model, x, found = pool
    problem = model.problem(x[0])
    shared = Proposal(np.diag(np.ravel(problem.proposal.var)), mean=problem.proposal.mean[0])
    limits = ClosedLimits(dataclasses.replace(problem, proposal=shared))
    assert limits.least_beta() > -0.12
    drift, name = limits.inference_drift(), "proposal_mean"
    noises = {"iwae": limits.inference_noise(), "dreg": limits.inference_noise_dreg()}
    parts = [
        particles.Pool(*rows) for rows in zip(*(part.chunk(16) for part in vars(found).values()), strict=True)
    ]
    for rule, noise in noises.items():
        signal = np.abs(limits.average(drift, name))
        exact = np.sqrt((signal**2 / limits.average(noise, name, squared=True)).mean())
        values = np.array([getattr(particles.asymptotes(part), rule) for part in parts])
        z = (values.mean() - exact) / (values.std(ddof=1) / 4)
        assert abs(z) < stats.family_threshold(2, RATE, 15), f"{rule}: {values.mean():.4f}, exact {exact:.4f}"
        assert values.std(ddof=1) / 4 < 0.05 * exact


def test_ratios_at_k_from_a_pool_are_the_exact_ones(pool):
    import toyiwae

    model, x, found = pool
    answer = toyiwae.exact(
        model.problem(x[0]), K=[2, 32], estimators=["iwae", "dreg"], parameters=["proposal_mean"]
    )
    threshold = stats.family_threshold(4, RATE, gradients.GROUPS - 1)
    for cell in answer.results:
        for rule, moments in cell.gradients.items():
            exact = (np.asarray(moments.parameters["proposal_mean"].snr) ** 2).mean()
            own = particles.snr_at(found, rule, cell.K)
            assert abs(own.squared - exact) < threshold * own.squared_se
            assert own.squared_se < 0.5 * exact


def test_layers_have_the_ratios_that_their_own_gradients_give():
    """Of all members at once, each by its own rule at its own parameters; together they are the whole encoder's."""
    run = short(None, steps=4)
    found = gradients.layer_snr(run, images=3, replicates=40)
    assert list(found) == ["encoder.0", "encoder.1"]
    x = gradients.seen(run, run.images.train[:3])
    for e, member in enumerate(run.members):
        model, noise = run.model.at(e), Noise((gradients._SEEDS,))
        slopes = [step(model, [member], x, noise.at(r)).gradients for r in range(40)]
        total = weights = 0.0
        for layer, own in found.items():
            drawn = [torch.cat([s[f"{layer}.weight"].ravel(), s[f"{layer}.bias"].ravel()]) for s in slopes]
            values = torch.stack(drawn).double().numpy()
            mean, var = values.mean(0), values.var(0, ddof=1)
            alive = var > 1e-14 * (values**2).mean(0)
            squared = ((mean[alive] ** 2 - var[alive] / 40) / var[alive]).mean()
            np.testing.assert_allclose(own.squared[e], squared, rtol=1e-3, atol=1e-5)  # of float32 gradients
            total, weights = total + alive.sum() * own.squared[e], weights + alive.sum()
        whole = gradients.encoder_snr(run, e, [member], images=3, replicates=40)
        np.testing.assert_allclose(whole.squared[0], total / weights, rtol=1e-3, atol=1e-5)
