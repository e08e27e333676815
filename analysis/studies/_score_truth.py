"""Score-function estimators on Gaussian and on binary latents: exact moments, and what they tend to.

The binary problem has so few states that every tuple of particles can be summed over, through the estimators' own
functions: an independent check of the integrals, and the truth of estimators that have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, gammaln
from scipy.stats import multivariate_normal

import toyiwae
from analysis.closed_limits import ClosedLimits
from analysis.studies._narrow_proposals import UNIFORM
from toyiwae import DiscreteProblem, Problem, estimators, plot
from toyiwae.estimators import Estimator

GAUSSIAN, BINARY = "proposal_offset", "proposal_logit"
BIASED = "ovis"  # at γ = 1, its default
COORDINATES = ["K", "estimator", "index"]


def members() -> list[Estimator]:
    """All registered estimators whose gradient for φ is made of the score alone, from two particles on.

    Families with a parameter that may be 0 have another member there.
    """
    families = [one for one in estimators.all() if plot.kind(one) == "score" and one.min_particles <= 2]
    found = []
    for one in families:
        if one.parameter and one.between[0] <= 0.0 <= one.between[1]:
            found.append(estimators.get(f"{one.family}:0"))
        found.append(one)
    return found


def called(name: str) -> str:
    """An estimator as a label writes it, with its parameter and without particles."""
    return plot.label(name).replace("(1, ", "(").replace("(1)", "")


def binary_problem() -> DiscreteProblem:
    """One binary latent, three observed coordinates, one observation."""
    return DiscreteProblem.from_dict({
        "model": {
            "prior_logit": [0.4],
            "loading": [[1.1], [0.2], [-0.5]],
            "offset": [0.1, -0.2, 0.3],
            "noise_cov": [[0.7, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 0.5]],
        },
        "proposal": {"logit": [-0.6]},
        "data": {"x": [0.8, -0.4, 0.6]},
    })  # fmt: skip


def moments(problem: Any, counts: Sequence[int], parameter: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exact moments of one group's gradient in every coordinate; and what is not known, with reasons."""
    chosen = members()
    served = [one for one in chosen if one.form is not None]
    truth = toyiwae.exact(problem, K=counts, estimators=served, parameters=parameter)
    rows, missing = [], [(one.name, counts[0], "it has no form") for one in chosen if one not in served]
    for cell in truth.results:
        for one in served:
            found = cell.gradients[one.name].parameters[parameter]
            if found.var is None or found.rmse is None or np.isnan(found.var).any():
                missing.append((one.name, cell.K, found.reason))
            if found.mean is None:
                continue
            columns = {
                name: getattr(found, name) for name in ("mean", "var", "bias", "rmse", "best_constant")
            }
            columns = {name: math.nan if value is None else value for name, value in columns.items()}
            labels = {"K": cell.K, "estimator": one.name, "index": np.arange(len(found.mean))}
            rows.append(pd.DataFrame(labels | columns))
    return pd.concat(rows, ignore_index=True), pd.DataFrame(missing, columns=["estimator", "K", "reason"])


# binary latents ------------------------------------------------------------------------------------------------------


class States:
    """The states of the binary problem in plain NumPy: q(z), log w, and the scores of the logits.

    Attributes:
        prob: q(z|x) [S].
        log_w: log p(x, z) − log q(z|x) [S].
        score: of the logits [D, S].
    """

    def __init__(self, problem: DiscreteProblem):
        """Lists the states and their densities."""
        model, logit = problem.model, np.asarray(problem.proposal.logit)
        z = np.array(
            [[n >> d & 1 for d in range(problem.dim_z)] for n in range(2**problem.dim_z)], dtype=float
        )
        likelihood = [
            multivariate_normal.logpdf(problem.data.x, model.loading @ one + model.offset, model.noise_cov)
            for one in z
        ]
        prior, proposal = (_bernoulli(z, expit(logits)) for logits in (model.prior_logit, logit))
        self.prob, self.log_w = proposal, np.array(likelihood) + np.log(prior) - np.log(proposal)
        self.score = (z - expit(logit)).T

    def relative(self) -> np.ndarray:
        """w/Z of every state [S]."""
        weights = np.exp(self.log_w)
        return weights / (self.prob @ weights)


