"""Log-weights `[..., M, K]`: sums, normalised weights, leave-one-out evidences, sample size, tail index.

Everything reduces or runs along the last axis, in the array library of its argument (NumPy, torch or JAX,
through the array API standard), and in at least float32. Shifting all log-weights by a constant, however
large, changes nothing but the sums themselves, and by just that constant.

Conventions for weights that are zero (log-weight −∞): they count as particles. Where all weights of a group
are zero, the sum is −∞ and the normalised weights are equal, the limit of equal weights that shrink. NaN
makes its own group NaN and no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from toyiwae.errors import InputError

Array = Any
"""An array of any library that follows the array API standard."""


def promoted(log_w: Array) -> Array:
    """The same log-weights in at least float32 (float16 and bfloat16 have too few digits for a sum).

    Raises:
        InputError: not an array, or not one of real floating-point numbers.
    """
    if is_numpy_array(log_w) and log_w.dtype == float:
        return log_w  # which is most of them, and asks for no namespace
    try:
        xp = array_namespace(log_w)
    except TypeError:
        kind = type(log_w).__name__
        raise InputError(f"log-weights are a {kind}: expected an array of floating-point numbers") from None
    if not xp.isdtype(log_w.dtype, "real floating"):
        raise InputError(f"log-weights are of dtype {log_w.dtype}: expected real floating-point numbers")
    return log_w if xp.finfo(log_w.dtype).bits >= 32 else xp.astype(log_w, xp.float32)


def log_sum_exp(log_w: Array, axis: int = -1, *, keepdims: bool = False) -> Array:
    """`log Σ_k w_k` along an axis."""
    log_w = promoted(log_w)
    xp = array_namespace(log_w)
    peak = xp.max(log_w, axis=axis, keepdims=True)
    total = peak + xp.log(xp.sum(xp.exp(_below(log_w, peak)), axis=axis, keepdims=True))
    return total if keepdims else xp.squeeze(total, axis=axis)


def log_mean_exp(log_w: Array, axis: int = -1) -> Array:
    """`log Ẑ = log (1/K) Σ_k w_k` along an axis."""
    return log_sum_exp(log_w, axis) - math.log(log_w.shape[axis])


def normalise(log_w: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """The normalised weights `w̃_k = w_k / Σ_j w_j` along one or more axes; `(-2, -1)` pools the groups."""
    log_w = promoted(log_w)
    if is_numpy_array(log_w):  # an engine's block, whose namespace takes as long to find as a pass over it
        scaled = _below(log_w, log_w.max(axis=axis, keepdims=True))
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=axis, keepdims=True)
        return scaled
    xp = array_namespace(log_w)
    scaled = xp.exp(_below(log_w, xp.max(log_w, axis=axis, keepdims=True)))
    return scaled / xp.sum(scaled, axis=axis, keepdims=True)


def log_normalise(log_w: Array) -> Array:
    """`log w̃_k`; finite far beyond where `w̃_k` itself underflows."""
    log_w = promoted(log_w)
    below = _below(log_w, array_namespace(log_w).max(log_w, axis=-1, keepdims=True))
    return below - log_sum_exp(below, keepdims=True)


def tempered(log_w: Array, exponent: float) -> Array:
    """`log w^exponent`; at exponent 0 every weight is 1, zero weights too."""
    log_w = promoted(log_w)
    if exponent == 0.0:
        return array_namespace(log_w).zeros_like(log_w)
    return log_w if exponent == 1.0 else exponent * log_w


def log_others(log_w: Array) -> Array:
    """`log(1 − w̃_k)`: the share of the sum that the other particles hold.

    It keeps its relative accuracy where one weight dominates (`w̃_k → 1`), since the sum of the others is
    formed without the dominant weight. −∞ for K = 1.
    """
    log_w = promoted(log_w)
    return LogSum.of(log_w).log_others(log_w)


def log_sum_others(log_w: Array) -> Array:
    """`log Σ_{i≠k} w_i` for each particle `k`."""
    return log_sum_exp(log_w, keepdims=True) + log_others(log_w)


def mean_log_others(log_w: Array) -> Array:
    """`1/(K−1) Σ_{i≠k} log w_i`, the log of the others' geometric mean; −∞ if any of them is zero."""
    log_w = promoted(log_w)
    return LogTotal.of(log_w).mean_others(log_w)


