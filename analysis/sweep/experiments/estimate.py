"""Monte Carlo moments of one estimator's bound and gradients at one K and M, block by block of replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

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
    """

    seed: Seed = 0
    replicates: Annotated[int, Field(ge=2, le=10**9)] = 1000


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
    ):
        (gradients,) = chunk.gradients.values()
        for name, values in {"bound": chunk.values, "ess": chunk.ess, **gradients}.items():
            streams.setdefault(name, Stream()).add(values.numpy())
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
EXPERIMENT = Experiment("estimate", 1, EstimateSettings, run, _problem.check, merge, QUANTITIES)
