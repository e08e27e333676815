"""Sampled moments of gradients on the toy problem, a cell for each (M, K), beside exact ones or in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import measures
from analysis.sampling import SampleSettings, paper_problem, sample, with_engine
from analysis.sweep import cells
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.moments import sums, together
from toyiwae import stats

KEYS = ["estimator", "M", "K", "parameter", "index"]


class GradientCell(SampleSettings):
    """The gradients of some estimators in some parameters at one (M, K)."""

    M: int
    estimators: tuple[str, ...]
    parameters: tuple[str, ...]


def sampled_gradients(settings: GradientCell, block: int) -> Row:
    """Moments of the gradients over a block of replicates."""
    found = sample(
        paper_problem(settings), K=settings.K, M=settings.M, estimators=tuple(settings.estimators),
        parameters=tuple(settings.parameters), replicates=settings.replicates,
        seed=seed_of(settings.sample_seed, block), engine=settings.engine,
    )  # fmt: skip
    return sums(
        {f"{name} {key}": part for name, parts in found.gradients.items() for key, part in parts.items()}
    )


def of_all(rows: Sequence[Row]) -> Row:
    """Moments over all replicates, coordinate by coordinate."""
    names = ("mean", "mean_se", "var", "var_se", "count")
    return {f"{name}.{key}": getattr(one, name) for key, one in together(rows).items() for name in names}


SAMPLES = Experiment("gradient_samples", 1, GradientCell, sampled_gradients, with_engine, of_all)

OWN = ("K", "M", "engine", "estimators", "parameters")
"""What is not a study's setting."""


def samples(
    settings: Any, places: Mapping[tuple[int, int], Sequence[str]], parameters: tuple[str, ...]
) -> pd.DataFrame:
    """Sampled means and variances of every coordinate, with standard errors.

    Args:
        settings: a study's, with the toy problem's, `replicates`, `blocks` and `sample_seed` among them.
        places: (M, K) -> estimators; one without estimators is left out.
        parameters: whose gradients.
    """
    shared = {name: getattr(settings, name) for name in GradientCell.model_fields if name not in OWN}
    chosen = [
        GradientCell(**shared, M=m, K=k, estimators=tuple(names), parameters=parameters)
        for (m, k), names in places.items()
        if names
    ]
    label = "sampling M = {0.M}, K = {0.K}".format
    rows = cells.rows(SAMPLES, chosen, label, blocks=settings.blocks)
    parts = []
    for cell, row in zip(chosen, rows, strict=True):
        for name in cell.estimators:
            for key in parameters:
                part = f"{name} {key}"
                columns = {
                    one: np.ravel(row[f"{one}.{part}"]) for one in ("mean", "mean_se", "var", "var_se")
                }
                labels = {"estimator": name, "M": cell.M, "K": cell.K, "parameter": key}
                labels |= {"index": np.arange(len(columns["mean"])), "replicates": row[f"count.{part}"]}
                parts.append(pd.DataFrame(labels | columns))
    names = [*KEYS, "replicates", "mean", "mean_se", "var", "var_se"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def rmse(part: pd.DataFrame, target: np.ndarray) -> float:
    """Root of the trace of the mean squared error to a target [D], from one estimator's sampled moments."""
    return float(np.sqrt(((part["mean"] - target) ** 2 + part["var"] * (1 - 1 / part.replicates)).sum()))


def snr(part: pd.DataFrame) -> float:
    """‖mean‖ over the root of the covariance's trace, from sampled moments: without what noise adds to the norm."""
    square = (part["mean"] ** 2 - part["var"] / part.replicates).sum()
    return float(np.sqrt(max(square, 0.0) / part["var"].sum()))


def agreement(
    found: pd.DataFrame, exact: pd.DataFrame, keys: Sequence[str]
) -> tuple[float, float, int, int, float]:
    """Sampled means, and variances where those are known exactly, on the scale of logarithms, against the exact ones.

    Args:
        found: what `samples` gave.
        exact: `mean` and `var` (NaN where unknown) by coordinate.
        keys: the columns that name a coordinate in both.

    Returns:
        The largest |z|, the largest that may be, the number of tests, the replicates, and the factor by which a
        variance would have to be wrong to be found.
    """
    both = found.merge(exact[[*keys, "mean", "var"]], on=list(keys), suffixes=("", "_exact"))
    known = both.dropna(subset="var_exact")
    z = stats.z_score(*(both[name].to_numpy() for name in ("mean", "mean_exact", "mean_se")))
    ratio, se = (known["var"] / known.var_exact).to_numpy(), (known.var_se / known["var"]).to_numpy()
    z_var = stats.z_score(np.log(ratio), 0.0, se)
    replicates = int(both.replicates.iloc[0])
    worst, limit, tests = measures.agreement(np.concatenate([z, z_var]), replicates)
    factor = float(np.exp(measures.detectable(se.max(), tests))) if len(se) else float("nan")
    return worst, limit, tests, replicates, factor
