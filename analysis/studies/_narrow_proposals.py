"""Proposals narrower than the posterior in one direction: what the tail of the weights leaves of powers of K."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

import toyiwae
from toyiwae import Problem

BASELINE, UNIFORM = "vimco_arithmetic", "ovis:0"


def exponent(beta: float, estimator: str) -> float:
    """The power of K in the signal-to-noise ratio where the narrowest direction of the proposal has β.

    The mean falls like K^(1−1/|β|) below β = −1/2, like 1/K above. The variance has a part from the largest weights
    that falls like K^(1−1/|β|) wherever that is slower than the part from moments: 1/K for VIMCO, K⁻³ for OVIS(0).
    """
    tail = math.inf if beta >= 0 else 1 / abs(beta) - 1
    return -min(tail, 1.0) + min(tail, 1.0 if estimator == BASELINE else 3.0) / 2


def slow_term(beta: float, estimator: str, particles: float) -> float:
    """What 1/√log K, the slowly varying factor of a Gaussian tail, adds to the local slope at K."""
    tail, part = (math.inf if beta >= 0 else 1 / abs(beta) - 1), 1 / (2 * math.log(particles))
    return -part * (tail < 1) + part / 2 * (tail < (1.0 if estimator == BASELINE else 3.0))


def tails(betas: Sequence[float], largest: int) -> pd.DataFrame:
    """Exact local slopes of the ratio at a large K for proposals that are ever narrower in one of two directions."""
    near, rows = round(0.9 * largest), []
    for beta in betas:
        truth = toyiwae.exact(
            narrow(beta), K=(near, largest), estimators=(BASELINE, UNIFORM), parameters="proposal_mean"
        )
        for name in (BASELINE, UNIFORM):
            first, last = (
                truth.cell(k).gradients[name].parameters["proposal_mean"].snr for k in (near, largest)
            )
            slope = math.nan
            if first is not None and last is not None:
                slope = float(np.log(last[0] / first[0]) / np.log(largest / near))
            expected, slow = exponent(beta, name), slow_term(beta, name, largest)
            rows.append((beta, name, largest, slope, expected, slow))
    return pd.DataFrame(rows, columns=["beta", "estimator", "K", "slope", "law", "slow_term"])


def narrow(beta: float) -> Problem:
    """Two independent latents: the proposal is wide and off-centre in the first, centred with this β in the second."""
    precision = np.array([1 / 1.2 + 1.0 / 0.5, 1 / 0.8 + 0.81 / 0.7])
    mean = (np.array([0.3 / 1.2 + 0.3 / 0.5, -0.2 / 0.8 - 0.9 / 0.7])) / precision
    return Problem.from_dict({
        "model": {
            "prior_mean": [0.3, -0.2],
            "prior_cov": [[1.2, 0.0], [0.0, 0.8]],
            "loading": [[1.0, 0.0], [0.0, 0.9]],
            "offset": [0.1, 0.0],
            "noise_cov": [[0.5, 0.0], [0.0, 0.7]],
        },
        "proposal": {
            "mean": [mean[0] + 0.3 / math.sqrt(precision[0]), mean[1]],
            "cov": [[1.3 / precision[0], 0.0], [0.0, (1 + beta) / precision[1]]],
        },
        "data": {"x": [0.4, -1.0]},
    })  # fmt: skip
