"""Sampled moments of gradients for the study of signal-to-noise ratios, a cell for each (K, M)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.sampling import SampleSettings, paper_problem, sample, with_engine
from analysis.studies._snr_figure import SAMPLED
from analysis.sweep import cells
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.moments import sums, together
from toyiwae import stats


class GradientSettings(SampleSettings):
    """The sampled gradients at one K and M."""

    M: int


def sampled_gradients(settings: GradientSettings, block: int) -> Row:
    """Moments of IWAE's gradients over a block of replicates."""
    found = sample(
        paper_problem(settings), K=settings.K, M=settings.M, estimators="iwae", parameters=SAMPLED,
        replicates=settings.replicates, seed=seed_of(settings.sample_seed, block), engine=settings.engine,
    )  # fmt: skip
    return sums(found.gradients["iwae"])


def of_all(rows: Sequence[Row]) -> Row:
    """Moments over all replicates, coordinate by coordinate."""
    names = ("mean", "mean_se", "var", "var_se", "snr", "snr_se", "std", "count")
    found = together(rows)
    return {f"{name}.{key}": getattr(one, name) for key, one in found.items() for name in names}


SAMPLES = Experiment("snr_samples", 1, GradientSettings, sampled_gradients, with_engine, of_all)


OWN = ("K", "M", "engine")
"""What is not a study's setting."""


def samples(settings: Any, iwae: pd.DataFrame) -> pd.DataFrame:
    """Sampled moments of every coordinate of the vector parameters, each beside its exact mean and variance."""
    places = [("K", k, 1) for k in settings.sampled_k] + [
        ("M", settings.fixed_k, m) for m in settings.sampled_m
    ]
    shared = {name: getattr(settings, name) for name in GradientSettings.model_fields if name not in OWN}
    chosen = [GradientSettings(**shared, K=k, M=m) for _, k, m in places]
    rows = cells.rows(
        SAMPLES, chosen, lambda cell: f"sampling K = {cell.K}, M = {cell.M}", blocks=settings.blocks
    )
    parts = []
    for (axis, k, m), row in zip(places, rows, strict=True):
        for name in SAMPLED:
            truth = iwae[(iwae.axis == axis) & (iwae.K == k) & (iwae.M == m) & (iwae.parameter == name)]
            found = {key: np.array(row[f"{key}.{name}"]) for key in ("mean", "mean_se", "var", "var_se")}
            var = truth["var"].to_numpy()
            columns = {
                "index": truth["index"].to_numpy(),
                "mean": found["mean"],
                "mean_se": found["mean_se"],
                "z": stats.z_score(found["mean"], truth["mean"].to_numpy(), found["mean_se"]),
                "z_var": stats.z_score(np.log(found["var"] / var), 0.0, found["var_se"] / found["var"]),
                **{key: row[f"{key}.{name}"] for key in ("snr", "snr_se", "std")},
            }
            labels = {"axis": axis, "K": k, "M": m, "parameter": name, "replicates": row[f"count.{name}"]}
            parts.append(pd.DataFrame(labels | columns))
    return pd.concat(parts, ignore_index=True)
