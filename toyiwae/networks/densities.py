"""Priors and likelihoods of networks: log-densities, and their derivatives written out.

Axes: members E, particles T, images B, then the numbers of one particle. Everything is per particle, with an upstream
gradient of one; the coefficients a `[E, T, B]` come in where gradients by parameters are formed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from toyiwae.networks import kernels
from toyiwae.networks.products import product, unrounded

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]
Gradients = dict[str, Tensor]

Last = tuple[Tensor, Tensor, Tensor]
"""A decoder's last layer: its input `[E, N, H]`, weight and bias."""

_LOG_TWO_PI = math.log(2.0 * math.pi)
_FACTORS = 64
"""Numbers of at least ½ that are multiplied before a logarithm is taken: 2⁻⁶⁴ is far from underflow."""


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


def _bernoulli(x: Tensor, out: Tensor, bias: Tensor) -> Tensor:
    return kernels.load("bernoulli").log_likelihood(x, out, bias)


_fused = torch.library.custom_op("toyiwae::bernoulli", _bernoulli, mutates_args=("out",))
"""The kernel as one operation, which `torch.compile` leaves as it is."""


@_fused.register_fake
def _shape(x: Tensor, out: Tensor, bias: Tensor) -> Tensor:
    return out.new_empty(out.shape[:-1], dtype=torch.float32)


class Bernoulli:
    """`p(x|z) = Π Bernoulli(x_j; σ(l_j))`, l the decoder's output; x in [0, 1], grey values included."""

    @staticmethod
    def fuses(z: Tensor, *others: Tensor) -> bool:
        """Whether `fused` takes the decoder's output for particles z: in float32 on a GPU, nothing to differentiate.

        Args:
            z: `[E, T, B, D]`.
            others: what the output follows from beside z.
        """
        if z.dtype != torch.float32 or any(t.requires_grad for t in (z, *others)):
            return False
        return kernels.usable(z)

    @staticmethod
    def fused(x: Tensor, out: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of logits without the last layer's bias, by one kernel that reads them once."""
        return _fused(x, out, bias), out

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {}

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor, last: Last) -> tuple[Tensor, Tensor]:
        """`log p(x|z) = Σ x l − softplus(l)` `[E, T, B]`, and its slope `x − σ(l)` in the logits.

        `x·l = h·(W x) + b·x` needs no pass over the logits, and with `s = σ(l)` one logarithm serves many pixels:
        `Σ softplus(l) = Σ max(l, 0) − log Π max(s, 1 − s)`.

        Args:
            parameters: none are used.
            x: images `[E, B, D_x]`.
            out: logits `[E, T, B, D_x]`; overwritten.
            last: the decoder's last layer: its input h `[E, T·B, H]`, weight and bias.
        """
        hidden, weight, bias = last
        log_p = (hidden.unflatten(1, out.shape[1:3]) * product(x, weight.mT)[:, None]).sum(-1)
        room = out.clamp_min(0.0)
        log_p = log_p + (x * bias[:, None]).sum(-1)[:, None] - room.sum(-1)
        mean = out.sigmoid_()
        log_p += _sum_log(torch.sub(mean, 0.5, out=room).abs_().add_(0.5))
        return log_p, torch.sub(x[:, None], mean, out=mean)

    def gradients(self, parameters: Parameters, slope: Tensor, scale: Tensor) -> Gradients:
        """Gradients of `Σ a log p(x|z)` by parameters outside the decoder's layers: none."""
        return {}


def _sum_log(numbers: Tensor) -> Tensor:
    """Sum of logarithms along the last axis of numbers in [½, 1], by products of 64 of them."""
    whole = numbers.shape[-1] // _FACTORS * _FACTORS
    parts = numbers[..., :whole].unflatten(-1, (-1, _FACTORS)).prod(-1).log_().sum(-1) if whole else 0.0
    return parts + numbers[..., whole:].prod(-1).log_()


@dataclass(frozen=True)
class Gaussian:
    """`p(x|z) = N(x; m, diag(var))`, m the decoder's output, `var = floor_var + exp(noise.log_var)`.

    Attributes:
        per_pixel: a variance for each pixel (factor analysis), or one for all (probabilistic PCA).
        floor_var: least variance; pixels that never change would have none.
    """

    per_pixel: bool
    floor_var: float

    @staticmethod
    def fuses(z: Tensor, *others: Tensor) -> bool:
        """Never."""
        return False

    def shapes(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Parameter -> shape."""
        return {"noise.log_var": (dim if self.per_pixel else 1,)}

    def var(self, parameters: Parameters) -> Tensor:
        """Noise variances `[E, D_x]` or `[E, 1]`."""
        return self.floor_var + parameters["noise.log_var"].exp()

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor, last: Last) -> tuple[Tensor, Tensor]:
        """`log p(x|z)` `[E, T, B]` and its slope `(x − m)/var` in the means; arguments as for `Bernoulli`."""
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
        with unrounded(slope):
            squares = torch.bmm(scale.flatten(1)[:, None], slope.flatten(1, 2).square())[:, 0]
        by_var = 0.5 * (squares - scale.sum((1, 2))[:, None] / self.var(parameters))
        if not self.per_pixel:
            by_var = by_var.sum(-1, keepdim=True)
        return {"noise.log_var": by_var * parameters["noise.log_var"].exp()}


class GaussianWithStd(Bernoulli):
    """`p(x|z) = N(x; m, diag(s²))`, with the means m and log s from the decoder `[..., 2 D_x]`."""

    @staticmethod
    def fuses(z: Tensor, *others: Tensor) -> bool:
        """Never."""
        return False

    def forward(self, parameters: Parameters, x: Tensor, out: Tensor, last: Last) -> tuple[Tensor, Tensor]:
        """`log p(x|z)` `[E, T, B]`, and its slope `(r/s, r² − 1)` in m and log s, with `r = (x − m)/s`.

        The derivative by x is that by m with the other sign.
        """
        mean, log_std = out.chunk(2, -1)
        std = log_std.exp()
        residual = (x[:, None] - mean) / std
        log_p = -0.5 * residual.square().sum(-1) - log_std.sum(-1) - 0.5 * x.shape[-1] * _LOG_TWO_PI
        return log_p, torch.cat([residual / std, residual.square() - 1.0], -1)
