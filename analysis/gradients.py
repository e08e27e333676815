"""Signal-to-noise ratios of networks' gradients, with standard errors by the jackknife over groups of replicates.

    SNR² of a set of coordinates = mean over them of E[g]²/Var[g],    estimated by (ḡ² − v/R)/v

with mean ḡ and variance v of R replicates: without v/R an SNR of 0 would be seen as one of 1/√R. Coordinates whose
gradient is always 0 do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    sums, squares, size = _sums(run, model, rules, images, replicates, seed)
    return snr_of(_joined(sums, sums), _joined(squares, sums), size)


def layer_snr(run: Run, *, images: int, replicates: int, seed: int = 0) -> dict[str, SnrEstimate]:
    """SNR of the encoder's weights layer by layer, each of all members `[E]` by its own rule at its own parameters.

    Args:
        run: a trained stack.
        images: of the batch, the first of the training images, binarised once, the same for all members.
        replicates: draws of the particles, rounded up to whole groups, the same for all members.
        seed: of the draws.

    Returns:
        Layer ("encoder.0", the one next to the image, and so on) -> the root mean square over its weights and biases.
    """
    sums, squares, size = _sums(run, run.model, run.members, images, replicates, seed)
    layers: dict[str, list[str]] = {}
    for name in sums:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return {
        layer: snr_of(_joined(sums, names), _joined(squares, names), size) for layer, names in layers.items()
    }


def _joined(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """Some of the arrays as one, along the coordinates."""
    return np.concatenate([arrays[name] for name in names], -1)


def _sums(
    run: Run, model: Any, rules: Sequence[Member], images: int, replicates: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Sums of the gradients of each group's replicates, and of their squares, by name `[G, E, P]`; a group's size."""
    noise = Noise((_SEEDS + seed,) * len(rules), device=run.noise.device, dtype=run.noise.dtype)
    x = seen(run, run.images.train[:images]).expand(len(rules), -1, -1)
    names = [name for name in model.parameters if model.part(name) == "proposal"]
    size = -(-replicates // GROUPS)
    groups: list[dict[str, np.ndarray]] = []
    for group in range(GROUPS):
        total: dict[str, torch.Tensor] = {}
        for r in range(size):
            found = step(model, rules, x, noise.at(group * size + r)).gradients
            for name in names:
                own = found[name].flatten(1).to(torch.float64)
                both = torch.stack([own, own.square()])
                total[name] = total[name] + both if name in total else both
        groups.append({name: value.cpu().numpy() for name, value in total.items()})
    stacked = {name: np.stack([group[name] for group in groups], 1) for name in names}
    return {name: value[0] for name, value in stacked.items()}, {n: v[1] for n, v in stacked.items()}, size


def seen(run: Run, images: np.ndarray) -> torch.Tensor:
    """What a model sees of images `[1, N, D_x]`, binarised once where the run does so for each batch."""
    ink = torch.from_numpy(images.copy()).to(run.noise.device)[None]
    once = Noise((_SEEDS,), device=run.noise.device, dtype=run.noise.dtype)
    return observed(ink, once, dynamic=run.images.binarisation == "dynamic")
