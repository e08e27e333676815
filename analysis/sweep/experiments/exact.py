"""Exact bounds and gradient moments of one estimator at one K and M, as `toyiwae.exact` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

import toyiwae
from analysis.sweep.experiment import Experiment
from analysis.sweep.experiments import _problem
from analysis.sweep.experiments._problem import problem_of
from toyiwae import locks


class ExactSettings(_problem.ProblemSettings):
    """A cell.

    Attributes:
        coordinates: whether the row has every coordinate's mean, variance and signal-to-noise ratio, too.
    """

    coordinates: bool = False


def run(settings: Any, block: int) -> dict[str, Any]:
    """Bound, gap, effective sample size with bounds on their errors, and the gradient's moments by parameter.

    Of each parameter: `mean` the norm of the mean gradient, `std` the root of the summed variances, `snr` their ratio,
    `snr_median` over coordinates, `bias` the norm of the bias.
    """
    chosen = {} if settings.parameters is None else {"parameters": settings.parameters}
    with locks.GLOBAL_STATE:
        found = toyiwae.exact(
            problem_of(settings), K=settings.K, M=settings.M, estimators=settings.estimator, **chosen
        )
    (cell,) = found.results
    (truth,) = cell.gradients.values()
    row = {"log_evidence": found.log_evidence, "log_evidence_error": found.log_evidence_error}
    names = ("bound", "bound_error", "gap", "gap_error", "ess", "ess_error")
    row |= {name: getattr(cell, name) for name in names} | {"target_bound": truth.target_bound}
    for name, moments in truth.parameters.items():
        for key, value in columns(moments).items():
            row[f"{key}.{name}"] = value
        if settings.coordinates:
            row |= {f"coordinates.{key}.{name}": getattr(moments, key) for key in ("mean", "var", "snr")}
    reasons = [cell.reason, truth.reason, *(moments.reason for moments in truth.parameters.values())]
    return row | {"reason": "; ".join(dict.fromkeys(filter(None, reasons))) or None}


def columns(moments: Any) -> dict[str, float | None]:
    """Moments of all coordinates in a few numbers; None where they are not known."""
    mean = None if moments.mean is None else float(np.linalg.norm(moments.mean))
    std = None if moments.var is None else float(np.sqrt(np.sum(moments.var)))
    bias = None if moments.bias is None else float(np.linalg.norm(moments.bias))
    median = None if moments.snr is None else float(np.median(moments.snr))
    ratio = mean / std if mean is not None and std else None
    found = {"mean": mean, "std": std, "snr": ratio, "snr_median": median, "bias": bias}
    return {key: None if value is None or np.isnan(value) else value for key, value in found.items()}


EXPERIMENT = Experiment("exact", 1, ExactSettings, run, _problem.check, paths=_problem.PATHS)
