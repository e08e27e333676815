"""Triton's kernels without a GPU: in the interpreter, and compiled for sm_90 with a budget of instructions."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import toyiwae
from tests.problems import random_problem

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'toyiwae[gpu]'"
)

POINTERS = dict.fromkeys(("slope", "curvature", "extremes", "zeroth"), "*fp64") | {
    "start": "*i64",
    "first": "*fp32",
}
SIZES = dict.fromkeys(("rows", "groups", "particles", "segments", "length", "curvature_stride"), "i32")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("file", ["interpreted_gpu.py", "interpreted_networks.py"])
def test_kernels_in_the_interpreter(file):
    """In a process of its own: Triton reads TRITON_INTERPRET when kernels are defined."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{file}"]
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


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_the_kernels_of_a_training_step_compile_once_for_all_sizes(monkeypatch):
    """Batches, steps and chunks of a run, ones and multiples of 16 among them; only the logits' type makes two."""
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    from toyiwae.networks import kernels

    modules = {name: kernels.load(name) for name in ("bernoulli", "layers", "random")}
    found = {}
    for name, kernel in (("bernoulli", "likelihood"), ("layers", "tanh_of_sum"), ("random", "numbers")):
        found[name] = Compiled(getattr(modules[name], kernel))
        monkeypatch.setattr(modules[name], kernel, found[name])
    monkeypatch.setattr(driver, "_active", Hopper())
    for members, particles, images in ((1, 1, 1), (20, 64, 20), (3, 16, 7)):
        shape = members, particles, images
        x, bias = torch.zeros(members, images, 784), torch.zeros(members, 784)
        for dtype in (torch.float32, torch.bfloat16):
            modules["bernoulli"].log_likelihood(x, torch.zeros(*shape, 784, dtype=dtype), bias)
        modules["layers"].tanh_of_sum_(
            torch.zeros(members, particles * images, 200), torch.zeros(members, 200)
        )
        for kind in ("normal", "uniform"):
            for first in (0, 1, 16):
                keys, clock = torch.zeros(members, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
                modules["random"].drawn(kind, keys, clock, first, particles * images * 50)
    for name, variants in (("bernoulli", 2), ("layers", 1), ("random", 2)):
        assert len(set(map(id, found[name].found))) == variants, name
        assert {kernel.metadata.target.arch for kernel in found[name].found} == {90}


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_the_kernel_of_coefficients_compiles_for_every_rule(monkeypatch):
    """Once for all members and batches."""
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    from toyiwae.networks import kernels

    forms = kernels.load("forms")
    found = Compiled(forms.coefficients)
    monkeypatch.setattr(forms, "coefficients", found)
    monkeypatch.setattr(driver, "_active", Hopper())
    rules = [rule for rule in toyiwae.estimators.all() if forms.fusible(rule, rule, 8, 8)]
    for rule in (*rules, toyiwae.estimators.get("vr_iwae:1.5")):
        found.found.clear()
        for members, images in ((1, 1), (20, 20), (16, 7)):
            log_w, which = torch.zeros(members, 64, images), torch.arange(members)
            parts, metrics = torch.zeros(3, *log_w.shape), torch.zeros(2, members, images)
            forms.evaluate(rule, rule, 8, log_w, which, parts, metrics, 1.0 / images)
        assert len(set(map(id, found.found))) == 1, rule.name
        assert found.found[0].metadata.target.arch == 90


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_budget_of_instructions_of_the_likelihood(tmp_path):
    """At most 30 a pixel, padding included: less time than their memory takes at 4.8 TB/s; logits four at a time."""
    from tests import sass
    from toyiwae.networks.kernels.bernoulli import likelihood

    types: dict[str, str] = dict.fromkeys(("x", "out", "bias", "log_p"), "*fp32")
    types |= dict.fromkeys(("inner", "images", "x_member", "x_image"), "i32")
    constants = {"PIXELS": 784, "FACTORS": 7, "BLOCK": 128}
    aligned = ("x", "out", "bias", "x_member", "x_image")
    found = sass.whole(likelihood, types, constants, tmp_path, warps=1, aligned=aligned)
    print(f"{len(found.instructions) / 28:.1f} instructions a pixel, {found.registers} registers")
    assert found.instructions.count("LDG.E.128") == 3 * 7
    assert found.instructions.count("STG.E.128") == 7
    assert 10 * 28 < len(found.instructions) <= 30 * 28
    assert found.stack == 0