def leave_one_out(log_w: Array) -> Array:
    """`log Ẑ_[-k] = log 1/(K−1) Σ_{i≠k} w_i`: the evidence estimated without particle `k`, for each `k`.

    Raises:
        InputError: K = 1.
    """
    particles = log_w.shape[-1]
    if particles < 2:
        raise InputError("leave_one_out needs K ≥ 2 particles, not K = 1")
    return log_sum_others(log_w) - math.log(particles - 1)


def ess(log_w: Array) -> Array:
    """The effective sample size `(Σ w)² / Σ w²`, between 1 and K; K where all weights are equal or zero."""
    shares = normalise(log_w)
    return 1.0 / array_namespace(shares).sum(shares * shares, axis=-1)


@dataclass(frozen=True, eq=False)
class LogSum:
    """The sum of a group's weights, as its largest weight and the sum of all others.

    That pair is all a single particle needs in order to know its share `w̃` and, without cancellation, the
    share `1 − w̃` of the others: a particle with `w̃ > 1/2` is the largest, and the others are what is
    stored; for any other particle `log1p(−w̃)` has no cancellation. `log Σ w` alone would not do: at `w̃ =
    1 − 1e-20` nothing is left of the others in it. Pairs of disjoint sets of particles `merge` into the
    pair of their union, so a stream of chunks needs memory for one pair, whatever K.

    Attributes:
        peak: the largest log-weight, `[..., 1]`.
        log_rest: `log Σ w_i / w_max` over all others, `[..., 1]`; of two equal largest one counts as "other".
    """

    peak: Array
    log_rest: Array

    @classmethod
    def of(cls, log_w: Array) -> LogSum:
        """The pair of the particles along the last axis."""
        xp = array_namespace(log_w)
        peak = xp.max(log_w, axis=-1, keepdims=True)
        position = xp.arange(log_w.shape[-1], device=device(log_w))
        largest = position == xp.argmax(log_w, axis=-1, keepdims=True)
        below = _below(log_w, peak)
        others = xp.where(largest, xp.full_like(below, -math.inf), below)
        return cls(peak, log_sum_exp(others, keepdims=True))

    def merge(self, other: LogSum) -> LogSum:
        """The pair of the union of two disjoint sets of particles."""
        xp = array_namespace(self.peak)
        peak, lesser = xp.maximum(self.peak, other.peak), xp.minimum(self.peak, other.peak)
        rests = (part.log_rest + _below(part.peak, peak) for part in (self, other))
        return LogSum(peak, xp.logaddexp(xp.logaddexp(*rests), _below(lesser, peak)))

    def pool(self) -> LogSum:
        """The pair of all groups' particles together: `[..., M, 1] -> [..., 1, 1]`."""
        xp = array_namespace(self.peak)
        peaks = LogSum.of(self.peak[..., 0])
        peak = peaks.peak[..., None]
        rests = log_sum_exp(self.log_rest + _below(self.peak, peak), axis=-2, keepdims=True)
        return LogSum(peak, xp.logaddexp(peaks.log_rest[..., None], rests))

    @property
    def log_scaled(self) -> Array:
        """`log Σ w / w_max`, between 0 and log K."""
        xp = array_namespace(self.log_rest)
        return xp.log1p(xp.exp(self.log_rest))

    @property
    def value(self) -> Array:
        """`log Σ w`, `[..., 1]`."""
        return self.peak + self.log_scaled

    def share(self, log_w: Array) -> Array:
        """`w̃` of some or all particles of the set."""
        xp = array_namespace(log_w)
        return xp.exp(_below(log_w, self.peak)) / (1.0 + xp.exp(self.log_rest))

    def log_others(self, log_w: Array) -> Array:
        """`log(1 − w̃)` of some or all particles of the set."""
        xp = array_namespace(log_w)
        share = self.share(log_w)
        small = xp.log1p(-xp.where(share > 0.5, xp.zeros_like(share), share))
        return xp.where(share > 0.5, self.log_rest - self.log_scaled, small)


