"""Averages of `log Ẑ` over all subsets of a group's particles, none of them enumerated: values and gradients.

    U_m(ℓ) = mean over subsets A of m particles of log (1/m) Σ_{i∈A} w_i

is the unbiased estimate of `L_m` that K ≥ m particles allow. With `log y = ∫ (e^{−t} − e^{−ty}) dt/t`,

    U_m + log m = log c + ∫₀^∞ (e^{−ct} − P(t)) dt/t,     P = e_m(a_1, …, a_K) / C(K, m),   a_k = e^{−t w_k}

for any c > 0. The elementary symmetric polynomials of a block of particles follow from those of its halves by sums of
positive terms, in O(K min(m, K−m)) operations for each t and log K steps, and derivatives by running through the blocks
once more, backwards; the trapezoidal rule in log t converges exponentially. The cost grows with the range of the
log-weights and not with the number of subsets.

References:
    burroni2023ustatistics, trefethen2014trapezoidal
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from array_api_compat import array_namespace, device

from toyiwae.errors import InputError
from toyiwae.estimators import symmetric
from toyiwae.weights import Array, log_mean_exp, log_normalise, log_sum_others, normalise

_STEP = 0.25  # of log t; the rule's relative error is 2|Γ(1+2πi/h)| < 2e-16
_START, _STOP = 4e-9, 40.0  # t Σw where the sums start and stop: (tΣw)² and e^{-tΣw} are below 2e-17
_GAP = 40.0  # nats between neighbours that sums of weights do not tell from more
_OVER = 7.0  # e^{-e^7} is zero
_HELD = 2**22  # numbers held at once
_PAIRED = 1024  # particles up to which all pairs cost less than the rule's hundred nodes


def subset_average(log_w: Array, size: int) -> Array:
    """`U_size` of each group: `[..., K] -> [...]`.

    Raises:
        InputError: size not from 1 to K.
    """
    xp, particles = array_namespace(log_w), _particles(log_w, size)
    if size == particles:
        return log_mean_exp(log_w)
    if size == 1:
        return xp.mean(log_w, axis=-1)
    if size == particles - 1:
        return xp.mean(log_sum_others(log_w), axis=-1) - math.log(size)
    ranked = _Ranked.of(log_w, size)
    found = [_average(levels, size) for levels in _blocks(ranked.levels, size)]
    return ranked.moved + xp.reshape(xp.concat(found), log_w.shape[:-1]) - math.log(size)


def subset_gradient(log_w: Array, size: int) -> Array:
    """`∂U_size/∂ℓ_k = mean over subsets A of [k∈A] w_k / Σ_{i∈A} w_i`: `[..., K] -> [..., K]`.

    A subset of zero weights counts as one of equal weights.

    Raises:
        InputError: size not from 1 to K.
    """
    xp, particles = array_namespace(log_w), _particles(log_w, size)
    if size == particles:
        return normalise(log_w)
    if size == 1:
        return xp.full_like(log_w, 1.0 / particles)
    if size == particles - 1:
        return _gradient_but_one(log_normalise(log_w))
    if size == 2 and particles <= _PAIRED:
        return _gradient_of_pairs(log_w)
    ranked = _Ranked.of(log_w, size)
    found = [_gradient(levels, size) for levels in _blocks(ranked.levels, size)]
    return xp.take_along_axis(xp.reshape(xp.concat(found), log_w.shape), ranked.rank, axis=-1)


def _particles(log_w: Array, size: int) -> int:
    particles = log_w.shape[-1]
    if not 1 <= size <= particles:
        raise InputError(f"subsets of {size} particles: expected 1 to K = {particles}")
    return particles


def _gradient_but_one(log_w: Array) -> Array:
    """Of subsets of K−1: `w_k Σ_{i≠k} 1/S_-i / K`, two leave-one-out sums, accurate where one term dominates."""
    xp, particles = array_namespace(log_w), log_w.shape[-1]
    others = log_sum_others(log_w)
    empty = others == -math.inf
    inverse = xp.where(empty, xp.full_like(others, -math.inf), -others)
    count = xp.astype(empty, log_w.dtype)
    equal = (xp.sum(count, axis=-1, keepdims=True) - count) / (particles - 1)
    return (xp.exp(log_w + log_sum_others(inverse)) + equal) / particles


def _gradient_of_pairs(log_w: Array) -> Array:
    """Of subsets of two, pair by pair: `2/(K(K−1)) Σ_{j≠k} w_k / (w_j + w_k)`."""
    xp, particles = array_namespace(log_w), log_w.shape[-1]
    none, total = xp.zeros_like(log_w), xp.zeros_like(log_w)
    far = math.log(float(xp.finfo(log_w.dtype).max)) - 1.0  # nats beyond which the smaller's share is nothing
    for shift in range(1, particles):
        other = xp.roll(log_w, shift, axis=-1)
        above = xp.where(other == log_w, none, other - xp.where(other == log_w, none, log_w))
        total = total + 1.0 / (1.0 + xp.exp(xp.clip(above, max=far)))
    return total * (2.0 / (particles * (particles - 1)))


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Log-weights in falling order, relative to the largest, with wide gaps closed.

    Where neighbours differ by more than a gap of 40 nats and log K, what lies below adds nothing to a sum that has
    something from above, and a sum of what lies below moves with the gap. So the gap can be any other, and the
    average moves by that of the largest weights of the subsets.

    Attributes:
        levels: `[..., K]`, from 0 downwards.
        rank: the place of each particle among them.
        moved: the average over all subsets of what their largest log-weight has been moved by, `[...]`.
    """

    levels: Array
    rank: Array
    moved: Array

    @classmethod
    def of(cls, log_w: Array, size: int) -> _Ranked:
        """Those of log-weights `[..., K]`, for subsets of so many particles."""
        xp, particles = array_namespace(log_w), log_w.shape[-1]
        order = xp.argsort(log_w, axis=-1, descending=True)
        sorted_ = xp.take_along_axis(log_w, order, axis=-1)
        above, below = sorted_[..., :-1], sorted_[..., 1:]
        none = xp.zeros_like(above)
        gaps = xp.where(above == below, none, above - xp.where(above == below, none, below))
        closed = xp.clip(gaps, max=_GAP + math.log(particles))
        levels = xp.concat([xp.zeros_like(sorted_[..., :1]), -xp.cumulative_sum(closed, axis=-1)], axis=-1)
        chance, chances = size / particles, []  # that the first, the second, ... is a subset's largest
        for rank in range(particles - size + 1):
            chances.append(chance)
            chance *= (particles - size - rank) / max(particles - 1 - rank, 1)
        away = (sorted_ - levels)[..., : len(chances)]
        chances = xp.asarray(chances, dtype=log_w.dtype, device=device(log_w))
        return cls(levels, xp.argsort(order, axis=-1), xp.sum(chances * away, axis=-1))


