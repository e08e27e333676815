"""IWAE gradients of the paper's toy problem (D = 20) per CPU-second on one thread, beside the generator's own rate.

The limit is the rate at which the same generator merely fills memory with float32 normals, taken in turns with all
others. Peers draw their own noise and form the same first-order gradients: torch by hand without autograd, by autograd,
and by `vmap(grad)`; where they are installed, JAX by hand, NumPyro by `vmap` and Pyro one by one. How our time
grows with each of K, R, D and N is the slope of a line through logarithms. All of it is kept in
`results/benchmarks/sampling.json` and `.svg`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.benchmarks.sampling_peers import Call, by_jax, peers, timed
from analysis.benchmarks.timing import Timing
from toyiwae import Problem, estimators, paper_problem
from toyiwae.estimators import both, iwae_bound
from toyiwae.forms import Coefficients
from toyiwae.montecarlo import replicates
from toyiwae.montecarlo.kernels import streams
from toyiwae.montecarlo.whitened import Whitened
from toyiwae.weights import normalise

PARTICLES = (1, 8, 64, 512, 4096)
COSTLY = ("jackknife", "u_statistic", "vimco_geometric")
TURNS, NORMALS, SLOW = 7, 2**24, 2**20
FOLDER = Path("results/benchmarks")
OURS = ("iwae", "dreg", "a user's function", "iwae, all parameters")
_MARKERS = "osDv^<>PXph*"


def run() -> Iterator[Timing]:
    """One observation at every K, all 1,024 at K = 64, costly functions, and two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, every = paper_problem(N=1).row(0), paper_problem()
        table: dict[str, Any] = {}
        for particles in PARTICLES:
            yield from _group(f"K = {particles}", _cases(one, particles), one.dim_z * particles, table)
        many = {name: _ours(every, 64, name=name, normals=2**26) for name in ("iwae",)}
        if importlib.util.find_spec("jax"):
            many["JAX by hand"] = by_jax(every, 64)
        many["torch engine"] = _ours(every, 64, engine="torch", normals=every.n_rows * 64 * every.dim_z)
        yield from _group("1,024 observations, K = 64", many, every.n_rows * every.dim_z * 64, table)
        costly = {name: _ours(one, 64, name=name, normals=SLOW) for name in COSTLY}
        yield from _group("K = 64, by function", costly, one.dim_z * 64, table)
        table["slopes"] = _slopes()
        for name, slope in table["slopes"].items():
            yield Timing(f"slope of time in {name}", slope, "(1 is linear)")
        two, most = _two_threads(one)
        table["two threads"] = {"threads": two, "processes": most}
        yield Timing("two threads over one, wall time", two, "times")
        yield Timing("two processes over one, in the same turns", most, "times")
        _keep(table)
    finally:
        torch.set_num_threads(threads)


def _cases(problem: Problem, particles: int) -> dict[str, tuple[int, Call]]:
    """Everything that is compared at one K: name -> replicates of a call, the call."""
    found = {
        "iwae": _ours(problem, particles),
        "dreg": _ours(problem, particles, name="dreg"),
        "a user's function": _ours(problem, particles, name=_plain()),
        "iwae, all parameters": _ours(problem, particles, parameters="all"),
        "torch engine": _ours(problem, particles, engine="torch", normals=SLOW),
        "torch by hand": _by_hand(problem, particles),
        "torch vmap(grad)": _by_autograd(problem, particles, vectorised=True),
        "torch autograd": _by_autograd(problem, particles, vectorised=False),
    }
    return found | peers(problem, particles)


