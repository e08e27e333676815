"""Evaluation of trained models: every estimate against exact values where there are, otherwise against autograd."""

import json
import math

import numpy as np
import pytest

import toyiwae
from toyiwae import records, stats, weights
from toyiwae.cli.main import main
from toyiwae.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from toyiwae.networks import models  # noqa: E402
from toyiwae.networks.evaluation import annealing, bounds, diagnostics, exact, simulated  # noqa: E402
from toyiwae.networks.members import Member  # noqa: E402
from toyiwae.networks.noise import Noise  # noqa: E402
from toyiwae.networks.step import step  # noqa: E402
from toyiwae.oracle.closed_form.gaussian import condition  # noqa: E402

RATE = 1e-6
SEEDS = (3, 8)
NOISE = Noise(SEEDS, dtype=torch.float64)
MEAN = torch.linspace(0.1, 0.8, 6, dtype=torch.float64)


def moved(model):
    """The model with parameters away from where they start."""
    generator = torch.Generator().manual_seed(5)
    for name, value in model.parameters.items():
        if name.endswith("weight"):
            value *= 0.2  # so that variances do not run over decades from image to image
        value += 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return model


def linear():
    return moved(
        models.linear_gaussian(SEEDS, MEAN, latents=2, noise_var=0.3, per_pixel=True, dtype=torch.float64)
    )


def bernoulli(**options):
    return moved(models.bernoulli_vae(SEEDS, MEAN, latents=3, hidden=(5,), dtype=torch.float64, **options))


def two_layers():
    return moved(
        models.two_layer_vae(SEEDS, MEAN, latents=(3, 2), hidden=(5,), inner_hidden=(4,), dtype=torch.float64)
    )


def log_p(model, x):
    """Exact log p(x) `[E, N]`."""
    problems = [model.problem(x[e], e) for e in range(len(x))]
    return np.array([condition(problem.model, problem.data.x).log_evidence for problem in problems])


def test_bounds_and_sample_sizes_agree_with_exact_values():
    model = linear()
    x = simulated.simulated(model, NOISE, 30)[1]
    found = bounds.image_bounds(model, x, NOISE, [64, 1, 16_000])
    truth = exact.exact_bounds(model, x, found)
    assert found.K == (1, 64, 16_000)
    assert truth.error < 1e-8
    assert np.abs(truth.z).max() < stats.family_threshold(truth.z.size, RATE)
    assert (truth.detectable[:, :2] < 0.2).all(), truth.detectable
    assert truth.log_p == pytest.approx(log_p(model, x).mean(-1), rel=1e-12)
    log_w = torch.cat(list(bounds.log_weights(model, x, NOISE, 16_000)), 1).unflatten(-1, (-1, 64))
    ess = weights.ess(log_w).numpy()  # [E, N, groups]
    assert found.ess[:, 1] == pytest.approx(ess.mean(-1), rel=1e-12)
    z = (ess.mean((1, 2)) - truth.ess[:, 1].mean(-1)) / np.sqrt((ess.var(-1, ddof=1) / 250).mean(-1) / 30)
    assert np.abs(z).max() < stats.family_threshold(z.size, RATE)


def test_an_images_numbers_depend_neither_on_other_images_nor_on_chunks(monkeypatch):
    model = bernoulli()
    x = (NOISE.uniform("x", 7, (6,)) < MEAN).to(torch.float64)
    whole = bounds.image_bounds(model, x, NOISE, [4, 60_000])  # in chunks: noise comes in blocks of 2^17 // 3
    monkeypatch.setattr(bounds, "IMAGES", 2)
    few = bounds.image_bounds(model, x[:, :5], NOISE, [4, 60_000])
    assert few.bound == pytest.approx(whole.bound[..., :5], rel=1e-13)


