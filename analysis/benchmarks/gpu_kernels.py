"""Kernels that do one thing, for the speed of that thing: the generator, and the halves of a 32-bit product."""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from toyiwae.montecarlo.kernels.gpu.device import ROUNDS, normals

BLOCK, DIM = 128, 20

CHAINS = 8
"""Independent chains of products in a lane: more than a multiplication takes cycles to issue again."""


@triton.jit
def generator(out, steps, DIM: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of `steps` times DIM normals, one in each lane."""
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(steps):
        particle = tl.full([BLOCK], step, tl.int32).to(tl.uint32)
        for quad in tl.static_range(DIM // 4):
            x, y, z, w = normals(particle, quad, lane.to(tl.int64), tl.full([1], 7, tl.int64), ROUNDS)
            total = total + x + y + z + w
    tl.store(out + lane, total)


@triton.jit
def product(x, step, HALF: tl.constexpr):
    """The low or the high half of a product with a constant, or both, and one exclusive or with the step."""
    wide = x.to(tl.uint64) * 0xD2511F53
    low, high = wide.to(tl.uint32), (wide >> 32).to(tl.uint32)
    if HALF == "low":
        y = low
    elif HALF == "high":
        y = high
    else:
        y = low ^ high
    return y ^ tl.full([1], step, tl.uint32)


@triton.jit
def products(out, steps, HALF: tl.constexpr, CHAINS: tl.constexpr, BLOCK: tl.constexpr):
    """`steps` products in each of CHAINS chains in each lane."""
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    chains = ()
    for chain in tl.static_range(CHAINS):
        chains += ((lane * CHAINS + chain).to(tl.uint32),)
    for step in range(steps):
        new = ()
        for chain in tl.static_range(CHAINS):
            new += (product(chains[chain], step, HALF),)
        chains = new
    total = chains[0]
    for chain in tl.static_range(1, CHAINS):
        total = total ^ chains[chain]
    tl.store(out + lane, total.to(tl.int32))


def launch(out: torch.Tensor, steps: int, half: str | None = None) -> None:
    """Runs the generator, or halves of products, in as many lanes as `out` is long."""
    grid = (len(out) // BLOCK,)
    if half is None:
        generator[grid](out, steps, DIM=DIM, ROUNDS=ROUNDS, BLOCK=BLOCK, enable_fp_fusion=False)
    else:
        products[grid](out, steps, HALF=half, CHAINS=CHAINS, BLOCK=BLOCK)
