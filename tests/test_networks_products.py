"""Products in float32, TF32 and bfloat16: their errors, and the effect on the bound and on gradients, bounded."""

import importlib.util
from importlib import metadata
from typing import Any

import pytest
import torch

from analysis.benchmarks import precision
from tests.short_runs import short
from toyiwae.errors import InputError
from toyiwae.networks import kernels, models
from toyiwae.networks import products as module
from toyiwae.networks.densities import Bernoulli
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.products import PRODUCTS, _fuses, affine, product, tf32
from toyiwae.networks.step import step

UNIT = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of a rounded factor."""
DIM_X, LATENTS, IMAGES, T = 60, 8, 10, 12


RAW = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


@pytest.fixture(params=["oneDNN", "torch"])
def routine(request, monkeypatch):
    """Whose products a CPU takes: this one's choice and the other."""
    if request.param == "oneDNN" and RAW is None:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "_ONEDNN", RAW if request.param == "oneDNN" else None)
    rounds = module._onednn_rounds  # which a test may replace
    rounds.cache_clear()
    yield request.param
    rounds.cache_clear()


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("routine")
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("large", [2, 2**16])
def test_errors_of_products_are_those_of_their_factors(products, members, tanh, large, monkeypatch):
    """With oneDNN one member in float32, and large ones, take another routine than several small ones do."""
    monkeypatch.setattr("toyiwae.networks.products.LARGE", large)
    x, weight, bias = numbers(members, 40, 30), numbers(members, 30, 20, seed=1), numbers(members, 20, seed=2)
    exact = torch.baddbmm(bias[:, None].double(), x.double(), weight.double())
    size = torch.baddbmm(bias[:, None].double().abs(), x.double().abs(), weight.double().abs())
    bound = (2.1 * UNIT[products] + 33 * UNIT["float32"]) * size + (4e-7 if tanh else 0.0)
    found = affine(x, weight, bias, tanh=tanh, products=products).double()
    assert bool(((found - (exact.tanh() if tanh else exact)).abs() <= bound).all())
    if not tanh and products != "float32":
        plain = product(x, weight, products).double() - torch.bmm(x.double(), weight.double())
        assert float(plain.abs().max()) > UNIT[products] / 4  # factors were rounded


def test_the_routine_is_the_one_that_is_chosen(routine, monkeypatch):
    called = []
    monkeypatch.setattr(
        module, "_affine_onednn", lambda *a, own=module._affine_onednn: called.append(a) or own(*a)
    )
    affine(numbers(1, 40, 30), numbers(1, 30, 20, seed=1), None, tanh=True)
    assert len(called) == (routine == "oneDNN")


