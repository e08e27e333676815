"""The Bernoulli likelihood of logits and its slope, with one read of them; the twin is `densities.Bernoulli`.

    log p(x|z) = Σ_j x_j l_j − softplus(l_j),    slope x − σ(l),    l = out + bias

Both come from one exponential, `e = exp(−|l|)`: softplus(l) = max(l, 0) + log(1 + e), and σ(l) is 1/(1 + e) or
e/(1 + e). Factors 1 + e of several pixels are multiplied before a logarithm is taken; where e is small, log(1 + e) is
e − e²/2 instead, since forming 1 + e would lose it. All sums are float32, of terms that do not cancel for binary x.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from toyiwae.networks.kernels.functions import exp, reciprocal

Tensor = torch.Tensor

BLOCK = 128
"""Pixels that a program, of one warp, holds at once; changes no number but in round-off."""

FACTORS = 16
"""Most factors, between 1 and 2, that are multiplied before a logarithm is taken."""

SMALL = tl.constexpr(2.0**-10)  # of e: the third term of its logarithm is below 2⁻³¹


@triton.jit(do_not_specialize=["inner", "images"])
def likelihood(
    x,
    out,
    bias,
    log_p,
    inner,
    images,
    x_member,
    x_image,
    PIXELS: tl.constexpr,
    FACTORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One particle of one image a program.

    Args:
        x: float32 [E, B, D_x], pixels beside each other.
        out: float32 or bfloat16 [E, T, B, D_x], without the bias; overwritten by the slope.
        bias: float32 [E, D_x].
        log_p: float32 [E, T, B], written.
        inner: T·B.
        images: B.
        x_member: from a member to the next in x.
        x_image: from an image to the next in x.
        PIXELS: D_x.
        FACTORS: multiplied before a logarithm is taken.
        BLOCK: pixels held at once.
    """
    row = tl.program_id(0).to(tl.int64)
    member, image = row // inner, row % images
    out += row * PIXELS
    bias += member * PIXELS
    x += member * x_member + image * x_image
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, PIXELS, FACTORS * BLOCK):
        product = tl.full([BLOCK], 1.0, tl.float32)
        for step in tl.static_range(FACTORS):
            pixel = first + step * BLOCK + tl.arange(0, BLOCK)
            there = pixel < PIXELS
            logit = tl.load(out + pixel, mask=there, other=-200.0).to(tl.float32)  # where e and all else is 0
            logit += tl.load(bias + pixel, mask=there, other=0.0)
            ink = tl.load(x + pixel, mask=there, other=0.0)
            e = exp(-tl.abs(logit))
            factor = 1.0 + e
            total += ink * logit - tl.maximum(logit, 0.0)
            total -= tl.where(e < SMALL, e - 0.5 * e * e, 0.0)
            product *= tl.where(e < SMALL, 1.0, factor)
            mean = tl.where(logit < 0.0, e, 1.0) * reciprocal(factor)
            tl.store(out + pixel, (ink - mean).to(out.dtype.element_ty), mask=there)
        total -= tl.log(product)
    tl.store(log_p + row, tl.sum(total, 0))


def log_likelihood(x: Tensor, out: Tensor, bias: Tensor) -> Tensor:
    """`log p(x|z)` `[E, T, B]` in float32; `out`, the logits without the bias, is overwritten by the slope.

    Args:
        x: images `[E, B, D_x]` in float32.
        out: `[E, T, B, D_x]` in float32 or bfloat16, contiguous.
        bias: `[E, D_x]` in float32.
    """
    members, particles, images, pixels = out.shape
    x, bias = (t if t.stride(-1) == 1 else t.contiguous() for t in (x, bias.contiguous()))
    log_p = torch.empty((members, particles, images), dtype=torch.float32, device=out.device)
    factors = min(FACTORS, triton.cdiv(pixels, BLOCK))
    with torch.cuda.device_of(out):
        likelihood[(log_p.numel(),)](
            *(x, out, bias, log_p, particles * images, images, x.stride(0), x.stride(1)),
            **{"PIXELS": pixels, "FACTORS": factors, "BLOCK": BLOCK},
            num_warps=max(1, min(BLOCK // 128, 32)),
        )
    return log_p
