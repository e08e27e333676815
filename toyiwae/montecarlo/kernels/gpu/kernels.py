"""The kernels: sums of powers of the weights, fused with the noise; and log-weights, sums and noise apart.

A task is a segment of the particles of one unit, and one lane's work. A unit is a group of one row of data of one
replicate, numbered through: `unit = (replicate·N + row)·M + group`. How units are cut into segments follows from K
alone, and every number is keyed by its particle, unit and coordinate: neither grid nor program size changes one.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl

from toyiwae.montecarlo.kernels.gpu.device import normals

LOG2_E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(1e30)  # log-weights of no particle: −NEVER in a maximum, NEVER in a minimum


@triton.jit
def _factors(above, below, there, EXPONENT: tl.constexpr):
    """What a running sum and a new term are multiplied by, given how far the term surpasses all before it."""
    if EXPONENT == 0:
        kept = tl.full([1], 1.0, tl.float32)
        gained = tl.where(there, 1.0, 0.0)
    else:
        change = above if EXPONENT > 0 else below
        RATE: tl.constexpr = (-EXPONENT if EXPONENT > 0 else EXPONENT) * LOG2_E
        lesser = tl.exp2(tl.abs(change).to(tl.float32) * RATE)
        kept = tl.where(change > 0, lesser, 1.0)
        gained = tl.where(there, tl.where(change > 0, 1.0, lesser), 0.0)
    return kept, gained


@triton.jit(
    do_not_specialize=["tasks", "rows", "groups", "particles", "segments", "length", "curvature_stride"]
)
def power_sums(
    start,
    slope,
    curvature,
    extremes,
    zeroth,
    first,
    tasks,
    rows,
    groups,
    particles,
    segments,
    length,
    curvature_stride,
    D: tl.constexpr,
    EXPONENTS: tl.constexpr,
    FIRST: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`Σ_k w_k^a` for all exponents a, and `Σ_k w_k^a η_k` for the first few, of each task.

    With `log w = Σ_i η_i (slope_i + curvature_i η_i)`. Powers are relative to the task's largest weight, for negative
    exponents to its smallest. Noise and first-order sums are float32, log-weights and the other sums float64.

    Args:
        start: int64 [2]: the key, and the first task's pair replicate·N + row.
        slope: float64 [N, D].
        curvature: float64 [1 or N, D].
        extremes: float64 [2, T], written: the largest and the smallest log-weight.
        zeroth: float64 [A, T], written.
        first: float32 [FIRST, D, T], written.
        tasks: T, those of a pair in the order of groups and segments.
        rows: N.
        groups: M.
        particles: K.
        segments: of a group.
        length: particles of a segment; the last may have fewer.
        curvature_stride: from a row to the next: D, or 0 where all share one.
        D: latents.
        EXPONENTS: the A exponents.
        FIRST: of how many first-order sums are formed.
        ROUNDS: of Philox.
        BLOCK: tasks of a program.
    """
    key = tl.load(start)
    task = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    unit = tl.load(start + 1) * groups + task // segments
    row = (unit // groups) % rows
    slope += row * D
    curvature += row * curvature_stride
    begin = (task % segments) * length
    nothing = tl.zeros([BLOCK], tl.float64)
    highest, lowest = nothing - NEVER, nothing + NEVER
    total, moment = (), ()
    for _ in tl.static_range(len(EXPONENTS)):
        total += (nothing,)
    for _ in tl.static_range(FIRST * D):
        moment += (nothing.to(tl.float32),)
    for step in range(length):
        particle = begin + step
        there = particle < particles
        noise, log_w = (), nothing
        for quad in tl.static_range((D + 3) // 4):
            four = normals(particle.to(tl.uint32), quad, unit, key, ROUNDS)
            for i in tl.static_range(4 * quad, min(4 * quad + 4, D)):
                eta = four[i - 4 * quad].to(tl.float64)
                log_w = tl.fma(eta, tl.fma(tl.load(curvature + i), eta, tl.load(slope + i)), log_w)
                noise += (four[i - 4 * quad],)
        above = tl.where(there, log_w, -NEVER) - highest
        below = lowest - tl.where(there, log_w, NEVER)
        highest = tl.where(above > 0, log_w, highest)
        lowest = tl.where(below > 0, log_w, lowest)
        totals, moments = (), ()
        for a in tl.static_range(len(EXPONENTS)):
            kept, gained = _factors(above, below, there, EXPONENTS[a])
            totals += (tl.fma(total[a], kept.to(tl.float64), gained.to(tl.float64)),)
            if a < FIRST:
                for d in tl.static_range(a * D, a * D + D):
                    moments += (tl.fma(gained, noise[d - a * D], moment[d] * kept),)
        total, moment = totals, moments
    mask = task < tasks
    tl.store(extremes + task, highest, mask=mask)
    tl.store(extremes + task + tasks, lowest, mask=mask)
    zeroth += task
    for a in tl.static_range(len(EXPONENTS)):
        tl.store(zeroth, total[a], mask=mask)
        zeroth += tasks
    first += task
    for d in tl.static_range(FIRST * D):
        tl.store(first, moment[d], mask=mask)
        first += tasks


@triton.jit(do_not_specialize=["count", "rows", "groups", "particles", "curvature_stride"])
def log_weights(
    start,
    slope,
    curvature,
    base,
    out,
    count,
    rows,
    groups,
    particles,
    curvature_stride,
    D: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`log w` of a stretch of particles, in float64; arguments as for `power_sums`.

    Args:
        start: int64 [2]: the key, and the first particle's pair replicate·N + row.
        slope: float64 [N, D].
        curvature: float64 [1 or N, D].
        base: float64 [N].
        out: float64 [count], written.
        count: particles of the stretch.
        rows: N.
        groups: M.
        particles: K.
        curvature_stride: from a row to the next.
        D: latents.
        ROUNDS: of Philox.
        BLOCK: particles of a program.
    """
    key = tl.load(start)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    unit = tl.load(start + 1) * groups + index // particles
    row = (unit // groups) % rows
    particle = (index % particles).to(tl.uint32)
    log_w = tl.load(base + row)
    slope += row * D
    curvature += row * curvature_stride
    for quad in range((D + 3) // 4):
        four = normals(particle, quad, unit, key, ROUNDS)
        for j in tl.static_range(4):
            i, eta = tl.full([1], 4 * quad + j, tl.int32), four[j].to(tl.float64)
            bend = tl.load(curvature + i, mask=i < D, other=0.0)
            log_w = tl.fma(eta, tl.fma(bend, eta, tl.load(slope + i, mask=i < D, other=0.0)), log_w)
    tl.store(out + index, log_w, mask=index < count)


@triton.jit(do_not_specialize=["tasks", "groups", "particles", "segments", "length"])
def weighted_sums(
    start,
    coefficients,
    out,
    tasks,
    groups,
    particles,
    segments,
    length,
    D: tl.constexpr,
    C: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`Σ_k c_k η_k` of each task for C coefficients, in float64; the noise is made once more.

    Args:
        start: as for `power_sums`.
        coefficients: float64 [C, units, K].
        out: float64 [C, D, T], written.
        tasks: T, those of a pair in the order of groups and segments.
        groups: M.
        particles: K.
        segments: of a group.
        length: particles of a segment; the last may have fewer.
        D: latents, of which a program takes four, by the second axis of its grid.
        C: coefficients.
        ROUNDS: of Philox.
        BLOCK: tasks of a program.
    """
    key = tl.load(start)
    quad = tl.program_id(1)
    task = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = task < tasks
    unit = tl.load(start + 1) * groups + task // segments
    begin = (task % segments) * length
    coefficients += (task // segments) * particles
    plane = (tasks // segments).to(tl.int64) * particles
    total = ()
    for _ in tl.static_range(4 * C):
        total += (tl.zeros([BLOCK], tl.float64),)
    for step in range(length):
        particle = begin + step
        four = normals(particle.to(tl.uint32), quad, unit, key, ROUNDS)
        totals = ()
        for c in tl.static_range(C):
            weight = tl.load(
                coefficients + c * plane + particle, mask=mask & (particle < particles), other=0.0
            )
            for j in tl.static_range(4):
                totals += (tl.fma(weight, four[j].to(tl.float64), total[4 * c + j]),)
        total = totals
    out += task + (4 * quad).to(tl.int64) * tasks
    for c in tl.static_range(C):
        for j in tl.static_range(4):
            i = tl.full([1], 4 * quad + j, tl.int32)
            tl.store(out, total[4 * c + j], mask=mask & (i < D))
            out += tasks
        out += (D - 4) * tasks.to(tl.int64)


@triton.jit(do_not_specialize=["count", "particles"])
def standard_normals(
    start, out, count, particles, D: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr
):
    """The noise of a stretch of particles, written out.

    Args:
        start: int64 [2]: the key, and the first particle, numbered through: unit·K + particle.
        out: [count, D] of any floating-point type, written.
        count: particles of the stretch.
        particles: K.
        D: latents.
        ROUNDS: of Philox.
        BLOCK: particles of a program.
    """
    key = tl.load(start)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    flat = tl.load(start + 1) + index
    unit, particle = flat // particles, (flat % particles).to(tl.uint32)
    for quad in range((D + 3) // 4):
        four = normals(particle, quad, unit, key, ROUNDS)
        for j in tl.static_range(4):
            i = tl.full([1], 4 * quad + j, tl.int32)
            tl.store(out + index * D + i, four[j], mask=(index < count) & (i < D))
