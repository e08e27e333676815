"""A layer's bias and tanh in one pass over its product; the twin is `products.affine`."""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

BLOCK = 1024
"""Numbers of a program; changes no number."""


@triton.jit(do_not_specialize=["numbers", "inner"])
def tanh_of_sum(y, bias, numbers, inner, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`tanh(y + bias)` in place.

    With `e = exp(−2|s|)` tanh(s) is ±(1 − e)/(1 + e); below |s| = 1/8, where that cancels, four terms of its series.

    Args:
        y: float32 [E, N, WIDTH], overwritten.
        bias: float32 [E, WIDTH].
        numbers: of y.
        inner: N·WIDTH.
        WIDTH: of the layer.
        BLOCK: numbers of a program.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < numbers
    total = tl.load(y + place, mask=there, other=0.0)
    total += tl.load(bias + place // inner * WIDTH + place % WIDTH, mask=there, other=0.0)
    small = tl.exp(-2.0 * tl.abs(total))
    far = (1.0 - small) / (1.0 + small)
    far = tl.where(total < 0.0, -far, far)
    square = total * total
    near = total * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0))))
    tl.store(y + place, tl.where(square < 0.015625, near, far), mask=there)


def tanh_of_sum_(y: Tensor, bias: Tensor) -> Tensor:
    """`tanh(y + bias)` in place, of a product `[E, N, out]`, contiguous, and a bias `[E, out]`, both float32."""
    bias, inner = bias.contiguous(), y.shape[1] * y.shape[2]
    with torch.cuda.device_of(y):
        tanh_of_sum[(triton.cdiv(y.numel(), BLOCK),)](
            *(y, bias, y.numel(), inner), **{"WIDTH": y.shape[-1], "BLOCK": BLOCK}, num_warps=4
        )
    return y
