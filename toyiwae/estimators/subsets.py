"""Averages of `log Ẑ` over all subsets of a group's particles: values and gradients.

    U_n(ℓ) = mean over subsets A of n particles of log (1/n) Σ_{i∈A} w_i

is the unbiased estimate of `L_n` that K ≥ n particles allow. Subsets are enumerated by the K−n particles they
leave out, all but the last one by one and the last one for all particles at once, so a pass costs O(K) and
there are C(K, K−n−1) passes.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator

from array_api_compat import array_namespace, device

from toyiwae.errors import InputError
from toyiwae.weights import Array, log_mean_exp, log_normalise, log_sum_others, normalise

MAX_PASSES = 10_000
"""Passes over the particles that one average may take."""


def subset_average(log_w: Array, size: int) -> Array:
    """`U_size` of each group: `[..., K] -> [...]`.

    Raises:
        InputError: size not from 1 to K, or more than `MAX_PASSES` passes.
    """
    xp, particles = array_namespace(log_w), log_w.shape[-1]
    if size == particles:
        return log_mean_exp(log_w)
    if size == 1:
        return xp.mean(log_w, axis=-1)
    total, passes = xp.zeros_like(log_w[..., 0]), 0
    for left_out, kept in _passes(log_w, size):
        others = log_sum_others(kept)
        total = total + xp.sum(xp.where(left_out, xp.zeros_like(others), others), axis=-1)
        passes += 1
    return total / (passes * (size + 1)) - math.log(size)


def subset_gradient(log_w: Array, size: int) -> Array:
    """`∂U_size/∂ℓ_k = mean over subsets A of [k∈A] w_k / Σ_{i∈A} w_i`: `[..., K] -> [..., K]`.

    With `S_-i` the sum without what the pass leaves out and without `i`, a pass contributes `w_k Σ_{i≠k}
    1/S_-i`: two leave-one-out sums, each accurate where one term dominates. A subset of zero weights counts
    as one of equal weights.

    Raises:
        InputError: size not from 1 to K, or more than `MAX_PASSES` passes.
    """
    xp, particles = array_namespace(log_w), log_w.shape[-1]
    if size == particles:
        return normalise(log_w)
    if size == 1:
        return xp.full_like(log_w, 1.0 / particles)
    total, passes = xp.zeros_like(log_w), 0
    for left_out, kept in _passes(log_normalise(log_w), size):
        others = log_sum_others(kept)
        empty = ~left_out & (others == -math.inf)
        inverse = xp.where(left_out | empty, xp.full_like(others, -math.inf), -others)
        total = total + xp.where(left_out, xp.zeros_like(kept), xp.exp(kept + log_sum_others(inverse)))
        count = xp.astype(empty, kept.dtype)
        equal = (xp.sum(count, axis=-1, keepdims=True) - count) / size
        total = total + xp.where(left_out, xp.zeros_like(kept), equal)
        passes += 1
    return total / (passes * (size + 1))


def _passes(log_w: Array, size: int) -> Iterator[tuple[Array, Array]]:
    """For each set of K−size−1 particles its mask `[K]`, and the log-weights with −∞ in their place."""
    xp, particles = array_namespace(log_w), log_w.shape[-1]
    if not 1 <= size <= particles:
        raise InputError(f"subsets of {size} particles: expected 1 to K = {particles}")
    passes = math.comb(particles, size + 1)
    if passes > MAX_PASSES:
        raise InputError(
            f"an average over all subsets of {size} of K = {particles} particles takes {passes:.2g} passes,"
            f" more than {MAX_PASSES}: lower the order or K"
        )
    position = xp.arange(particles, device=device(log_w))
    for chosen in itertools.combinations(range(particles), particles - size - 1):
        marks = [position == index for index in chosen]
        left_out = functools.reduce(operator.or_, marks, position < 0)
        yield left_out, xp.where(left_out, xp.full_like(log_w, -math.inf), log_w)
