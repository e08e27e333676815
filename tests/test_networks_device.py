"""The step that stays on the device: beside today's step, and without a host."""

import numpy as np
import pytest
import torch

from analysis.studies._trained import methods
from tests import devices, test_networks_step
from tests.test_networks_step import KINDS, made, relative, rules_for
from toyiwae import estimators
from toyiwae.networks import kernels, models
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import Batches, DeviceBatches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.members import Member, has_path
from toyiwae.networks.optim import Adam, DeviceAdam, stage_factor
from toyiwae.networks.resident import NEVER, ResidentStep, waits
from toyiwae.networks.step import step

SIZE = 4


def images(count=10, pixels=test_networks_step.DIM_X, dtype=np.uint8):
    """Images that epochs of three batches go through, the last with two images."""
    ink = np.random.default_rng(3).integers(0, 256, (count, pixels))
    return of_arrays("random", ink.astype(np.uint8), ink[:1].astype(np.uint8)).binarised("dynamic")


def start(model, stack, noise, data):
    """The step of a stack, and what it consists of."""
    batches = DeviceBatches(data, noise, SIZE)
    adam = DeviceAdam(model.parameters, [member.learning_rate for member in stack])
    return ResidentStep(model, stack, batches, adam, noise), batches, adam


# What it computes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_eager_step_on_the_same_noise(kind):
    """Every estimator that the model allows, rules mixed, and rates: seven steps in three epochs."""
    stack, data = rules_for(kind), images()
    noise = Counters(tuple(m.seed for m in stack), dtype=torch.float64)
    (twin, _), (model, _) = made(kind, stack), made(kind, stack)
    slow, batches = Adam(twin.parameters, [m.learning_rate for m in stack]), Batches(data, noise, SIZE)
    whole, turned, adam = start(model, stack, noise, data)
    total = torch.zeros(2, len(stack), dtype=torch.float64)
    for number in range(7):
        epoch, factor = number // 3, stage_factor(number // 3)
        x = batches.at(number)
        result = step(twin, stack, x, noise.at(number))
        slow.step(result.gradients, factor)
        total += x.shape[1] * torch.stack([result.bound, result.ess])
        if number % 3 == 0:
            turned.turn(epoch)
            adam.factor.fill_(factor)
        assert turned.count(number) == x.shape[1]
        assert torch.equal(turned.now(whole.clock, x.shape[1]), x)
        whole(x.shape[1])
        torch.testing.assert_close(whole.bound, result.bound, rtol=1e-11, atol=1e-11)
    assert relative(model.parameters, twin.parameters) < 1e-12
    torch.testing.assert_close(whole.total, total, rtol=1e-12, atol=0)
    assert (int(whole.clock), adam.steps, slow.steps) == (7, 7, 7)
    assert (whole.first_bad == NEVER).all()
    for name, value in slow.state().items():
        torch.testing.assert_close(adam.state()[name], value, rtol=1e-9, atol=1e-15)


def test_members_apart_are_found_on_the_device():
    """Rules that do not stand beside each other, as no settings file orders them."""
    rules = [
        ("iwae", 1, 6),
        ("piwae", 2, 3),
        ("iwae", 1, 6),
        ("ciwae:0.5", 1, 6),
        ("piwae", 2, 3),
        ("piwae", 6, 1),
    ]
    stack = [Member(name, name, M, K, seed) for seed, (name, M, K) in enumerate(rules)]
    model, _ = made("mean_field", stack)
    noise, x = Counters(tuple(range(6)), dtype=torch.float64), test_networks_step.images(6)
    together = step(model, stack, x, noise)
    for e in range(6):
        alone = step(model.at(e), stack[e : e + 1], x[e : e + 1], noise.of(e))
        assert relative({k: v[e : e + 1] for k, v in together.gradients.items()}, alone.gradients) < 1e-12
        assert abs(float(together.bound[e] - alone.bound[0])) < 1e-12


def test_a_bound_that_is_not_finite_is_remembered_with_its_step():
    stack = [Member("iwae", "iwae", 1, 6, seed) for seed in (1, 2, 3)]
    model, _ = made("mean_field", stack)
    whole, turned, _ = start(model, stack, Counters((1, 2, 3), dtype=torch.float64), images())
    turned.turn(0)
    whole(SIZE)
    model.parameters["decoder.0.weight"][1] = torch.nan
    whole(SIZE)
    whole(2)
    assert whole.first_bad.tolist() == [NEVER, 2, NEVER]


# What it needs of the host ----------------------------------------------------------------------------------


CPU = torch.device("cpu")


