"""Proposals, priors and likelihoods of networks: log-densities, and their derivatives written out.

Axes: members E, particles T, images B, then the numbers of one particle. Everything is per particle, with an upstream
gradient of one; the coefficients a, b, c `[E, T, B]` come in where gradients by parameters are formed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]
Gradients = dict[str, Tensor]

_LOG_TWO_PI = math.log(2.0 * math.pi)


class Sample(NamedTuple):
    """Particles of a proposal.

    Attributes:
        z: particles `[E, T, B, D]`.
        log_q: `log q(z|x)` `[E, T, B]`.
        saved: what the backward pass needs.
    """

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
        return Sample(mean + (chol @ noise[..., None])[..., 0], log_q, (noise, chol))

    @staticmethod
    def backward(sample: Sample, slope: Tensor, path: Tensor, score: Tensor) -> Tensor:
        """As `MeanField.backward`, with `L⁻ᵀ ε` for `ε/std` and the gradient `tril(Σ u εᵀ)` by L."""
        noise, chol = sample.saved
        pull = torch.linalg.solve_triangular(chol.mT, noise.movedim(1, -1)[:, None], upper=True)
        u = path[..., None] * slope + (path + score)[..., None] * pull[:, 0].movedim(-1, 1)
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


class StandardNormal:
    """`p(z) = N(0, I)`: no parameters."""

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {}

    def log_density(self, parameters: Parameters, z: Tensor) -> Tensor:
        """`log p(z)` `[E, T, B]`."""
        return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * _LOG_TWO_PI

    def add_slope(self, slope: Tensor, z: Tensor) -> Tensor:
        """The slope with `∂ log p(z)/∂z = −z` added."""
        return slope - z

    def gradients(self, parameters: Parameters, z: Tensor, scale: Tensor) -> Gradients:
        """Gradients of `Σ a log p(z)` by the parameters."""
        return {}


class Flat(StandardNormal):
    """No density of its own: for particles whose density another model gives."""

    def log_density(self, parameters: Parameters, z: Tensor) -> Tensor:
        """Zeros `[E, T, B]`."""
        return z.new_zeros(z.shape[:-1])

    def add_slope(self, slope: Tensor, z: Tensor) -> Tensor:
        """The slope as it is."""
        return slope


class BernoulliPrior:
    """`p(z) = Π Bernoulli(z_i; σ(π_i))` with learnt logits π, `prior.logit` `[E, D]`."""

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {"prior.logit": (dim,)}

    def log_density(self, parameters: Parameters, z: Tensor) -> Tensor:
        """`log p(z) = Σ z π − softplus(π)` `[E, T, B]`."""
        logit = parameters["prior.logit"]
        constant = torch.nn.functional.softplus(logit).sum(-1)
        return (z * logit[:, None, None]).sum(-1) - constant[:, None, None]

    def add_slope(self, slope: Tensor, z: Tensor) -> Tensor:
        """The slope as it is: binary latents have none."""
        return slope

    def gradients(self, parameters: Parameters, z: Tensor, scale: Tensor) -> Gradients:
        """Gradient `Σ a (z − σ(π))` by the logits."""
        mean = torch.sigmoid(parameters["prior.logit"])
        return {"prior.logit": (scale[..., None] * (z - mean[:, None, None])).sum((1, 2))}


class Bernoulli:
    """`p(x|z) = Π Bernoulli(x_j; σ(l_j))`, l the decoder's output; x in [0, 1], grey values included."""

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {}

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """`log p(x|z) = Σ x l − softplus(l)` `[E, T, B]`, and its slope `x − σ(l)` in the logits.

        Args:
            parameters: none are used.
            x: images `[E, B, D_x]`.
            out: logits `[E, T, B, D_x]`; overwritten.
        """
        log_p = (x[:, None] * out).sum(-1) - torch.nn.functional.softplus(out).sum(-1)
        return log_p, torch.sub(x[:, None], out.sigmoid_())

    def gradients(self, parameters: Parameters, slope: Tensor, scale: Tensor) -> Gradients:
        """Gradients of `Σ a log p(x|z)` by parameters outside the decoder's layers: none."""
        return {}


@dataclass(frozen=True)
class Gaussian:
    """`p(x|z) = N(x; m, diag(var))`, m the decoder's output, `var = floor_var + exp(noise.log_var)`.

    Attributes:
        per_pixel: a variance for each pixel (factor analysis), or one for all (probabilistic PCA).
        floor_var: least variance; pixels that never change would have none.
    """

    per_pixel: bool
    floor_var: float

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {"noise.log_var": (dim if self.per_pixel else 1,)}

    def var(self, parameters: Parameters) -> Tensor:
        """Noise variances `[E, D_x]` or `[E, 1]`."""
        return self.floor_var + parameters["noise.log_var"].exp()

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """`log p(x|z)` `[E, T, B]` and its slope `(x − m)/var` in the means; arguments as `Bernoulli.forward`."""
        var = self.var(parameters)
        residual = torch.sub(x[:, None], out, out=out)
        log_var = var.log().expand(-1, x.shape[-1]).sum(-1)[:, None, None]
        slope = residual / var[:, None, None]
        log_p = -0.5 * (residual * slope).sum(-1) - 0.5 * log_var - 0.5 * x.shape[-1] * _LOG_TWO_PI
        return log_p, slope

    def gradients(self, parameters: Parameters, slope: Tensor, scale: Tensor) -> Gradients:
        """Gradient by `noise.log_var`: `½ (Σ a slope² − Σ a / var) exp(log_var)`.

        Args:
            parameters: those of `forward`.
            slope: `(x − m)/var` `[E, T, B, D_x]`.
            scale: a `[E, T, B]`.
        """
        squares = torch.bmm(scale.flatten(1)[:, None], slope.flatten(1, 2).square())[:, 0]
        by_var = 0.5 * (squares - scale.sum((1, 2))[:, None] / self.var(parameters))
        if not self.per_pixel:
            by_var = by_var.sum(-1, keepdim=True)
        return {"noise.log_var": by_var * parameters["noise.log_var"].exp()}


class GaussianWithStd(Bernoulli):
    """`p(x|z) = N(x; m, diag(s²))`, with the means m and log s from the decoder `[..., 2 D_x]`."""

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """`log p(x|z)` `[E, T, B]`, and its slope `(r/s, r² − 1)` in m and log s, with `r = (x − m)/s`.

        The derivative by x is that by m with the other sign.
        """
        mean, log_std = out.chunk(2, -1)
        std = log_std.exp()
        residual = (x[:, None] - mean) / std
        log_p = -0.5 * residual.square().sum(-1) - log_std.sum(-1) - 0.5 * x.shape[-1] * _LOG_TWO_PI
        return log_p, torch.cat([residual / std, residual.square() - 1.0], -1)