def _blocks(levels: Array, size: int) -> Iterator[Array]:
    """Groups `[G, K]` whose polynomials at all t fit into memory, but one at least."""
    xp, particles = array_namespace(levels), levels.shape[-1]
    flat = xp.reshape(levels, (-1, particles))
    rows = max(1, _HELD // (particles * _states(particles, size) * len(_nodes(flat, size))))
    for start in range(0, max(flat.shape[0], 1), rows):
        yield flat[start : start + rows, :]


def _states(particles: int, size: int) -> int:
    return min(size, particles - size) + 1


def _nodes(levels: Array, size: int) -> Array:
    """Log t, for sums of `size` weights of these levels."""
    xp = array_namespace(levels)
    finite = xp.where(xp.isnan(levels), xp.zeros_like(levels), levels)
    lowest = float(xp.min(finite)) if 0 not in levels.shape else 0.0
    count = math.ceil((math.log(_STOP / _START) - lowest) / _STEP) + 1
    first = math.log(_START / size)
    return first + _STEP * xp.arange(count, dtype=levels.dtype, device=device(levels))


def _scaled(levels: Array, log_t: Array) -> Array:
    """`t w`, as far as `e^{-tw}` tells it."""
    xp = array_namespace(levels)
    return xp.exp(xp.clip(levels + log_t, max=_OVER))


def _chunks(levels: Array, size: int) -> Iterator[Array]:
    """The nodes in chunks, for groups of which not even one fits into memory at all nodes."""
    nodes, particles = _nodes(levels, size), levels.shape[-1]
    width = max(1, _HELD // (particles * _states(particles, size) * max(levels.shape[0], 1)))
    for start in range(0, nodes.shape[0], width):
        yield nodes[start : start + width]


def _integrated(integrand: Array, levels: Array, log_t: Array, size: int) -> Array:
    """The rule's sum over the last axis, up to each group's own last node, so that no bit depends on other groups."""
    xp = array_namespace(levels)
    last = math.log(_STOP / size) + _STEP - xp.min(levels, axis=-1)
    last = xp.reshape(last, (-1, *(1,) * (len(integrand.shape) - 1)))
    step = xp.where(log_t <= last, xp.full_like(integrand, _STEP), xp.zeros_like(integrand))
    return xp.cumulative_sum(step * integrand, axis=-1)[..., -1]  # one by one, so that zeros change nothing


def _average(levels: Array, size: int) -> Array:
    """Mean of `log Σ w` over subsets, `[G, K] -> [G]`: with `1 − P`, which keeps its digits at small t."""
    xp, states = array_namespace(levels), _states(levels.shape[-1], size)
    log_c = xp.log(size * xp.mean(xp.exp(levels), axis=-1))
    total = log_c
    for log_t in _chunks(levels, size):
        lost = -xp.expm1(-_scaled(levels[:, :, None], log_t))
        less, _ = symmetric.root(
            symmetric.leaves(lost, xp.zeros_like(lost), size), (1, 0), None, states, symmetric.merge_less
        )
        difference = less[-1, :, 0] + xp.expm1(-_scaled(log_c[:, None], log_t))
        total = total + _integrated(difference, levels, log_t, size)
    return total


def _gradient(levels: Array, size: int) -> Array:
    """Mean of `[k∈A] w_k / Σ_A w` over subsets, `[G, K] -> [G, K]`: `∫ w_k a_k ∂P/∂a_k dt`, all terms positive."""
    xp, particles = array_namespace(levels), levels.shape[-1]
    states, total = _states(particles, size), 0.0
    for log_t in _chunks(levels, size):
        scaled = _scaled(levels[:, :, None], log_t)
        a = xp.exp(-scaled)
        root, backward = symmetric.root(
            symmetric.leaves(a, xp.ones_like(a), size), (1, 0), None, states, symmetric.merge
        )
        adjoint, _ = backward(xp.concat([xp.zeros_like(root[:-1]), xp.ones_like(root[:1])]))
        derivative = adjoint[1 if symmetric.chosen(particles, size) else 0]
        total = total + _integrated(scaled * a * derivative, levels, log_t, size)
    tail = size / particles * _STEP / math.expm1(_STEP)  # of the rule's nodes below the first, where P is 1
    return total + tail * xp.exp(levels + math.log(_START / size))
