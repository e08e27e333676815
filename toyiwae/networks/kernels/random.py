"""Normals and uniform numbers from counters, in one launch for all members; the twin is `counters.drawn`."""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from toyiwae.montecarlo.kernels.gpu.device import ROUNDS, box_muller, philox

Tensor = torch.Tensor

BLOCK = 256
"""Counters of a program, of four numbers each; changes no number."""


@triton.jit(do_not_specialize=["first", "count"])
def numbers(keys, clock, out, first, count, NORMAL: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):
    """Numbers at the positions from `first` on, of each member.

    Args:
        keys: int64 [E].
        clock: int64 [1]: the step.
        out: float32 [E, count], written.
        first: position of the first number.
        count: of a member.
        NORMAL: normals, or uniform numbers in [0, 1).
        ROUNDS: of Philox.
        BLOCK: counters of a program.
    """
    member = tl.program_id(1).to(tl.int64)
    key, step = tl.load(keys + member), tl.load(clock)
    quad = first.to(tl.int64) // 4 + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    nothing = tl.zeros([BLOCK], tl.int64)
    c2, c3 = (step + nothing).to(tl.uint32), ((step + nothing) >> 32).to(tl.uint32)
    k0, k1 = (key + nothing).to(tl.uint32), ((key + nothing) >> 32).to(tl.uint32)
    a, b, c, d = philox(quad.to(tl.uint32), (quad >> 32).to(tl.uint32), c2, c3, k0, k1, ROUNDS)
    if NORMAL:
        w, x = box_muller(a, b)
        y, z = box_muller(c, d)
    else:
        w = (a >> 8).to(tl.float32) * 5.9604644775390625e-08
        x = (b >> 8).to(tl.float32) * 5.9604644775390625e-08
        y = (c >> 8).to(tl.float32) * 5.9604644775390625e-08
        z = (d >> 8).to(tl.float32) * 5.9604644775390625e-08
    four = tl.interleave(tl.interleave(w, y), tl.interleave(x, z))
    begin = (first.to(tl.int64) // 4 + tl.program_id(0).to(tl.int64) * BLOCK) * 4 - first
    place = begin + tl.arange(0, 4 * BLOCK)
    tl.store(out + member * count + place, four, mask=(place >= 0) & (place < count))


def drawn(kind: str, keys: Tensor, step: Tensor, first: int, count: int) -> Tensor:
    """Numbers `[E, count]` in float32 of a kind, "normal" or "uniform", as `counters.drawn`."""
    out = torch.empty((len(keys), count), dtype=torch.float32, device=keys.device)
    quads = -(-(first + count) // 4) - first // 4
    with torch.cuda.device_of(keys):
        numbers[(-(-quads // BLOCK), len(keys))](
            *(keys, step, out, first, count),
            **{"NORMAL": kind == "normal", "ROUNDS": ROUNDS, "BLOCK": BLOCK},
            num_warps=4,
            enable_fp_fusion=False,
        )
    return out
