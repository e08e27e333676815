"""Independent numbers beside the α-divergences of the library and the fits: definitions, digits, other minima."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pandas as pd
from scipy.optimize import minimize

from analysis.studies._alpha_fit import Mixture, log_normal, pair_variance
from toyiwae.oracle.closed_form import alpha
from toyiwae.oracle.closed_form.gaussian import Ratio

P_MEAN, P_STD = np.array([0.4]), np.array([[0.9]])
Q_MEAN, Q_STD = np.array([-0.5]), np.array([[1.3]])
ORDERS = (-0.7, -0.2, 0.15, 0.5, 0.8, 1.3, 2.0, 4.0)


def conventions(ratio: Ratio) -> pd.DataFrame:
    """The values of the library beside each convention's own definition, integrated over a grid, and its dual."""
    z, step = np.linspace(-40.0, 40.0, 40_001, retstep=True)
    log_p = log_normal(z, float(P_MEAN[0]), float(P_STD[0, 0]))
    log_q = log_normal(z, float(Q_MEAN[0]), float(Q_STD[0, 0]))
    dual = Ratio.between(Q_MEAN, 1 / Q_STD, P_MEAN, P_STD)
    rows = []
    for order in ORDERS:
        a = 2 * order - 1
        mass = step * float(np.exp(0.5 * (1 + a) * log_p + 0.5 * (1 - a) * log_q).sum())
        found = {
            "renyi": (float(ratio.renyi(order)), math.log(mass) / (order - 1)),
            "minka": (float(alpha.minka(ratio, order)), (1 - mass) / (order * (1 - order))),
            "amari": (float(alpha.amari(ratio, a)), 4 * (1 - mass) / (1 - a**2)),
        }
        rows += [(order, name, value, other) for name, (value, other) in found.items()]
        rows.append((order, "dual", float(alpha.minka(ratio, order)), float(alpha.minka(dual, 1 - order))))
    return pd.DataFrame(rows, columns=["alpha", "convention", "value", "definition"])


def limits(ratio: Ratio) -> pd.DataFrame:
    """Minka's value at and near 0 and 1 beside 60 digits, and at them beside integrals of KL."""
    z, step = np.linspace(-40.0, 40.0, 40_001, retstep=True)
    log_p = log_normal(z, float(P_MEAN[0]), float(P_STD[0, 0]))
    log_q = log_normal(z, float(Q_MEAN[0]), float(Q_STD[0, 0]))
    backward = step * float(np.exp(log_q) @ (log_q - log_p))
    forward = step * float(np.exp(log_p) @ (log_p - log_q))
    rows = [(0.0, float(alpha.minka(ratio, 0.0)), backward), (1.0, float(alpha.minka(ratio, 1.0)), forward)]
    near = [sign * 10.0**-power for power in (3, 6, 9, 12) for sign in (1, -1)]
    for order in [*near, *(1 + one for one in near)]:
        rows.append((order, float(alpha.minka(ratio, order)), _minka(order)))
    return pd.DataFrame(rows, columns=["alpha", "value", "right"])


def _minka(order: float) -> float:
    """By the integral's closed form for two Gaussians, in 60 digits."""
    with mp.workdps(60):
        a, m, s = mp.mpf(order), mp.mpf(float(P_MEAN[0])), mp.mpf(float(P_STD[0, 0]))
        mu, t = mp.mpf(float(Q_MEAN[0])), mp.mpf(float(Q_STD[0, 0]))
        width = a * t**2 + (1 - a) * s**2
        log_mass = a * mp.log(t) + (1 - a) * mp.log(s) - mp.log(width) / 2
        log_mass -= a * (1 - a) * (m - mu) ** 2 / (2 * width)
        return float(-mp.expm1(log_mass) / (a * (1 - a)))


def ends(target: Mixture, sweep: pd.DataFrame) -> pd.DataFrame:
    """The fits at α = 0 and 1 beside other routes: Gauss–Hermite and the mixture's moments."""
    at = sweep.set_index("alpha")
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()

    def backward(point: np.ndarray) -> float:
        mean, std = point[0], math.exp(point[1])
        z = mean + std * nodes
        parts = [
            math.log(one) + log_normal(z, centre, width)
            for one, centre, width in zip(target.weights, target.means, target.stds, strict=True)
        ]
        return float(weights @ (log_normal(z, mean, std) - np.logaddexp.reduce(parts)))

    start = np.array([target.means[0], math.log(target.stds[0])])
    found = minimize(backward, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    mean, std = target.moments
    rows = [
        (0.0, at.loc[0.0, "mean"], at.loc[0.0, "std"], float(found.x[0]), math.exp(found.x[1])),
        (1.0, at.loc[1.0, "mean"], at.loc[1.0, "std"], mean, std),
    ]
    return pd.DataFrame(rows, columns=["alpha", "mean", "std", "other_mean", "other_std"])


def pair(correlation: float) -> pd.DataFrame:
    """The closed form of the pair's fit beside minima of the library's divergence over both variances."""
    std = np.array([1.1, 0.8])
    cov = np.outer(std, std) * np.array([[1.0, correlation], [correlation, 1.0]])
    target = np.linalg.inv(np.linalg.cholesky(cov))
    rows = []
    for order in (-4.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0):

        def value(log_std: np.ndarray, order: float = order) -> float:
            ratio = Ratio.between(np.zeros(2), target, np.zeros(2), np.diag(std * np.exp(log_std)))
            return float(alpha.per_order(ratio, order)) if ratio.exists(order) else math.inf

        start = np.full(2, 0.5 * math.log(1 - 0.9 * correlation if order < 0 else 1 + correlation))
        found = minimize(value, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
        rows += [(order, pair_variance(order, correlation), math.exp(2 * one)) for one in found.x]
    return pd.DataFrame(rows, columns=["alpha", "closed_form", "minimum"])
