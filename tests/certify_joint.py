"""Covariances and fourth central moments in double precision against enclosures, for `tests.certify`.

For the proposal's mean every derivative of log w is affine in the noise, so that sums of coordinates are coordinates
again, and with one power r ≥ 1 of the normalised weight (IWAE: r = 1, DReG: r = 2)

    Cov(a, b) = (Var(a + b) - Var(a - b)) / 4,
    E[(Σ_k w̃_k^r g_k)^n] = 1/Γ(nr) Σ_splits K(K-1)…(K-b+1) ∫ t^{nr-1} Π_B E[w^{r|B|} g^|B| e^{-tw}] Λ^{K-b} dt,

a sum over the ways in which n positions fall into b blocks of equal particles. The rule's aliases are at most its
relative error times `E[(Σ w̃ |g|)^n] ≤ (81 K E[g²]²)^{n/4}` (Jensen and hypercontractivity).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from flint import arb, ctx

from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.laws import Affine, Quadratic
from toyiwae.oracle.enclosure.matrices import radius
from toyiwae.oracle.enclosure.moments import Components
from toyiwae.oracle.enclosure.rows import rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth import fourth_moments
from toyiwae.truth.covariance import covariance

SPLITS = {2: {(1, 1): 1, (2,): 1}, 3: {(1, 1, 1): 1, (1, 2): 3, (3,): 1}}
SPLITS[4] = {(1, 1, 1, 1): 1, (1, 1, 2): 6, (2, 2): 3, (1, 3): 4, (4,): 1}
"""n -> {sizes of the blocks that n positions are split into: number of such splits}."""


def values(
    problem: Problem, form: Form, particles: Sequence[int], digits: int
) -> Iterator[tuple[str, float, float, arb]]:
    """Name, value, stated error and enclosure: two coordinates' covariance, the first one's fourth moment.

    Of the proposal's mean.

    None where the weights are equal to as many digits: then nothing is integrated.
    """
    many = [k for k in particles if k > 1]
    whitened = Whitened(problem)
    with ctx.workprec(512):
        if enclose._near_equal(enclose._power(rows(problem)[0], form.exponent), many, digits) is not None:
            return
    cov = covariance(whitened, form, ["proposal_mean"], many)
    spread = fourth_moments.gradients(whitened, form, ["proposal_mean"], many)["proposal_mean"]
    fourth: Bounded = spread.fourth_cumulant + spread.var * spread.var * 3.0
    truth = enclosures(problem, form, many, digits)
    for n, k in enumerate(many):
        if problem.dim_z > 1:
            yield f"cov K={k}", cov.value[n, 0, 1], cov.error[n, 0, 1], truth["cov", k]
        yield f"fourth K={k}", fourth.value[n, 0], fourth.error[n, 0], truth["fourth", k]


def enclosures(
    problem: Problem, form: Form, particles: Sequence[int], digits: int
) -> dict[tuple[str, int], arb]:
    """("cov" or "fourth", K) -> ball."""
    parameter = problem.parameters.record("proposal_mean")

    def evaluate(nats: float) -> enclose.Found:
        row = rows(problem)[0]
        law = enclose._power(row, form.exponent)
        one, two = (row.components(form, parameter, (i % problem.dim_z,)) for i in (0, 1))
        sides = [Components.of(law, _added(one, two, sign)) for sign in (1, -1)]
        alone = Components.of(law, one)
        ((r, g),) = alone.parts.items()
        square = _squared(g)
        powers = {
            n: Request(n * r, f) for n, f in enumerate([(g,), (square,), (square, g), (square, square)], 1)
        }
        powers[1] = Request(r, (g,), centred=r < 2)
        requests = [request for side in (*sides, alone) for request in side.requests()]
        orders = sorted({n * r for n in range(1, 5)} | set().union(*(side.orders() for side in sides)))
        sums = BallSums(law, particles, [*requests, *powers.values()], nats, p=1, orders=orders)
        found: enclose.Found = {}
        size = law.mean(0.0, g, g).abs_upper()
        for k in particles:
            (mean, _), (_, plus), (_, minus) = (side.moments(sums, law, k) for side in (alone, *sides))
            largest = (81 * arb(k) * size * size).sqrt()
            found["cov", k] = ((plus - minus) / 4, size)
            found["fourth", k] = (_fourth(sums, k, r, powers, mean, largest), size * size)
        return found

    return enclose._converged(evaluate, digits, particles)


def _added(one: dict[int, Quadratic], two: dict[int, Quadratic], sign: int) -> dict[int, Quadratic]:
    result = {}
    for r, a in one.items():
        b = two[r]
        assert a.right is None
        assert b.right is None
        left = Affine(a.left.constant + sign * b.left.constant, a.left.linear + sign * b.left.linear)
        result[r] = Quadratic(a.constant + sign * b.constant, left)
    return result


def _squared(g: Quadratic) -> Quadratic:
    whole = Affine(g.constant + g.left.constant, g.left.linear)
    return Quadratic(arb(0), whole, whole)


def _fourth(sums: BallSums, k: int, r: int, powers: dict[int, Request], mean: arb, largest: arb) -> arb:
    """m₄ - 4 m₁ m₃ + 6 m₁² m₂ - 3 m₁⁴."""
    m2, m3, m4 = (_raw(sums, k, r, powers, n, largest) for n in (2, 3, 4))
    return m4 - 4 * mean * m3 + 6 * mean * mean * m2 - 3 * mean**4


def _raw(sums: BallSums, k: int, r: int, powers: dict[int, Request], n: int, largest: arb) -> arb:
    total = arb(0)
    for sizes, count in SPLITS[n].items():
        falling = prod(k - i for i in range(len(sizes)))
        if falling:
            total += count * sums._sum(falling, len(sizes), [powers[size] for size in sizes], k)
    return total / arb(n * r).gamma() + radius(sums._outer[n * r] * largest ** (arb(n) / 2))
