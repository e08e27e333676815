"""The step that stays on the device: beside today's step, without a host, recorded, in runs."""

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.benchmarks import graph
from analysis.studies._trained import methods
from tests import crashes, devices, test_networks_step
from tests.short_runs import short
from tests.test_networks_step import KINDS, made, relative, rules_for
from toyiwae import InputError, estimators, load_run
from toyiwae.errors import InputWarning, ToyiwaeError
from toyiwae.networks import captured, kernels, models
from toyiwae.networks.averages import ImageAverage
from toyiwae.networks.captured import Captured, Shared
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import Batches, DeviceBatches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.members import Member, has_path
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam, DeviceAdam, stage_factor
from toyiwae.networks.resident import NEVER, ResidentStep, waits
from toyiwae.networks.runs import device_steps
from toyiwae.networks.runs.device_steps import graph_wanted
from toyiwae.networks.runs.run import fresh
from toyiwae.networks.runs.settings import read
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


# Recorded ---------------------------------------------------------------------------------------------------


class Gpu:
    """Stands in for torch.cuda: what runs in `graph` is remembered, not done, and done in `replay`."""

    def __init__(self, monkeypatch, work):
        self.log, self.work, gpu = [], work, self

        class CUDAGraph:
            def replay(self):
                gpu.log.append("replay")
                work()

        class graph:
            def __init__(self, made, pool):
                gpu.log.append("record")
                gpu.pools.append(pool)

            def __enter__(self):
                gpu.recording = True

            def __exit__(self, *failure):
                gpu.recording = False
                if failure[0] is not None:
                    raise RuntimeError("capture was invalidated")

        class Stream:
            def __init__(self):
                gpu.streams += 1

            def wait_stream(self, other):
                gpu.log.append("wait")

        self.recording, self.pools, self.streams = False, [], 0
        here = Stream()
        for name, fake in {"CUDAGraph": CUDAGraph, "graph": graph, "Stream": Stream}.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: here)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: gpu.log.append(stream is here))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
        monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)

    def __call__(self):
        if not self.recording:
            self.log.append("run")
            self.work()


def test_a_step_is_made_once_whether_it_runs_is_recorded_or_replayed(monkeypatch):
    done = []
    gpu = Gpu(monkeypatch, lambda: done.append(len(done)))
    whole = Captured(gpu, "cuda")
    states = []
    for number in range(captured.WARM + 3):
        whole()
        states.append(whole.recorded)
        assert len(done) == number + 1
    assert gpu.log == ["wait", "run", "wait"] * captured.WARM + ["record"] + ["replay"] * 3
    assert states == [False] * captured.WARM + [True] * 3
    for plain in (Captured(gpu, "cuda", graph=False), Captured(gpu, "cpu")):
        gpu.log.clear()
        for _ in range(captured.WARM + 2):
            plain()
        assert gpu.log == ["run"] * (captured.WARM + 2)
        assert not plain.recorded


def test_what_cannot_be_recorded_is_one_line(monkeypatch):
    def work():
        if gpu.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    gpu = Gpu(monkeypatch, work)
    whole = Captured(work, "cuda")
    for _ in range(captured.WARM):
        whole()
    with pytest.raises(ToyiwaeError) as caught:
        whole()
    assert str(caught.value) == (
        "a step cannot be one CUDA graph (operation not permitted when stream is capturing): set training.graph = off"
    )


def failing(gpu, error):
    def work():
        if gpu().recording:
            raise error
        gpu().log.append("run")

    return work


def test_what_cannot_be_recorded_and_need_not_be_runs_as_it_is(monkeypatch):
    """One warning for all that share a device; every call does its work once; the caller's stream is set again."""
    error = RuntimeError("operation not permitted when stream is capturing\nmore")
    work = failing(lambda: gpu, error)
    gpu, shared = Gpu(monkeypatch, work), Shared()
    whole, last = (Captured(work, "cuda", must=False, shared=shared) for _ in range(2))
    for one in (whole, last):
        for _ in range(captured.WARM):
            one()
    gpu.log.clear()
    with pytest.warns(InputWarning, match=r"capturing\): steps are made without") as caught:
        whole()
    assert len(caught) == 1
    for one in (last, whole, last, whole, last):
        one()
    assert gpu.log == ["record", True] + ["run"] * 6
    assert not whole.recorded


