"""The kernels of a training step in Triton's interpreter: run by tests/test_gpu_compiled.py in a process of its own.

TRITON_INTERPRET=1 must be set before the kernels are defined.
"""

import pytest
import torch

from toyiwae import estimators, weights
from toyiwae.networks import counters, densities, kernels, models, products
from toyiwae.networks.kernels import bernoulli, forms, layers, random
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.members import Member
from toyiwae.networks.products import affine
from toyiwae.networks.step import plan_of, step


@pytest.fixture(autouse=True)
def _large_programs(monkeypatch):
    """What the interpreter costs is programs, not lanes."""
    monkeypatch.setattr(random, "BLOCK", 2**14)
    monkeypatch.setattr(layers, "BLOCK", 2**10)


def seeded(number):
    return torch.Generator().manual_seed(number)


# Random numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "count"), [(0, 1000), (3, 1), (5, 1003), (2**34 + 3, 778)])
@pytest.mark.parametrize("step", [0, 2**40 + 11])
def test_numbers_are_the_twins(first, count, step):
    """Uniform ones to the bit; normals to the rounding of logarithm, root and circle functions."""
    keys, clock = torch.tensor([3, -5, 2**63 - 1]), torch.tensor(step)
    for kind, tolerance in (("uniform", 0.0), ("normal", 4e-6)):
        found = random.drawn(kind, keys, clock, first, count)
        twin = counters.drawn(kind, keys, clock, first, count, torch.float32)
        torch.testing.assert_close(found, twin, rtol=0, atol=tolerance)


def test_programs_change_no_number(monkeypatch):
    keys, clock = torch.tensor([3, -5]), torch.tensor(9)
    whole = random.drawn("normal", keys, clock, 2, 1001)
    monkeypatch.setattr(random, "BLOCK", 32)
    assert torch.equal(random.drawn("normal", keys, clock, 2, 1001), whole)


def test_counters_draw_with_it_where_it_is_usable(monkeypatch):
    noise = counters.Counters((4, 7), 3)
    slow = noise.normal("particles", 10, (3, 5), slice(2, 9))
    called = []
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    monkeypatch.setattr(
        random, "drawn", lambda *args, _drawn=random.drawn: called.append(args) or _drawn(*args)
    )
    fast = noise.normal("particles", 10, (3, 5), slice(2, 9))
    assert len(called) == 1
    torch.testing.assert_close(fast, slow, rtol=0, atol=4e-6)
    noise = counters.Counters((4, 7), 3, dtype=torch.float64)
    assert noise.normal("particles", 10).dtype == torch.float64
    assert len(called) == 1


# The likelihood ---------------------------------------------------------------------------------------------


def case(pixels, spread, binary=True, dtype=torch.float32):
    """Logits near those of a trained decoder, confident most of them: log p(x|z) near −90 for 784 pixels."""
    members, particles, images = 2, 2, 3
    x = torch.rand(members, images, pixels, generator=seeded(1))
    x = (x < 0.2).float() if binary else x
    out = spread * torch.randn(members, particles, images, pixels, generator=seeded(2))
    out += (2.0 * x - 1.0)[:, None] * 1.6 * spread
    bias = 0.3 * torch.randn(members, pixels, generator=seeded(3))
    return x, out.to(dtype), bias


def exact(x, out, bias):
    """In float64, by another formula: log p(x|z) and slope."""
    logit = out.double() + bias.double()[:, None, None]
    own = x.double()[:, None]
    log_p = own * torch.nn.functional.logsigmoid(logit) + (1.0 - own) * torch.nn.functional.logsigmoid(-logit)
    return log_p.sum(-1), own - torch.sigmoid(logit)


@pytest.mark.parametrize(
    ("pixels", "spread", "binary", "dtype"),
    [
        (784, 4.0, True, torch.float32),
        (784, 4.0, True, torch.bfloat16),
        (784, 4.0, False, torch.float32),
        (784, 40.0, True, torch.float32),
        (64, 0.5, False, torch.bfloat16),
        (2200, 2.0, True, torch.float32),
    ],
)
def test_log_likelihoods_keep_a_ten_thousandth_of_a_nat(pixels, spread, binary, dtype):
    """Also where it is thousands of nats: there 1e-7 of it; more pixels than a program holds; grey ones."""
    x, out, bias = case(pixels, spread, binary, dtype)
    log_p, slope = exact(x, out, bias)
    if (pixels, spread, binary) == (784, 4.0, True):
        assert -130.0 < float(log_p.mean()) < -60.0
    found = bernoulli.log_likelihood(x, out, bias)
    assert found.dtype == torch.float32
    assert float((found - log_p).abs().max()) < max(1e-4, 3e-7 * float(log_p.abs().max()))
    assert out.dtype == dtype
    cut = 2.0**-8  # the interpreter cuts digits off where a GPU rounds to bfloat16
    assert float((out - slope).abs().max()) < (cut if dtype == torch.bfloat16 else 3e-7)