@dataclass(frozen=True, eq=False)
class LogTotal:
    """The sum of a group's log-weights, zero weights counted apart: what geometric means need.

    Attributes:
        particles: how many, zero weights included.
        total: the sum of the finite log-weights, `[..., 1]`.
        zeros: how many weights are zero, `[..., 1]`, in the dtype of the log-weights.
    """

    particles: int
    total: Array
    zeros: Array

    @classmethod
    def of(cls, log_w: Array) -> LogTotal:
        """The sum over the particles along the last axis."""
        xp = array_namespace(log_w)
        zero = log_w == -math.inf
        total = xp.sum(xp.where(zero, xp.zeros_like(log_w), log_w), axis=-1, keepdims=True)
        zeros = xp.sum(xp.astype(zero, log_w.dtype), axis=-1, keepdims=True)
        return cls(log_w.shape[-1], total, zeros)

    def merge(self, other: LogTotal) -> LogTotal:
        """The sum over the union of two disjoint sets of particles."""
        return LogTotal(self.particles + other.particles, self.total + other.total, self.zeros + other.zeros)

    def mean_others(self, log_w: Array) -> Array:
        """The mean over the others for some or all particles of the set; −∞ if any of them is zero."""
        xp = array_namespace(log_w)
        zero = log_w == -math.inf
        other_zeros = self.zeros - xp.astype(zero, log_w.dtype)
        mean = (self.total - xp.where(zero, xp.zeros_like(log_w), log_w)) / (self.particles - 1)
        return xp.where(other_zeros > 0, xp.full_like(log_w, -math.inf), mean)


def pareto_k(log_w: Array, tail: int | None = None) -> Array:
    """Pareto k̂: the shape of a generalised Pareto distribution fitted to the largest weights.

    The fit is that of Zhang and Stephens with the weakly informative prior of Pareto-smoothed importance
    sampling (ten observations at 1/2). Above 0.7 the weights are too heavy-tailed for the mean to be
    trusted at practical K.

    Args:
        log_w: log-weights `[..., K]`.
        tail: how many of the largest weights to fit; by default `min(K/5, 3√K)`, rounded down.

    Returns:
        k̂ `[...]`; NaN where a quarter of the tail equals the weight below it, so that there is no tail to
        fit.

    Raises:
        InputError: fewer than 5 tail weights, or as many as K.

    References:
        vehtari2024psis
    """
    log_w = promoted(log_w)
    xp = array_namespace(log_w)
    particles = log_w.shape[-1]
    size = int(min(particles / 5, 3 * math.sqrt(particles))) if tail is None else tail
    if not 5 <= size < particles:
        raise InputError(
            f"pareto_k would fit {size} of K = {particles} weights: it needs 5 to K−1 (K ≥ 25 by default)"
        )
    largest = xp.sort(log_w, axis=-1)[..., particles - size - 1 :]
    scaled = xp.exp(_below(largest, largest[..., -1:]))
    excess = scaled[..., 1:] - scaled[..., :1]
    quartile = excess[..., int(size / 4 + 0.5) - 1, None]
    usable = quartile > 0.0
    ramp = xp.arange(1, size + 1, dtype=excess.dtype, device=device(excess))
    shape = _pareto_shape(xp.where(usable, excess, xp.broadcast_to(ramp, excess.shape)))
    return xp.where(usable[..., 0], shape, xp.full_like(shape, math.nan))


def _pareto_shape(excess: Array) -> Array:
    """Posterior-mean shape of generalised Pareto excesses, sorted ascending `[..., n]`."""
    xp = array_namespace(excess)
    size = excess.shape[-1]
    nodes = 30 + int(math.sqrt(size))
    index = xp.arange(1, nodes + 1, dtype=excess.dtype, device=device(excess))
    quartile, largest = excess[..., int(size / 4 + 0.5) - 1, None], excess[..., -1:]
    rate = 1.0 / largest + (1.0 - xp.sqrt(nodes / (index - 0.5))) / (3.0 * quartile)
    shape = xp.mean(xp.log1p(-rate[..., None] * excess[..., None, :]), axis=-1)
    weight = normalise(size * (xp.log(-rate / shape) - shape - 1.0))
    weight = xp.where(weight < 10.0 * xp.finfo(weight.dtype).eps, xp.zeros_like(weight), weight)
    mean_rate = xp.sum(rate * weight, axis=-1, keepdims=True) / xp.sum(weight, axis=-1, keepdims=True)
    fitted = xp.mean(xp.log1p(-mean_rate * excess), axis=-1)
    return (size * fitted + 10.0 * 0.5) / (size + 10.0)


def _below(log_w: Array, peak: Array) -> Array:
    """`log_w − peak`, 0 where they are equal, also where both are infinite."""
    if is_numpy_array(log_w) and np.isfinite(peak).all():  # all else below takes five more passes
        return log_w - peak
    xp = array_namespace(log_w)
    equal = log_w == peak
    return xp.where(equal, xp.zeros_like(log_w), log_w - xp.where(equal, xp.zeros_like(peak), peak))
