"""Particles of a trained proposal, image by image: log-weights and derivatives, and what every estimator makes of them.

From one pool of T particles of an image come T/K replicates of any estimator's gradient by the proposal's mean at every
K, and the moments of the weight w from which the theory predicts where these go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from analysis.gradients import GROUPS, SnrEstimate, snr_of
from toyiwae import estimators
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.noise import Noise

Tensor = torch.Tensor

_CHUNK = 2**14


@dataclass(frozen=True, eq=False)
class Pool:
    """T particles of one image.

    Attributes:
        log_w: log-weights `[T]`, float64.
        path: `∂ log w/∂z` with the parameters of q held fixed, times `∂z/∂mean`, `[T, D]`.
        score: `∂ log q/∂mean` `[T, D]`.
    """

    log_w: Tensor
    path: Tensor
    score: Tensor


@torch.no_grad()
def pools(model: LatentModel, x: Tensor, particles: int, seed: int) -> Iterator[Pool]:
    """Particles of every image.

    Args:
        model: of one member, with a mean-field proposal.
        x: images `[1, N, D_x]`.
        particles: T.
        seed: of the draws; image n has those of step n.
    """
    noise = Noise((seed,), device=x.device, dtype=x.dtype)
    for n in range(x.shape[1]):
        own, parts = x[:, n : n + 1], []
        stats = model.encode(own).stats
        for piece in model.draw(noise.at(n), particles, 1).split(_CHUNK, 1):
            found = model.weigh(own, stats, piece)
            slope = model.decode_backward(found, torch.zeros_like(found.log_w))[1]
            drawn, std = found.sample.saved
            score = (drawn / std)[0, :, 0].to(torch.float64)
            parts.append(
                (found.log_w[0, :, 0].to(torch.float64), slope[0, :, 0].to(torch.float64) + score, score)
            )
        yield Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))


def snr_at(pool: Pool, rule: str, K: int) -> SnrEstimate:
    """SNR of one estimator's gradient by the proposal's mean, M = 1: root mean square over the coordinates."""
    replicates = len(pool.log_w) // K // GROUPS * GROUPS
    shape, where = (replicates, 1, K), slice(0, replicates * K)
    made = estimators.get(rule)(pool.log_w[where].reshape(shape))
    gradient = _weighted(made.path, pool.path[where]) + _weighted(made.score, pool.score[where])
    grouped = gradient.unflatten(0, (GROUPS, -1))
    return snr_of(grouped.sum(1), grouped.square().sum(1), replicates // GROUPS)


def _weighted(coefficients: Tensor, terms: Tensor) -> Tensor:
    """`Σ_k c_k t_k` `[R, D]` of coefficients `[R, 1, K]` and terms `[R·K, D]`."""
    return torch.bmm(coefficients, terms.unflatten(0, (len(coefficients), -1)))[:, 0]


@dataclass(frozen=True)
class Asymptotes:
    """What the moments of one image's weight predict of its gradients by the proposal's mean.

    Attributes:
        iwae: `√K SNR → c`, `c_i = |E[w² t_i]| / (Z √E[w² t_i²])` with `t = ∂ log w/∂mean`; root mean square over i.
        dreg: `SNR/√K → c`, `c_i = |A_i| / √Var[w² g_i/Z² − 2 A_i w/Z]`, `A = E[w² g]/Z²` with the path derivative g.
        log_w_var: Var[log w].
        second_moment: `E[w²]/Z²`.
    """

    iwae: float
    dreg: float
    log_w_var: float
    second_moment: float


def asymptotes(pool: Pool) -> Asymptotes:
    """The constants, from sample moments of the pool; their squares less what noise adds to them.

    References:
        rainforth2018tighter, tucker2019dreg
    """
    w = (pool.log_w - pool.log_w.max()).exp()
    w = (w / w.mean())[:, None]
    total, count = pool.path - pool.score, len(w)
    by_iwae, by_dreg = w.square() * total, w.square() * pool.path
    amount = by_dreg.mean(0)
    noise = (by_dreg - 2.0 * amount * w).var(0)
    iwae = (by_iwae.mean(0).square() - by_iwae.var(0) / count) / (w * total).square().mean(0)
    dreg = (amount.square() - noise / count) / noise
    return Asymptotes(
        *(float(value.mean().clamp_min(0.0).sqrt()) for value in (iwae, dreg)),
        float(pool.log_w.var()),
        float(w.square().mean()),
    )


def whole_numbers(particles: int) -> Sequence[int]:
    """Powers of two for K that leave five replicates to each group of the jackknife."""
    return [2**power for power in range(particles.bit_length()) if 2**power * 5 * GROUPS <= particles]
