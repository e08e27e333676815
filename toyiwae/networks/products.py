"""Batched products with a member axis, in a chosen precision, by the fastest routine there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Literal, get_args

import torch

from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.networks import kernels

Tensor = torch.Tensor

Products = Literal["float32", "tf32", "bfloat16"]
PRODUCTS = get_args(Products)
"""Precisions of the factors of products; sums, and everything else, keep the dtype of the parameters."""

LARGE = 2**16
"""Numbers of a member's product from which on oneDNN takes several members one by one."""

_ONEDNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() != "AVX2"
    else None
)
"""oneDNN's product, where it serves: on processors of AMD with vectors of 512 bits it is up to twice as fast as torch's
own. On x86 with 256 bits it is no faster, and slower where the left factor is transposed, as in a weight's gradient."""

_SUMS_IN_FLOAT32 = "dtype" in torch.ops.aten.bmm.overloads()
"""Whether `torch.bmm` takes `out_dtype`: since 2.8."""


def check(products: str) -> str:
    """Refuses an unknown precision.

    Raises:
        InputError: naming those there are.
    """
    if products not in PRODUCTS:
        raise InputError(f"products is {shown(products)}: expected one of {', '.join(PRODUCTS)}")
    return products


def product(left: Tensor, right: Tensor, products: str = "float32") -> Tensor:
    """`left @ right` `[E, n, m]` of `[E, n, k]` and `[E, k, m]`.

    "float32" leaves the factors as they are. "tf32" and "bfloat16" round them to 10 and 7 bits of mantissa and add up
    in float32: on CUDA in hardware; on a CPU bfloat16 in hardware where it has that (two to three times as fast as
    float32 there), and else by rounding, which shows the effect and saves nothing.
    """
    return affine(left, right, None, products=products)


def affine(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, tanh: bool = False, products: str = "float32"
) -> Tensor:
    """`x W + b` `[E, N, out]`, or tanh of it, of `[E, N, in]`, `[E, in, out]` and `[E, out]`.

    Raises:
        InputError: factors in bfloat16 on CUDA with a torch that cannot add their products up in float32.
    """
    by_onednn = _by_onednn(x, weight, bias)
    rounds = by_onednn and products == "bfloat16" and _onednn_rounds()
    if products != "float32" and not rounds:
        x, weight = (_rounded(factor, products) for factor in (x, weight))
    if by_onednn:
        call = _opaque if torch.compiler.is_compiling() else _affine_onednn
        parts = [
            call(x[e], weight[e], None if bias is None else bias[e], tanh, rounds) for e in range(len(x))
        ]
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)
    if x.dtype == torch.bfloat16 and not _SUMS_IN_FLOAT32:
        raise InputError(
            f"products is 'bfloat16': CUDA needs torch 2.8 or newer for it, not {torch.__version__}"
        )
    fuses = tanh and bias is not None and bias.dtype == torch.float32 and _fuses(x, weight, bias)
    added = None if fuses or bias is None else bias[:, None]
    with tf32(products == "tf32", x.is_cuda and not torch.compiler.is_compiling()):
        if x.dtype == torch.bfloat16:
            y = torch.bmm(x, weight, out_dtype=torch.float32)
        else:
            y = torch.bmm(x, weight) if added is None or x.is_cuda else torch.baddbmm(added, x, weight)
    if added is not None and x.is_cuda:
        y = y.add_(added)  # cuBLAS would begin from a copy of it; and `torch.compile` fuses this with tanh
    if fuses:
        return kernels.load("layers").tanh_of_sum_(y, bias)
    return torch.tanh_(y) if tanh else y


def _fuses(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether a kernel adds the bias and takes tanh in one pass: nothing to differentiate.

    `torch.compile` does that by itself.
    """
    if torch.compiler.is_compiling() or any(t.requires_grad for t in (x, weight, bias)):
        return False
    return kernels.usable(x)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes these: one member, or large ones one by one, in float32 on a CPU, nothing to differentiate.

    torch hands products in float32 to MKL, which on an AMD processor with vectors of 512 bits reached half of what
    oneDNN did.
    """
    if _ONEDNN is None or (len(x) > 1 and x.shape[1] * weight.shape[-1] < LARGE):
        return False
    there = [x, weight] if bias is None else [x, weight, bias]
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and not t.requires_grad for t in there)