def placed(kind, stack, device):
    """A step on a device, called once, so that what is made once is there."""
    seeds = tuple(m.seed for m in stack)
    options = {"device": device, "dtype": torch.float64}
    mean = images().train.mean(0) / 255
    if kind == "linear":
        model = models.linear_gaussian(seeds, mean, latents=3, hidden=(5,), **options)
    elif kind == "two layers":
        model = models.two_layer_vae(seeds, mean, latents=(3, 2), hidden=(5,), inner_hidden=(4,), **options)
    else:
        model = models.bernoulli_vae(seeds, mean, latents=3, hidden=(5,), proposal=kind, **options)
    noise = Counters(seeds, device=device, dtype=torch.float64)
    whole, turned, _ = start(model, stack, noise, images())
    turned.turn(0)
    with devices.OnDevice(device, strict=False):
        whole(SIZE)
    return whole, turned


def patient(kind):
    """Members whose estimators do not wait, some of them apart: for one model all of them."""
    names = [e.name for e in estimators.all() if not waits(e, 3, max(4, e.min_particles))]
    if kind == "bernoulli":
        return test_networks_step.members([n for n in names if not has_path(estimators.get(n))][:4])
    if kind != "mean_field":
        return test_networks_step.members(["iwae", "dreg", "piwae"])
    return test_networks_step.members(names + names[1:5], names + names[6:10])


@pytest.mark.parametrize("device", [CPU, devices.META], ids=str)
@pytest.mark.parametrize("kind", ["linear", "mean_field", "full", "bernoulli", "two layers"])
def test_it_reads_nothing_and_takes_nothing_from_the_host(kind, device):
    whole, turned = placed(kind, patient(kind), device)
    with devices.OnDevice(device) as mode:
        whole(SIZE)
        turned.turn(1)
        whole(2)
    assert mode.operations > 200


@pytest.mark.parametrize(
    ("device", "broken"),
    [
        (CPU, lambda x: x * float(x.sum().item())),
        (CPU, lambda x: x if bool(x.any()) else -x),
        (CPU, lambda x: x[:, torch.tensor([0, 1, 2, 3], device=x.device)]),
        (CPU, lambda x: x[:, [0, 1, 2, 3]]),
        (CPU, lambda x: x[x[..., 0] > -1.0][None]),
        (devices.META, lambda x: x * float(x.sum().item())),
        (devices.META, lambda x: x + torch.ones(x.shape[-1])[0]),
        (devices.META, lambda x: x.to("cpu").to(x.device)),
    ],
)
def test_what_needs_the_host_is_seen(device, broken, monkeypatch):
    """A value that is read, one that is asked for, lists, a shape from values, a tensor made or brought elsewhere."""
    whole, _ = placed("mean_field", [Member("iwae", "dreg", 1, 6, 1)], device)

    def take(model, members, x, noise):
        return step(model, members, broken(x), noise)

    monkeypatch.setattr(whole, "_take", take)
    with devices.OnDevice(device), pytest.raises(RuntimeError, match=r"host|meta|on cpu"):
        whole(SIZE)


class Kernels:
    """Stand in for Triton's: a launch each, of which nothing is computed."""

    launches = 0

    def _launched(self, found):
        self.launches += 1
        return found

    def drawn(self, kind, keys, step, first, count):
        return self._launched(torch.empty_strided((len(keys), count), (count, 1), device=keys.device))

    def log_likelihood(self, x, out, bias):
        return self._launched(out[..., 0])

    def tanh_of_sum_(self, y, bias):
        return self._launched(y)

    def fusible(self, *rule):
        return True

    def evaluate(self, *arguments):
        self._launched(None)


def test_a_step_of_the_papers_methods_takes_few_launches(monkeypatch):
    """Of which each costs a GPU some 1.5 µs: with kernels, 20 members of five methods, whatever they are."""
    rows = [(row["estimator"], row["M"], row["K"]) for row in methods()]
    own, stack = Kernels(), [Member(name, name, M, K, seed) for name, M, K in rows for seed in range(4)]
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    monkeypatch.setattr(kernels, "load", lambda name: own)
    seeds = tuple(m.seed for m in stack)
    model = models.bernoulli_vae(
        seeds, images().train.mean(0) / 255, hidden=(7, 6), latents=3, device=devices.META
    )
    whole, turned, _ = start(model, stack, Counters(seeds, device=devices.META), images())
    turned.turn(0)
    with devices.OnDevice(strict=False):
        whole(SIZE)
    own.launches = 0
    with devices.OnDevice() as mode:
        whole(SIZE)
    made = mode.operations - mode.empties
    print(f"{own.launches} launches of kernels and {made} of torch's")
    assert own.launches == 2 + 4 + len(
        rows
    )  # noise, layers, coefficients; the likelihood is torch's operation
    assert 50 < made < 130


def test_estimators_that_wait_are_known():
    """At a member's own sizes: averages over subsets of m of K wait but where m is 1, K - 1 or K."""
    assert {e.name for e in estimators.all() if waits(e, 3, max(4, e.min_particles))} == {
        e.name for e in estimators.all() if e.family == "u_statistic"
    }
    rule = estimators.get("u_statistic:3")
    assert [waits(rule, 2, particles) for particles in (3, 4, 5, 32)] == [False, False, True, True]
