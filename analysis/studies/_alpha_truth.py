"""VR-IWAE over its order α: exact moments at Chebyshev points, polynomials through them, and what they tend to."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.polynomial import Chebyshev
from scipy.optimize import brentq, minimize_scalar

import toyiwae
from analysis.closed_limits import ClosedLimits
from analysis.studies._sampled_gradients import rmse, snr
from analysis.study import track
from toyiwae import Problem, estimators, plot
from toyiwae.estimators import Estimator

MODEL, PROPOSAL = "prior_mean", "proposal_offset"
ENDS = {0.0: "iwae", 1.0: "elbo"}


def families() -> list[Estimator]:
    """All registered estimators with an order α and a path derivative: the reparameterised one comes first."""
    found = [one for one in estimators.all() if one.parameter_name == "alpha" and plot.kind(one) != "score"]
    return sorted(found, key=lambda one: plot.kind(one) != "total")


def points(count: int) -> list[float]:
    """Chebyshev points on [0, 1], both ends among them."""
    return [float(np.round(one, 15)) for one in (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2]


def moments(
    problem: Problem, alphas: Sequence[float], counts: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exact moments of every coordinate at every α and K, and the values of the bound."""
    rows, bounds = [], []
    for alpha in track(alphas, lambda one: f"α = {one:.3f}"):
        chosen = {one.family: estimators.get(f"{one.family}:{alpha!r}") for one in families()}
        truth = toyiwae.exact(
            problem, K=counts, estimators=list(chosen.values()), parameters=[MODEL, PROPOSAL]
        )
        for cell in truth.results:
            for family, one in chosen.items():
                found = cell.gradients[one.name]
                bound = np.nan if found.target_bound is None else found.target_bound
                error = np.nan if found.target_bound_error is None else found.target_bound_error
                bounds.append((alpha, cell.K, family, truth.log_evidence - bound, error))
                rows += [
                    moments_of(found.parameters[name], alpha, cell.K, family, name)
                    for name in (MODEL, PROPOSAL)
                ]
    columns = ["alpha", "K", "estimator", "gap", "error"]
    return pd.concat(rows, ignore_index=True), pd.DataFrame(bounds, columns=columns)


def moments_of(found: Any, alpha: float, k: int, name: str, parameter: str) -> pd.DataFrame:
    """One parameter's mean and variance by coordinate."""
    mean = np.ravel(found.mean)
    labels = {
        "alpha": alpha,
        "K": k,
        "estimator": name,
        "parameter": parameter,
        "index": np.arange(len(mean)),
    }
    error = np.ravel(found.mean_error)
    return pd.DataFrame(labels | {"mean": mean, "mean_error": error, "var": np.ravel(found.var)})


def near_the_ends(problem: Problem, counts: Sequence[int], distance: float) -> pd.DataFrame:
    """At and near α = 0 and 1: how far moments are from those of IWAE and ELBO, in standard deviations and relative."""
    rows = []
    for end, name in ENDS.items():
        near = [estimators.get(f"{families()[0].family}:{alpha!r}") for alpha in (end, abs(end - distance))]
        truth = toyiwae.exact(problem, K=counts, estimators=[*near, name], parameters=[MODEL, PROPOSAL])
        for cell in truth.results:
            for one, parameter in itertools.product(near, (MODEL, PROPOSAL)):
                found, right = (cell.gradients[which].parameters[parameter] for which in (one.name, name))
                mean = np.abs(np.subtract(found.mean, right.mean)) / np.sqrt(right.var)
                var = np.abs(np.divide(found.var, right.var) - 1)
                rows.append((name, one.parameter, cell.K, parameter, float(max(mean.max(), var.max()))))
    return pd.DataFrame(rows, columns=["end", "alpha", "K", "parameter", "apart"])


