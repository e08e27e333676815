"""Signal-to-noise ratios of networks' gradients, with standard errors by the jackknife over groups of replicates.

    SNR² of a set of coordinates = mean over them of E[g]²/Var[g],    estimated by (ḡ² − v/R)/v

with mean ḡ and variance v of R replicates: without v/R an SNR of 0 would be seen as one of 1/√R. Coordinates whose
gradient is always 0 do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from toyiwae.networks.data.batches import observed
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs.run import Run
from toyiwae.networks.step import step

GROUPS = 20
"""Groups of replicates, each left out once."""

_SEEDS = 2**63 + 2**62  # of no training and no evaluation


@dataclass(frozen=True)
class SnrEstimate:
    """Root mean square over coordinates of signal-to-noise ratios.

    Attributes:
        snr: `[...]`; NaN where no signal stands out of the noise.
        log_snr: its logarithm.
        log_snr_se: standard error of that.
        squared, squared_se: of the square, which needs no signal.
    """

    snr: np.ndarray
    log_snr: np.ndarray
    log_snr_se: np.ndarray
    squared: np.ndarray
    squared_se: np.ndarray


def snr_of(sums: Any, squares: Any, count: int) -> SnrEstimate:
    """The estimate from what groups of replicates add up to.

    Args:
        sums: of the gradients of each group `[G, ..., P]`; the coordinates come last.
        squares: of their squares.
        count: replicates of a group.
    """
    sums, squares = np.asarray(sums, dtype=np.float64), np.asarray(squares, dtype=np.float64)
    groups, total, square = len(sums), sums.sum(0), squares.sum(0)
    less = (groups - 1) * count
    parts = np.stack([_squared(total - sums[g], square - squares[g], less) for g in range(groups)])
    whole = _squared(total, square, groups * count)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = 0.5 * np.log(whole), 0.5 * np.log(parts)
        return SnrEstimate(np.sqrt(whole), logs[0], _jackknife(logs[1]), whole, _jackknife(parts))


def _squared(total: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
    """Mean over coordinates of the squared ratio `[...]`."""
    mean = total / count
    var = (squares - total * mean) / (count - 1)
    alive = var > 1e-14 * (squares / count)
    ratio = np.where(alive, (mean**2 - var / count) / np.where(alive, var, 1.0), 0.0)
    return ratio.sum(-1) / np.maximum(alive.sum(-1), 1)


def _jackknife(without: np.ndarray) -> np.ndarray:
    """Standard error from estimates that leave out one group each."""
    groups = len(without)
    return np.sqrt((groups - 1) / groups * ((without - without.mean(0)) ** 2).sum(0))


@torch.no_grad()
def encoder_snr(
    run: Run, member: int, rules: Sequence[Member], *, images: int, replicates: int, seed: int = 0
) -> SnrEstimate:
    """SNR of the encoder's weights `[rules]`, of the gradient of one batch, at the parameters of one member.

    Args:
        run: a trained model.
        member: whose parameters.
        rules: estimators with their M and K, equal M·K; each has the same parameters and images.
        images: of the batch, the first of the training images, binarised once.
        replicates: draws of the particles, rounded up to whole groups.
        seed: of the draws; all rules have the same.
    """
    own, count = run.model.at(member), len(rules)
    repeated = {name: value.expand(count, *value.shape[1:]) for name, value in own.parameters.items()}
    model = replace(own, parameters=repeated)
    noise = Noise((_SEEDS + seed,) * count, device=run.noise.device, dtype=run.noise.dtype)
    x = seen(run, run.images.train[:images]).expand(count, -1, -1)
    names = [name for name in model.parameters if model.part(name) == "proposal"]
    size, sums, squares = -(-replicates // GROUPS), [], []
    for group in range(GROUPS):
        total = square = torch.zeros(())
        for r in range(size):
            found = step(model, rules, x, noise.at(group * size + r)).gradients
            gradient = torch.cat([found[name].flatten(1) for name in names], 1).to(torch.float64)
            total, square = total + gradient, square + gradient.square()
        sums.append(total)
        squares.append(square)
    return snr_of(torch.stack(sums), torch.stack(squares), size)


def seen(run: Run, images: np.ndarray) -> torch.Tensor:
    """What a model sees of images `[1, N, D_x]`, binarised once where the run does so for each batch."""
    ink = torch.from_numpy(images.copy()).to(run.noise.device)[None]
    once = Noise((_SEEDS,), device=run.noise.device, dtype=run.noise.dtype)
    return observed(ink, once, dynamic=run.images.binarisation == "dynamic")
