"""Runs whose steps stay on the device, their graphs and random numbers, and the benchmark of their step."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.benchmarks import graph
from tests import crashes, test_networks_step
from tests.short_runs import short
from tests.test_networks_step import relative
from toyiwae import InputError, load_run
from toyiwae.networks.averages import ImageAverage
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import Batches, DeviceBatches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam, DeviceAdam, stage_factor
from toyiwae.networks.resident import ResidentStep
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
        graph.measured(torch.device("cpu"), members=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so(capsys):
    assert graph.main([]) == 2
    message = "error: this machine has no GPU that torch can use: give --device cpu for a tiny size\n"
    assert capsys.readouterr().err == message
    assert list(graph.run()) == []
    assert capsys.readouterr().err == "  skipped: this machine has no GPU that torch can use\n"
