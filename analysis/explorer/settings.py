"""What the page's sliders set: the values they take, the presets, and the problem that a setting stands for.

The posterior is N(m, P) in D dimensions and the proposal N(m + shift·σ e₁, width²·P), P = σ²I. In whitened units
nothing else matters for bound and sample size. The model is the paper's, p(z) = N(0, I), p(x|z) = N(z, I), with one
observation, a standard deviation of p(x) away from the prior's mean, on the side to which the proposal is shifted. So m
lies one posterior standard deviation from the prior's mean, which is the slope of log p(x) in units of 1/σ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import toyiwae
from toyiwae.errors import ToyiwaeError


@dataclass(frozen=True)
class Setting:
    """One position of all sliders.

    Attributes:
        K: particles inside the log.
        M: groups averaged outside.
        D: dimension of the latent.
        shift: distance between the means of proposal and posterior, in posterior standard deviations.
        width: standard deviation of the proposal over that of the posterior, in every direction.
    """

    K: int = 64
    M: int = 1
    D: int = 20
    shift: float = 0.45
    width: float = 1.15


def _counts(decades: int) -> tuple[int, ...]:
    """1, 2, …, 9, 10, 20, … and the powers of two up to 10^decades."""
    round_ones = {lead * 10**power for power in range(decades) for lead in range(1, 10)} | {10**decades}
    return tuple(sorted(round_ones | {2**n for n in range(1, 64) if 2**n <= 10**decades}))


VALUES: dict[str, tuple[float, ...]] = {
    "K": _counts(6),
    "M": _counts(3),
    "D": tuple(range(1, 51)),
    "shift": tuple(round(0.05 * n, 2) for n in range(101)),
    "width": tuple(round(0.01 * n, 2) for n in range(50, 201)),
}
"""The values that each slider takes."""
DIGITS = {"shift": 2, "width": 2}
"""Digits after the point of those that are not counts."""

DEFAULT = Setting()
"""The paper's toy problem: 20 dimensions, a proposal of variance 2/3 where the posterior's is 1/2, so √(4/3) wide, and
means that its perturbed encoder misses by 0.44 posterior standard deviations, root mean square."""
PRESETS: dict[str, Setting] = {
    "VAE": Setting(K=1),
    "paper, K = 64": DEFAULT,
    "weights collapse": Setting(K=1000, D=50, shift=3.0, width=1.5),
    "q = posterior": Setting(shift=0.0, width=1.0),
}
"""Named positions of the sliders."""


def problem(setting: Setting) -> toyiwae.Problem:
    """The linear-Gaussian problem of a setting, for the oracle."""
    dimension, sigma = setting.D, np.sqrt(0.5)
    axis = np.eye(dimension)[0]
    x = np.sqrt(2.0) * axis
    return toyiwae.Problem.from_dict(
        {
            "model": {
                "prior_mean": np.zeros(dimension),
                "prior_cov": np.eye(dimension),
                "loading": np.eye(dimension),
                "offset": np.zeros(dimension),
                "noise_cov": np.eye(dimension),
            },
            "proposal": {
                "mean": x / 2.0 + setting.shift * sigma * axis,
                "cov": setting.width**2 * 0.5 * np.eye(dimension),
            },
            "data": {"x": x},
        }
    )


QUANTITIES = {
    "snr_model": ("iwae", "prior_mean"),
    "snr_proposal": ("iwae", "proposal_mean"),
    "snr_dreg": ("dreg", "proposal_mean"),
}
"""Signal-to-noise ratio -> estimator and parameter, of which the coordinate along the shift counts."""


def exact_numbers(setting: Setting, counts: Sequence[int]) -> list[dict[str, float]]:
    """The oracle's numbers at a setting's problem and M, for some K.

    Returns:
        For each K the gap in nats, the expected effective sample size `ess`, and the ratios; NaN for 0/0.

    Raises:
        ToyiwaeError: if the oracle withholds one.
    """
    estimators = sorted({estimator for estimator, _ in QUANTITIES.values()})
    truth = toyiwae.exact(problem(setting), K=list(counts), M=setting.M, estimators=estimators)
    found = []
    for cell in truth.results:
        numbers: dict[str, Any] = {"gap": cell.gap, "ess": cell.ess}
        for name, (estimator, parameter) in QUANTITIES.items():
            moments = cell.gradients[estimator].parameters[parameter]
            if moments.snr is None:
                raise ToyiwaeError(f"{setting}, K = {cell.K}: {name} is withheld: {moments.reason}")
            numbers[name] = moments.snr[0]
        if cell.gap is None or cell.ess is None:
            raise ToyiwaeError(f"{setting}, K = {cell.K}: a value is withheld: {cell.reason}")
        found.append({name: float(value) for name, value in numbers.items()})
    return found
