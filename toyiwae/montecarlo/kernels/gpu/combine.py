"""From sums of powers of the weights to the sums that a Form's gradients need: a few operations on small arrays.

The coefficients of a Form are polynomials in the normalised weights `w̃ = w^e / Σ w^e`. So with `S_a = Σ_k w_k^a` and
`V_a = Σ_k w_k^a η_k` their sums over the particles of a group are

    Σ_k w̃_k^r = S_{er} / S_e^r,    Σ_k w̃_k^r η_k = V_{er} / S_e^r,

and a factor that all particles share, such as the logarithm of the evidence, multiplies `K` and `V_0`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from toyiwae.forms import PARTS, Form
from toyiwae.montecarlo.whitened import Sums, Weighted

Tensor = torch.Tensor

REGISTERS = 160
"""Numbers that a lane's registers have room for beside the generator, by machine code for sm_90."""


def fusible(form: Form | None) -> bool:
    """Whether sums of powers give a form's coefficients: leave-one-out terms are no polynomials."""
    if form is None or form.leave_one_out or form.leave_one_out_geometric:
        return False
    return form.exponent != 0.0 or not form.has_log_terms


def exponents_of(forms: Iterable[Form]) -> tuple[tuple[float, ...], int]:
    """The exponents a of all sums `S_a`, and of how many of them, the first ones, `V_a` is needed too."""
    forms = tuple(forms)
    first = {form.exponent * power for form in forms for part in PARTS for power in getattr(form, part)}
    first |= {0.0 for form in forms if form.log_evidence or form.constant}
    others = ({1.0, 2.0} | {form.exponent for form in forms}) - first
    return (*sorted(first), *sorted(others)), len(first)


@dataclass(frozen=True, eq=False)
class PowerSums:
    """Sums of powers of the weights over sets of particles, relative to a set's largest or smallest weight.

    Attributes:
        exponents: the A exponents a.
        extremes: the largest and the smallest log-weight `[2, ...]`; powers a ≥ 0 are relative to the largest, the
            others to the smallest.
        zeroth: S_a `[A, ...]`.
        first: V_a `[F, ..., D]` of the first F exponents.
    """

    exponents: tuple[float, ...]
    extremes: Tensor
    zeroth: Tensor
    first: Tensor

    def pooled(self) -> PowerSums:
        """The sums over the sets along the last axis `[..., n] -> [..., 1]`, in float64."""
        if self.extremes.shape[-1] == 1:
            return self
        high, low = self.extremes.unbind(0)
        extremes = torch.stack([high.amax(-1, keepdim=True), low.amin(-1, keepdim=True)])
        scales = torch.stack([torch.exp(a * (self.at(a) - extremes[int(a < 0)])) for a in self.exponents])
        moments = self.first * scales[: len(self.first), ..., None]
        return PowerSums(
            self.exponents,
            extremes,
            (self.zeroth * scales).sum(-1, keepdim=True),
            moments.sum(-2, keepdim=True),
        )

    def squeezed(self) -> PowerSums:
        """Without the last axis, of length 1."""
        return PowerSums(
            self.exponents, self.extremes.squeeze(-1), self.zeroth.squeeze(-1), self.first.squeeze(-2)
        )

    def at(self, exponent: float) -> Tensor:
        """The log-weight that powers of this exponent are relative to."""
        return self.extremes[int(exponent < 0)]

    def total(self, exponent: float) -> Tensor:
        """S_a."""
        return self.zeroth[self.exponents.index(exponent)]

    def moment(self, exponent: float) -> Tensor:
        """V_a in float64."""
        return self.first[self.exponents.index(exponent)].double()

    def log_mean(self, exponent: float, particles: int) -> Tensor:
        """`(1/a) log (1/K) Σ w^a`."""
        return self.at(exponent) + (torch.log(self.total(exponent)) - math.log(particles)) / exponent


def sums_of(form: Form, groups: PowerSums, base: Tensor, particles: int) -> Weighted:
    """The sums over all groups and particles that a form's coefficients give.

    Args:
        form: one that is fusible.
        groups: sums over the particles of each group `[R, n, M]`, without the constant part of the log-weights.
        base: that part `[n, 1]`.
        particles: K.
    """
    e, repeats = form.exponent, groups.extremes.shape[-1]
    whole = groups.pooled() if form.pooled else groups
    found: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def moments(power: int, pooled: bool) -> tuple[Tensor, Tensor]:
        """`Σ w̃^r` and `Σ w̃^r η` over all particles, with the 1/M of what is not pooled."""
        if (power, pooled) not in found:
            source = whole if pooled else groups
            norm = source.total(e) ** power if power else torch.full_like(source.total(1.0), particles)
            norm = norm if pooled else norm * repeats
            found[power, pooled] = _over_groups(source, e * power, 1.0 / norm)
        return found[power, pooled]

    parts = []
    for part in PARTS:
        terms = [
            (factor, *moments(power, part in form.pooled and power > 0))
            for power, factor in getattr(form, part).items()
        ]
        if part == "score" and (form.log_evidence or form.constant):
            shared = form.log_evidence * (base + groups.log_mean(e, particles))
            shared = shared + (form.constant * math.log1p(-1.0 / particles) if form.constant else 0.0)
            terms.append((1.0, *_over_groups(groups, 0.0, shared / repeats)))
        parts.append(_linear(terms or [(0.0, *moments(1, False))]))
    return Weighted(*parts)


def _over_groups(source: PowerSums, exponent: float, factors: Tensor) -> tuple[Tensor, Tensor]:
    """`Σ_m f_m S_a` and `Σ_m f_m V_a`."""
    total, moment = source.total(exponent), source.moment(exponent)
    return (factors * total).sum(-1), (factors[..., None] * moment).sum(-2)


def _linear(terms: Sequence[tuple[float, Tensor, Tensor]]) -> Sums:
    """The sums for a linear combination of coefficients."""
    zeroth, first = (sum(term[0] * term[part] for term in terms) for part in (1, 2))
    return Sums(zeroth, first, None)