def test_annealing_has_the_mean_that_its_theorem_gives_forwards_and_backwards():
    model, images, chains, steps = linear(), 40, 8, 60
    u, x = simulated.simulated(model, NOISE, images)
    truth = log_p(model, x)[:, None]
    sizes = annealing.pilot(model, x, NOISE, steps, 2)
    start = NOISE.normal("annealing start", chains, (images, 2))
    betas = annealing.temperatures(steps)
    up, accepted = annealing._chain(model, x, start, NOISE, betas, sizes, "annealing")
    back = u[:, None].expand(-1, chains, -1, -1)
    down, _ = annealing._chain(model, x, back, NOISE, betas[::-1], sizes.flip(0), "annealing back")
    for ratios in (np.exp(up.numpy() - truth), np.exp(truth + down.numpy())):  # E[ŵ] = p(x), E[1/ŵ] = 1/p(x)
        of_images = ratios.mean(1)  # chains from one exact sample depend on one another
        z = (of_images.mean(-1) - 1.0) / (of_images.std(-1, ddof=1) / math.sqrt(images))
        assert np.abs(z).max() < stats.family_threshold(4, RATE, images - 1)
        assert (of_images.std(-1) / math.sqrt(images) < 0.1).all()
    assert 0.5 < accepted.mean() < 0.85


def test_the_sandwich_holds_the_truth():
    model = linear()
    found = annealing.sandwich(model, NOISE, 60, 80, 4)
    u, x = simulated.simulated(model, NOISE, 60)
    sizes, truth = annealing.pilot(model, x, NOISE, 80, 4), log_p(model, x)
    lower = annealing.forward(model, x, NOISE, 80, 4, step_sizes=sizes).log_p
    upper = annealing.reverse(model, x, u, NOISE, 80, 4, step_sizes=sizes).log_p
    assert found.lower == pytest.approx(lower.mean(-1), rel=1e-12)
    assert found.width == pytest.approx((upper - lower).mean(-1), rel=1e-9)
    for excess in (lower - truth, truth - upper):  # in expectation not above 0
        z = excess.mean(-1) / (excess.std(-1, ddof=1) / math.sqrt(60))
        assert (z < stats.family_threshold(4, RATE, 59)).all()
    assert (found.width < 0.5).all()


@pytest.mark.parametrize("make", [linear, bernoulli, two_layers])
def test_the_slope_of_the_likelihood_is_its_derivative(make):
    model = make()
    x = (NOISE.uniform("x", 4, (6,)) < MEAN).to(torch.float64)
    u, step = NOISE.normal("u", 2, (4, model.dim_z)), 1e-6
    value, slope = simulated.log_likelihood(model, x, u)
    assert value.shape == u.shape[:3]
    for d in range(model.dim_z):
        ends = []
        for sign in (1.0, -1.0):
            shifted = u.clone()
            shifted[..., d] += sign * step
            ends.append(simulated.log_likelihood(model, x, shifted)[0])
        assert slope[..., d].numpy() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).numpy(), abs=1e-7)


@pytest.mark.parametrize("make", [linear, bernoulli, two_layers])
def test_a_posterior_reached_from_the_prior_weighs_as_the_proposal_says(make):
    """The joint density by the likelihood and the prior's normals is that of the model's own log-weights."""
    model = make()
    x = (NOISE.uniform("x", 4, (6,)) < MEAN).to(torch.float64)
    found = bounds.image_bounds(model, x, NOISE, [20_000])
    u = NOISE.normal("prior", 20_000, (4, model.dim_z))
    value = simulated.log_likelihood(model, x, u)[0]
    naive, ess = torch.logsumexp(value, 1) - math.log(20_000), weights.ess(value.mT)
    se = np.hypot(found.bound_se[:, 0], (1.0 / ess - 1.0 / 20_000).sqrt().numpy())
    z = (found.bound[:, 0] - naive.numpy()) / se
    assert np.abs(z).max() < stats.family_threshold(z.size, RATE)
    assert se.max() < 0.2


def test_a_unit_is_active_where_its_mean_varies():
    model = linear()
    weight = model.parameters["encoder.0.weight"][..., :2]
    weight[:, :, 1] = 0.0
    x = NOISE.normal("x", 50, (6,))
    found = diagnostics.unit_variances(model, x, NOISE).numpy()
    expected = (x @ weight).var(1, correction=0).numpy()
    assert found == pytest.approx(expected, rel=1e-12)
    assert (found[:, 1] < 1e-20).all()
    assert diagnostics.unit_variances(two_layers(), x, NOISE).shape == (2, 5)
    logits = diagnostics.unit_variances(bernoulli(proposal="bernoulli"), x, NOISE)
    assert (logits < 0.25).all()


@pytest.mark.slow
def test_snrs_of_gradients_by_each_images_proposal_agree_with_exact_ones():
    model = linear()
    x = simulated.simulated(model, NOISE, 4)[1]
    members = [Member("iwae", "iwae", 2, 6, SEEDS[0]), Member("iwae", "dreg", 3, 4, SEEDS[1])]
    for found in exact.exact_snr(model, members, x, NOISE, 3000):
        assert found.exact.shape == (4, 2)
        assert np.abs(found.z).max() < stats.family_threshold(16, RATE)


