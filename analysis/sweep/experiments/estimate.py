"""Monte Carlo moments of one estimator's bound and gradients at one K and M, block by block of replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from analysis.sampling import engine_here
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.experiments import _problem
from analysis.sweep.experiments._problem import Seed, problem_of
from analysis.sweep.moments import sums, together
from toyiwae import montecarlo
from toyiwae.stats import Stream


class EstimateSettings(_problem.ProblemSettings):
    """A cell.

    Attributes:
        seed: of the noise; the first block has that of `toyiwae.estimate`. Estimators at the same K, M and seed see the
            same noise.
        replicates: of a block.
        engine: as of `toyiwae.estimate`; "auto" becomes the one that is chosen where the sweep is started, so that all
            workers draw the same numbers.
    """

    seed: Seed = 0
    replicates: Annotated[int, Field(ge=2, le=10**9)] = 1000
    engine: Literal["auto", "numba", "torch"] = "auto"


def check(settings: EstimateSettings) -> EstimateSettings:
    """Settings with the problem's defaults and the engine's name.

    Raises:
        InputError: as for `exact`.
    """
    return _problem.check(settings).model_copy(update={"engine": engine_here(settings.engine)})


def run(settings: Any, block: int) -> dict[str, Any]:
    """Central sums of the bound, the effective sample size and the gradients over a block."""
    streams: dict[str, Stream] = {}
    for chunk in montecarlo.replicates(
        problem_of(settings),
        settings.estimator,
        K=settings.K,
        M=settings.M,
        replicates=settings.replicates,
        seed=seed_of(settings.seed, block),
        parameters=settings.parameters,
        engine=settings.engine,
        threads=1,
    ):
        (gradients,) = chunk.gradients.values()
        for name, values in {"bound": chunk.values, "ess": chunk.ess, **gradients}.items():
            streams.setdefault(name, Stream()).add(values)
    return sums({name: stream.moments for name, stream in streams.items()})


def merge(rows: Sequence[Row]) -> dict[str, Any]:
    """Means with standard errors, and of the gradients the numbers that `exact` gives.

    `mean_se` is that of the mean's norm, to first order: along the mean, coordinates taken as independent.
    """
    row: dict[str, Any] = {"blocks": len(rows), "replicates": sum(one["replicates"] for one in rows)}
    for name, found in together(rows).items():
        if name in QUANTITIES:
            row |= {name: float(found.mean), f"{name}_se": float(found.mean_se)}
            row |= {f"{name}_var": float(found.var), f"{name}_var_se": float(found.var_se)}
            continue
        mean, std = float(np.linalg.norm(found.mean)), float(np.sqrt(np.sum(found.var)))
        along = np.linalg.norm(found.mean * found.mean_se) / mean if mean else None
        row |= {f"mean.{name}": mean, f"mean_se.{name}": along, f"std.{name}": std}
        row |= {f"snr.{name}": mean / std if std else None}
        row |= {f"snr_median.{name}": float(np.median(found.snr)) if np.all(found.var) else None}
    return row


QUANTITIES = ("bound", "ess")
EXPERIMENT = Experiment("estimate", 1, EstimateSettings, run, check, merge, QUANTITIES, paths=_problem.PATHS)
