"""The training step: gradients beside naive autograd, chunks beside one pass, a stack beside its members alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import naive_networks
from toyiwae import estimators
from toyiwae.errors import InputError
from toyiwae.networks import models, products
from toyiwae.networks.members import Member, has_path
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam
from toyiwae.networks.portions import TOGETHER
from toyiwae.networks.step import step

DIM_X, LATENTS, IMAGES = 12, 5, 4
ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
FAMILIES = [family.name for family in estimators.all()]
SIZES = ((2, 6), (3, 4))


def images(members, seed=0):
    """Grey images [E, B, D_x], other ones for each member."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(members, IMAGES, DIM_X, generator=generator, dtype=torch.float64)


def members(names=FAMILIES, proposals=None):
    """A member for each rule, of several sizes, seeds and learning rates."""
    proposals = names if proposals is None else proposals
    return [
        Member(name, other, *SIZES[i % 2], seed=7 * i + 3, learning_rate=1e-3 * (1 + i % 3))
        for i, (name, other) in enumerate(zip(names, proposals, strict=True))
    ]


def made(kind, stack):
    """A small model of each kind, its parameters moved away from where they begin, and its naive twin."""
    seeds, mean = [member.seed for member in stack], images(1)[0].mean(0)
    options = {"latents": LATENTS, "dtype": torch.float64}
    if kind.startswith("linear"):
        proposal = "full" if kind == "linear, full" else "mean_field"
        hidden = (7,) if proposal == "full" else ()
        model = models.linear_gaussian(
            seeds,
            mean,
            hidden=hidden,
            proposal=proposal,
            per_pixel=proposal == "full",
            floor_var=0.02,
            **options,
        )
        twin = naive_networks.Naive(proposal, LATENTS, 0.02)
    elif kind == "two layers":
        sizes = {"latents": (3, 2), "hidden": (7,), "inner_hidden": (4,)}
        model = models.two_layer_vae(seeds, mean, dtype=torch.float64, **sizes)
        twin = naive_networks.NaiveTwoLayers((3, 2))
    else:
        model = models.bernoulli_vae(seeds, mean, hidden=(7, 6), proposal=kind, **options)
        twin = naive_networks.Naive(kind, LATENTS)
    noise = Noise(tuple(seeds), dtype=torch.float64)
    for name, value in model.parameters.items():
        value += 0.3 * noise.normal(name, value.shape[1], tuple(value.shape[2:]))
    return model, twin


KINDS = ("linear", "linear, full", "mean_field", "full", "bernoulli", "two layers")


def rules_for(kind):
    """Members with every family for both parts, and with other rules for the decoder than for the encoder."""
    names = [name for name in FAMILIES if kind != "bernoulli" or not has_path(estimators.get(name))]
    return members(names + names, names + names[1:] + names[:1])


def relative(found, expected):
    """Largest difference of gradients, in units of the largest entry of each parameter's."""
    return max(float((found[k] - expected[k]).abs().max() / expected[k].abs().max()) for k in expected)


@pytest.mark.parametrize(
    ("kind", "together"),
    [
        *((kind, True) for kind in KINDS),
        *(pytest.param(kind, False, marks=[pytest.mark.slow] * (kind != "bernoulli")) for kind in KINDS),
    ],
)
def test_gradients_are_those_of_naive_autograd(kind, together, monkeypatch):
    """Alone, members' images come one after another, too."""
    monkeypatch.setitem(TOGETHER, "cpu", TOGETHER["cpu"] if together else 0)
    stack = rules_for(kind)
    model, twin = made(kind, stack)
    noise, x = Noise(tuple(m.seed for m in stack), 3, dtype=torch.float64), images(len(stack))
    result = step(model, stack, x, noise, together=together)
    drawn = model.draw(noise, stack[0].particles, IMAGES)
    assert set(result.gradients) == set(model.parameters)
    for e, member in enumerate(stack):
        own = {name: value[e] for name, value in model.parameters.items()}
        value, expected = naive_networks.gradients(twin, own, member, x[e], drawn[e])
        found = {name: value[e] for name, value in result.gradients.items()}
        assert relative(found, expected) < 1e-12, member
        assert abs(float(result.bound[e] - value)) < 1e-12


def cancelling(member):
    """The sum of the absolute weights of a member's bounds, beyond the 1 of an average."""
    value = estimators.get(member.model).value
    return 0.0 if value is None else sum(abs(w) for _, w in value(member.K, member.M).terms) - 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing_but_rounding(kind, monkeypatch):
    """Blocks of noise of one particle each make chunks of one, two and five of the twelve particles."""
    monkeypatch.setattr("toyiwae.networks.noise.UNIT", IMAGES * LATENTS)
    stack = rules_for(kind)
    model, _ = made(kind, stack)
    noise, x = Noise(tuple(m.seed for m in stack), 3, dtype=torch.float64), images(len(stack))
    whole = step(model, stack, x, noise)
    for chunk in (1, 2, 5):
        parts = step(model, stack, x, noise, chunk=chunk)
        assert relative(parts.gradients, whole.gradients) < 1e-12
        # The jackknife's terms of both signs may cancel to a bound near zero: rounding is theirs, of a nat at least.
        rounding = 1e-13 * (whole.bound.abs() + torch.tensor([cancelling(member) for member in stack]))
        assert ((parts.bound - whole.bound).abs() <= rounding).all()
        torch.testing.assert_close(parts.ess, whole.ess, rtol=1e-12, atol=0)


