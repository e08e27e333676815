"""The engine triton where there is no GPU: what it says, and what would wait for the device."""

import contextlib
import importlib.util
import sys

import numpy as np
import pytest
import torch

import toyiwae
from analysis.benchmarks import sampling_gpu
from tests.problems import random_problem
from toyiwae.errors import InputError, MissingExtraError
from toyiwae.montecarlo import sampler as shared
from toyiwae.montecarlo.kernels.torch_sampler import TorchSampler

ONE_ROW, AMORTISED = random_problem(1), random_problem(2, 3, 2, rows=4, amortised=True)
WAITS = "u_statistic"
CPU, META = torch.device("cpu"), torch.device("meta")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'toyiwae[gpu]'"
)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


# Where there is no GPU --------------------------------------------------------------------------------------


@no_gpu
@needs_triton
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "device is 'cpu': the engine triton runs on a GPU, use device cuda, or engine numba or torch"),
        ({"device": "cuda"}, "device is 'cuda': this machine has 0 CUDA devices, use cpu"),
        (
            {"precision": "float64"},
            "precision is 'float64': the engine triton draws in float32, use engine torch",
        ),
    ],
)
def test_without_a_gpu_one_line_says_what_is_missing(options, message):
    with pytest.raises(InputError) as caught:
        toyiwae.estimate(ONE_ROW, K=2, replicates=2, seed=0, engine="triton", **options)
    assert str(caught.value) == message


def test_without_triton_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingExtraError) as caught:
        toyiwae.estimate(ONE_ROW, K=2, replicates=2, seed=0, engine="triton", device="cuda")
    message = "the engine triton needs triton, which is not installed: pip install 'toyiwae[gpu]'"
    assert str(caught.value) == message


@no_gpu
def test_without_a_gpu_the_benchmark_is_skipped(capsys):
    assert list(sampling_gpu.run()) == []
    assert capsys.readouterr().err == "  skipped: this machine has no GPU that torch can use\n"


# What a GPU would wait for ----------------------------------------------------------------------------------


def test_on_a_meta_device_nothing_can_wait_or_stay_behind():
    """The next test's means: such tensors have no values, and do not mix with others."""
    empty = torch.empty(3, device=META)
    with pytest.raises(RuntimeError, match="meta"):
        empty.max().item()
    with pytest.raises(RuntimeError, match="meta"):
        empty.add(torch.zeros(3))


@pytest.mark.parametrize("problem", [ONE_ROW, AMORTISED], ids=["one row", "amortised"])
def test_the_torch_engine_neither_waits_for_the_device_nor_mixes_devices(problem, monkeypatch):
    """Log-weights, every estimator's own function, and all parameters' sums and gradients."""
    tensors = []
    monkeypatch.setattr(shared, "as_numpy", lambda tensor: tensors.append(tensor) or np.empty(tensor.shape))
    patient = [e for e in toyiwae.estimators.all() if e.family != WAITS]
    engine = TorchSampler(problem, patient, tuple(problem.parameters), META)
    noise = torch.empty((7, problem.n_rows, 2, 5, problem.dim_z), dtype=torch.float64, device=META)
    chunk = engine.one_pass(noise, slice(None))
    assert chunk.values.shape == chunk.ess.shape == (7,)
    for parts in chunk.gradients.values():
        assert {name: part.shape[1:] for name, part in parts.items()} == dict(problem.parameters)
    assert {(len(t), t.device, t.dtype) for t in tensors} == {(7, META, torch.float64)}


def test_what_waits_is_known():
    """How many nodes integrals have follows from the weights; gradients over pairs have none."""
    waiting, log_w = (
        [e for e in toyiwae.estimators.all() if e.family == WAITS],
        torch.empty(2, 5, device=META),
    )
    assert waiting
    for estimator in waiting:
        with pytest.raises(RuntimeError, match="meta"):
            estimator.value_of(log_w)
    with pytest.raises(RuntimeError, match="meta"):
        toyiwae.estimators.get(f"{WAITS}:3")(log_w)
    assert toyiwae.estimators.get(f"{WAITS}:2")(log_w).path.shape == (2, 5)


class Launched:
    """Stands in for a kernel: takes a grid and arguments, and does nothing."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):  # noqa: D105
        return lambda *arguments, **options: self.calls.append((grid, arguments, options))


@needs_triton
@pytest.mark.parametrize("problem", [ONE_ROW, AMORTISED], ids=["one row", "amortised"])
def test_the_fused_engine_neither_waits_for_the_device_nor_mixes_devices(problem, monkeypatch):
    from toyiwae.montecarlo.kernels.gpu import TritonSampler, combine, kernels, launch

    kernel = Launched()
    monkeypatch.setattr(kernels, "power_sums", kernel)
    able = [e for e in toyiwae.estimators.all() if combine.fusible(e.form)]
    engine = TritonSampler(problem, able, problem.mean_parameters, META)
    cell = engine.cell(300, 2, torch.empty(2, dtype=torch.int64, device=META))
    assert cell is not None
    tensors = cell.tensors(7, slice(None))
    assert len(tensors) == 2 + len(able) * len(problem.mean_parameters)
    assert {(len(t), t.device, t.dtype) for t in tensors} == {(7, META, torch.float64)}
    assert [grid for grid, *_ in kernel.calls] == [(-(-7 * problem.n_rows * 2 * 3 // launch.BLOCK), 1)]


@needs_triton
def test_more_particles_than_counters_are_refused():
    from toyiwae.montecarlo.kernels.gpu import TritonSampler

    engine = TritonSampler(ONE_ROW, toyiwae.estimators.select("iwae"), ("proposal_mean",), META)
    engine.check(2**32 - 1, 1, 10**9)
    with pytest.raises(InputError, match="K is 4294967296: the engine triton has counters for less"):
        engine.check(2**32, 1, 1)


# CUDA graphs ------------------------------------------------------------------------------------------------


class Graph:
    """A CUDA graph as far as `Replayed` uses one: what ran in `torch.cuda.graph` runs again in `replay`."""

    work = staticmethod(lambda: None)

    def replay(self):
        self.work()


@needs_triton
def test_a_graph_is_warmed_up_recorded_once_and_replayed(monkeypatch):
    from toyiwae.montecarlo.kernels.gpu.graphs import Replayed

    position, output, log = torch.tensor(0), torch.zeros(1), []

    def work():
        output.fill_(float(10 * position))
        return [output]

    class recording:
        def __init__(self, graph):
            log.append("record")
            graph.work = work

        def __enter__(self):
            log.append("begin")

        def __exit__(self, *failure):
            log.append("end")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    found = []
    on_gpu = Replayed(lambda: (log.append("call"), work())[1], torch.device("cuda"))
    for index in range(4):
        position.fill_(index)
        found.append(on_gpu()[0])
    assert log == ["call", "record", "begin", "call", "end"]
    assert [float(value) for value in found[1:]] == [10.0, 20.0, 30.0]  # copies: no replay overwrites them
    log.clear()
    on_cpu = Replayed(lambda: (log.append("call"), work())[1], torch.device("cpu"))
    assert [len(on_cpu()) for _ in range(3)] == [1, 1, 1]
    assert log == ["call"] * 3
