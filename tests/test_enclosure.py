"""Enclosures contain what rigorous integration finds in one dimension, overlap at 30 and 60 digits, and are small."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from flint import acb, arb, ctx

from tests import certify
from toyiwae.errors import InputError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose, matrices
from toyiwae.oracle.enclosure.contours import Request, Table
from toyiwae.oracle.enclosure.planner import Planner, spacing_for
from toyiwae.oracle.enclosure.rows import rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.digits import proven

EDGE = 12  # in standard deviations; P(|x| > 12) < 4e-33


class OneDimension:
    """A random problem in one dimension, its posterior by hand, and rigorous integrals over one or two particles."""

    def __init__(self, seed: int):
        """Proposal variances from 0.15 to 6 posterior ones, shifts up to 3 posterior standard deviations."""
        rng = np.random.default_rng(seed)
        prior, noise, loading, x, offset, mean = rng.uniform(0.5, 2.0, 6)
        precision = 1 / prior + loading**2 / noise
        ratio, shift = np.exp(rng.uniform(-1.9, 1.8)), rng.uniform(-3, 3)
        center = (mean / prior + loading * (x - offset) / noise) / precision
        self.problem = Problem(
            Model([mean], [[prior]], [[loading]], [offset], [[noise]]),
            Proposal([[ratio / precision]], mean=[center + shift / precision**0.5]),
            Data([x]),
        )
        model, proposal = self.problem.model, self.problem.proposal
        assert proposal.mean is not None
        prior, loading, noise = (
            arb(float(a[0, 0])) for a in (model.prior_cov, model.loading, model.noise_cov)
        )
        mean, offset, x = (
            arb(float(model.prior_mean[0])),
            arb(float(model.offset[0])),
            arb(float(self.problem.data.x[0])),
        )
        self.precision = 1 / prior + loading * loading / noise
        self.posterior = (mean / prior + loading * (x - offset) / noise) / self.precision
        self.cov, self.mean = arb(float(proposal.cov[0, 0])), arb(float(proposal.mean[0]))
        self.root = self.cov.sqrt()

    def log_weight(self, e):
        """Log(w/Z) = log p(z|x) - log q(z) at z = μ_q + Lε."""
        away = self.mean + self.root * e - self.posterior
        return (self.precision * self.cov).log() / 2 - self.precision * away * away / 2 + e * e / 2

    def transform(self, t: acb, weight_power: int, polynomial=None, tol: float = 1e-16) -> acb:
        """`t^a E[w^a g(ε) e^{-tw}]` by integration; where Re t > 0 is not certain it is not finite."""
        if not t.real > 0:
            return acb("nan")

        def density(e, _):
            weight = self.log_weight(e)
            found = (weight_power * (t.log() + weight) - t * weight.exp() - e * e / 2).exp()
            return found if polynomial is None else found * polynomial(e)

        found = acb.integral(density, -EDGE, EDGE, rel_tol=tol, abs_tol=tol, eval_limit=20000)
        outside = arb(0, "1e-22")  # |(tw)^a e^{-tw}| ≤ 1 for a ≤ 2, |g| < 1e8 x^4, P(|x| > 12) < 4e-33
        return found / (2 * arb.pi()).sqrt() + acb(outside, outside)

    def gap_of_two(self) -> arb:
        """Log Z - L_2 = ∫ (E[e^{-tw}]² - e^{-2t}) dt/t over a range, and bounds on the rest."""

        def integrand(u, _):
            t = u.exp()
            return self.transform(t, 0, tol=1e-9) ** 2 - (-2 * t).exp()

        curvature = self.precision * self.cov - 1
        top = 14 if curvature < 1 else 28
        found = acb.integral(integrand, -14, top, rel_tol=1e-6, abs_tol=1e-6, eval_limit=4000).real
        shift = self.root * self.precision * (self.mean - self.posterior)
        end = 1 / curvature if curvature > 0.1 else arb(10)  # where E[w^-c] ends, or enough
        tails = []
        for part in range(1, 19):
            c = part * end / 20
            moment = -(1 - c * curvature).log() / 2 - c * (1 + curvature).log() / 2
            moment += shift * shift * c * (c + 1) / (2 * (1 - c * curvature) * (1 + curvature))
            bound = 2 * (c * c.log() - c + moment - top * c)  # of E[e^{-tw}]² ≤ ((c/e)^c E[w^-c] t^-c)²
            tails.append((bound.exp() / (2 * c)).upper())
        return found + arb(0, min(tails)) + arb(0, 2 * arb(-14).exp().upper())


def missed(seed: int) -> list[str]:
    """Transforms and gaps of a problem that do not contain what integration finds."""
    form, wrong = Form({1: 1.0}, {1: 1.0}, {1: -1.0}), []
    parameter = ("proposal_mean", "proposal_chol")[seed % 2]
    with ctx.workprec(300):
        one = OneDimension(seed)
        row = rows(one.problem)[0]
        law, g = (
            row.law,
            row.components(form, one.problem.parameters.record(parameter), (0,) * (1 + seed % 2))[1],
        )
        g = g.plus(-law.mean(1.0, g))
        single, double = Request(1, (g,), centred=True), Request(2, (g, g))
        sums = BallSums(law, [2, 1000], [single, double], 60.0, p=1, orders=[1, 2])

        def polynomial(e):
            value = g.left.constant + g.left.linear[0] * e
            return (value if g.right is None else value * g.right.linear[0] * e) + g.constant

        tries = (
            (Request(0), 0, None),
            (single, 1, polynomial),
            (double, 2, lambda e: polynomial(e) ** 2),
        )
        at = [i for u in (-6, -1, 1, 4) for i in [int(np.argmin(np.abs(sums.log_t - u)))]]
        for request, power, factor in tries:
            for i in at:
                t = arb(float(sums.log_t[i])).exp()
                truth = one.transform(acb(t), power, factor).real - (0 if power else (-t).exp())
                ball = sums.transform(request)[i]
                if not ball.overlaps(truth) or truth.rad() > 1e-12 or ball.rad() > 1e-12:
                    wrong.append(
                        f"seed {seed}, power {power}, log t {sums.log_t[i]:.3g}: {ball} against {truth}"
                    )
    return wrong


def missed_gap(seed: int) -> list[str]:
    """The gap at K = 2 if it does not contain what integration finds."""
    with ctx.workprec(64):
        one = OneDimension(seed)
        truth = one.gap_of_two()
    ball = enclose.bounds(one.problem, [2], digits=15, with_ess=False).gap[0, 0]
    ok = ball.overlaps(truth) and truth.rad() < 0.03 * (1 + abs(truth))
    return [] if ok else [f"seed {seed}: {ball.str(15)} against {truth.str(15)}"]


def disjoint(seed: int, first: int = 30, second: int = 60) -> list[str]:
    """Values of a random problem whose balls at two precisions do not overlap, or are too wide."""
    one, found = certify.case(seed), []
    for digits in (first, second):
        values = enclose.bounds(one.problem, one.particles, digits=digits, exponent=one.exponent)
        moments = enclose.gradients(one.problem, one.jobs, one.particles, digits=digits)
        named = {"gap": values.gap, "ess": values.ess}
        named |= {
            f"{key} {name}": getattr(m, name)
            for key, m in moments.items()
            for name in ("shift", "mean", "var")
        }
        found.append(named)
    return [
        f"seed {seed}: {name} {a.str(20)} against {b.str(20)}"
        for name in found[0]
        for a, b in zip(found[0][name].ravel(), found[1][name].ravel(), strict=True)
        if not a.overlaps(b) or a.rad() > arb(10) ** -first * max(abs(b).upper(), arb(10) ** -20)
    ]


@pytest.mark.parametrize("seed", [0, 3, 6, 9])
def test_transforms_contain_rigorous_integrals(seed: int) -> None:
    """Transforms against `acb.integral`."""
    assert not missed(seed)


@pytest.mark.slow
def test_transforms_of_forty_problems_contain_rigorous_integrals() -> None:
    """The same of forty problems; `make certify` takes 200."""
    assert not [line for seed in range(40) for line in missed(seed)]


@pytest.mark.slow
def test_a_bound_of_two_particles_contains_its_rigorous_integral() -> None:
    """L_2 against nested integrals."""
    assert not missed_gap(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_bounds_of_more_problems_contain_their_rigorous_integrals(seed: int) -> None:
    """The same of six problems; `make certify` takes 200."""
    assert not missed_gap(seed)


@pytest.mark.parametrize("seed", [0, pytest.param(11, marks=pytest.mark.slow)])
def test_precisions_agree(seed: int) -> None:
    """Balls of different precision, whose steps, ranges and contours differ, overlap."""
    assert not disjoint(seed, 12, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_precisions_agree_at_30_and_60_digits(seed: int) -> None:
    """The same at 30 and 60 digits of problems that certification draws; `make certify` takes 200."""
    assert not disjoint(seed)


@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e-15, 1e-3])
def test_diagonalisation_leaves_a_small_remainder(gap: float) -> None:
    """Equal, nearly equal and different eigenvalues, in a random basis."""
    rng = np.random.default_rng(4)
    values = np.array([0.7, 0.7, 0.7, -0.2, -0.2, 3.0])
    basis = matrices.exact(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    with ctx.workprec(400):
        shifted = matrices.exact(values) + gap * matrices.exact(np.arange(6))
        matrix = matrices.product(basis, (shifted * basis).T)
        matrix = matrix + matrix.T
        q, diagonal, remainder = matrices.diagonalised(matrix)
        again = matrices.product(q, (diagonal * q).T) - matrix
        assert remainder < arb(10) ** -100
        assert max(abs(x).upper() for x in again.ravel()) < arb(10) ** -95


def _pair(scale: float, shift: float) -> Problem:
    """Two dimensions, posterior N(0, I/2) exactly."""
    model = Model(np.zeros(2), np.eye(2), np.eye(2), np.zeros(2), np.eye(2))
    return Problem(model, Proposal(scale * 0.5 * np.eye(2), mean=[shift, 0.0]), Data(np.zeros(2)))


def test_equal_weights_have_no_gap() -> None:
    """A proposal equal to the posterior: gap 0, sample size K, variance of the mean of K."""
    found = enclose.bounds(_pair(1.0, 0.0), [1, 7, 10**9], digits=25)
    assert all(gap.contains(0) and gap.rad() < 1e-45 for gap in found.gap.ravel())
    assert [float(ess) for ess in found.ess.ravel()] == [1.0, 7.0, 1e9]
    form = Form({1: 1.0}, {1: 1.0}, {1: -1.0})
    moments = enclose.gradients(_pair(1.0, 0.0), {0: (form, "proposal_mean", None)}, [1, 100], digits=25)[0]
    assert moments.var.ravel()[0].overlaps(arb(2))
    assert moments.var.ravel()[2].overlaps(arb("0.02"))


def test_every_digit_of_a_text_is_proven() -> None:
    """More digits begin with those of fewer, but for the last."""
    short, long = (
        proven(enclose.bounds(_pair(1.5, 0.25), [10**6], digits=digits).gap[0, 0], digits)
        for digits in (20, 40)
    )
    assert long.startswith(short[:20])


def test_what_does_not_exist_is_refused() -> None:
    """An exponent without a mean, digits out of range, an unknown parameter."""
    with pytest.raises(InputError, match="does not exist"):
        enclose.bounds(_pair(0.4, 0.0), [2], exponent=1.7)
    with pytest.raises(InputError, match="from 1 to 1000"):
        enclose.bounds(_pair(0.4, 0.0), [2], digits=0)
    with pytest.raises(InputError, match="unknown parameter"):
        enclose.gradients(_pair(0.4, 0.0), {0: (Form({1: 1.0}), "weight", None)}, [2])


def test_what_would_take_too_long_is_refused_before_it_begins() -> None:
    """Sums beyond the limits of time and memory, in a line that says what they would take."""
    before = time.process_time()
    with pytest.raises(PrecisionError, match=r"at \d+ nodes with \d+ bits would take about .* s and .* GiB"):
        enclose.bounds(_pair(1.3, 0.2), [2, 1000], digits=1000, with_ess=False)
    with pytest.raises(PrecisionError, match="the weight's law is too wide"):
        enclose.bounds(_pair(1000.0, 0.0), [2, 1000])
    assert time.process_time() - before < 20.0


def test_contours_are_weighed_by_what_they_cost() -> None:
    """A seed of certification whose longest-serving contours would need nodes by the hundred thousand."""
    one = certify.case(561)
    with ctx.workprec(600):
        law, request = rows(one.problem)[0].law, Request(0)
        for nats, nodes in ((78.0, 12_000), (110.0, 25_000)):
            plan = Planner(Table(law, 1, [request]), one.particles[1:], nats, spacing_for(nats, [1])).plan()
            assert sum(segment.count for segment in plan.segments) < nodes


def main(number: str = "200", first: str = "0") -> int:
    """All three comparisons, a line for each problem (`python -m tests.test_enclosure [NUMBER [FIRST_SEED]]`)."""
    found = 0
    for seed in range(int(first), int(first) + int(number)):
        lines = [line for compare in (missed, missed_gap, disjoint) for line in compare(seed)]
        found += len(lines)
        print(f"seed {seed}:", "; ".join(lines) or "ok", flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
