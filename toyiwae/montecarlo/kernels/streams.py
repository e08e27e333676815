"""Streams of standard normals: each starts at its key, runs through lanes of a vector, and depends on nothing else.

A stream is `LANES` generators xoshiro128++ side by side. Their first states are the words that Philox-4x32-10 makes of
the counter (block, row, lane) under the cell's key: distinct for sure within a cell. Two words give two normals, which
go to two particles; `GRANULE` particles have their D numbers each before the next ones get theirs.

References:
    blackman2021scrambled, salmon2011random
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from toyiwae.montecarlo.kernels.lanes.simd import ALONE, EXACT, U32, helper, kernel, pair32, whole_registers
from toyiwae.montecarlo.kernels.lanes.simd64 import pair64

LANES = 32
GRANULE = 2 * LANES
"""Particles that a stream makes together."""

U64 = np.uint64
_MULTIPLIERS = U64(0xD2511F53), U64(0xCD9E8D57)
_M0, _M1 = _MULTIPLIERS
_WEYL_0, _WEYL_1, _WORD, _LOW = U32(0x9E3779B9), U32(0xBB67AE85), U64(32), U64(0xFFFFFFFF)


@helper()
def start(key, block, row, state):
    """Makes the states `[4, LANES]` from which a stream starts."""
    for lane in range(LANES):
        c0, c1, c2, c3 = U32(block), U32(U64(block) >> _WORD), U32(row), U32(lane)
        k0, k1 = key[0], key[1]
        for _ in range(10):
            x, y = _M0 * U64(c0), _M1 * U64(c2)
            c0, c1, c2, c3 = (
                U32(U32(y >> _WORD) ^ c1 ^ k0),
                U32(y & _LOW),
                U32(U32(x >> _WORD) ^ c3 ^ k1),
                U32(x & _LOW),
            )
            k0, k1 = U32(k0 + _WEYL_0), U32(k1 + _WEYL_1)
        state[0, lane], state[1, lane], state[2, lane], state[3, lane] = c0, c1, c2, c3


@helper()
def _rotated(x, bits):
    return U32((x << U32(bits)) | (x >> U32(32 - bits)))


@helper()
def step(s0, s1, s2, s3):
    """A word of xoshiro128++, and the next state."""
    word = U32(_rotated(U32(s0 + s3), 7) + s0)
    shifted = U32(s1 << U32(9))
    s2, s3 = U32(s2 ^ s0), U32(s3 ^ s1)
    s1, s0 = U32(s1 ^ s2), U32(s0 ^ s3)
    return word, s0, s1, U32(s2 ^ shifted), _rotated(s3, 11)


def granule(state, noise, first):
    """Fills `noise[:, first : first + GRANULE]` with the next normals of a stream."""
    raise NotImplementedError("compiled code calls it")


_OPTIONS: Any = {**ALONE, "fastmath": EXACT, "nogil": True}


@overload(granule, jit_options=_OPTIONS)
def _granule(state, noise, first):
    if noise.dtype == types.float32:

        def fill(state, noise, first):
            whole_registers()
            s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
            for i in range(noise.shape[0]):
                out = noise[i, first : first + GRANULE]
                for lane in range(LANES):
                    a, t0, t1, t2, t3 = step(s0[lane], s1[lane], s2[lane], s3[lane])
                    b, t0, t1, t2, t3 = step(t0, t1, t2, t3)
                    s0[lane], s1[lane], s2[lane], s3[lane] = t0, t1, t2, t3
                    out[lane], out[LANES + lane] = pair32(a, b)

    else:

        def fill(state, noise, first):
            whole_registers()
            s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
            for i in range(noise.shape[0]):
                out = noise[i, first : first + GRANULE]
                for lane in range(LANES):
                    a, t0, t1, t2, t3 = step(s0[lane], s1[lane], s2[lane], s3[lane])
                    b, t0, t1, t2, t3 = step(t0, t1, t2, t3)
                    c, t0, t1, t2, t3 = step(t0, t1, t2, t3)
                    d, t0, t1, t2, t3 = step(t0, t1, t2, t3)
                    s0[lane], s1[lane], s2[lane], s3[lane] = t0, t1, t2, t3
                    out[lane], out[LANES + lane] = pair64(a, b, c, d)

    return fill


@helper()
def advance(state, noise, count):
    """Fills `noise[:, :count]` and what is left of the last granule."""
    for first in range(0, count, GRANULE):
        granule(state, noise, first)


@kernel
def normals(key, block, row, noise):
    """The first normals of one stream: fills `[D, particles]`, particles a multiple of `GRANULE`."""
    state = np.empty((4, LANES), np.uint32)
    start(key, block, row, state)
    advance(state, noise, noise.shape[1])


@kernel
def philox_words(key, block, row):
    """The first states of a stream's lanes `[4, LANES]`."""
    state = np.empty((4, LANES), np.uint32)
    start(key, block, row, state)
    return state


def key_of(seed: int, *stream: int) -> np.ndarray:
    """A cell's key: two words."""
    return np.random.SeedSequence([seed, *stream]).generate_state(2, np.uint32)


def padded(particles: int) -> int:
    """Particles with those that are made along with them."""
    return -(-particles // GRANULE) * GRANULE
