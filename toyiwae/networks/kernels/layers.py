"""A layer's bias and tanh in one pass over its product; the twin is `products.affine`."""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from toyiwae.networks.kernels.functions import exp, reciprocal

Tensor = torch.Tensor

BLOCK = 1024
"""Numbers of a program; changes no number."""


@triton.jit(do_not_specialize=["inner"])
def tanh_of_sum(y, bias, inner, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`tanh(y + bias) = 1 − 2/(1 + exp(2(y + bias)))` in place, to 2e-7; NaN stays NaN.

    Args:
        y: float32 [E, N, WIDTH], overwritten.
        bias: float32 [E, WIDTH].
        inner: N·WIDTH, below 2³¹.
        WIDTH: of the layer.
        BLOCK: numbers of a program.
    """
    member = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < inner
    y += member * inner
    total = tl.load(y + place, mask=there, other=0.0)
    total += tl.load(bias + member * WIDTH + place % WIDTH, mask=there, other=0.0)
    power = exp(tl.minimum(2.0 * total, 80.0, propagate_nan=tl.PropagateNan.ALL))
    tl.store(y + place, 1.0 - 2.0 * reciprocal(1.0 + power), mask=there)


def tanh_of_sum_(y: Tensor, bias: Tensor) -> Tensor:
    """`tanh(y + bias)` in place, of a product `[E, N, out]`, contiguous, and a bias `[E, out]`, both float32."""
    bias, inner = bias.contiguous(), y.shape[1] * y.shape[2]
    with torch.cuda.device_of(y):
        tanh_of_sum[(triton.cdiv(inner, BLOCK), len(y))](
            *(y, bias, inner),
            **{"WIDTH": y.shape[-1], "BLOCK": BLOCK},
            num_warps=max(1, min(BLOCK // 256, 32)),
        )
    return y