def trained(kind, stack, steps):
    """Parameters after some steps."""
    model, _ = made(kind, stack)
    noise = Noise(tuple(m.seed for m in stack), dtype=torch.float64)
    adam = Adam(model.parameters, [member.learning_rate for member in stack])
    for number in range(steps):
        own = noise.at(number)
        adam.step(step(model, stack, own.uniform("images", IMAGES, (DIM_X,)), own).gradients)
    return model.parameters


@pytest.mark.parametrize("steps", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["linear", "mean_field", "bernoulli", "two layers"])
def test_a_member_of_a_stack_is_the_run_alone(kind, steps):
    stack = rules_for(kind)[::3]
    together = trained(kind, stack, steps)
    for e, member in enumerate(stack):
        alone = trained(kind, [member], steps)
        assert relative({k: v[e : e + 1] for k, v in together.items()}, alone) < 1e-12, member


def test_members_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="M·K = 4, 6"):
        step(
            made("linear", members()[:2])[0],
            [Member("iwae", "iwae", 2, k, 1) for k in (2, 3)],
            images(2),
            Noise((1, 1)),
        )
    with pytest.raises(InputError, match="K is 1: vimco_arithmetic needs K of at least 2"):
        Member("iwae", "vimco_arithmetic", 4, 1, 0)
    with pytest.raises(InputError, match=r"learning_rate is 0\.0: expected a number greater than 0"):
        Member("iwae", "iwae", 4, 1, 0, 0.0)
    with pytest.raises(InputError, match="binary latents have no path derivative"):
        step(made("bernoulli", members()[:1])[0], members(["iwae"]), images(1), Noise((1,)))
    with pytest.raises(InputError, match=r"x has shape \(2, 4, 12\): expected \[1, B, 12\]"):
        step(made("linear", members()[:1])[0], members(["iwae"]), images(2), Noise((1,)))


def test_the_documented_step_runs(capsys):
    block = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    exec(compile(block, "docs/networks.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([2]) torch.Size([2])\n"


HUNDRED_THOUSAND = """
import torch
from tests.memory import peak_gib
from toyiwae.networks import models
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam
from toyiwae.networks.step import step
model = models.bernoulli_vae([0], torch.full((784,), 0.3))
adam, noise, x = Adam(model.parameters, [1e-3]), Noise((0,)), torch.ones(1, 4, 784)
for number in range(2):
    result = step(model, [Member("vimco_arithmetic", "dreg", 1, 100_000, 0)], x, noise.at(number))
    adam.step(result.gradients)
print(float(result.bound), peak_gib())
"""

COMPILED = """
import torch
from toyiwae.networks import models
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.step import step
from toyiwae.networks.compiled import compiled
stack = [Member("iwae", "dreg", 2, 6, 1), Member("piwae", "piwae", 3, 4, 2)]
x, noise = torch.rand(2, 4, 12, generator=torch.Generator().manual_seed(1)), Noise((1, 2))
for members in (2, 1):
    seeds = [member.seed for member in stack[:members]]
    for model in (
        models.bernoulli_vae(seeds, x[0, 0], latents=3, hidden=(5,)),
        models.two_layer_vae(seeds, x[0, 0], latents=(3, 2), hidden=(5,), inner_hidden=(4,)),
    ):
        plain, fused = (
            step(one, stack[:members], x[:members], noise.of(0) if members == 1 else noise).gradients
            for one in (model, compiled(model))
        )
        print(max(float((fused[k] - v).abs().max() / v.abs().max()) for k, v in plain.items()))
"""


def printed(code):
    """Numbers that a program prints, run by itself."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    return [float(word) for word in run.stdout.split()]


@pytest.mark.slow
def test_a_hundred_thousand_particles_train_in_less_than_a_gigabyte():
    bound, gigabytes = printed(HUNDRED_THOUSAND)
    assert bound < 0.0
    assert gigabytes < 1.0


@pytest.mark.slow
def test_compiled_steps_give_the_same_gradients():
    """In a process of its own: run-time checks of annotations, which tests have, and `torch.compile` do not mix."""
    differences = printed(COMPILED)
    assert len(differences) == 4
    assert max(differences) < 1e-4


PRODUCTS = {"bmm", "baddbmm", "mm", "addmm", "mv", "addmv", "linalg_solve_triangular"}


class Precisions(TorchDispatchMode):
    """What CUDA's products may lose, seen at every product within it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Notes it at a product."""
        if func._schema.name.removeprefix("aten::") in PRODUCTS:
            self.found.append(torch.backends.cuda.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has another way to set it"
)
@pytest.mark.parametrize("kind", KINDS)
def test_no_product_follows_the_users_choice_for_the_gpu(kind, monkeypatch):
    """Products of a step keep float32's digits though the user lets torch's own use TF32; told it is on a GPU."""
    monkeypatch.setattr(products, "tf32", lambda wanted, _, real=products.tf32: real(wanted, True))
    stack = rules_for(kind)
    model, noise = made(kind, stack)[0], Noise(tuple(m.seed for m in stack), 3, dtype=torch.float64)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with Precisions() as seen:
            step(model, stack, images(len(stack)), noise)
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert len(seen.found) >= 7
    assert set(seen.found) == {"ieee"}
