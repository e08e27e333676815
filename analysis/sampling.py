"""Monte Carlo beside the exact answers: moments of replicates of the bound and of gradients."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from dataclasses import dataclass

import toyiwae
from analysis.settings import Settings
from toyiwae import Problem, montecarlo
from toyiwae.stats import Moments, Stream


def engine_here(engine: str = "auto") -> str:
    """The engine that "auto" is on this machine's CPU.

    A cell has it among its settings, so that all workers draw the same numbers.
    """
    installed = "numba" if importlib.util.find_spec("numba") else "torch"
    return installed if engine == "auto" else engine


class SampleSettings(Settings):
    """Replicates of the paper's problem at one K, in a cell of a sweep."""

    dimension: int
    rows: int
    perturbation_std: float
    seed: int
    replicates: int
    sample_seed: int
    K: int
    engine: str = "auto"


def paper_problem(settings: SampleSettings) -> Problem:
    """What the replicates are of; a function, since workers get values of settings and not their class."""
    return toyiwae.paper_problem(settings.dimension, settings.rows, settings.perturbation_std, settings.seed)


def with_engine(settings: SampleSettings) -> SampleSettings:
    """Settings with the engine that is chosen where the study is started."""
    return settings.model_copy(update={"engine": engine_here(settings.engine)})


@dataclass(frozen=True)
class Sample:
    """Moments over replicates of one (K, M).

    Attributes:
        bound: of log Ẑ, averaged over groups and rows.
        ess: of the effective sample size (Σw)²/Σw², averaged likewise.
        gradients: estimator -> parameter -> of the gradient.
    """

    bound: Moments
    ess: Moments
    gradients: dict[str, dict[str, Moments]]


def sample(
    problem: Problem,
    *,
    K: int,
    M: int = 1,
    replicates: int,
    seed: int,
    estimators: str | tuple[str, ...] = "elbo",
    parameters: str | tuple[str, ...] = "prior_mean",
    engine: str = "auto",
) -> Sample:
    """Draws replicates on one thread and keeps their moments; memory does not depend on how many.

    Raises:
        InputError: as `toyiwae.estimate` does.
    """
    bound, ess, gradients = Stream(), Stream(), defaultdict(lambda: defaultdict(Stream))
    for chunk in montecarlo.replicates(
        problem, estimators, K=K, M=M, replicates=replicates, seed=seed, parameters=parameters, engine=engine,
        threads=1,
    ):  # fmt: skip
        bound.add(chunk.values)
        ess.add(chunk.ess)
        for name, parts in chunk.gradients.items():
            for parameter, values in parts.items():
                gradients[name][parameter].add(values)
    found = {
        name: {key: stream.moments for key, stream in parts.items()} for name, parts in gradients.items()
    }
    return Sample(bound.moments, ess.moments, found)
