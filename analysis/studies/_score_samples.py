"""Sampled moments of score-function gradients whose variance has no exact value, a cell for each latents and K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.sampling import SampleSettings, paper_problem, sample, with_engine
from analysis.studies._score_truth import GAUSSIAN
from analysis.sweep import cells
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.moments import sums, together


class ScoreSettings(SampleSettings):
    """The sampled gradients of some estimators at one K, on Gaussian latents."""

    estimators: tuple[str, ...]


def sampled_scores(settings: ScoreSettings, block: int) -> Row:
    """Moments of the gradients over a block of replicates."""
    seed, names = seed_of(settings.sample_seed, block), tuple(settings.estimators)
    found = sample(
        paper_problem(settings), K=settings.K, estimators=names, parameters=GAUSSIAN,
        replicates=settings.replicates, seed=seed, engine=settings.engine,
    )  # fmt: skip
    return sums({name: found.gradients[name][GAUSSIAN] for name in names})


def of_all(rows: Sequence[Row]) -> Row:
    """Moments over all replicates, coordinate by coordinate."""
    names = ("mean", "mean_se", "var", "var_se", "count")
    return {f"{name}.{key}": getattr(one, name) for key, one in together(rows).items() for name in names}


SAMPLES = Experiment("score_samples", 1, ScoreSettings, sampled_scores, with_engine, of_all)

OWN = ("K", "engine", "estimators")
"""What is not a study's setting."""


def samples(settings: Any, names: tuple[str, ...]) -> pd.DataFrame:
    """Sampled means and variances of some estimators' gradients on Gaussian latents, in every coordinate."""
    shared = {name: getattr(settings, name) for name in ScoreSettings.model_fields if name not in OWN}
    chosen = [ScoreSettings(**shared, K=k, estimators=names) for k in settings.sampled_k if names]
    rows = cells.rows(SAMPLES, chosen, lambda cell: f"sampling K = {cell.K}", blocks=settings.blocks)
    parts = []
    for cell, row in zip(chosen, rows, strict=True):
        for name in cell.estimators:
            columns = {key: np.array(row[f"{key}.{name}"]) for key in ("mean", "mean_se", "var", "var_se")}
            labels = {"K": cell.K, "estimator": name, "replicates": row[f"count.{name}"]}
            parts.append(pd.DataFrame(labels | {"index": np.arange(len(columns["mean"]))} | columns))
    names = ("K", "estimator", "replicates", "index", "mean", "mean_se", "var", "var_se")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(names))
