"""The hardware's approximations that kernels are made of, one instruction each; relative errors are below 2⁻²²."""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from toyiwae.montecarlo.kernels.gpu.device import INTERPRETED

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def exp(x):
    """e^x; 0 where that is below 2⁻¹²⁶."""
    power = x * LOG2_E
    if INTERPRETED:
        y = tl.exp2(power)
    else:
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [power], tl.float32, True, 1)
    return y


@triton.jit
def reciprocal(x):
    """1/x; 0 for infinity."""
    if INTERPRETED:
        y = 1.0 / x
    else:
        y = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return y
