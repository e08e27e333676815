"""The Bernoulli likelihood of logits and its slope, with one read of them; the twin is `densities.Bernoulli`.

    log p(x|z) = Σ_j x_j l_j − softplus(l_j),    slope x − σ(l),    l = out + bias

Both come from one exponential, `e = exp(−|l|)`: softplus(l) = max(l, 0) + log(1 + e), and σ(l) is 1/(1 + e) or
e/(1 + e). Terms are formed pixel by pixel in float32, none of them positive for binary x, so that nothing cancels.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

MOST = 1024
"""Pixels that a program holds at once; changes no number but in round-off."""

SMALL = tl.constexpr(2.0**-10)  # of e, below which two terms of log(1 + e) are better than forming 1 + e


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
        BLOCK: pixels held at once.
    """
    row = tl.program_id(0).to(tl.int64)
    member, image = row // inner, row % images
    total = tl.zeros([BLOCK], tl.float32)
    for start in tl.static_range(0, PIXELS, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        there = pixel < PIXELS
        place = out + row * PIXELS + pixel
        logit = tl.load(place, mask=there, other=0.0).to(tl.float32)
        logit += tl.load(bias + member * PIXELS + pixel, mask=there, other=0.0)
        ink = tl.load(x + member * x_member + image * x_image + pixel, mask=there, other=0.0)
        small = tl.exp(-tl.abs(logit))
        whole = 1.0 + small
        log1p = tl.where(small < SMALL, small - 0.5 * small * small, tl.log(whole))
        total += tl.where(there, ink * logit - tl.maximum(logit, 0.0) - log1p, 0.0)
        mean = tl.where(logit < 0.0, small, 1.0) / whole
        tl.store(place, (ink - mean).to(out.dtype.element_ty), mask=there)
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
    block = min(MOST, triton.next_power_of_2(pixels))
    with torch.cuda.device_of(out):
        likelihood[(log_p.numel(),)](
            *(x, out, bias, log_p, particles * images, images, x.stride(0), x.stride(1)),
            **{"PIXELS": pixels, "BLOCK": block},
            num_warps=max(1, min(4, block // 128)),
        )
    return log_p
