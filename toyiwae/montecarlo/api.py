"""The functions that users call: `estimate`, and below it `replicates` and `gradients_of`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from toyiwae import arguments, records
from toyiwae.errors import CostWarning, InputError, MissingMomentError, PrecisionError
from toyiwae.estimators import select
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.engines import Settings, sampler_for
from toyiwae.montecarlo.results import EstimateResult
from toyiwae.montecarlo.sampler import Gradients, Sampler
from toyiwae.montecarlo.summaries import CellSummary, exact_directions, part_of, pilot_directions
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth import Cell, ExactResult, exact

SAMPLES, PILOT = 0, 1

COSTLY = 300.0
"""Seconds of one core from which `estimate` warns of what the standard normals cost."""

_UNITS = (("years", 3.2e7), ("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0))


def estimate(
    problem: Any,
    *,
    K: Any,
    M: Any = 1,
    estimators: Any = ("iwae",),
    replicates: Any,
    seed: Any,
    parameters: Any = None,
    device: Any = "cpu",
    engine: Any = "auto",
    precision: Any = None,
    threads: Any = None,
    budget: Any = None,
) -> EstimateResult:
    """Monte Carlo estimates of the bound and of every gradient's moments, each beside its exact value.

    Values and gradients are those of the average over the rows of data, with independent noise for each row.
    All estimators of a cell (K, M) see the same noise: their difference is less noisy than either, and the
    z-scores of a cell are dependent. Cells are independent of each other, and a cell's numbers depend on the
    problem, K, M, the seed, the engine and its precision alone.

    Args:
        problem: a linear-Gaussian one: model, proposal and data.
        K: particles inside the log, one or several.
        M: groups averaged outside, one or several.
        estimators: names such as "iwae", "ciwae:0.5", "FILE.py:name", or estimators.
        replicates: how many per cell, at least 2.
        seed: a whole number from 0.
        parameters: whose gradients; by default those of the prior's and the proposal's mean, "all" for all.
        device: "cpu", "cuda" or "cuda:N".
        engine: "numba", "torch", "triton" (for GPUs; not measured so far), or "auto": numba on a CPU where it is
            installed, else torch. Engines draw different noise.
        precision: of the noise: "float32" (the engine numba's own) or "float64" (torch's). All else is float64, but
            for triton's first sums of the noise, of up to 128 particles each, which are float32 as its noise.
        threads: at once, on the engine numba, the only one that heeds it; by default `OMP_NUM_THREADS` where it is
            set, else as many as there are cores. Changes no number. Unless it is given, a user's own function is
            called by one thread at a time, so that it may keep something between its calls.
        budget: bytes of noise that the engines torch and triton hold at once; changes numbers in round-off only.
            The engine numba ignores it.

    Raises:
        InputError: for another kind of problem, a count that is not whole or too small, K below an estimator's
            minimum, an unknown estimator, parameter, device or engine, more particles than an estimator without a Form
            can hold, and more noise than there is.
        MissingExtraError: where no engine is installed.
        MemoryError: where the gradients of one replicate do not fit into memory.

    Warns:
        CostWarning: of runs of more than five minutes of one core.
    """
    _refuse_other_than_gaussian(problem)
    counts, groups = arguments.whole_numbers(K, "K"), arguments.whole_numbers(M, "M")
    total, start = arguments.whole_number(replicates, "replicates", minimum=2), _seed(seed)
    chosen = select(estimators)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    sampler = sampler_for(problem, chosen, wanted, Settings(device, engine, precision, threads, budget))
    for k in counts:
        for m in groups:
            sampler.check(k, m, total)
    _warn_of_cost(
        problem.n_rows * problem.dim_z * sum(counts) * sum(groups) * total, sampler.rate, sampler.core
    )
    truth = _truth(problem, counts, groups, chosen, wanted)
    cells = []
    with _memory_errors():
        for k in counts:
            for m in groups:
                known = truth if isinstance(truth, str) else truth.cell(k, m)
                summary = CellSummary(known, _directions(sampler, known, k, m, total, start))
                for chunk in sampler.chunks(k, m, total, start, SAMPLES):
                    summary.add(chunk)
                cells.append(summary.cell(k, m, [estimator.name for estimator in chosen]))
    asked = {
        "K": counts,
        "M": groups,
        "estimators": [estimator.name for estimator in chosen],
        "replicates": total,
        "seed": start,
        "parameters": list(wanted),
        "device": str(device),
        "problem_sha256": problem.content_hash,
    }
    engine_used = {"engine": {"name": sampler.name, **sampler.versions}}
    return EstimateResult(tuple(cells), records.provenance(asked) | engine_used)


def replicates(
    problem: Any,
    estimators: Any,
    *,
    K: Any,
    M: Any = 1,
    replicates: Any,
    seed: Any,
    parameters: Any = None,
    device: Any = "cpu",
    engine: Any = "auto",
    precision: Any = None,
    threads: Any = None,
    budget: Any = None,
) -> Iterator[Chunk]:
    """Raw replicates of one cell, in order, in chunks of no particular size, for histograms and tests.

    Args:
        problem: model, proposal and data.
        estimators: one or several, as for `estimate`; all see the same noise.
        K: particles inside the log.
        M: groups averaged outside.
        replicates: how many in all. The first ones do not depend on it.
        seed: a whole number from 0.
        parameters: as for `estimate`.
        device: as for `estimate`.
        engine: as for `estimate`.
        precision: as for `estimate`.
        threads: as for `estimate`.
        budget: as for `estimate`.

    Returns:
        Chunks of `values` `[R]`, `ess` `[R]` and `gradients[estimator][parameter]` `[R, *shape]`, as float64
        arrays of NumPy's.

    Raises:
        InputError, MissingExtraError: as `estimate`; at once, before the first chunk.
    """
    _refuse_other_than_gaussian(problem)
    particles, groups = arguments.whole_number(K, "K"), arguments.whole_number(M, "M")
    total, start = arguments.whole_number(replicates, "replicates"), _seed(seed)
    chosen = select(estimators)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    sampler = sampler_for(problem, chosen, wanted, Settings(device, engine, precision, threads, budget))
    sampler.check(particles, groups, total)
    return sampler.chunks(particles, groups, total, start, SAMPLES)


def gradients_of(noise: Any, problem: Any, estimators: Any, *, parameters: Any = None) -> Chunk:
    """What given noise gives: a pure function, the same for whoever draws the noise.

    Args:
        noise: ε `[R, N, M, K, D]` (NumPy or torch), with particles `z = μ_q + Lε`, `cov = LLᵀ`.
        problem: model, proposal and data of N rows.
        estimators: one or several, as for `estimate`.
        parameters: as for `estimate`.

    Returns:
        One chunk of R replicates.

    Raises:
        InputError: for noise of another shape, and as `estimate`.
    """
    _refuse_other_than_gaussian(problem)
    given = np.asarray(noise.detach().cpu() if hasattr(noise, "detach") else noise, dtype=np.float64)
    expected = (problem.n_rows, problem.dim_z)
    if given.ndim != 5 or (given.shape[1], given.shape[4]) != expected or 0 in given.shape:
        raise InputError(f"noise has shape {given.shape}: expected [R, {expected[0]}, M, K, {expected[1]}]")
    chosen = select(estimators)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    gradients = Gradients(problem, chosen, wanted)
    return gradients.one_pass(given @ gradients.whitened.rotation[:, None], slice(None))


def _directions(sampler: Sampler, truth: Cell | str, k: int, m: int, total: int, seed: int) -> Any:
    """Directions of all means: exact where they are known, else from a pilot of as many replicates."""
    found = exact_directions(truth, sampler.parameters)
    parts = {part_of(parameter) for parameter in sampler.parameters}
    missing = [e for e in sampler.estimators if any((e.name, part) not in found for part in parts)]
    if missing:
        pilot = sampler.only(missing).chunks(k, m, total, seed, PILOT)
        found = pilot_directions(pilot, sampler.parameters) | found
    return found


def _truth(
    problem: Problem,
    counts: Sequence[int],
    groups: Sequence[int],
    chosen: Sequence[Any],
    wanted: Sequence[str],
) -> ExactResult | str:
    """The exact answers, or why there are none."""
    try:
        return exact(problem, K=counts, M=groups, estimators=chosen, parameters=wanted)
    except (MissingMomentError, PrecisionError) as error:
        return str(error)


def _refuse_other_than_gaussian(problem: Any) -> None:
    """Refuses a problem that the sampler cannot draw from: it moves standard normals by the proposal's factor."""
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise InputError(
            f"problem is a {kind}: expected a linear-Gaussian Problem, the only kind that is sampled (toyiwae.exact"
            " takes binary latents and a user's own density too)"
        )


def _warn_of_cost(numbers: int, rate: float, core: str = "one CPU core") -> None:
    """Warns of a run that takes long, with the time that it takes at an engine's rate."""
    if numbers >= COSTLY * rate:
        seconds = numbers / rate
        name, unit = next((pair for pair in _UNITS if seconds >= pair[1]), _UNITS[-1])
        warnings.warn(
            f"K, M, the rows and the replicates make {numbers:.2g} standard normals: about {seconds / unit:.2g} {name}"
            f" on {core}",
            CostWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns what torch raises where memory runs out into a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
            raise MemoryError(str(error).partition("\n")[0]) from error
        raise


def _seed(value: Any) -> int:
    return arguments.whole_number(value, "seed", minimum=0)