def test_replicates_of_the_step_are_gradients_with_those_moments():
    model, members = (
        bernoulli(),
        [Member("iwae", "iwae", 1, 4, SEEDS[0]), Member("iwae", "dreg", 1, 4, SEEDS[1])],
    )
    x = (NOISE.uniform("x", 3, (6,)) < MEAN).to(torch.float64)
    moments = diagnostics.gradient_moments(model, members, x, NOISE, 70)
    assert {value.count for value in moments.values()} == {70}
    direct = [step(model, members, x, NOISE.at(r)).gradients for r in range(70)]
    for name, found in moments.items():
        values = np.stack([one[name].numpy() for one in direct])
        np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.std, values.std(0, ddof=1), rtol=1e-9, atol=1e-12)
        assert (values.std(0) > 0).any()
    snr = diagnostics.encoder_snr(moments)
    sizes = [value[0].numel() for name, value in model.parameters.items() if model.part(name) == "proposal"]
    assert snr.shape == (2, sum(sizes))


def test_pictures_are_sheets_of_images():
    sheet = diagnostics.grid(np.array([[0.0, 1.0, 0.5, 2.0, -1.0, 0.25]] * 3), (2, 3), columns=2)
    assert sheet.shape == (2 * 3 + 1, 2 * 4 + 1)
    assert sheet[1:3, 1:4].tolist() == [[255, 0, 128], [0, 255, 191]]
    assert (sheet[4:6, 5:8] == 255).all()  # no fourth image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        "data": {"name": "digits", "binarisation": "grey", "train": 100, "test": 6},
        "model": {"kind": "linear_gaussian", "latents": 3},
        "members": [{"estimator": "iwae", "K": 4}, {"model": "iwae", "proposal": "dreg", "K": 4}],
        "training": {"epochs": 2, "batch": 25, "learning_rates": [0.05]},
    }
    toyiwae.train(settings, home)
    return home


def test_the_command_line_writes_what_the_function_returns(folder, capsys):
    arguments = ["evaluate", str(folder), "-K", "1,100", "--annealing-steps", "5", "--annealing-images", "3"]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = toyiwae.evaluate(folder, K=[1, 100], annealing_steps=5, annealing_images=3)
    assert document["members"] == json.loads(json.dumps(records.plain(found.to_dict())))["members"]
    assert document["data"] == "digits, grey"
    assert json.loads((folder / "evaluation-8.json").read_text()) == document
    assert len(list(folder.glob("evaluation-8-*.png"))) == 4
    with np.load(folder / "evaluation-8.npz") as arrays:
        assert arrays["bound"].mean(-1)[0, 1] == document["members"][0]["bounds"][1]["bound"]
    assert len(found.to_dataframe()) == 2 * 2 * 6
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "6 test images of digits, grey; after step 8" in table
    assert "iwae/dreg M=1 K=4 seed=0" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": []}, "K is empty"),
        ({"K": [0]}, "K is 0"),
        ({"images": 7}, "images is 7: expected at most 6"),
        ({"snr_replicates": 1}, "snr_replicates is 1: expected at least 2, or 0 for none"),
        ({"annealing_steps": -1}, "annealing_steps is -1"),
        ({"step": 3}, "step is 3: expected one of 0, 8, the checkpoints"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(folder, options, message):
    with pytest.raises(InputError) as caught:
        toyiwae.evaluate(folder, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_latents_have_bounds_and_no_annealing(tmp_path):
    settings = {
        "data": {"name": "digits", "train": 40, "test": 10},
        "model": {"kind": "bernoulli_vae", "latents": 3, "hidden": [4], "proposal": "bernoulli"},
        "members": [{"estimator": "vimco_arithmetic", "K": 4}],
        "training": {"epochs": 1},
    }
    run = toyiwae.train(settings)
    found = toyiwae.evaluate(run, K=[30], snr_replicates=5)
    assert np.isfinite(found.bounds.bound).all()
    assert found.to_dict()["members"][0]["encoder_snr"]["weights"] > 0
    with pytest.raises(InputError, match="annealing needs continuous latents"):
        toyiwae.evaluate(run, annealing_steps=3)
