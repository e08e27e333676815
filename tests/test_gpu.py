"""The engine triton without a GPU: interpreted, compiled for sm_90, and what it says where there is none."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import toyiwae
from analysis.benchmarks import sampling_gpu
from tests.problems import random_problem
from toyiwae.errors import InputError, MissingExtraError
from toyiwae.montecarlo import sampler as shared
from toyiwae.montecarlo.kernels.torch_sampler import TorchSampler

ROOT = Path(__file__).resolve().parents[1]
ONE_ROW, AMORTISED = random_problem(1), random_problem(2, 3, 2, rows=4, amortised=True)
WAITS = "u_statistic"
CPU, META = torch.device("cpu"), torch.device("meta")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'toyiwae[gpu]'"
)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")

POINTERS = dict.fromkeys(("slope", "curvature", "extremes", "zeroth"), "*fp64") | {
    "start": "*i64",
    "first": "*fp32",
}
SIZES = dict.fromkeys(("rows", "groups", "particles", "segments", "length", "curvature_stride"), "i32")


# Interpreted and compiled -----------------------------------------------------------------------------------


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    """In a process of its own: Triton reads TRITON_INTERPRET when kernels are defined."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interpreted_gpu.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550)
    assert run.returncode == 0, run.stdout[-5000:]
    assert "skipped" not in run.stdout


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_budget_of_instructions_of_the_generator(tmp_path):
    """At most 24 a normal on sm_90, two of them special functions; the addition that takes each normal in, included."""
    from analysis.benchmarks import gpu_kernels
    from tests import sass

    constants = {"DIM": 20, "ROUNDS": 10, "BLOCK": 128}
    loop = sass.compiled(gpu_kernels.generator, {"out": "*fp32", "steps": "i32"}, constants, tmp_path)
    print(
        f"{len(loop.instructions) / 20:.1f} instructions and {loop.special / 20} special functions a normal"
    )
    assert loop.special == 2 * 20
    assert 10 * 20 < len(loop.instructions) <= 24 * 20
    assert loop.stack == 0


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("dim", "exponents", "first"),
    [(20, (1.0, 2.0), 1), (20, (1.0, 2.0), 2), (20, (-1.0, 0.0, 1.0, 2.0), 4), (32, (1.0, 2.0), 1)],
    ids=["IWAE", "IWAE and DReG", "full registers", "most latents"],
)
def test_budget_of_instructions_of_the_fused_kernel(dim, exponents, first, tmp_path):
    """At most 33 a normal, log-weights and all sums included; nothing leaves the registers."""
    from tests import sass
    from toyiwae.montecarlo.kernels.gpu.combine import REGISTERS
    from toyiwae.montecarlo.kernels.gpu.kernels import power_sums

    assert dim * (first + 4) <= REGISTERS
    constants = {"D": dim, "EXPONENTS": exponents, "FIRST": first, "ROUNDS": 10, "BLOCK": 128}
    loop = sass.compiled(power_sums, POINTERS | SIZES | {"tasks": "i32"}, constants, tmp_path)
    print(f"{len(loop.instructions) / dim:.1f} instructions a normal, {loop.registers} registers")
    assert 2 * dim < loop.special <= 2 * dim + len(exponents)
    assert 10 * dim < len(loop.instructions) <= 33 * dim
    assert loop.stack == 0


class Hopper:
    """A driver of a GPU that is not there: enough to compile for it."""

    def get_current_target(self):
        from tests import sass

        return sass.HOPPER

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled:
    """Stands in for a kernel: compiles what a launch would, and does not launch it."""

    def __init__(self, kernel):
        self.kernel, self.found = kernel, []

    def __getitem__(self, grid):  # noqa: D105
        return lambda *args, **options: self.found.append(self.kernel.warmup(*args, grid=grid, **options))


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_launches_compile_once_for_all_sizes(monkeypatch):
    """The arguments are those of a launch; ones and multiples of 16, which Triton likes to set apart, among them."""
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    from toyiwae.montecarlo.kernels.gpu import TritonSampler, kernels, launch

    found = {}
    for name in ("power_sums", "log_weights", "weighted_sums", "standard_normals"):
        found[name] = Compiled(getattr(kernels, name))
        monkeypatch.setattr(kernels, name, found[name])
    monkeypatch.setattr(driver, "_active", Hopper())
    for problem in (random_problem(1), random_problem(2, 2, 2, rows=16, amortised=True)):
        for names in ("iwae,dreg", "iwae,vimco_arithmetic"):
            engine = TritonSampler(problem, toyiwae.estimators.select(names), problem.mean_parameters, CPU)
            least = max(estimator.min_particles for estimator in engine.estimators)
            for particles, groups, replicates in ((least, 1, 1), (64, 1, 16), (300, 2, 5)):
                list(engine.chunks(particles, groups, replicates, 0))
                layout = launch.Layout.of(engine.n_rows, groups, particles, 2)
                launch.PhiloxNoise(layout, 0, (particles,), CPU).draw(0)
    for kernel in found.values():
        assert len(kernel.found) >= 6
        assert len(set(map(id, kernel.found))) == 1
        assert kernel.found[0].metadata.target.arch == 90


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_what_the_benchmark_probes_is_what_it_says(tmp_path):
    """A product and an exclusive or for each step of each chain, and hardly anything else."""
    from analysis.benchmarks import gpu_kernels
    from tests import sass

    for half, name in (("low", "IMAD"), ("high", "IMAD.HI.U32"), ("both", "IMAD.WIDE.U32")):
        constants = {"HALF": half, "CHAINS": 8, "BLOCK": 128}
        loop = sass.compiled(gpu_kernels.products, {"out": "*i32", "steps": "i32"}, constants, tmp_path)
        products = loop.instructions.count(name)
        assert products % 8 == 0 < products
        assert loop.instructions.count("LOP3.LUT") == products
        assert len(loop.instructions) <= 2 * products + 6


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
    """How many nodes its integrals have follows from the weights."""
    waiting = [e for e in toyiwae.estimators.all() if e.family == WAITS]
    assert waiting
    for estimator in waiting:
        with pytest.raises(RuntimeError, match="meta"):
            estimator(torch.empty((2, 5), device=META))


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