def _bernoulli(z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.prod(np.where(z == 1, mean, 1 - mean), axis=1)


def enumerated(problem: DiscreteProblem, counts: Sequence[int]) -> pd.DataFrame:
    """Moments of every coordinate by the sum over all tuples of K states, grouped by how often each state occurs.

    The coefficients are those of the estimators' functions on the tuples' log-weights, no form or integral is used.
    """
    states, rows = States(problem), []
    for k in counts:
        prob, which = _tuples(states, k)
        log_w = states.log_w[which][:, None, :]
        for one in members():
            score = np.asarray(one(log_w).score)[:, 0]  # [C, K]
            for index, s in enumerate(states.score):
                rows.append((k, one.name, index, *_moments(prob, (score * s[which]).sum(axis=1))))
    return pd.DataFrame(rows, columns=[*COORDINATES, "mean", "var"])


def bounds(problem: DiscreteProblem, counts: Sequence[int]) -> pd.DataFrame:
    """The exact bound on binary latents, which needs no gradient."""
    truth = toyiwae.exact(problem, K=counts, parameters=[])
    return pd.DataFrame(
        [(cell.K, cell.bound, cell.gap) for cell in truth.results], columns=["K", "bound", "gap"]
    )


def printed(problem: DiscreteProblem, k: int, scales: Sequence[float] = (1.0, 100.0)) -> pd.DataFrame:
    """VIMCO beside the form that a slide prints, `log (1/K) Σ_{i≠k} w_i + ŵ_-k`, with p(x) scaled, over all tuples."""
    states, rows = States(problem), []
    prob, which = _tuples(states, k)
    for scale in scales:
        w = scale * np.exp(states.log_w)[which]
        others = w.sum(axis=1, keepdims=True) - w
        evidence = np.log(w.mean(axis=1, keepdims=True))
        slide = evidence - np.log(others / k) - others / (k - 1)
        right = evidence - np.log(others / (k - 1))
        weight = w / w.sum(axis=1, keepdims=True)
        for index, s in enumerate(states.score):
            found = [_moments(prob, ((signal - weight) * s[which]).sum(axis=1)) for signal in (right, slide)]
            rows.append((k, scale, index, *found[0], *found[1]))
    return pd.DataFrame(rows, columns=["K", "scale", "index", "mean", "var", "printed_mean", "printed_var"])


def _moments(prob: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    mean = prob @ value
    return float(mean), float(prob @ (value - mean) ** 2)


def _tuples(states: States, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [C] and states [C, K] of all tuples of particles, up to their order."""
    often = _compositions(k, len(states.prob))  # [C, S]
    log_prob = gammaln(k + 1) - gammaln(often + 1).sum(axis=1) + often @ np.log(states.prob)
    which = np.repeat(np.tile(np.arange(len(states.prob)), len(often)), often.ravel()).reshape(-1, k)
    return np.exp(log_prob), which


def _compositions(total: int, parts: int) -> np.ndarray:
    """All ways to write `total` as an ordered sum of whole numbers ≥ 0: [C, parts]."""
    bars = np.array(list(combinations(range(total + parts - 1), parts - 1)))
    ends = np.concatenate([bars, np.full((len(bars), 1), total + parts - 1)], axis=1)
    return np.diff(ends, axis=1, prepend=-1) - 1


# limits --------------------------------------------------------------------------------------------------------------


def gaussian_limits(problem: Problem) -> pd.DataFrame:
    """What K·E[Δ] tends to in every coordinate, and each estimator's Var[Δ] times its power of K."""
    limits = ClosedLimits(problem)
    score = limits.score_noise()
    noise = {
        "evidence": score * limits.log_evidence()[:, None] ** 2,
        "arithmetic": score,
        "geometric": score * np.exp(-2 * limits.kl())[:, None],
        "leave_one_out": limits.inference_noise_ovis() / 4,
    }
    columns = {name: limits.average(rows, GAUSSIAN, squared=True) for name, rows in noise.items()}
    drift = limits.average(limits.inference_drift(), GAUSSIAN)
    return pd.DataFrame({"index": np.arange(len(drift)), "drift": drift} | columns)


def binary_limits(problem: DiscreteProblem) -> pd.DataFrame:
    """The same for binary latents, by sums over the states."""
    states = States(problem)
    w, prob, score = states.relative(), states.prob, states.score
    var = (score**2) @ prob
    a = (w**2 * score) @ prob
    inner = w**2 * score - 2 * a[:, None] * w
    columns = {
        "drift": a / 2,
        "evidence": var * np.log(prob @ np.exp(states.log_w)) ** 2,
        "arithmetic": var,
        "geometric": var * np.exp(2 * prob @ np.log(w)),
        "leave_one_out": ((inner - (inner @ prob)[:, None]) ** 2) @ prob / 4,
    }
    return pd.DataFrame({"index": np.arange(len(a))} | columns)


# one number for all coordinates ---------------------------------------------------------------------------------------


def ratios(exact: pd.DataFrame, tuples: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """‖E[Δ]‖ over the root of the covariance's trace, and ‖target‖ over the root of the mean squared error's.

    Where the variance has no exact value, that of a sum over tuples or of a sample, with the exact mean.
    """
    keys = ["latents", *COORDINATES]
    other = tuples.assign(latents="binary", origin="all tuples", var_se=0.0)
    other = pd.concat([other, samples.assign(latents="gaussian", origin="sampled")], ignore_index=True)
    other = other[[*keys, "origin", "var", "var_se"]]
    other = other.merge(exact[[*keys, "mean", "bias"]], on=keys)  # the means are exact at these K, too
    unknown = exact[exact["var"].isna()][keys]
    both = pd.concat(
        [exact.dropna(subset="var").assign(origin="exact", var_se=0.0), other.merge(unknown, on=keys)],
        ignore_index=True,
    )
    squares = {"mean2": both["mean"] ** 2, "target2": (both["mean"] - both.bias) ** 2, "bias2": both.bias**2}
    names = ["latents", "K", "estimator", "origin"]
    total = both.assign(**squares).groupby(names, sort=False)[[*squares, "var", "var_se"]].sum().reset_index()
    snr = np.sqrt(total.mean2 / total["var"])
    worth = np.sqrt(total.target2 / (total.bias2 + total["var"]))
    found = total[names].assign(snr=snr, snr_se=snr * total.var_se / (2 * total["var"]), worth=worth)
    return found.drop_duplicates(["latents", "K", "estimator"], ignore_index=True)


def identities(problem: Problem, exact: pd.DataFrame) -> pd.DataFrame:
    """How far two estimators are apart that are said to be one, in units of the larger: coefficients, or means."""
    generator, rows = np.random.default_rng(7), []
    for k in (2, 3, 8, 64):
        log_w = 3 * generator.standard_normal((20, 2, k))
        first, second = (np.asarray(estimators.get(name)(log_w).score) for name in ("vimco_star:0", UNIFORM))
        rows.append(("coefficients", k, np.abs(first - second).max() / np.abs(second).max()))
    biased = exact[exact.estimator == BIASED].pivot(index="K", columns="index", values="mean")
    truth = toyiwae.exact(
        problem, K=[int(k) for k in biased.index], estimators="iwae_stl", parameters=GAUSSIAN
    )
    for cell in truth.results:
        mean, known = cell.gradients["iwae_stl"].parameters[GAUSSIAN].mean, biased.loc[cell.K].to_numpy()
        rows.append(("means", cell.K, np.abs(known - mean).max() / np.abs(mean).max()))
    return pd.DataFrame(rows, columns=["what", "K", "apart"])
