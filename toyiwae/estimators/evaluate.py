"""Forms evaluated on log-weights: all particles at once, or chunk by chunk in memory that K does not enter.

A particle's coefficients depend on the others through a few sums over its group, kept in a `Summary`:

    summary = Summary.of(chunk_1, exponents).merge(Summary.of(chunk_2, exponents))      # first pass
    coefficients(form, chunk_1, summary), coefficients(form, chunk_2, summary)          # second pass

gives, chunk by chunk, what `coefficients(form, all)` gives at once, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from array_api_compat import array_namespace

from toyiwae.errors import InputError
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, LogSum, LogTotal, promoted, tempered


@dataclass(frozen=True, eq=False)
class Summary:
    """What a particle's coefficients need to know of the other particles of its group.

    Leave-one-out terms keep their accuracy where one weight dominates: each sum is kept as its largest term
    and the sum of all others (see `LogSum`), not as one number.

    Attributes:
        particles: how many it has seen of each group; K in the end.
        sums: exponent `e` -> the sum of `w^e` of each group, arrays `[..., M, 1]`; `e = 1` is always there.
        logs: the sum of `log w` of each group.
    """

    particles: int
    sums: Mapping[float, LogSum]
    logs: LogTotal

    @classmethod
    def of(cls, log_w: Array, exponents: Iterable[float] = ()) -> Summary:
        """The summary of log-weights `[..., M, k]`, for forms with these exponents."""
        log_w = promoted(log_w)
        sums = {float(e): LogSum.of(tempered(log_w, e)) for e in dict.fromkeys((1.0, *exponents))}
        return cls(log_w.shape[-1], MappingProxyType(sums), LogTotal.of(log_w))

    def merge(self, other: Summary) -> Summary:
        """The summary of the same groups' particles in both.

        Raises:
            InputError: summaries for different exponents.
        """
        if self.sums.keys() != other.sums.keys():
            raise InputError(f"summaries for exponents {[*self.sums]} and {[*other.sums]} do not merge")
        sums = {e: self.sums[e].merge(other.sums[e]) for e in self.sums}
        return Summary(self.particles + other.particles, MappingProxyType(sums), self.logs.merge(other.logs))

    @property
    def log_evidence(self) -> Array:
        """`log Ẑ_m`, `[..., M]`."""
        return self.sums[1.0].value[..., 0] - math.log(self.particles)

    @property
    def ess(self) -> Array:
        """The effective sample size of each group, `[..., M]`; needs the exponent 2."""
        xp = array_namespace(self.logs.total)
        return xp.exp(2.0 * self.sums[1.0].log_scaled - self.sums[2.0].log_scaled)[..., 0]


def coefficients(
    form: Form,
    log_w: Array,
    summary: Summary | None = None,
    *,
    pooled: LogSum | None = None,
    groups: int | None = None,
) -> Coefficients:
    """The coefficients that a form gives some or all particles.

    Args:
        form: the estimator.
        log_w: log-weights `[..., M, k]` of these particles.
        summary: of all particles of their groups; by default the log-weights are all there are.
        pooled: the sum of `w^e` over all groups, `[..., 1, 1]`; by default that of the summary's groups. Only
            forms with pooled parts, on some of the groups, need it.
        groups: M; by default that of the log-weights.

    Returns:
        Coefficients `[..., M, k]`.

    Raises:
        InputError: a summary without the form's exponent, or a leave-one-out form at K = 1.
    """
    log_w = promoted(log_w)
    summary = Summary.of(log_w, (form.exponent,)) if summary is None else summary
    if form.exponent not in summary.sums:
        raise InputError(
            f"the summary has exponents {[*summary.sums]}, not {form.exponent}: ask for it as well"
        )
    if summary.particles < 2 and (form.leave_one_out or form.leave_one_out_geometric or form.constant):
        raise InputError("a form with leave-one-out terms needs K ≥ 2 particles, not K = 1")
    repeats = log_w.shape[-2] if groups is None else groups
    scaled, total = tempered(log_w, form.exponent), summary.sums[form.exponent]
    within = total.share(scaled)
    across = within if not form.pooled else (total.pool() if pooled is None else pooled).share(scaled)

    def part(name: str) -> Array:
        weights = across if name in form.pooled else within
        value = array_namespace(log_w).zeros_like(log_w)
        for power, factor in getattr(form, name).items():
            scale = factor if name in form.pooled and power > 0 else factor / repeats
            value = value + scale * (weights**power if power else 1.0 / summary.particles)
        return value

    return Coefficients(
        part("model"), part("path"), part("score") + _log_terms(form, log_w, summary) / repeats
    )


def _log_terms(form: Form, log_w: Array, summary: Summary) -> Array | float:
    """The logarithms in the score coefficient, from their differences to `log Ẑ`: these lose no digits to a shift."""
    xp, particles, e, others = array_namespace(log_w), summary.particles, form.exponent, form.leave_one_out
    geometric, logs, total = form.leave_one_out_geometric, summary.logs, summary.sums[form.exponent]
    terms: Array | float = form.constant * math.log1p(-1.0 / particles) if form.constant else 0.0
    factor = form.log_evidence + others + geometric
    if factor:
        log_evidence = (total.value - math.log(particles)) / e if e else logs.total / particles
        terms = terms + factor * log_evidence
    if e == 0.0 and (others or geometric):
        return terms - (others + geometric) * (log_w - logs.total / particles) / (particles - 1)
    scaled = tempered(log_w, e)
    if others:
        terms = terms + others / e * (total.log_others(scaled) - math.log1p(-1.0 / particles))
    if geometric:
        mean = e * logs.mean_others(log_w) - total.value
        terms = terms + geometric / e * xp.logaddexp(total.log_others(scaled), mean)
    return terms