def _affine_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, tanh: bool, rounds: bool) -> Tensor:
    """The same of one member, `[N, in]` to `[N, out]`; `rounds` leaves the rounding to bfloat16 to the hardware."""
    assert _ONEDNN is not None
    with _as_bfloat16() if rounds else contextlib.nullcontext():
        return _ONEDNN(x, weight.mT, bias, "tanh" if tanh else "none", [], "")


@cache
def _onednn_rounds() -> bool:
    """Whether this CPU multiplies float32 as bfloat16 in hardware, adding up in float32, when it is told it may.

    Found by trying: factors 1 + 2⁻⁹ and 1 + 2⁻⁸ are 1 in bfloat16 (ties go to even), and sums of ones are exact.
    """
    if _ONEDNN is None:
        return False
    x = torch.full((64, 64), 1.0 + 2.0**-9)
    y = torch.full((64, 64), 1.0 + 2.0**-8)
    found = _affine_onednn(x, y, None, False, True)
    return bool((found == 64.0).all())


def _setting(backend: Any) -> Any:
    """What holds the setting of one backend's products alone, which torch has since 2.9; else None.

    The older ones must not be mixed with it: torch then refuses to say what they are.
    """
    products = getattr(backend, "matmul", None)
    return products if hasattr(products, "fp32_precision") else None


@contextlib.contextmanager
def _set(products: Any, wanted: str) -> Iterator[None]:
    """What a backend's products of float32 may lose, for a moment, whatever the user has chosen."""
    before = products.fp32_precision
    if before == wanted:
        yield
        return
    products.fp32_precision = wanted
    try:
        yield
    finally:
        products.fp32_precision = before


@contextlib.contextmanager
def _as_bfloat16() -> Iterator[None]:
    """Lets oneDNN round float32 to bfloat16 for a moment."""
    own = _setting(torch.backends.mkldnn)
    if own is not None:
        with _set(own, "bf16"):
            yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_opaque = torch.library.custom_op("toyiwae::affine", _affine_onednn, mutates_args=())
"""The same for `torch.compile`, which has no rule for oneDNN's product of weights that change."""


@_opaque.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None, tanh: bool, rounds: bool) -> Tensor:
    return x.new_empty(len(x), weight.shape[-1])


def unrounded(x: Tensor) -> AbstractContextManager[None]:
    """Within it torch's own products on the device of x keep float32's digits, whatever the user has chosen.

    In what `torch.compile` makes all products have the model's precision: it holds no choice of its own.
    """
    return tf32(False, x.is_cuda and not torch.compiler.is_compiling())


def once(factor: Tensor, products: str) -> Tensor:
    """A factor of several products as all of them would round it, where that makes it smaller: bfloat16 on CUDA."""
    return _rounded(factor, products) if products == "bfloat16" and factor.is_cuda else factor


def _rounded(factor: Tensor, products: str) -> Tensor:
    """A factor in bfloat16 or TF32; on a CPU, and TF32 anywhere, in float32."""
    if factor.dtype == torch.bfloat16 and products == "bfloat16":
        return factor
    if factor.dtype != torch.float32:
        raise InputError(f"products = {products!r} rounds float32, not {factor.dtype}: choose dtype float32")
    if products == "bfloat16":
        return factor.bfloat16() if factor.is_cuda else factor.bfloat16().float()
    if factor.is_cuda:
        return factor
    bits = factor.contiguous().view(torch.int32)  # to nearest, halves away from zero, as the hardware does
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@contextlib.contextmanager
def tf32(wanted: bool, on_cuda: bool) -> Iterator[None]:
    """Lets CUDA's products use TF32 or not for a moment, whatever the user has chosen.

    What `torch.compile` has made reads the choice when it runs: it is called within this, since it holds none.
    """
    if not on_cuda:
        yield
        return
    own = _setting(torch.backends.cuda)
    if own is not None:
        with _set(own, "tf32" if wanted else "ieee"):
            yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
