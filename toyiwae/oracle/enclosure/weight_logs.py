"""Moments of logarithms of normalised weights on balls, at any K: D_k = log S - log S_{-k} = -log(1 - w̃_k).

With scores g (E[g] = 0) and h, L(y) = log(1 + y), S_{-1} the sum of the other K-1 weights and S″ that of K-2, all are
integrals over vertical lines, by Mellin's inversion of functions of w_1/S_{-1} or w_1/S″ (theory §3, Mellin–Parseval):

    E[D_1 g_1]            = E[g log S]
    E[D_1² g_1²], E[D_1 w̃_1 g_1 h_1], E[D_1 g_1²]  = (1/2πi) ∫ k(s) E[g h w^-s] E[S_{-1}^s] ds
    E[D_1 g_1 w̃_2 h_2]    = (1/2πi) ∫ k(s) E[g w^-s] E[w h S_{-1}^{s-1}] ds
    E[D_1 g_1 D_2 g_2]    = P_1 - 2 P_2 + P_4,      P_1 = E[g_1 g_2 log² S],
    P_2 = E[g_1 g_2 log S log S_{-1}]               = (1/2πi) ∫ k(s) E[g w^-s] d/ds E[g S_{-1}^s] ds
    P_4 = E[g_1 g_2 log S_{-1} log S_{-2}]          = (1/2πi)² ∬ k(s) k(s′) E[g w^-s] E[g w^-s′] E[S″^{s+s′}] ds ds′

with kernels k = Γ(s)Γ(-s)·ratio; all logarithms may count from log K, since E[g] = 0. By Poisson's summation the rule
with step 2π/L on Re s = -a adds exactly `Σ_{m≠0} e^{-amL} E[… F(y e^{mL})]`. Every F here is at most
`(4/b² + 4/(1-b²)) y^b` for 0 < b < 1 (L(y) ≤ y^p/p for 0 < p ≤ 1); b > a bounds the terms m < 0, b < a those m > 0.
The double sum depends on s + s′ alone and is one product of polynomials.

What cancels between the terms, about K³ in the variance of Σ f(w̃) g, f = D - w̃, costs digits, which balls have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import acb, acb_poly, arb, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.contours import Floats, Request, log_up
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic, Tilted
from toyiwae.oracle.enclosure.log_grid import LogGrid, digamma_bound, inverse_moment
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius

_LARGEST = 2**18  # nodes
Bound = Callable[[float], arb]


@dataclass(frozen=True, eq=False)
class WeightContour:
    """The nodes s = -a + iη j, j < J, of one law and K, and what does not depend on the polynomials.

    Attributes:
        a: minus the abscissa. sides: two more on either side of it, for the bounds on aliases.
        size: the period of the discrete Fourier transform. step: η.
        s, kernel, psi, moment: the nodes, Γ(s)Γ(-s), ψ(-s), E[w^-s]. gamma: Γ(-s). tilted: the laws ∝ w^-s.
    """

    law: BallLaw
    grid: LogGrid
    k: int
    a: float
    sides: tuple[float, float]
    size: int
    step: arb
    s: Balls
    gamma: Balls
    kernel: Balls
    psi: Balls
    tilted: Tilted
    moment: Balls

    @property
    def count(self) -> int:
        """J."""
        return len(self.s)

    @cached_property
    def y(self) -> np.ndarray:
        """The nodes' imaginary parts in double precision."""
        return np.arange(self.count) * (2 * np.pi / (self.size * self.grid.step))

    @cached_property
    def shifted_psi(self) -> Balls:
        """ψ(-s) + γ."""
        return self.psi + acb(arb.const_euler())

    @cached_property
    def _log_inverse(self) -> Floats:
        """Log of the bound on |1/Γ(-s)|."""
        return -_log_low(self.gamma)

    # sums of weights -------------------------------------------------------------------------------------------------

    def moment_bound(self, b: float, *factors: Quadratic) -> arb:
        """A bound on E[w^b Π |g|]."""
        found = self.law.tilted([b]).log_moment()[0].real.exp()
        for g in factors:
            found *= self.law.mean(b, g, g).abs_upper().sqrt()
        return found.abs_upper()

    def inverse(self, fewer: int, b: float) -> arb:
        """A bound on E[S^-b] of K - fewer weights."""
        return inverse_moment(self.law, self.k - fewer, arb(b))

    def inverse_log(self, b: float) -> arb:
        """A bound on E[S″^-b |log(S_{-1}/K)|], where S″ ≤ S_{-1} and |log y| ≤ (y^{b/2} + y^{-b/2}) 2/b."""
        half = arb(self.k) ** (arb(b) / 2)
        return 2 / arb(b) * (self.inverse(2, b / 2) / half + self.inverse(2, 1.5 * b) * half)

    def radii(self, logs: np.ndarray, factor: arb) -> Balls:
        """e^logs · factor as complex balls around 0."""
        more = log_up(factor)
        with ctx.workprec(64):
            found = [arb(0, arb(x).exp()) for x in (logs + more).tolist()]
        return balls(acb(r, r) for r in found)

    def transformed(self, values: Balls, beyond: arb) -> Balls:
        """∫ t^-s values du but for aliases and what is below the grid."""
        return self.grid.fourier(values, self.a, self.size, self.count) + acb(radius(beyond), radius(beyond))

    @cached_property
    def others(self) -> Balls:
        """E[S_{-1}^s]."""
        n = self.k - 1
        if n == 1:
            return balls(x.exp() for x in self.law.tilted(self.s).log_moment())
        found = self.transformed(self.grid.values((), n), self.grid.high((), n, self.a))
        found = (found + self.grid.below(self.a, self.s, n)) / self.gamma
        aliases = self.grid.aliases(self.a, -self.y) + self._log_inverse
        return found + self.radii(aliases, self.inverse(1, self.a))

    @cached_property
    def rest(self) -> Balls:
        """E[S″^{2c + iηj}], of K - 2 weights."""
        n, nodes = self.k - 2, self.s - self.a
        if n == 1:
            return balls(x.exp() for x in self.law.tilted(nodes).log_moment())
        values, a = self.grid.values((), n), 2 * self.a
        found = self.grid.fourier(values, a, self.size, self.count)
        beyond = radius(self.grid.high((), n, a))
        gamma = balls((-x).gamma() for x in nodes)
        found = (found + acb(beyond, beyond) + self.grid.below(a, nodes, n)) / gamma
        aliases = self.grid.aliases(a, -self.y) - _log_low(gamma)
        return found + self.radii(aliases, self.inverse(2, a))

    def with_score(self, request: Request, score: Quadratic) -> Balls:
        """d/ds E[g S_{-1}^s], logarithms counted from log K."""
        if self.k == 2:
            raise ValueError("two particles have a closed form")
        n, grid = self.k - 2, self.grid
        values, log_k = grid.values((request,), n), arb(self.k).log()
        plain, logs = (
            self.transformed(x, grid.low((request,), self.a, shift) + grid.high((request,), n, self.a, shift))
            for x, shift in ((values, None), (grid.with_logs(values, log_k), log_k))
        )
        found = (self.psi * plain - logs) / self.gamma
        size = self.law.mean(0.0, score, score).abs_upper().sqrt()
        for with_psi, moment in ((True, self.inverse(2, self.a)), (False, self.inverse_log(self.a))):
            aliases = grid.aliases(self.a, -self.y, logs=with_psi) + self._log_inverse
            found = found + self.radii(aliases, size * moment)
        # ψ(z) of the node itself times the aliases of the plain transform
        psi = np.array([log_up(abs(x)) for x in self.psi])
        aliases = grid.aliases(self.a, -self.y) + self._log_inverse + psi
        return found + self.radii(aliases, size * self.inverse(2, self.a))

    def with_weight(self, request: Request, other: Quadratic) -> Balls:
        """E[w h S_{-1}^{s-1}] = 1/Γ(1-s) ∫ t^-s T_{1,h} Λ^{K-2} du, T_{1,h} = t E[w h e^{-tw}]."""
        if self.k == 2:
            tilted = self.law.tilted(self.s)
            return balls(x.exp() for x in tilted.log_moment()) * tilted.mean(other)
        n, grid = self.k - 2, self.grid
        beyond = grid.low((request,), self.a) + grid.high((request,), n, self.a)
        gamma = -self.s * self.gamma
        found = self.transformed(grid.values((request,), n), beyond) / gamma
        aliases = grid.aliases(1 + self.a, -self.y) - _log_low(gamma)
        return found + self.radii(
            aliases, self.law.mean(0.0, other, other).abs_upper().sqrt() * self.inverse(2, self.a)
        )

    # integrals along the line ----------------------------------------------------------------------------------------

    def integral(self, values: Balls, bound: Bound) -> arb:
        """(1/2πi) ∫ of values ds; `bound(b)` bounds E[…] y^b, of which the integrand without kernel is the mean."""
        found = (values[0].real + 2 * values[1:].sum().real) * self.step / (2 * arb.pi())
        error = self._kernel_tail() * bound(self.a).abs_upper() * self.step / arb.pi()
        for b in self.sides:
            error += self._constant(b) * bound(b).abs_upper() * self._ratio(b)
        return found + radius(error)

    @staticmethod
    def _constant(b: float) -> arb:
        return 4 / arb(b) ** 2 + 4 / (1 - arb(b) ** 2)

    def _ratio(self, b: float) -> arb:
        """Σ_{m≥1} e^{-|b-a| m L}."""
        q = (-abs(arb(b) - arb(self.a)) * arb(self.grid.step) * self.size).exp()
        return (q / (1 - q)).abs_upper()

    def _kernel_tail(self) -> arb:
        """A bound on Σ_{j≥J} of (2+|s|)(1+|γ+ψ(-s)|) |Γ(s)Γ(-s)|, which falls at least like e^{-2.5 Im s} there."""
        y = arb(self.count) * self.step
        psi = arb(float(digamma_bound(self.a, np.array([self.count * float(self.step)]))[0]) * (1 + 1e-9))
        first = arb.pi() / (y * (arb.pi() * y).sinh()) * (2 + self.a + y) * (1 + psi)
        return (first / (1 - (-arb("2.5") * self.step).exp())).abs_upper()

    def double(self, values: Balls, bound: Bound, inverse: Bound) -> arb:
        """P_4 from k(s) E[g w^-s]; `bound(b)` of E[|g| w^b], `inverse(b)` of E[S″^-b]."""
        every = [*(x.conjugate() for x in values[:0:-1]), *values]
        polynomial, zero = acb_poly(every), 2 * (self.count - 1)
        square = (polynomial * polynomial).coeffs()[zero:]
        square = balls([*square, *[acb(0)] * (zero + 1 - len(square))])  # polynomials drop zeros
        unit, near = self.step / (2 * arb.pi()), square[: self.count] * self.rest
        found = near[0].real + 2 * near[1:].sum().real
        rest = sum((abs(x).upper() for x in square[self.count :]), arb(0))
        whole = sum((2 * abs(x).upper() for x in values), arb(0)) + 2 * (
            tail := self._kernel_tail() * bound(self.a).abs_upper()
        )
        error = (2 * rest + 4 * tail * whole) * inverse(2 * self.a) * unit * unit
        sizes = [(self.a, bound(self.a) / arb(self.a))]
        sizes += [(b, bound(b) / arb(b) * self._ratio(b)) for b in self.sides]
        for i, (b, x) in enumerate(sizes):
            for j, (c, y) in enumerate(sizes):
                error += x * y * inverse(b + c) if i or j else 0
        return found * unit * unit + radius(error.abs_upper())


