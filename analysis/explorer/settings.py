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
from analysis.explorer.gradients import PARTS, computed, quantity
from toyiwae import estimators
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


DRAWN = ("elbo", "iwae", "dreg")
"""The estimators whose curves are drawn until a reader chooses: of K independent terms, and the paper's two."""


def exact_numbers(
    setting: Setting, counts: Sequence[int], names: Sequence[str] | None = None
) -> list[dict[str, float]]:
    """The oracle's numbers at a setting's problem and M, for some K.

    Args:
        setting: of the sliders; K is not looked at.
        counts: the K.
        names: of the estimators; all that the page computes, if None.

    Returns:
        For each K the gap in nats, the expected effective sample size `ess`, and the ratios of those estimators that
        exist at this K; NaN for 0/0.

    Raises:
        ToyiwaeError: if the oracle withholds one.
    """
    chosen = computed() if names is None else [estimators.get(name) for name in names]
    found: dict[int, dict[str, float]] = {K: {} for K in counts}
    for least in sorted({1, *(one.min_particles for one in chosen)}):
        asked = [one.name for one in chosen if one.min_particles == least]
        particles = [K for K in counts if K >= least]
        if not particles:
            continue
        parameters = None if asked else []
        truth = toyiwae.exact(
            problem(setting), K=particles, M=setting.M, estimators=asked or "iwae", parameters=parameters
        )
        for cell in truth.results:
            found[cell.K] |= _numbers(setting, cell, asked)
    return [found[K] for K in counts]


def _numbers(setting: Setting, cell: Any, names: Sequence[str]) -> dict[str, float]:
    values = {"gap": (cell.gap, cell.reason), "ess": (cell.ess, cell.reason)}
    for name in names:
        for part, (parameter, _) in PARTS.items():
            moments = cell.gradients[name].parameters[parameter]
            if _withheld(moments):  # alone it may need no more digits than there is time for
                again = toyiwae.exact(
                    problem(setting), K=cell.K, M=cell.M, estimators=name, parameters=[parameter]
                )
                moments = again.results[0].gradients[name].parameters[parameter]
            value = None if _withheld(moments) else moments.snr[0]
            values[quantity(name, part)] = (value, moments.reason)
    for name, (value, why) in values.items():
        if value is None:
            raise ToyiwaeError(f"{setting}, K = {cell.K}: {name} is withheld: {why}")
    return {name: float(value) for name, (value, _) in values.items() if value is not None}


def _withheld(moments: Any) -> bool:
    """Whether the oracle does not give the variance along the shift; a ratio 0/0 it does give, as NaN."""
    return moments.snr is None or bool(np.isnan(moments.var[0]))
