"""Proposals of networks: particles, their log-density, and its derivatives written out.

Axes: members E, particles T, images B, then the numbers of one particle. Everything is per particle, with an upstream
gradient of one; the coefficients b and c `[E, T, B]` come in where gradients by the statistics are formed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from toyiwae.networks.products import unrounded

Tensor = torch.Tensor

_LOG_TWO_PI = math.log(2.0 * math.pi)


class Sample(NamedTuple):
    """Particles z `[E, T, B, D]` of a proposal, `log q(z|x)` `[E, T, B]`, and what the backward pass needs."""

    z: Tensor
    log_q: Tensor
    saved: tuple[Tensor, ...]


class MeanField:
    """`q(z|x) = N(mean, diag(std²))`; statistics are the mean and log std, `[..., 2D]`."""

    noise, reparameterised = "normal", True

    @staticmethod
    def width(dim: int) -> int:
        """Statistics of a proposal of D latents."""
        return 2 * dim

    @staticmethod
    def sample(stats: Tensor, noise: Tensor) -> Sample:
        """Particles `z = mean + std ε` of statistics `[E, B, 2D]` and noise ε `[E, T, B, D]`."""
        mean, log_std = stats[:, None].chunk(2, -1)
        std = log_std.exp()
        log_q = -0.5 * noise.square().sum(-1) - log_std.sum(-1) - 0.5 * mean.shape[-1] * _LOG_TWO_PI
        return Sample(torch.addcmul(mean, std, noise), log_q, (noise, std))

    @staticmethod
    def backward(sample: Sample, slope: Tensor, path: Tensor, score: Tensor) -> Tensor:
        """Gradient by the statistics `[E, B, 2D]` of `Σ_k b_k log w(z_k) + c_k log q(z_k)`.

        With `g = ∂ log w/∂z = slope + ε/std` (log q with its parameters held fixed) and the score `ε/std` the mean
        gets `u = Σ b g + c ε/std`, and log std `Σ u std ε − Σ c`.

        Args:
            sample: of `sample`.
            slope: `∂ log p(x, z)/∂z` `[E, T, B, D]`.
            path: b `[E, T, B]`.
            score: c `[E, T, B]`.
        """
        noise, std = sample.saved
        u = path[..., None] * slope + (path + score)[..., None] * (noise / std)
        log_std = (u * noise).sum(1) * std[:, 0] - score.sum(1)[..., None]
        return torch.cat([u.sum(1), log_std], -1)


class Cholesky:
    """`q(z|x) = N(mean, L Lᵀ)`; statistics are the mean, log diagonal of L, and L's rows below it."""

    noise, reparameterised = "normal", True

    @staticmethod
    def width(dim: int) -> int:
        """Statistics of a proposal of D latents."""
        return 2 * dim + dim * (dim - 1) // 2

    @staticmethod
    def factor(stats: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Mean `[..., D]` and lower-triangular factor L `[..., D, D]` of the statistics."""
        mean, log_diagonal, below = stats.split([dim, dim, dim * (dim - 1) // 2], -1)
        chol = torch.diag_embed(log_diagonal.exp())
        chol[..., *_below(dim, stats.device)] = below
        return mean, chol

    @staticmethod
    def sample(stats: Tensor, noise: Tensor) -> Sample:
        """Particles `z = mean + L ε`, as `MeanField.sample`."""
        dim = noise.shape[-1]
        mean, chol = Cholesky.factor(stats[:, None], dim)
        log_q = -0.5 * noise.square().sum(-1) - 0.5 * dim * _LOG_TWO_PI
        log_q = log_q - stats[:, None, :, dim : 2 * dim].sum(-1)
        with unrounded(noise):
            moved = (chol @ noise[..., None])[..., 0]
        return Sample(mean + moved, log_q, (noise, chol))

    @staticmethod
    def backward(sample: Sample, slope: Tensor, path: Tensor, score: Tensor) -> Tensor:
        """As `MeanField.backward`, with `L⁻ᵀ ε` for `ε/std` and the gradient `tril(Σ u εᵀ)` by L."""
        noise, chol = sample.saved
        with unrounded(noise):
            pull = torch.linalg.solve_triangular(chol.mT, noise.movedim(1, -1)[:, None], upper=True)
        u = path[..., None] * slope + (path + score)[..., None] * pull[:, 0].movedim(-1, 1)
        with unrounded(noise):
            by_chol = torch.einsum("etbi,etbj->ebij", u, noise)
        diagonal = (by_chol * chol[:, 0]).diagonal(dim1=-2, dim2=-1) - score.sum(1)[..., None]
        return torch.cat([u.sum(1), diagonal, by_chol[..., *_below(noise.shape[-1], noise.device)]], -1)


def _below(dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each entry below the diagonal."""
    rows, columns = torch.tril_indices(dim, dim, -1, device=device)
    return rows, columns


class BernoulliLatents:
    """`q(z|x) = Π Bernoulli(z_i; σ(l_i))`; statistics are the logits l `[..., D]`. There is no path derivative."""

    noise, reparameterised = "uniform", False

    @staticmethod
    def width(dim: int) -> int:
        """Statistics of a proposal of D latents."""
        return dim

    @staticmethod
    def sample(stats: Tensor, noise: Tensor) -> Sample:
        """Particles `z = [ε < σ(l)]` of logits `[E, B, D]` and uniform noise ε `[E, T, B, D]`."""
        logit = stats[:, None]
        mean = torch.sigmoid(logit)
        z = (noise < mean).to(noise.dtype)
        log_q = (z * logit).sum(-1) - torch.nn.functional.softplus(logit).sum(-1)
        return Sample(z, log_q, (mean,))

    @staticmethod
    def backward(sample: Sample, slope: Tensor, path: Tensor, score: Tensor) -> Tensor:
        """Gradient `Σ c (z − σ(l))` by the logits `[E, B, D]`; slope and path have no part in it."""
        (mean,) = sample.saved
        return (score[..., None] * (sample.z - mean)).sum(1)


PROPOSALS: dict[str, Any] = {"mean_field": MeanField, "full": Cholesky, "bernoulli": BernoulliLatents}
"""Setting -> family of proposals."""