def contour(law: BallLaw, grid: LogGrid, k: int, nats: float) -> WeightContour:
    """In the middle of the strip that ends where a moment or a kernel does.

    Raises:
        PrecisionError: if it needs too many nodes.
    """
    low, high = law.ends()
    end = min(1.0, high, -low if k == 2 else -0.5 * (k - 2) * low)
    a, least = 0.5 * end, nats / (0.45 * end * grid.step)
    size = next(n for i in range(5, 40) for n in (2**i, 3 * 2 ** (i - 1)) if n >= least)
    last = max(6.0, (nats + 10.0) / np.pi)
    count = int(np.ceil(last * size * grid.step / (2 * np.pi))) + 1
    if max(size, count) > _LARGEST or last > 2 * np.pi / grid.step - 2:
        raise PrecisionError("the weights' law is too wide for the logarithms of their sums to be enclosed")
    step, pi = 2 * arb.pi() / (size * arb(grid.step)), acb(arb.pi())
    s = balls(acb(-a, j * step) for j in range(count))
    tilted = law.tilted(-s)
    return WeightContour(
        law,
        grid,
        k,
        a,
        (0.05 * end, 0.95 * end),
        size,
        step,
        s,
        gamma=balls((-x).gamma() for x in s),
        kernel=balls(-pi / (x * (pi * x).sin()) for x in s),
        psi=balls((-x).digamma() for x in s),
        tilted=tilted,
        moment=balls(x.exp() for x in tilted.log_moment()),
    )


def _log_low(values: Balls) -> Floats:
    """Logarithms of the least absolute values in some balls, rounded down."""
    return np.array([float(abs(x).log().lower()) for x in values])