@dataclass(frozen=True)
class Curve:
    """Means and variances of one family's gradient at one K as functions of α.

    Attributes:
        mean: polynomial of each coordinate.
        var: polynomial of each coordinate's variance.
    """

    mean: list[Chebyshev]
    var: list[Chebyshev]

    @classmethod
    def through(cls, frame: pd.DataFrame) -> Curve:
        """The polynomials through the moments at Chebyshev points."""
        parts = [part.sort_values("alpha") for _, part in frame.groupby("index")]
        degree = len(parts[0]) - 1
        fits = [
            [Chebyshev.fit(part.alpha, values(part), degree, domain=[0, 1]) for part in parts]
            for values in (lambda part: part["mean"], lambda part: part["var"])
        ]
        return cls(*fits)

    def rmse(self, alpha: float, target: np.ndarray) -> float:
        """Root of the trace of the mean squared error to a target [D]."""
        mean, var = self.at(alpha)
        return float(np.sqrt(((mean - target) ** 2 + var).sum()))

    def snr(self, alpha: float) -> float:
        """‖mean‖ over the root of the covariance's trace."""
        mean, var = self.at(alpha)
        return float(np.sqrt((mean**2).sum() / var.sum()))

    def steepness(self, alpha: float, target: np.ndarray) -> float:
        """The derivative of the mean squared error's trace by α, whose root rounding moves less than the minimum."""
        slopes = ([one.deriv()(alpha) for one in parts] for parts in (self.mean, self.var))
        mean, var = map(np.array, slopes)
        return float((2.0 * (self.at(alpha)[0] - target) * mean + var).sum())

    def at(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of every coordinate."""
        mean, var = (np.array([one(alpha) for one in parts]) for parts in (self.mean, self.var))
        return mean, np.maximum(var, np.finfo(float).tiny)


def curves(
    exact: pd.DataFrame, slope: np.ndarray, shown: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RMSE and SNR against α for every K and family, and the best α of each.

    Args:
        exact: moments at Chebyshev points.
        slope: ∇ log Z of the model's parameter [D].
        shown: values of α.
    """
    lines, best = [], []
    for (k, family), part in exact.groupby(["K", "estimator"], sort=False):
        model, proposal = (Curve.through(part[part.parameter == name]) for name in (MODEL, PROPOSAL))
        target = proposal.at(0.0)[0]
        size = float(np.linalg.norm(target))
        errors = {"model_rmse": (model, slope), "proposal_rmse": (proposal, target)}
        measures: dict[str, Any] = {
            name: functools.partial(curve.rmse, target=to) for name, (curve, to) in errors.items()
        } | {"proposal_snr": proposal.snr}
        values = {name: [of(alpha) for alpha in shown] for name, of in measures.items()}
        lines.append(pd.DataFrame({"K": k, "estimator": family, "alpha": shown, "target": size} | values))
        for name, of in measures.items():
            if name in errors:
                curve, to = errors[name]
                alpha = _best(of, 1.0, shown, functools.partial(curve.steepness, target=to))
            else:
                alpha = _best(of, -1.0, shown)
            ends = [of(end) for end in ENDS]
            best.append((k, family, name, alpha, of(alpha), *ends))
    columns = ["K", "estimator", "measure", "alpha", "value", "at_0", "at_1"]
    return pd.concat(lines, ignore_index=True), pd.DataFrame(best, columns=columns)


def _best(of: Any, sign: float, shown: Sequence[float], derivative: Any = None) -> float:
    """Where `sign·of` is least on [0, 1]: at an end or, between, at the root of a derivative of that sign."""
    values = sign * np.array([of(alpha) for alpha in shown])
    place = int(values.argmin())
    low, high = shown[max(place - 1, 0)], shown[min(place + 1, len(shown) - 1)]
    if derivative is not None and derivative(low) < 0.0 < derivative(high):
        return float(brentq(derivative, low, high, xtol=1e-18, maxiter=1000))
    found = minimize_scalar(
        lambda alpha: sign * of(alpha), bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    ends = [end for end in ENDS if sign * of(end) <= found.fun]
    return ends[0] if ends else float(found.x)


def checked(exact: pd.DataFrame, problem: Problem, alpha: float) -> pd.DataFrame:
    """The polynomials at an α between their points, beside the exact moments there: relative errors."""
    found, _ = moments(problem, [alpha], sorted({int(k) for k in exact.K}))
    rows = []
    for key, part in exact.groupby(["K", "estimator", "parameter"], sort=False):
        mean, var = Curve.through(part).at(alpha)
        right = found.set_index(["K", "estimator", "parameter"]).loc[[key]]
        known = right["mean"].to_numpy()
        apart = np.linalg.norm(mean - known) / np.linalg.norm(known)
        rows.append((*key, alpha, apart, np.abs(var / right["var"].to_numpy() - 1).max()))
    return pd.DataFrame(rows, columns=["K", "estimator", "parameter", "alpha", "mean_apart", "var_apart"])


def sampled(found: pd.DataFrame, exact: pd.DataFrame, slope: np.ndarray) -> pd.DataFrame:
    """The measures of `curves` from sampled moments."""
    rows = []
    for (name, k), part in found.groupby(["estimator", "K"], sort=False):
        alpha = estimators.get(str(name)).parameter
        target = exact[(exact.K == k) & (exact.alpha == 0) & (exact.parameter == PROPOSAL)]
        target = target[target.estimator == families()[0].family]["mean"].to_numpy()
        model, proposal = (part[part.parameter == one] for one in (MODEL, PROPOSAL))
        rows.append((k, alpha, rmse(model, slope), rmse(proposal, target), snr(proposal)))
    return pd.DataFrame(rows, columns=["K", "alpha", "model_rmse", "proposal_rmse", "proposal_snr"])


# limits --------------------------------------------------------------------------------------------------------------


def limits(problem: Problem, alphas: Sequence[float]) -> pd.DataFrame:
    """At K → ∞, by closed Gaussian integrals: the gap left, its terms of order 1/K and 1/K², and the model's bias.

    With the variance v and third cumulant m of w^{1-α} over its mean, `L_K = L_∞ - (v/2K + (3v²/4 - m/3)/K²)/(1-α)`.
    """
    closed, rows = ClosedLimits(problem), []
    for alpha in alphas:
        e = 1 - alpha
        if e == 0:
            continue
        one, two, three = (closed.tilted(power * e).mass for power in (1, 2, 3))
        v, m = two / one**2 - 1, three / one**3 - 3 * two / one**2 + 2
        gap = -np.log(one).mean() / e
        bias = np.linalg.norm(closed.average(_bias(closed, alpha), MODEL))
        rows.append((alpha, gap, v.mean() / (2 * e), (0.75 * v**2 - m / 3).mean() / e, bias))
    return pd.DataFrame(rows, columns=["alpha", "gap", "next", "second", "model_bias"])


def _bias(closed: ClosedLimits, alpha: float) -> np.ndarray:
    """The limit of the model's mean gradient less ∇ log Z, of every row [N, D]."""
    return (closed.tilted(1 - alpha).mean - closed.mean) @ closed.prior_precision


def best_constant(problem: Problem, step: float = 1e-4) -> float:
    """K times the α of least RMSE of the model's gradient, as K → ∞.

    With bias αc + d/K and variance (v + αv')/K in every coordinate, `α* = −(Σ cd + ½ Σ v')/(K Σ c²)`; slopes at α = 0
    by central differences of closed forms.
    """
    closed = ClosedLimits(problem)
    c = closed.average((_bias(closed, step) - _bias(closed, -step)) / (2 * step), MODEL)
    variances = [
        closed.average(closed.generative_noise(alpha), MODEL, squared=True) for alpha in (step, -step)
    ]
    d = closed.average(closed.generative_bias(), MODEL)
    return float(-((c * d).sum() + (variances[0] - variances[1]).sum() / (4 * step)) / (c**2).sum())
