"""Coefficients and metrics of a group of members in one launch, from their rules as Forms; twin: the rules' functions.

The functions take some seventy launches a rule on arrays of a few thousand numbers, each of which costs a GPU more to
start than to do. A Form is what they compute as data: polynomials in the normalised weights, within a group or over
all, plus multiples of log Ẑ and of a constant.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from toyiwae.estimators import Estimator
from toyiwae.forms import Form

Tensor = torch.Tensor

MOST = 2**12
"""Particles of an image, groups and all, that a program holds."""


def fusible(rule: Estimator, other: Estimator, groups: int, particles: int) -> bool:
    """Whether the kernel gives what a model's and a proposal's rule do, at M groups of K particles."""
    if groups * triton.next_power_of_2(particles) > MOST:
        return False
    sizes = {size for size, _ in rule.value(particles, groups).terms}
    return _polynomial(rule.form) and _polynomial(other.form) and sizes <= {1, particles}


def _polynomial(form: Form | None) -> bool:
    """Whether a form has no leave-one-out terms, and no logarithm of a product."""
    if form is None or form.leave_one_out or form.leave_one_out_geometric:
        return False
    return form.exponent != 0.0 or not form.has_log_terms


@triton.jit
def _total(scaled, there, POOLED: tl.constexpr):
    """Weights relative to the largest of their group, or of all; the largest; and their sum."""
    low = tl.where(there, scaled, -float("inf"))
    peak = tl.max(low, 1, keep_dims=True)
    if POOLED:
        peak = tl.max(peak, 0, keep_dims=True)
    finite = tl.where(peak == -float("inf"), 0.0, peak)
    weight = tl.exp(tl.where(low == peak, 0.0, low - finite))  # equal ones where all are zero
    weight = tl.where(there, weight, 0.0)
    total = tl.sum(weight, 1, keep_dims=True)
    if POOLED:
        total = tl.sum(total, 0, keep_dims=True)
    return weight, peak, tl.where(total == 0.0, 1.0, total)  # 0 where there is no group


@triton.jit
def _part(log_w, there, TERMS: tl.constexpr, EXPONENT: tl.constexpr, POOLED: tl.constexpr):
    """`Σ_r factor_r w̃^r`; powers of 0 come with their 1/K."""
    value = tl.zeros_like(log_w)
    if len(TERMS) > 0:
        weight, _, total = _total(EXPONENT * log_w, there, POOLED)
        share = weight / total
        for i in tl.static_range(len(TERMS)):
            power = tl.full(log_w.shape, TERMS[i][1], tl.float32)
            for _ in tl.static_range(TERMS[i][0]):
                power *= share
            value += power
    return value


@triton.jit(do_not_specialize=["images", "scale"])
def coefficients(
    log_w,
    members,
    parts,
    metrics,
    images,
    stride,
    scale,
    MODEL: tl.constexpr,
    PATH: tl.constexpr,
    SCORE: tl.constexpr,
    EVIDENCE: tl.constexpr,
    BOUND: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All particles of one image of one member a program.

    Args:
        log_w: float32 [E, T, B].
        members: int64: which of the E.
        parts: float32 [3, E, T, B], written: a, b and c.
        metrics: float32 [2, E, B], written: the bound, and the effective sample size.
        images: B.
        stride: E·T·B, of parts.
        scale: what multiplies coefficients.
        MODEL: ((power, factor), …), exponent, pooled.
        PATH: the same.
        SCORE: the same.
        EVIDENCE: factor of log Ẑ in c, its exponent, and what is added.
        BOUND: factor of the logarithm of the mean of w^e, of the mean of log w^e, and the exponent e.
        M: groups.
        K: particles of a group.
        ROWS: a power of 2 of at least M.
        BLOCK: a power of 2 of at least K.
    """
    image = tl.program_id(1)
    member = tl.load(members + tl.program_id(0))
    group = tl.arange(0, ROWS)[:, None]
    particle = tl.arange(0, BLOCK)[None, :]
    there = (group < M) & (particle < K)
    place = member * (M * K * images) + (group * K + particle) * images + image
    own = tl.load(log_w + place, mask=there, other=0.0)
    a = _part(own, there, MODEL[0], MODEL[1], MODEL[2])
    b = _part(own, there, PATH[0], PATH[1], PATH[2])
    c = _part(own, there, SCORE[0], SCORE[1], SCORE[2]) + EVIDENCE[2]
    if EVIDENCE[0] != 0.0:
        _, peak, total = _total(EVIDENCE[1] * own, there, False)
        c += EVIDENCE[0] * (peak + tl.log(total / K)) / EVIDENCE[1]
    tl.store(parts + place, scale * a, mask=there)
    tl.store(parts + stride + place, scale * b, mask=there)
    tl.store(parts + 2 * stride + place, scale * c, mask=there)
    weight, _, total = _total(own, there, False)
    row = tl.arange(0, ROWS)[:, None] < M
    size = total * total / tl.where(row, tl.sum(weight * weight, 1, keep_dims=True), 1.0)
    value = tl.zeros_like(total)
    if BOUND[0] != 0.0:
        _, peak, total = _total(BOUND[2] * own, there, False)
        value += BOUND[0] * (peak + tl.log(total / K)) / BOUND[2]
    if BOUND[1] != 0.0:
        value += BOUND[1] * tl.sum(tl.where(there, own, 0.0), 1, keep_dims=True) / K
    found = metrics + member * images + image
    tl.store(found, tl.sum(tl.where(row, value, 0.0)) / M)
    tl.store(found + stride // (M * K), tl.sum(tl.where(row, size, 0.0)) / M)


def evaluate(
    rule: Estimator,
    other: Estimator,
    groups: int,
    log_w: Tensor,
    members: Tensor,
    parts: Tensor,
    metrics: Tensor,
    scale: float,
) -> None:
    """Writes some members' coefficients and metrics, of rules that are `fusible`.

    Args:
        rule: of the model.
        other: of the proposal.
        groups: M.
        log_w: float32 `[E, T, B]`.
        members: which of the E, int64 on the device.
        parts: a, b and c `[3, E, T, B]`, where theirs are written.
        metrics: bound and effective sample size of every image `[2, E, B]`.
        scale: what multiplies coefficients, 1/B for means over the batch.
    """
    log_w = log_w.contiguous()
    images, particles = log_w.shape[2], log_w.shape[1] // groups
    assert rule.form is not None
    assert other.form is not None
    form, constant = other.form, other.form.constant
    added = constant * math.log1p(-1.0 / particles) / groups if constant else 0.0
    bound = rule.value(particles, groups)
    whole = sum(float(weight) for size, weight in bound.terms if size == particles > 1)
    single = sum(float(weight) for size, weight in bound.terms if size == 1)
    constants = {
        "MODEL": _terms(rule.form, "model", groups, particles),
        "PATH": _terms(form, "path", groups, particles),
        "SCORE": _terms(form, "score", groups, particles),
        "EVIDENCE": (form.log_evidence / groups, form.exponent, added),
        "BOUND": (whole, single, bound.exponent),
        "M": groups,
        "K": particles,
        "ROWS": triton.next_power_of_2(groups),
        "BLOCK": triton.next_power_of_2(particles),
    }
    warps = max(1, min(8, constants["ROWS"] * constants["BLOCK"] // 256))
    with torch.cuda.device_of(log_w):
        coefficients[(len(members), images)](
            log_w, members, parts, metrics, images, log_w.numel(), scale, **constants, num_warps=warps
        )


def _terms(form: Form, name: str, groups: int, particles: int) -> tuple[tuple, float, bool]:
    """A part's polynomial with all divisions by M and K made, its exponent, and whether it is pooled."""
    pooled, terms = name in form.pooled, []
    for power, factor in getattr(form, name).items():
        own = factor if pooled and power else factor / groups
        terms.append((power, own if power else own / particles))
    return tuple(terms), form.exponent, pooled
