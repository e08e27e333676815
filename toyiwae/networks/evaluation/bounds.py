"""Bounds of every image from particles of its proposal, at several K from the same log-weights.

    L̂_K = mean over groups of log (1/K) Σ_k w_k        from the first ⌊T/K⌋ K of T particles

At K = T that is one log-sum-exp over all particles, however they were cut into portions: an average over portions
would be another, lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toyiwae import weights
from toyiwae.errors import InputError
from toyiwae.networks.noise import Noise, block
from toyiwae.networks.portions import TOGETHER, held
from toyiwae.networks.users import ModuleModel

Tensor = torch.Tensor

IMAGES = 128
"""Most images whose log-weights are held at once."""

_ENOUGH = 16  # groups from whose spread a standard error is read


@dataclass(frozen=True, eq=False)
class ImageBounds:
    """Estimates for each of E members, nK numbers of particles and N images.

    Attributes:
        K: numbers of particles, rising; the last is T.
        bound: L̂_K `[E, nK, N]`.
        bound_se: its standard error over particles `[E, nK, N]`: from the spread of groups; of fewer than 16 groups by
            the delta method, `√(1/ESS − 1/K)` for one, which is too small where a few weights dominate.
        ess: effective sample size of a group, mean over groups `[E, nK, N]`.
        pareto_k: k̂ of all T weights `[E, N]`, NaN for fewer than 25.
    """

    K: tuple[int, ...]
    bound: np.ndarray
    bound_se: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray


@torch.no_grad()
def image_bounds(
    model: Any, x: Tensor, noise: Noise, particles: Sequence[int], *, first: int = 0
) -> ImageBounds:
    """Bounds, effective sample sizes and Pareto k̂ of every image.

    Args:
        model: with E members.
        x: images `[E, N, D_x]`, in the model's dtype.
        noise: one seed for each member. An image's particles depend on its place, not on how many are handled at once.
        particles: the K of the bounds; as many particles are drawn as the largest.
        first: place of the first image, where x is a part of more.

    Raises:
        InputError: no K, or one below 1.
    """
    counts = tuple(sorted(set(particles)))
    if not counts or counts[0] < 1:
        raise InputError(f"K is {list(particles)}: expected at least one number, none below 1")
    parts = [_of(log_w, counts) for log_w in log_weights(model, x, noise, counts[-1], first)]
    joined = (torch.cat(column, dim=-1).cpu().numpy() for column in zip(*parts, strict=True))
    return ImageBounds(counts, *joined)


def log_weights(model: Any, x: Tensor, noise: Noise, particles: int, place: int = 0) -> Iterator[Tensor]:
    """Log-weights in float64 of some images after another, `[E, images, T]`; x begins at a place among more."""
    members, images = x.shape[:2]
    if isinstance(model, ModuleModel):
        for n in range(images):
            yield model.log_weights(x[0, n], noise.at(place + n), particles)[None, None]
        return
    size = min(block((1, model.dim_z)), particles)
    bytes_each = model.row_numbers * members * x.element_size()
    most = max(1, held(TOGETHER, x.device) // bytes_each)
    together = max(1, min(IMAGES, most // size))
    for first in range(0, images, together):
        own = x[:, first : first + together]
        stats = model.encode(own).stats
        found = torch.empty((members, own.shape[1], particles), dtype=torch.float64, device=x.device)
        for start in range(0, particles, size):
            where = slice(start, min(start + size, particles))
            drawn = [
                model.draw(noise.at(place + first + i), particles, 1, where) for i in range(own.shape[1])
            ]
            pieces = torch.cat(drawn, dim=2).split(max(1, most // own.shape[1]), dim=1)
            found[..., where] = torch.cat([model.weigh(own, stats, piece).log_w.mT for piece in pieces], -1)
        yield found


def _of(log_w: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounds, their standard errors, effective sample sizes `[E, nK, images]` and k̂ `[E, images]` of log-weights.

    They stay on the device, which so computes one portion of images while the host sends it the next.
    """
    total, rows = log_w.shape[-1], []
    for count in counts:
        own = log_w[..., : total // count * count].unflatten(-1, (-1, count))
        values, ess, groups = weights.log_mean_exp(own), weights.ess(own), own.shape[-2]
        if groups >= _ENOUGH:
            se = values.std(-1) / math.sqrt(groups)
        else:
            se = (1.0 / ess - 1.0 / count).clamp_min(0.0).mean(-1).div(groups).sqrt()
        rows.append((values.mean(-1), se, ess.mean(-1)))
    bound, se, ess = (torch.stack(column, dim=1) for column in zip(*rows, strict=True))
    enough = total >= 25
    return bound, se, ess, weights.pareto_k(log_w) if enough else torch.full_like(log_w[..., 0], torch.nan)