@pytest.mark.skipif(RAW is None, reason="this torch has no oneDNN")
def test_a_compiled_product_by_onednn_is_one(monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", RAW)
    some = numbers(1, 40, 30), numbers(1, 30, 20, seed=1), numbers(1, 20, seed=2)
    seen = []

    def look(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(lambda x, weight, bias: affine(x, weight, bias, tanh=True), backend=look)
    torch.testing.assert_close(compiled(*some), affine(*some, tanh=True), rtol=0, atol=1e-6)
    assert any("toyiwae.affine" in target for target in seen)


@pytest.mark.usefixtures("routine")
@pytest.mark.parametrize("shape", [(40, 30, 20), (640, 200, 784)])
def test_a_cpu_that_multiplies_bfloat16_rounds_as_we_do(shape, monkeypatch):
    """What the hardware gives differs from products of rounded factors by the order of sums in float32 alone."""
    n, k, m = shape
    x, weight = numbers(1, n, k), numbers(1, k, m, seed=1)
    found = product(x, weight, "bfloat16")
    monkeypatch.setattr(module, "_onednn_rounds", lambda: False)
    size = torch.bmm(x.abs(), weight.abs())
    assert bool(((product(x, weight, "bfloat16") - found).abs() <= 2.1 * k * UNIT["float32"] * size).all())
    assert torch.get_float32_matmul_precision() == "highest"


BACKENDS: Any = torch.backends


def settings():
    """What torch says of its settings, or that it refuses to."""
    found = {}
    for name, read in {
        "cuda": lambda: BACKENDS.cuda.matmul.fp32_precision,
        "oneDNN": lambda: BACKENDS.mkldnn.matmul.fp32_precision,
        "allow": lambda: BACKENDS.cuda.matmul.allow_tf32,
        "old": torch.get_float32_matmul_precision,
    }.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "refused"
    return found


@pytest.fixture
def _restored():
    yield
    torch.set_float32_matmul_precision("highest")
    for backend in (BACKENDS, BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul):
        backend.fp32_precision = "none"


@pytest.mark.skipif(
    not hasattr(BACKENDS.cuda.matmul, "fp32_precision"), reason="this torch has one way to set it"
)
@pytest.mark.usefixtures("_restored", "routine")
@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    "choose",
    [
        lambda: None,
        lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
        lambda: setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "tf32"),
        lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
    ],
    ids=["nothing", "cuda", "oneDNN", "all", "high", "medium"],
)
def test_the_users_settings_are_left_as_they_were(choose, rounds, monkeypatch):
    """Whichever of torch's ways they are set in; within, ours holds."""
    choose()
    before = settings()
    for wanted in (True, False):
        with tf32(wanted, True):
            assert BACKENDS.cuda.matmul.fp32_precision == ("tf32" if wanted else "ieee")
        assert settings() == before
    monkeypatch.setattr(module, "_onednn_rounds", lambda: rounds)
    x, weight = numbers(1, 40, 30), numbers(1, 30, 20, seed=1)
    bound = 2.1 * UNIT["bfloat16"] * torch.bmm(x.abs(), weight.abs())
    assert bool(((product(x, weight, "bfloat16") - torch.bmm(x, weight)).abs() <= 2 * bound).all())
    assert settings() == before


def test_bfloat16_of_an_old_torch_is_refused(monkeypatch):
    monkeypatch.setattr("toyiwae.networks.products._SUMS_IN_FLOAT32", False)
    with pytest.raises(InputError, match=r"products is 'bfloat16': CUDA needs torch 2\.8 or newer"):
        product(numbers(1, 4, 3).bfloat16(), numbers(1, 3, 2).bfloat16(), "bfloat16")


def test_what_is_differentiated_is_not_fused(monkeypatch):
    """No kernel has a derivative."""
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    some = [numbers(1, 4, 3), numbers(1, 3, 2), numbers(1, 2)]
    assert _fuses(*some)
    assert Bernoulli.fuses(*some)
    for tensor in some:
        tensor.requires_grad_()
        assert not _fuses(*some)
        assert not Bernoulli.fuses(*some)
        tensor.requires_grad_(False)


@pytest.mark.parametrize(
    ("versions", "hip", "able"),
    [
        ({"triton": "3.6.0"}, None, True),
        ({"pytorch-triton": "3.10.1+git"}, None, True),
        ({"triton": "3.5.1"}, None, False),
        ({}, None, False),
        ({"triton": "3.7.0"}, "6.2", False),
    ],
)
def test_kernels_need_cuda_and_a_triton_of_today(versions, hip, able, monkeypatch):
    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.version, "hip", hip)
    assert kernels._able() == able
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not kernels._able()


def made(products, dtype=torch.float32):
    model = models.bernoulli_vae(
        [3], numbers(DIM_X).sigmoid(), latents=LATENTS, hidden=(30, 20), products=products
    )
    for value in model.parameters.values():
        value *= 1.5
    if dtype == torch.float64:
        model = models.bernoulli_vae(
            [3], numbers(DIM_X).sigmoid(), latents=LATENTS, hidden=(30, 20), dtype=dtype
        )
        for name, value in made(products).parameters.items():
            model.parameters[name].copy_(value)
    return model


