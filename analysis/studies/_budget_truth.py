"""Every way to spend a fixed number of particles: exact moments of reparameterised estimators, and the best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

import toyiwae
from analysis.studies._sampled_gradients import rmse, snr
from analysis.study import track
from toyiwae import Problem, estimators, plot
from toyiwae.estimators import Estimator

MODEL, PROPOSAL = "prior_mean", "proposal_offset"
LABELS = ["estimator", "family", "M", "K"]


def splits(budget: int) -> list[tuple[int, int]]:
    """(M, K) with M·K = T, one particle in the logarithm first."""
    return [(budget // k, k) for k in range(1, budget + 1) if budget % k == 0]


def asked(
    budget: int, betas: Sequence[float], sizes: Sequence[int]
) -> dict[tuple[int, int], list[Estimator]]:
    """(M, K) -> all registered estimators with a path derivative.

    What is made of the whole budget by a parameter, be it β or the size of subsets, is asked for in one group at every
    value of it; all others at every split, at their defaults.
    """
    found: dict[tuple[int, int], list[Estimator]] = {split: [] for split in splits(budget)}
    for one in estimators.all():
        if plot.kind(one) == "score":
            continue
        swept: Sequence[float] = (
            betas if one.parameter_name == "beta" else () if one.subsets is None else sizes
        )
        if swept:
            found[1, budget] += [estimators.get(f"{one.family}:{value:g}") for value in swept]
            continue
        for (_, k), listed in found.items():
            if one.min_particles <= k:
                listed.append(one)
    return found


def sampled_at(asked: dict[tuple[int, int], list[Estimator]], k: int) -> dict[tuple[int, int], list[str]]:
    """What is sampled: all estimators of one split, and of those with one group the second value of every parameter."""
    split = next(one for one in asked if one[1] >= k)
    whole = next(one for one in asked if one[0] == 1)
    families: dict[str, list[str]] = {}
    for one in asked[whole]:
        families.setdefault(one.family, []).append(one.name)
    second = [names[1] for names in families.values() if len(names) > 1]
    # where both are one place, all that is asked there has the second values among it
    return {whole: second} | {split: [one.name for one in asked[split]]}


def sampled(found: pd.DataFrame, slope: np.ndarray) -> pd.DataFrame:
    """The measures of `together` from sampled moments; `slope` is ∇ log Z of the model's parameter [D]."""
    rows = []
    for (name, m, k), part in found.groupby(["estimator", "M", "K"], sort=False):
        model, proposal = (part[part.parameter == one] for one in (MODEL, PROPOSAL))
        rows.append((name, m, k, rmse(model, slope), snr(proposal)))
    return pd.DataFrame(rows, columns=["estimator", "M", "K", "model_rmse", "proposal_snr"])


def moments(
    problem: Problem, wanted: dict[tuple[int, int], list[Estimator]]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Exact moments of every coordinate, values of the bounds, and what is not known with its reason."""
    rows, bounds, missing = [], [], []
    for (groups, k), listed in track(list(wanted.items()), lambda one: f"M = {one[0][0]}, K = {one[0][1]}"):
        truth = toyiwae.exact(problem, K=k, M=groups, estimators=listed, parameters=[MODEL, PROPOSAL])
        for one in listed:
            found = truth.results[0].gradients[one.name]
            labels = {"estimator": one.name, "family": one.family, "M": groups, "K": k}
            bounds.append(labels | {"bound": found.target_bound, "parameter_value": one.parameter})
            for name in (MODEL, PROPOSAL):
                part = found.parameters[name]
                if part.var is None or part.mean is None or np.isnan(part.var).any():
                    missing.append(labels | {"reason": part.reason})
                    continue
                rows.append(_coordinates(part, labels | {"parameter": name}))
    return pd.concat(rows, ignore_index=True), pd.DataFrame(bounds), pd.DataFrame(missing)


def each(problem: Problem, budget: int, name: str) -> pd.DataFrame:
    """RMSE to ∇ log Z of the model's gradient for each observation alone, at every split."""
    rows = []
    for n, (groups, k) in itertools.product(range(problem.n_rows), splits(budget)):
        truth = toyiwae.exact(problem.row(n), K=k, M=groups, estimators=name, parameters=[MODEL])
        error = truth.results[0].gradients[name].parameters[MODEL].rmse_evidence
        rows.append((n, groups, k, float(np.linalg.norm(error))))
    return pd.DataFrame(rows, columns=["row", "M", "K", "model_rmse"])


def _coordinates(part: Any, labels: dict[str, Any]) -> pd.DataFrame:
    columns = {name: np.ravel(getattr(part, name)) for name in ("mean", "var", "bias", "rmse_evidence")}
    return pd.DataFrame(labels | {"index": np.arange(len(columns["mean"]))} | columns)


def together(exact: pd.DataFrame) -> pd.DataFrame:
    """One row for each estimator and split: RMSE to ∇ log Z of the model, SNR and worth of the proposal's gradient."""
    squares = exact.assign(
        mean2=exact["mean"] ** 2, evidence2=exact.rmse_evidence**2, target2=(exact["mean"] - exact.bias) ** 2,
        bias2=exact.bias**2,
    )  # fmt: skip
    names = ["mean2", "var", "evidence2", "target2", "bias2"]
    total = squares.groupby([*LABELS, "parameter"], sort=False)[names].sum()
    model, proposal = (total.xs(name, level="parameter") for name in (MODEL, PROPOSAL))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "model_rmse": np.sqrt(model.evidence2),
            "model_snr": np.sqrt(model.mean2 / model["var"]),
            "proposal_snr": np.sqrt(proposal.mean2 / proposal["var"]),
            "proposal_worth": np.sqrt(proposal.target2 / (proposal.bias2 + proposal["var"])),
        }
    joined = pd.DataFrame(found).reset_index()
    return joined.assign(best=_front(joined.model_rmse.to_numpy(), joined.proposal_worth.to_numpy()))


def _front(error: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """Which have no rival with a smaller error and a larger worth: [n] of booleans; no number, no rank."""
    known = np.isfinite(error) & np.isfinite(worth)
    beaten = [
        bool(
            np.any(
                known & (error <= e) & (worth >= w) & ((error < e * (1 - 1e-9)) | (worth > w * (1 + 1e-9)))
            )
        )
        for e, w in zip(error, worth, strict=True)
    ]
    return known & ~np.array(beaten)