def test_a_full_memory_is_no_matter_of_graphs(monkeypatch):
    work = failing(lambda: gpu, torch.OutOfMemoryError("full"))
    gpu = Gpu(monkeypatch, work)
    whole = Captured(work, "cuda", must=False)
    for _ in range(captured.WARM):
        whole()
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        whole()


def test_graphs_of_a_device_share_memory_and_a_stream(monkeypatch):
    gpu, shared = Gpu(monkeypatch, lambda: None), Shared()
    calls = [Captured(gpu, "cuda", shared=shared) for _ in range(2)]
    before = gpu.streams
    for one in calls:
        for _ in range(captured.WARM + 1):
            one()
    assert len(gpu.pools) == 2
    assert gpu.pools[0] is gpu.pools[1]
    assert gpu.streams == before + 1


# Runs -------------------------------------------------------------------------------------------------------


def test_a_run_by_counters_is_its_steps(tmp_path):
    """The loop's turns of epochs, averages and last, shorter batches, beside a loop written out."""
    run = short(None, "training.random=philox", "training.schedule=stages", "training.dtype=float64")
    settings = read(run.settings.plain())
    other = fresh(settings, run.images)
    noise, stack = other.noise, other.members
    assert isinstance(noise, Counters)
    batches = Batches(other.images, noise, 8)
    adam = Adam(other.model.parameters, [m.learning_rate for m in stack])
    rows = []
    for number in range(21):
        x = batches.at(number)
        result = step(other.model, stack, x, noise.at(number))
        adam.step(result.gradients, stage_factor(number // 7))
        rows.append((x.shape[1], result.bound, result.ess))
    assert relative(run.model.parameters, other.model.parameters) < 1e-12
    for index, line in enumerate(run.metrics):
        some = rows[3 * index : 3 * index + 3]
        count = sum(row[0] for row in some)
        for place, name in ((1, "bound"), (2, "ess")):
            mean = sum(row[0] * row[place] for row in some) / count
            np.testing.assert_allclose(line[name], mean, rtol=1e-12)


def test_runs_by_counters_resume_bit_for_bit(tmp_path):
    """In the middle of an epoch and of a line of metrics; on a CPU and, asked there, with graphs off."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    short(whole, "training.random=philox")
    for _ in range(3):
        short(stopped, "training.random=philox", minutes=1e-9, resume=True)
    short(stopped, "training.random=philox", "training.graph=off", resume=True)
    before, after = crashes.content(whole), crashes.content(stopped)
    assert set(before) < set(after)
    assert before["metrics.jsonl"] == after["metrics.jsonl"]
    last = [load_run(folder, images=crashes.images()).model.parameters for folder in (whole, stopped)]
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


def test_what_runs_were_before_they_are():
    """The new settings at their defaults leave the hash of a run as it was, so that its checkpoints go on."""
    settings = read(crashes.SETTINGS)
    assert not {"training.random", "training.graph"} & settings.numbers().keys()
    assert settings.content_hash == OLD
    assert read(crashes.SETTINGS, ["training.graph=off"]).content_hash == settings.content_hash
    assert read(crashes.SETTINGS, ["training.random=philox"]).content_hash != settings.content_hash


OLD = "71f48bb94f6f60210cb83b45c2566dfe74496c07aaf467e4c8862d149283f9ff"


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["training.graph=on"],
            "training.graph is 'on': there are CUDA graphs on CUDA devices, not on cpu",
        ),
        (["training.random=philox", "training.graph=on"], "not on cpu"),
        (["training.graph=yes"], "training.graph is 'yes': expected 'auto', 'on' or 'off'"),
        (["training.random=mt"], "training.random is 'mt': expected 'auto', 'torch' or 'philox'"),
    ],
)
def test_graphs_that_cannot_be_are_refused(assignments, message):
    with pytest.raises(InputError) as caught:
        short(None, *assignments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "noise", "reason"),
    [
        ("iwae", Counters, None),
        ("iwae", Noise, "torch's generators are seeded by the host"),
        ("u_statistic", Counters, "how much u_statistic computes follows from the weights"),
    ],
)
def test_which_runs_become_graphs(estimator, noise, reason):
    """As if there were a GPU; nothing is computed."""
    for setting in ("auto", "on", "off"):
        settings = read(crashes.SETTINGS, [f"training.graph={setting}"])
        member = Member("iwae", estimator, 1, 6, 0)
        run = SimpleNamespace(settings=settings, members=(member,), noise=noise((0,), device="cuda"))
        if setting == "on" and reason is not None:
            with pytest.raises(InputError, match=f"training.graph is 'on': {reason}"):
                graph_wanted(run)
        else:
            assert graph_wanted(run) == (setting != "off" and reason is None)


def test_a_step_that_asks_others_is_not_recorded(monkeypatch):
    """And refused where a graph is asked for, as if there were a GPU."""
    monkeypatch.setattr(device_steps, "_no_graph", lambda run: None)
    run = fresh(read(crashes.SETTINGS, ["training.random=philox"]), crashes.images())
    noise = Counters(run.noise.seeds)
    batches, adam = DeviceBatches(run.images, noise, 8), DeviceAdam(run.model.parameters, [1e-3] * 4)
    for take, wanted in ((step, True), (lambda *_: step(*_), False)):
        assert device_steps.DeviceSteps(run, run.model, batches, adam, take)._graph == wanted
    on = replace(run, settings=read(crashes.SETTINGS, ["training.random=philox", "training.graph=on"]))
    assert device_steps.DeviceSteps(on, run.model, batches, adam)._graph
    with pytest.raises(
        InputError, match=r"training\.graph is 'on': processes share every batch, and a step asks"
    ):
        device_steps.DeviceSteps(on, run.model, batches, adam, lambda *_: step(*_))


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_graphs_of_a_run_share_and_must_be_where_they_are_on(setting, monkeypatch):
    """Those of whole batches, and of an epoch's last, shorter one."""
    made = []
    monkeypatch.setattr(device_steps, "graph_wanted", lambda run, shared: True)
    monkeypatch.setattr(
        device_steps, "Captured", lambda *_, **options: made.append(options) or (lambda: None)
    )
    settings = read(crashes.SETTINGS, ["training.random=philox", f"training.graph={setting}"])
    run = fresh(settings, crashes.images())
    assert isinstance(run.noise, Counters)
    batches, adam = DeviceBatches(run.images, run.noise, 8), DeviceAdam(run.model.parameters, [1e-3] * 4)
    steps, window = device_steps.DeviceSteps(run, run.model, batches, adam), ImageAverage.empty(2, 4)
    for number in range(batches.per_epoch):
        window = steps.make(number, window)
    assert [(options["graph"], options["must"]) for options in made] == [(True, setting == "on")] * 2
    assert made[0]["shared"] is made[1]["shared"]


def test_which_runs_draw_from_counters():
    gpu, philox = "training.device=cuda:1", "training.random=philox"
    module = {**crashes.SETTINGS, "model": {"kind": "module", "file": "a.py:make"}}
    module["members"], one = [{"estimator": "iwae", "K": 2}], ["training.seeds=[0]"]
    plain, on_gpu = read(crashes.SETTINGS), read(crashes.SETTINGS, [gpu])
    assert (plain.counters, on_gpu.counters) == (False, True)
    assert read(crashes.SETTINGS, [philox]).counters
    assert not read(crashes.SETTINGS, [gpu, "training.random=torch"]).counters
    assert not read(module, [gpu, *one]).counters
    assert on_gpu.content_hash == read(crashes.SETTINGS, [gpu, philox]).content_hash
    assert on_gpu.content_hash != read(crashes.SETTINGS, [gpu, "training.random=torch"]).content_hash
    assert plain.content_hash == read(crashes.SETTINGS, ["training.random=torch"]).content_hash
    with pytest.raises(InputError, match=r"training\.random is 'philox': a module of yours draws torch's"):
        fresh(read(module, [*one, philox]), crashes.images())


# The benchmark ----------------------------------------------------------------------------------------------


def test_the_benchmark_measures_a_tiny_stack_on_a_cpu(capsys):
    assert graph.main(["--device", "cpu", "--profile"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checks"] == {"normals": 0.0, "uniform": 0.0, "graph": 0.0}
    rows = [(row["members"], row["how"]) for row in found["rows"]]
    assert rows == [(members, how) for members in (5, 1) for how in ("launches", "graph")]
    assert all(row["microseconds"] > 0 and row["tflops"] > 0 for row in found["rows"])
    assert found["kernels, 5 members, float32"][0]["microseconds"] > 0
    with pytest.raises(InputError, match="members is 4: expected a multiple of 5"):
        graph.measured(CPU, members=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so(capsys):
    assert graph.main([]) == 2
    message = "error: this machine has no GPU that torch can use: give --device cpu for a tiny size\n"
    assert capsys.readouterr().err == message
    assert list(graph.run()) == []
    assert capsys.readouterr().err == "  skipped: this machine has no GPU that torch can use\n"
