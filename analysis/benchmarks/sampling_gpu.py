"""Standard normals per second of the engine triton on one GPU, beside what bounds it and beside two CPU cores.

Without a GPU nothing is timed. The limit is the issue of instructions: about 1.5·10¹² normals/s on an H200, if the high
half of a 32-bit multiplication issues at the full rate, which is measured first. Before any timing the GPU's estimates
have to agree with exact values, and its fused kernel with the torch engine on the same noise.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

import toyiwae
from analysis.benchmarks.timing import Timing
from toyiwae.montecarlo import replicates

LIMIT = 1.5e12
"""Normals per second that an H200's issue of instructions allows, by static counts."""

LANES, STEPS = 2**20, 256
ESTIMATORS, MEANS = "iwae,dreg", ("prior_mean", "proposal_mean")


def run() -> Iterator[Timing]:
    """Agreement, the multiplication's two halves, the generator alone, the fused kernel, and whole estimates."""
    reason = missing()
    if reason:
        print(f"  skipped: {reason}", file=sys.stderr)
        return
    from analysis.benchmarks import gpu_kernels as probes
    from analysis.benchmarks import gpu_noise

    device = torch.device("cuda")
    print(f"  {torch.cuda.get_device_name(device)}, torch {torch.__version__}: {agreement(device)}")
    print(f"  {gpu_noise.judged(2**33, device)}")
    out = torch.empty(LANES, dtype=torch.float32, device=device)
    words = out.view(torch.int32)
    for half in ("low", "high", "both"):
        each = seconds(lambda half=half: probes.launch(words, STEPS, half)) / (LANES * STEPS * probes.CHAINS)
        yield Timing(f"32-bit products, {half}", 1.0 / each, "products/s")
    found = LANES * STEPS * probes.DIM / seconds(lambda: probes.launch(out, STEPS))
    yield Timing("generator alone", found, "normals/s", found / LIMIT)
    problem = toyiwae.paper_problem(N=1)
    for particles in (64, 4096):
        count = 2**31 // (particles * problem.dim_z)
        found = count * particles * problem.dim_z / seconds(launches(problem, particles, count, device))
        yield Timing(f"fused kernel, K = {particles}", found, "normals/s", found / LIMIT)
    yield from estimates(problem)


def estimates(problem: toyiwae.Problem) -> Iterator[Timing]:
    """Replicates per second of whole runs, and their ratio to two threads of the engine numba."""
    for rows in (1, 1024):
        drawn_from = problem if rows == 1 else toyiwae.paper_problem(N=rows)
        for particles in (1, 8, 64, 512, 4096):
            numbers = particles * problem.dim_z * rows
            count = max(2, 2**31 // numbers)
            options = {"K": particles, "seed": 1, "parameters": None}

            def sample(count=count, problem=drawn_from, options=options, **engine) -> None:
                for _ in replicates(problem, ESTIMATORS, replicates=count, **options, **engine):
                    pass

            found = count / seconds(lambda s=sample: s(engine="triton", device="cuda"))
            yield Timing(
                f"replicates, K = {particles}, N = {rows}", found, "replicates/s", found * numbers / LIMIT
            )
            if importlib.util.find_spec("numba"):
                few = max(2, count // 256)
                slow = few / seconds(lambda s=sample, f=few: s(f, engine="numba", threads=2))
                yield Timing("  to two CPU cores", found / slow, "times")


def agreement(device: torch.device) -> str:
    """That estimates agree with exact values and with the torch engine on the same noise.

    Raises:
        RuntimeError: where they do not.
    """
    from toyiwae.montecarlo.chunks import Chunk
    from toyiwae.montecarlo.kernels.gpu import TritonSampler
    from toyiwae.montecarlo.kernels.torch_sampler import TorchSampler

    problem = toyiwae.paper_problem(N=3)
    options = {"K": 64, "M": 2, "estimators": ESTIMATORS, "replicates": 2**16, "seed": 3}
    found = toyiwae.estimate(problem, **options, engine="triton", device=str(device)).agreement()
    if not found.passed:
        raise RuntimeError(f"the engine triton disagrees with exact values: {found}")
    engine = TritonSampler(problem, toyiwae.estimators.select(ESTIMATORS), problem.mean_parameters, device)
    fused, twin = (
        Chunk.join(list(f(engine, 1000, 2, 64, 3))) for f in (TritonSampler.chunks, TorchSampler.chunks)
    )
    distances = [float(np.abs(fused.values - twin.values).max())]
    for name, parts in fused.gradients.items():
        for parameter, value in parts.items():
            other = twin.gradients[name][parameter]
            distances.append(float(np.abs(value - other).max() / np.abs(other).max()))
    distance = float(np.max(distances))  # NaN where one of them is: Python's max may drop it
    if not distance < 1e-5:
        raise RuntimeError(
            f"the fused kernel and the torch engine differ by {distance:.1g} on the same noise"
        )
    return f"largest |z| {found.largest_z:.2f} of {found.threshold:.2f}; {distance:.0e} from the torch engine"


def launches(
    problem: toyiwae.Problem, particles: int, count: int, device: torch.device
) -> Callable[[], object]:
    """A call that launches the fused kernel once, for that many replicates."""
    from toyiwae.montecarlo.kernels.gpu import TritonSampler
    from toyiwae.montecarlo.kernels.gpu.cells import FusedCell
    from toyiwae.montecarlo.kernels.gpu.launch import start_of

    engine = TritonSampler(problem, toyiwae.estimators.select(ESTIMATORS), MEANS, device)
    cell = engine.cell(particles, 1, start_of(1, (particles, 1, 0), device))
    assert isinstance(cell, FusedCell)
    return lambda: cell.launch(count, 1)


def seconds(call: Callable[[], object], repetitions: int = 7) -> float:
    """Wall time until the GPU has done what a call asks for: the median, after one that is not counted."""
    found = []
    for _ in range(repetitions + 1):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return statistics.median(found[1:])


def missing() -> str | None:
    """What there is not, of what is needed; None where all is there."""
    if not torch.cuda.is_available():
        return "this machine has no GPU that torch can use"
    return (
        None if importlib.util.find_spec("triton") else "Triton is not installed: pip install 'toyiwae[gpu]'"
    )