def _group(
    title: str, cases: dict[str, tuple[int, Call]], normals: int, table: dict[str, Any]
) -> list[Timing]:
    """Rates of all cases in turns with the generator; medians and quartiles."""
    seconds: dict[str, list[float]] = {"generator": [], **{name: [] for name in cases}}
    fill = _fill(20)
    for turn in range(TURNS + 1):
        for name, (_, call) in {"generator": fill, **cases}.items():
            found = call()
            if turn:
                seconds[name].append(found)
    limit = fill[0] / statistics.median(seconds["generator"])
    found = []
    for name, (count, _) in cases.items():
        rates = [count / second for second in seconds[name]]
        median, quartiles = statistics.median(rates), np.quantile(rates, (0.25, 0.75)).tolist()
        share = median * normals / limit
        table[f"{title}: {name}"] = {"rate": median, "quartiles": quartiles, "of the generator": share}
        found.append(Timing(f"{title}: {name}", median, "replicates/s", share))
    table[f"{title}: generator"] = {"normals per second": limit}
    return found


def _fill(dim: int) -> tuple[int, Call]:
    noise, key = np.empty((dim, streams.padded(NORMALS // dim)), np.float32), streams.key_of(1)
    return noise.size, lambda: timed(lambda: streams.normals(key, 0, 0, noise))


def _ours(
    problem: Problem,
    particles: int,
    *,
    name: Any = "iwae",
    parameters: Any = None,
    engine: str = "numba",
    normals: int = NORMALS,
) -> tuple[int, Call]:
    count = max(1, normals // (problem.n_rows * particles * problem.dim_z))
    options = {"K": particles, "replicates": count, "seed": 1, "parameters": parameters, "engine": engine}

    def call() -> float:
        chunks = replicates(problem, name, **options, threads=1)  # whitens the problem, which is not timed
        return timed(lambda: [None for _ in chunks])

    return count, call


def _plain() -> Any:
    """IWAE as a user's plain function, without a Form."""
    if "plain_iwae" not in estimators.names():

        @estimators.estimator(target=both(iwae_bound), cite=())
        def plain_iwae(log_w):
            """IWAE by a plain function."""
            shares = normalise(log_w) / log_w.shape[-2]
            return Coefficients(shares, shares, -shares)

    return estimators.get("plain_iwae")


def _constants(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    own = Whitened(problem)
    return torch.tensor(own.slope[0]).float(), torch.tensor(own.curvature[0]).float()


def _by_hand(problem: Problem, particles: int) -> tuple[int, Call]:
    """The same sums in float32 without autograd: what one would write for speed in torch."""
    slope, curvature = _constants(problem)
    count = max(1, min(NORMALS // 4, 2**22) // (particles * problem.dim_z))
    generator = torch.Generator().manual_seed(1)

    def call() -> object:
        noise = torch.empty(count, particles, problem.dim_z).normal_(generator=generator)
        weights = torch.softmax((noise * (slope + curvature * noise)).sum(-1), -1)
        return (weights[:, None] @ noise)[:, 0] * (slope + 1.0)

    return count, lambda: timed(call)


def _by_autograd(problem: Problem, particles: int, *, vectorised: bool) -> tuple[int, Call]:
    """The gradient of the bound by the proposal's mean, through log-sum-exp."""
    slope, curvature = _constants(problem)
    count = max(1, SLOW // (particles * problem.dim_z) if vectorised else min(100, SLOW // particles // 20))
    generator = torch.Generator().manual_seed(1)

    def bound(shift: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        moved = noise + shift
        return torch.logsumexp((moved * (slope + curvature * moved)).sum(-1), -1) - math.log(particles)

    def call() -> None:
        noise = torch.empty(count, particles, problem.dim_z).normal_(generator=generator)
        zero = torch.zeros(problem.dim_z)
        if vectorised:
            torch.func.vmap(torch.func.grad(bound), in_dims=(None, 0))(zero, noise)
        else:
            for own in noise:
                shift = zero.clone().requires_grad_()
                bound(shift, own).backward()

    return count, lambda: timed(call)


def _slopes() -> dict[str, float]:
    """Of log CPU seconds over the logarithm of K, R, D or N, the others fixed: 1 is linear."""
    one = paper_problem(N=1).row(0)
    grown = {
        "K from 64 to 10⁶, R = 4,096": {k: (one, k, 4096) for k in (64, 512, 4096, 32_768, 10**6)},
        "R from 4,096 to 2²⁰, K = 64": {r: (one, 64, r) for r in (2**12, 2**14, 2**16, 2**18, 2**20)},
        "D from 5 to 80, K = 4,096": {
            d: (paper_problem(d, 1).row(0), 4096, 256) for d in (5, 10, 20, 40, 80)
        },
        "N from 16 to 1,024, K = 64": {n: (paper_problem(N=n), 64, 256) for n in (16, 64, 256, 1024)},
    }
    return {name: _slope(cases) for name, cases in grown.items()}


def _slope(cases: dict[int, tuple[Problem, int, int]]) -> float:
    """Through medians, in turns, of at most 15 calls each, fewer where these would draw over 10⁹ particles, or one."""
    seconds: dict[int, list[float]] = {size: [] for size in cases}
    for turn in range(15):
        for size, (problem, particles, count) in cases.items():
            drawn = particles * count * problem.n_rows
            if turn * drawn < 10**9:
                call = _ours(problem, particles, normals=drawn * problem.dim_z)[1]
                seconds[size].append(call())
    y = [math.log(statistics.median(own)) for own in seconds.values()]
    return float(np.polyfit(np.log(list(cases)), y, 1)[0])


def _two_threads(problem: Problem) -> tuple[float, float]:
    """Work done a second by two threads over that by one, and likewise by two processes: medians of 15 turns."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_other, args=(problem, there), daemon=True)
    process.start()
    there.close()  # so that the other's end is heard here
    try:
        here.recv()  # it has compiled
        found = []
        for _ in range(15):
            one, two = _seconds(problem, 1), _seconds(problem, 2)
            here.send(True)
            own = _seconds(problem, 1)
            found.append((one / two, 2.0 * one / max(own, here.recv())))
    finally:
        process.kill()
        process.join()
    threads, processes = np.median(found, axis=0)
    return float(threads), float(processes)


def _seconds(problem: Problem, threads: int) -> float:
    """Of wall time for a thousand replicates of 4,096 particles."""
    chunks = replicates(problem, "iwae", K=4096, replicates=1000, seed=1, engine="numba", threads=threads)
    started = time.perf_counter()
    for _ in chunks:
        pass
    return time.perf_counter() - started


def _other(problem: Problem, pipe: Any) -> None:
    """Does the work of one thread whenever it is told, and says how long it took."""
    torch.set_num_threads(1)
    while True:
        pipe.send(_seconds(problem, 1))
        pipe.recv()


def _keep(table: dict[str, Any]) -> None:
    """Writes the table and a figure of the rates by K."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "sampling.json").write_text(
        json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    names = [key.partition(": ")[2] for key in table if key.startswith(f"K = {PARTICLES[-1]}: ")]
    lines = {
        name: [table[f"K = {k}: {name}"]["rate"] * k * 20 for k in PARTICLES]
        for name in names
        if name != "generator"
    }
    limits = [table[f"K = {k}: generator"]["normals per second"] for k in PARTICLES]
    axes.loglog(PARTICLES, limits, "k--", label="generator alone")
    for place, (name, rates) in enumerate(sorted(lines.items(), key=lambda line: -line[1][-1])):
        ours = name in OURS
        color = f"C{place}" if place < 10 else "0.35"  # matplotlib's colours begin again after ten
        style: dict[str, Any] = {"marker": _MARKERS[place], "markersize": 5, "color": color}
        axes.loglog(PARTICLES, rates, "-" if ours else ":", label=name, **style)
    axes.set_xticks(PARTICLES, [f"{k:,}" for k in PARTICLES])
    axes.minorticks_off()
    axes.set(xlabel="particles K", ylabel="standard normals per second of one core")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(FOLDER / "sampling.svg")
    figure.savefig(FOLDER / "sampling.png", dpi=150)
    plt.close(figure)