def largest_error_of_log_w(model, z, x, unit):
    """Bound on the error of each log-weight: rounded factors, layer by layer, and the likelihood's slope.

    A layer's output is off by at most `(2u + u²)(|h| + e)|W| + e|W|`; tanh has slope at most 1; and log p changes by at
    most `Σ |x − σ(l)| e + e²/8`, since the softplus's curvature is at most ¼.
    """
    h, error = z, torch.zeros_like(z)
    for i in range(model.decoder.depth):
        weight, bias = model.decoder.layer(model.parameters, i)
        size = weight.abs()
        error = torch.bmm((2 * unit + unit**2) * (h.abs() + error) + error, size)
        h = torch.baddbmm(bias[:, None], h, weight)
        h = h if i == model.decoder.depth - 1 else h.tanh()
    shape = (1, T, IMAGES, DIM_X)
    slope = (x[:, None] - h.sigmoid().view(shape)).abs()
    return (slope * error.view(shape) + error.view(shape) ** 2 / 8).sum(-1)


@pytest.mark.parametrize("products", PRODUCTS)
def test_the_effect_on_the_bound_is_bounded(products):
    """The bound moves by no more than the log-weight that moves most, and these by no more than the analysis says."""
    rounded, exact = made(products), made("float32", torch.float64)
    x, noise = numbers(1, IMAGES, DIM_X, seed=3).sigmoid(), Noise((3,), 1)
    stats, eps = rounded.encode(x).stats, rounded.draw(noise, T, IMAGES)
    found = rounded.weigh(x, stats, eps).log_w.double()
    z = exact.proposal.sample(stats.double(), eps.double()).z.flatten(1, 2)
    truth = exact.weigh(x.double(), stats.double(), eps.double()).log_w
    error = (found - truth).abs()
    limit = (
        largest_error_of_log_w(exact, z, x.double(), UNIT[products]) + 1e-4
    )  # and rounding of sums in float32
    assert bool((error <= limit).all())
    bounds = [torch.logsumexp(log_w, 1) for log_w in (found, truth)]
    assert bool(((bounds[0] - bounds[1]).abs() <= error.amax(1) + 1e-12).all())
    if products != "float32":
        assert float(error.max()) > 1e-4


@pytest.mark.parametrize("products", PRODUCTS)
def test_the_effect_on_gradients_is_of_the_size_of_the_rounding(products):
    """In Euclidean norm, over all parameters: at most ten roundings of a factor."""
    x, noise = numbers(1, IMAGES, DIM_X, seed=3).sigmoid(), Noise((3,), 1)
    stack = [Member("iwae", "dreg", 1, T, 3)]
    found = step(made(products), stack, x, noise).gradients
    exact = made("float32", torch.float64)
    exact_noise = exact.draw(Noise((3,), 1), T, IMAGES).double()
    truth = step_with(exact, stack, x.double(), exact_noise)
    off = sum(float((found[name].double() - value).square().sum()) for name, value in truth.items())
    size = sum(float(value.square().sum()) for value in truth.values())
    assert (off / size) ** 0.5 < 10 * UNIT[products] + 1e-5


def step_with(model, stack, x, eps):
    """The step at given noise."""

    class Given(Noise):
        def normal(self, *args, **options):
            return eps

    return step(model, stack, x, Given((3,), 1)).gradients


def test_unknown_or_unfit_precisions_are_refused():
    with pytest.raises(InputError, match="products is 'float16': expected one of float32, tf32, bfloat16"):
        made("float16")
    with pytest.raises(InputError, match=r"rounds float32, not torch\.float64"):
        product(torch.ones(1, 2, 2).double(), torch.ones(1, 2, 2).double(), "tf32")


def test_the_table_of_precisions_takes_the_same_particles(tmp_path):
    """The change of a bound by rounding is far below what other particles make of it."""
    run = short(tmp_path / "run", "training.dtype=float32")
    found = precision.changes(run, images=20)
    change = abs(found["bfloat16"] - found["float32"])
    assert 0.0 < change.max() < 0.3
    assert abs(found["tf32"] - found["float32"]).max() < change.max()
