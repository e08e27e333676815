"""Finite-K sums on balls: a discrete Fourier transform on every contour, then one sum over log t for each K.

Every value is an enclosure: to the radius that rounding leaves are added the aliases and the truncation of the contour
sum (`contours.Table`), the aliases of the sum over log t relative to the mean absolute value of what is summed, and the
two tails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from flint import acb, arb, ctx

from toyiwae.oracle.enclosure.contours import (
    Floats,
    Request,
    Table,
    outer_error,
)
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic, pairs_in
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.planner import BLOCK, Planner, Segment, check_effort, spacing_for

_DEVIATION = Request(0)


class BallSums:
    """The sums of one law.

    Args:
        law: the law.
        particles: numbers of particles, at least 2.
        requests: the transforms needed beside the deviation.
        nats: how far below the largest term of each sum its errors should be, as a logarithm.
        p: power of the weight in the exponential, 2 for the sample size.
        orders: the n of the rules for ∫ t^{n-1} e^{-tS} dt that will be used; 0 for the bound.
        upper: by how much lower the terms at the upper end of the grid are to be, as a factor of nats.

    Attributes:
        table: the bounds. plan: the grid and its contours. log_t: the grid. bits: the precision of what stands on it.
    """

    def __init__(
        self,
        law: BallLaw,
        particles: Sequence[int],
        requests: Sequence[Request],
        nats: float,
        *,
        p: int,
        orders: Sequence[int],
        upper: float = 1.0,
    ):
        unique = {_key(request): request for request in (_DEVIATION, *requests)}
        self._rows = {key: i for i, key in enumerate(unique)}
        self._requests, self._law, self._p = list(unique.values()), law, p
        self.table = Table(law, p, self._requests)
        spacing = spacing_for(nats, orders)
        self.plan = Planner(self.table, particles, nats, spacing, upper).plan()
        pairs = len(pairs_in(None, [request.factors for request in self._requests]))
        check_effort(self.plan, len(self._requests), len(law.beta), pairs, len(particles))
        self._outer = {n: outer_error(n, spacing) for n in orders}
        growth = int((2 + max(r.power for r in self._requests) / p) * np.log2(max(particles))) + 32
        self.bits = max(segment.bits for segment in self.plan.segments) + growth
        with ctx.workprec(self.bits):
            self.log_t = np.arange(self.plan.low, self.plan.high) * spacing
            self._t = balls(arb(float(u)).exp() for u in self.log_t)
            self._decay = balls((-t).exp() for t in self._t)
            parts = [self._transforms(segment) for segment in self.plan.segments]
        self._values = [np.concatenate(part) for part in zip(*parts, strict=True)]
        with ctx.workprec(self.bits):
            self._logarithms()
        self._powers: dict[int, Balls] = {}
        self._singles: dict[tuple[int, int, Quadratic], arb] = {}

    # transforms ------------------------------------------------------------------------------------------------------

    def _transforms(self, segment: Segment) -> list[Balls]:
        """Each request's transform on the segment's part of the grid."""
        table, spacing, size, count = self.table, self.plan.spacing, segment.size, segment.count
        c = float(table.c[segment.contour])
        index = np.arange(segment.start, segment.stop)
        log_t = np.asarray(index * spacing, float)
        with ctx.workprec(segment.bits):
            step = 2 * arb.pi() / (arb(spacing) * size)
            blocks = [
                self._line_values(balls(acb(c, j * step) for j in range(i, min(i + BLOCK, count))))
                for i in range(0, count, BLOCK)
            ]
            lines = [np.concatenate(part) for part in zip(*blocks, strict=True)]
            back = balls((arb(-c) * arb(float(u))).exp() * step / (2 * arb.pi()) for u in log_t)
            found = [values[index % size] * back for values in _real_transforms(lines, size)]
        rounded = np.log(float(step) / np.pi) - c * log_t
        for i, values in enumerate(found):
            alias = table.alias(table.bounds[i], segment.contour, log_t, size * spacing)
            beyond = table.truncation(i, segment.contour, float(step), count) + rounded
            error = np.logaddexp(alias, beyond) + 1e-5
            with ctx.workprec(64):
                radii = [arb(x).exp() for x in error.tolist()]
            with ctx.workprec(segment.bits):
                found[i] = balls(arb(v, r) for v, r in zip(values, radii, strict=True))
        return found

    def _line_values(self, nodes: Balls) -> list[Balls]:
        """Each request's integrand at some nodes, but for t^{-s}."""
        tilted = self._law.tilted(-self._p * nodes)
        moment = balls(x.exp() for x in tilted.log_moment())
        tilted.prepare([request.factors for request in self._requests if request.factors])
        gammas, found = self._gammas(nodes), []
        for request in self._requests:
            if request.factors:
                inner = moment * tilted.mean(*request.factors)
                if request.subtracted:
                    inner = inner - acb(self._law.mean(0.0, *request.factors))
            else:
                inner = moment - 1 if request.power == 0 else moment
            found.append(gammas[request.power] * inner)
        return found

    def _gammas(self, nodes: Balls) -> dict[int, Balls]:
        """Γ(s + a/p) for every power a."""
        found: dict[int, Balls] = {}
        for power in range(max(request.power for request in self._requests) + 1):
            if power < self._p:
                shift = arb(power) / self._p
                found[power] = balls((s + shift).gamma() for s in nodes)
            else:
                before = arb(power - self._p) / self._p
                found[power] = found[power - self._p] * balls(s + before for s in nodes)
        return found

    def _logarithms(self) -> None:
        """Log E[e^{-tw^p}], by its upper end alone where the ball contains 0."""
        base = self._values[0] + self._decay
        self._log_base, self._upper = [], base
        for t, decay, deviation, value in zip(self._t, self._decay, self._values[0], base, strict=True):
            ratio = deviation / decay if t < 2 else arb(1)
            if t < 2 and ratio > -0.5:
                self._log_base.append(ratio.log1p() - t)
            else:
                self._log_base.append(value.log() if value > 0 else arb("nan"))

    def power(self, n: int) -> Balls:
        """E[e^{-tw^p}]^n."""
        if n not in self._powers:
            found = []
            for log, value in zip(self._log_base, self._upper, strict=True):
                if log.is_finite():
                    found.append((n * log).exp())
                else:
                    half = value.abs_upper() ** n / 2
                    found.append(half + radius(half))
            self._powers[n] = balls(found)
        return self._powers[n]

    def transform(self, request: Request) -> Balls:
        """A request's transform on the grid `log_t`."""
        return self._values[self._rows[_key(request)]]

    def bound(self, request: Request) -> Floats:
        """The logarithm of its bound's factor of t^-c, over the table's c."""
        return self.table.bounds[self._rows[_key(request)]]

    # sums ------------------------------------------------------------------------------------------------------------

    def gap(self, k: int) -> arb:
        """Log E[w] less the bound: ∫ (E[e^{-tw}]^K - e^{-Kt}) dt/t. Formula: enclosed-gap."""
        with ctx.workprec(self.bits):
            value = (self.power(k) - balls((-k * t).exp() for t in self._t)).sum() * arb(self.plan.spacing)
            deviation = self.table.bounds[0]
            low = np.log(k) + self.table.tail([deviation], self.log_t[0], self.plan.spacing, -1)
            high = self._high([self.table.base], k - 1)
            value += self._rounded(low) + high
            return value * (1 + radius(self._outer[0]))

    def sample_size(self, k: int) -> arb:
        """E[(Σw)²/Σw²], for p = 2."""
        one, two = Request(1), Request(2)
        with ctx.workprec(self.bits):
            value = self._sum(k, 1, [two]) + self._sum(k * (k - 1), 2, [one, one], k)
            return value * (1 + radius(self._outer[1]))

    def single(self, k: int, r: int, g: Quadratic) -> arb:
        """E[Σ w^r g / S^r]."""
        if (k, r, g) not in self._singles:
            with ctx.workprec(self.bits):
                value = self._sum(k, 1, [Request(r, (g,))]) / arb(r).gamma()
                self._singles[k, r, g] = value + radius(self._outer[r] * self.size(k, g))
        return self._singles[k, r, g]

    def pair(self, k: int, r: int, f: Quadratic, s: int, g: Quadratic) -> arb:
        """E[Σ w^r f Σ w^s g / S^{r+s}], r ≤ s."""
        with ctx.workprec(self.bits):
            value = self._sum(k, 1, [Request(r + s, (f, g))])
            value += self._sum(k * (k - 1), 2, [Request(r, (f,)), Request(s, (g,))], k)
            left = self._root(f, 0.0, k) if r == 0 else self.size(k, f)
            return value / arb(r + s).gamma() + radius(self._outer[r + s] * left * self.size(k, g))

    def product(self, requests: list[Request], drop: int, k: int) -> arb:
        """∫ Π T · E[e^{-tw}]^{K-drop} du, but for the rule's aliases."""
        with ctx.workprec(self.bits):
            return self._sum(1, 0, requests, k - drop)

    def aliases(self, n: int, size: arb) -> arb:
        """The rule's error in ∫ t^{n-1} X e^{-tS} dt / Γ(n), for a random X with E|X|/S^n ≤ size."""
        return radius(self._outer[n] * size)

    def size(self, k: int, g: Quadratic) -> arb:
        """A bound on the root mean square of Σ w̃^r g, r ≥ 1: √E[Σ w̃ g²], from E_0[g²], or E_1[g²] and E[1/w]."""
        found = self._root(g, 0.0, k)
        at = np.flatnonzero(self.table.c == 1.0)
        if len(at):
            inverse = arb(float(self.table.log_moment[at[0]])).exp() * arb(k) / (k - 1)
            found = min(found, self._root(g, -1.0, 1) * inverse.sqrt().abs_upper())
        return found

    def _root(self, g: Quadratic, c: float, factor: int) -> arb:
        """√(factor · E_{-c}[g²])."""
        at = int(np.flatnonzero(self.table.c == c)[0])
        return (arb(float(self.table.noise[g][at])).exp() * arb(factor).sqrt()).abs_upper()

    def _sum(self, factor: int, drop: int, requests: list[Request], k: int | None = None) -> arb:
        """Factor · ∫ Π T · E[e^{-tw^p}]^{K-drop} du, but for the rule's aliases."""
        n = (factor if k is None else k) - drop
        rows = [self._rows[_key(request)] for request in requests]
        terms = self.power(n)
        for row in rows:
            terms = terms * self._values[row]
        bounds = [self.table.bounds[row] for row in rows]
        low = self.table.tail(bounds, self.log_t[0], self.plan.spacing, -1)
        value = terms.sum() * arb(self.plan.spacing) + self._rounded(low) + self._high(bounds, n)
        return value * factor

    def _rounded(self, log: float) -> arb:
        """Spacing times e^log as a radius."""
        return radius(arb(float(log)).exp() * arb(self.plan.spacing))

    def _high(self, bounds: list[Floats], n: int) -> arb:
        """The upper tail, by the last power of E[e^{-tw^p}], which falls, and the decay of the transforms."""
        tail = self.table.tail(bounds, self.log_t[-1], self.plan.spacing, 1)
        return self._rounded(tail) * self.power(n)[-1].abs_upper()


def _key(request: Request) -> tuple:
    return (request.power, *request.factors)


def _real_transforms(lines: list[Balls], size: int) -> Iterator[Balls]:
    """Σ_{j∈Z} f_j e^{-2πi jk/size} for k < size, for half-lines with f_{-j} = conj f_j, two by each transform."""
    for first in range(0, len(lines), 2):
        pair = lines[first : first + 2]
        turned = [pair[0], pair[1] * acb(0, 1)] if len(pair) == 2 else pair
        back = [balls(x.conjugate() for x in line[1:]) for line in pair]
        if len(pair) == 2:
            back[1] = back[1] * acb(0, 1)
        folded = np.full(size, acb(0), dtype=object)
        for part, reverse in zip(turned, back, strict=True):
            for start in range(0, len(part), size):
                block = part[start : start + size]
                folded[: len(block)] += block
            at = -np.arange(1, len(part)) % size
            for start in range(0, len(reverse), size):
                folded[at[start : start + size]] += reverse[start : start + size]
        found = acb.dft(list(folded))
        yield balls(x.real for x in found)
        if len(pair) == 2:
            yield balls(x.imag for x in found)