def test_logits_without_bounds():
    """Far out the slope is exact, and log p(x|z) finite."""
    out = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4]).expand(1, 2, 1, 7).contiguous()
    x = torch.ones(1, 1, 7)
    log_p = bernoulli.log_likelihood(x, out, torch.zeros(1, 7))
    assert float(log_p[0, 0, 0]) == pytest.approx(-10130.693147, rel=1e-6)
    assert out[0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5, 9.4e-14, 0.0, 0.0], abs=1e-7)


def test_some_images_of_a_batch():
    """Images and bias that are pieces of larger tensors."""
    x, out, bias = case(64, 3.0)
    whole = out.clone()
    log_p = bernoulli.log_likelihood(x, whole, bias)
    part = out[:, :, 1:3].clone()
    wide = torch.stack([bias, bias], -1)[..., 0]
    assert torch.equal(bernoulli.log_likelihood(x[:, 1:3], part, wide), log_p[:, :, 1:3])
    assert torch.equal(part, whole[:, :, 1:3])


def test_it_is_its_twin():
    x, out, bias = case(784, 4.0)
    hidden, weight = torch.zeros(2, 6, 6), torch.zeros(2, 6, 784)
    log_p, slope = densities.Bernoulli().forward(
        {},
        x.double(),
        out.double() + bias.double()[:, None, None],
        (hidden.double(), weight.double(), bias.double()),
    )
    # the twin takes x·l from the layer's input, of which there is none here but the bias
    log_p = log_p + (x.double()[:, None] * out.double()).sum(-1)
    found = bernoulli.log_likelihood(x, out, bias)
    assert float((found - log_p).abs().max()) < 1e-4
    assert float((out - slope).abs().max()) < 3e-7


# Layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-4, 0.1, 1.0, 30.0])
def test_bias_and_tanh_are_the_twins(spread):
    x, weight, bias = (
        torch.randn(*shape, generator=seeded(i)).double()
        for i, shape in enumerate([(3, 40, 7), (3, 7, 20), (3, 20)])
    )
    y = (spread * torch.bmm(x, weight)).float()
    bias = (spread * bias).float()
    bias[0, 0] = 1e4  # its exponential is beyond float32
    expected = torch.tanh(y.double() + bias.double()[:, None])
    found = layers.tanh_of_sum_(y, bias)
    assert found is y
    assert float((found - expected).abs().max()) < 2e-7
    assert found[0, :, 0].tolist() == [1.0] * 40
    twin = affine(x, spread * weight, bias.double(), tanh=True)
    torch.testing.assert_close(found.double(), twin, rtol=0, atol=3e-6)


def test_tanh_of_what_is_no_number_is_none():
    y = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5, 0.0]).reshape(1, 1, 5)
    bias = torch.tensor([[0.0, 0.0, 0.0, 0.0, float("nan")]])
    found = layers.tanh_of_sum_(y, bias)[0, 0]
    assert found.isnan().tolist() == [True, False, False, False, True]
    assert found[1:3].tolist() == [1.0, -1.0]


# Coefficients -----------------------------------------------------------------------------------------------


def fused(rule, other, groups, log_w):
    """Coefficients `[3, e, T, B]` and metrics `[2, e, B]` of two members of four, and what the others keep."""
    parts, metrics = torch.full((3, *log_w.shape), 7.0), torch.full((2, 4, log_w.shape[2]), 7.0)
    which = torch.tensor([3, 1])
    forms.evaluate(rule, other, groups, log_w, which, parts, metrics, 1.0 / log_w.shape[2])
    assert (parts[:, [0, 2]] == 7.0).all()
    assert (metrics[:, [0, 2]] == 7.0).all()
    return parts[:, which], metrics[:, which]


def by_functions(rule, other, groups, log_w):
    """The same in float64 by the rules' functions."""
    own = log_w[[3, 1]].double().mT.unflatten(-1, (groups, -1))
    made, then = rule(own), other(own)
    parts = [part.flatten(-2).mT / log_w.shape[2] for part in (made.model, then.path, then.score)]
    return torch.stack(parts), torch.stack([rule.value_of(own), weights.ess(own).mean(-1)])


RULES = [e for e in estimators.all() if forms.fusible(e, e, 3, 4)] + list(
    estimators.select("vr_iwae:1.5,vr_iwae_dreg:-0.3,ciwae:0.7")
)


