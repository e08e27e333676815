"""The step on a real GPU; skipped where there is none. Everything that needs none to be right is tested elsewhere."""

import pytest
import torch

from analysis.benchmarks import graph, graph_checks
from tests import crashes
from tests.short_runs import IMAGES, short
from toyiwae import evaluate, load_run
from toyiwae.networks.captured import WARM
from toyiwae.networks.products import PRODUCTS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
CUDA = torch.device("cuda")
ON_GPU = "training.device=cuda"


def test_kernels_are_their_twins_and_integers_the_cpus():
    assert graph_checks.of_kernels(CUDA)["uniform"] == 0.0


@pytest.mark.parametrize("products", PRODUCTS)
def test_a_graph_makes_the_steps_that_launches_make(products):
    """To the bit, since it replays the same launches."""
    stacks = [graph.Stack(CUDA, 5, 20, products, how) for how in ("launches", "graph")]
    for stack in stacks:
        for _ in range(WARM + 5):
            stack()
    assert stacks[1].recorded
    for name, value in stacks[0].parameters.items():
        assert torch.equal(value, stacks[1].parameters[name]), name


def test_a_gpus_run_is_the_cpus_but_for_rounding():
    """From the same integers: 21 steps in float32, whose differences grow."""
    cpu, gpu = short(None, "training.random=philox"), short(None, ON_GPU)
    for one, other in zip(cpu.metrics, gpu.metrics, strict=True):
        assert other["bound"] == pytest.approx(one["bound"], abs=1e-3)


@pytest.mark.parametrize("setting", ["training.graph=on", "training.graph=off"])
def test_what_is_resumed_is_the_uninterrupted_run(setting, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    short(whole, ON_GPU, "training.graph=on")
    for _ in range(3):
        short(stopped, ON_GPU, setting, minutes=1e-9, resume=True)
    short(stopped, ON_GPU, setting, resume=True)
    assert crashes.content(whole)["metrics.jsonl"] == crashes.content(stopped)["metrics.jsonl"]
    last = [load_run(folder, images=IMAGES).model.parameters for folder in (whole, stopped)]
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_compiled_passes_keep_the_precision_of_their_products(precision):
    """TF32 shows in the bound's last digits, in both alike."""
    stacks = [graph.Stack(CUDA, 5, 20, precision, how) for how in ("launches", "graph, compiled")]
    for stack in stacks:
        for _ in range(WARM + 2):
            stack()
    for name, value in stacks[0].parameters.items():
        torch.testing.assert_close(stacks[1].parameters[name], value, rtol=0, atol=1e-4)


def test_an_evaluation_runs_there():
    found = evaluate(short(None, ON_GPU), K=(1, 30), snr_replicates=3, annealing_steps=2, annealing_images=3)
    assert found.bounds.bound.shape == (4, 2, 10)