@pytest.mark.parametrize(("groups", "particles"), [(3, 4), (1, 12), (5, 1)])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_coefficients_are_those_of_the_functions(rule, groups, particles):
    """Log-weights near −90, some of them far below; another rule for the proposal than for the model."""
    if particles < rule.min_particles:
        return
    log_w = 3.0 * torch.randn(4, groups * particles, 2, generator=seeded(4)) - 90.0
    log_w[1, 0, 1] -= 500.0
    for other in (rule, estimators.get("score_function" if groups == 3 else "piwae")):
        found, expected = fused(rule, other, groups, log_w), by_functions(rule, other, groups, log_w)
        scale = max(1.0, float(expected[0].abs().max()))
        torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=3e-6 * scale)
        torch.testing.assert_close(found[1].double(), expected[1], rtol=1e-6, atol=1e-5)


def test_log_weights_need_not_be_contiguous():
    iwae, log_w = estimators.get("iwae"), torch.randn(4, 6, 3, generator=seeded(4))
    other = log_w.transpose(1, 2).contiguous().transpose(1, 2)
    assert not other.is_contiguous()
    for found, expected in zip(fused(iwae, iwae, 2, other), fused(iwae, iwae, 2, log_w), strict=True):
        assert torch.equal(found, expected)


def test_which_rules_are_polynomials():
    """Whatever has no leave-one-out terms, a Form, and no logarithm of products; groups that a program can hold."""
    names = {e.name for e in estimators.all()} - {rule.name for rule in RULES}
    assert names == {
        e.name
        for e in estimators.all()
        if e.form is None or e.form.leave_one_out or e.form.leave_one_out_geometric
    }
    iwae = estimators.get("iwae")
    assert forms.fusible(iwae, iwae, 1, 4096)
    assert not forms.fusible(iwae, iwae, 2, 4096)
    assert not forms.fusible(iwae, estimators.get("vimco_arithmetic"), 1, 64)


def test_weights_that_are_zero_or_undefined():
    """A group of zeros has equal weights and a bound of −∞; NaN stays in its image."""
    iwae = estimators.get("iwae")
    log_w = torch.zeros(4, 6, 3)
    log_w[3, :3, 0], log_w[1, 4, 2] = -torch.inf, torch.nan
    parts, metrics = fused(iwae, iwae, 2, log_w)
    assert parts[0, 0, :, 0].tolist() == pytest.approx([1.0 / 18.0] * 6)
    assert metrics[0, 0].tolist() == [-torch.inf, 0.0, 0.0]
    assert metrics[:, 1].isfinite().tolist() == [[True, True, False]] * 2


def test_rules_that_are_no_polynomials_stand_beside_those_that_are():
    names = ["iwae", "vimco_arithmetic", "iwae", "jackknife", "iwae"]
    stack = [Member(name, name, 2, 4, seed) for seed, name in enumerate(names)]
    plan = plan_of(tuple(stack), True)
    log_w = 3.0 * torch.randn(5, 8, 3, generator=seeded(4)) - 90.0
    parts, metrics = plan.fused(log_w, 12)  # 3 of a batch of 12
    for found, expected in zip(parts, plan.coefficients(log_w.double(), 12), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=3e-6)
    for found, expected in zip(metrics, plan.metrics(log_w.double()), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=3e-5)


# A whole step ----------------------------------------------------------------------------------------------


def test_a_step_with_all_kernels_is_the_step_without(monkeypatch):
    """As on a GPU: noise, layers and likelihood by kernels; beside float64, the kernels' error is that of float32."""
    stack = [
        Member("piwae", "dreg", 2, 6, 1),
        Member("piwae", "piwae", 3, 4, 2),
        Member("elbo", "elbo", 12, 1, 3),
    ]
    x = (torch.rand(3, 4, 30, generator=seeded(5)) < 0.4).float()
    exact, single, fused = (
        models.bernoulli_vae((1, 2, 3), x[0].mean(0), latents=3, hidden=(9, 8), dtype=dtype)
        for dtype in (torch.float64, torch.float32, torch.float32)
    )
    noise = counters.Counters((1, 2, 3), 7)
    slow = step(single, stack, x, noise)
    drawn = exact.draw(noise, 12, 4).double()
    monkeypatch.setattr(LatentModel, "draw", lambda *_: drawn)
    best = step(exact, stack, x.double(), noise)
    monkeypatch.undo()
    called = []
    names = (bernoulli, "log_likelihood"), (layers, "tanh_of_sum_"), (random, "drawn"), (forms, "evaluate")
    for module, name in names:
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _k=kernel, _n=name: called.append(_n) or _k(*a))
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    monkeypatch.setattr(products, "_by_onednn", lambda *_: False)
    fast = step(fused, stack, x, noise)
    assert sorted(set(called)) == ["drawn", "evaluate", "log_likelihood", "tanh_of_sum_"]
    for result in (slow, fast):
        torch.testing.assert_close(result.bound.double(), best.bound, rtol=0, atol=2e-5)
        for name, slope in best.gradients.items():
            error = (result.gradients[name] - slope).abs().max() / slope.abs().max()
            assert float(error) < 2e-5, name
