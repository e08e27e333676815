"""The dearer quantities in double precision against enclosures, for `tests.certify`: a name, a value, what it states.

Covariances and fourth cumulants, observations with covariances of their own, variances with logarithms, the gradient at
optimal proposals, densities in one dimension by quadrature, and finite states by direct sums on balls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from flint import arb, ctx

from tests.problems import as_functions
from toyiwae import estimators, exact
from toyiwae.errors import PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose, joint
from toyiwae.oracle.enclosure.log_moments import log_variances
from toyiwae.oracle.finite_k.score_function import refusal
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened.own_covariances import whiten
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.binary import DiscreteModel, DiscreteProblem, DiscreteProposal
from toyiwae.problems.linear_gaussian import Data, Problem, Proposal
from toyiwae.truth import averages, fourth_moments
from toyiwae.truth.covariance import covariance
from toyiwae.truth.linear_gaussian import GaussianSource
from toyiwae.truth.optimal_proposal import CONVERGED, optimal_proposals

Value = tuple[str, float, float, arb]
"""Name, value, stated error and enclosure."""
LOGS = {
    e.name: e.form
    for e in estimators.all()
    if e.form is not None and e.form.has_log_terms and not refusal(e.form)
}


def covariances(
    problem: Problem, form: Form, name: str, particles: Sequence[int], digits: int
) -> Iterator[Value]:
    """Every entry on and below the diagonal, of one parameter."""
    found = covariance(whiten(problem), form, [name], particles)
    truth = joint.covariances(problem, form, [name], particles, digits=digits)
    free = problem.parameters.record(name).free.ravel()
    for n, k in enumerate(particles):
        for i in free.nonzero()[0]:
            for j in free[: i + 1].nonzero()[0]:
                yield f"{name}[{i}, {j}] K={k}", found.value[n, i, j], found.error[n, i, j], truth[n, i, j]


def fourth(
    problem: Problem,
    form: Form,
    name: str,
    indices: Sequence[tuple[int, ...]],
    particles: Sequence[int],
    digits: int,
) -> Iterator[Value]:
    """Fourth cumulants of some coordinates."""
    found: Bounded = fourth_moments.gradients(Whitened(problem), form, [name], particles)[
        name
    ].fourth_cumulant
    truth = joint.fourth_moments(problem, form, {name: indices}, particles, digits=digits)
    for n, k in enumerate(particles):
        for index in indices:
            at = (n, *index)
            yield f"{name}{list(index)} K={k}", found.value[at], found.error[at], truth[name, tuple(index)][n]


def own(problem: Problem, form: Form, particles: Sequence[int], digits: int) -> Iterator[Value]:
    """Means, variances and a covariance of two observations, each with a proposal of its own."""
    mean, cov, x = np.asarray(problem.proposal.mean), problem.proposal.cov, problem.data.x
    given = Proposal(np.stack([cov, 1.1 * cov]), mean=np.stack([mean, mean]))
    two = Problem(problem.model, given, Data(np.stack([x, x])))
    job = {0: (form, "proposal_mean", [(0, 0), (1, 0)])}
    found = averages.gradients(whiten(two), {0: job[0][:2]}, particles)[0]
    truth = enclose.gradients(two, job, particles, digits=digits)[0]
    for n, k in enumerate(particles):
        for f, index in enumerate(job[0][2]):
            for what in ("mean", "var"):
                value = getattr(found, what)
                at = (n, *index)
                yield (
                    f"{what} {list(index)} K={k}",
                    value.value[at],
                    value.error[at],
                    getattr(truth, what)[n, f],
                )
    for name, value, error, ball in covariances(two, form, "proposal_mean", particles, digits):
        yield f"cov {name}", value, error, ball


def logarithms(
    problem: Problem, name: str, parameter: str, particles: Sequence[int], digits: int
) -> Iterator[Value]:
    """The variance of one coordinate's gradient."""
    form = LOGS[name]
    known = GaussianSource(problem).log_variances({0: (form, parameter)}, particles)[0]
    found = {k: one.var for k, one in zip(particles, known, strict=True) if one.var is not None}
    if not found:
        return  # double precision says that it does not know
    index = problem.parameters.record(parameter).indices()[-1]
    truth = log_variances(problem, {0: (form, parameter, [index])}, list(found), digits=digits)[0]
    for (k, var), balls in zip(found.items(), truth, strict=True):
        yield f"{name} {parameter}{list(index)} K={k}", var.value[index], var.error[index], balls[0]


def optimum(problem: Problem, particles: Sequence[int], digits: int) -> Iterator[Value]:
    """The best diagonal proposal: its gap, and 1 + the slope of log(gap) in each coordinate, which is to be 1.

    Coordinates are in standard deviations of the best proposal at K = 1, as in `optimal_proposals`.
    """
    try:
        first, *found = optimal_proposals(problem, [1, *particles])
    except PrecisionError:
        return  # no optimum was found
    unit = np.sqrt(np.diag(first.problem.proposal.cov))
    form = Form({}, {1: 1.0}, {1: -1.0})
    for k, one in zip(particles, found, strict=True):
        gap = enclose.bounds(one.problem, [k], digits=digits, with_ess=False).gap[0, 0]
        yield f"gap K={k}", one.gap, CONVERGED * one.gap, gap
        diagonal = [(i, i) for i in range(problem.dim_z)]
        jobs = {"mean": (form, "proposal_mean", None), "chol": (form, "proposal_chol", diagonal)}
        slopes = enclose.gradients(one.problem, jobs, [k], digits=digits)
        std = np.sqrt(np.diag(one.problem.proposal.cov))
        for name, size in (("mean", unit), ("chol", std)):
            for i, slope in enumerate(slopes[name].mean[0]):
                yield f"slope {name}[{i}] K={k}", 1.0, CONVERGED, 1 - arb(float(size[i])) * slope / gap


def quadrature(problem: Problem, particles: Sequence[int], digits: int) -> Iterator[Value]:
    """A linear-Gaussian problem in one dimension, given as a density: gap, sample size, mean and variance."""
    form = estimators.get("iwae").form
    assert form is not None
    options: dict[str, Any] = {"K": list(particles), "estimators": "iwae", "parameters": ["proposal_mean"]}
    try:
        found = exact(as_functions(problem), **options)
    except PrecisionError:
        return  # as where a value is None: double precision says that it does not know
    truth = enclose.bounds(problem, particles, digits=digits)
    moments = enclose.gradients(problem, {0: (form, "proposal_mean", None)}, particles, digits=digits)[0]
    for n, k in enumerate(particles):
        cell = found.cell(k)
        gradient = cell.gradients["iwae"].parameters["proposal_mean"]
        pairs = [(name, cell, getattr(truth, name)[0, n]) for name in ("gap", "ess")]
        pairs += [(name, gradient, getattr(moments, name)[n, 0]) for name in ("mean", "var")]
        for name, holder, ball in pairs:
            value, error = getattr(holder, name), getattr(holder, f"{name}_error")
            if value is not None and np.all(np.isfinite(value)):
                yield f"{name} K={k}", float(np.ravel(value)[0]), float(np.ravel(error)[0]), ball


def states(seed: int, counts: Sequence[int]) -> Iterator[Value]:
    """Two binary latents: gap, sample size, and moments of what has logarithms, by sums over all tuples of states."""
    rng = np.random.default_rng(seed)
    model = DiscreteModel(rng.normal(size=2), rng.normal(size=(1, 2)), rng.normal(size=1), np.array([[0.5]]))
    problem = DiscreteProblem(model, DiscreteProposal(logit=rng.normal(size=2)), Data(rng.normal(size=1)))
    known = exact(problem, K=list(counts), estimators=list(LOGS), parameters=["proposal_logit"])
    for k in counts:
        found = known.cell(k)
        with ctx.workprec(200):
            truth = _enumerated(problem, k)
        for name in ("gap", "ess"):
            yield f"{name} K={k}", getattr(found, name), getattr(found, f"{name}_error"), truth[name]
        for name in LOGS:
            moments = found.gradients[name].parameters["proposal_logit"]
            for what in ("mean", "var"):
                value, error = getattr(moments, what), getattr(moments, f"{what}_error")
                if value is not None and np.isfinite(value[0]):
                    yield f"{what} {name} K={k}", value[0], error[0], truth[what, name]


def _enumerated(problem: DiscreteProblem, count: int) -> dict[Any, arb]:
    model, given, noise = problem.model, problem.proposal.logit, arb(float(problem.model.noise_cov[0, 0]))
    assert given is not None
    x = arb(float(problem.data.x[0])) - arb(float(model.offset[0]))
    probability, weight, score = [], [], []
    for z in product((0, 1), repeat=2):
        logs = [
            sum(
                (-(1 + (arb(float(a)) * (1 - 2 * b)).exp()).log() for a, b in zip(logits, z, strict=True)),
                arb(0),
            )
            for logits in (given, model.prior_logit)
        ]
        away = x - sum((arb(float(a)) * b for a, b in zip(model.loading[0], z, strict=True)), arb(0))
        probability.append(logs[0].exp())
        weight.append((logs[1] - logs[0] - away * away / (2 * noise)).exp() / (2 * arb.pi() * noise).sqrt())
        score.append(z[0] - 1 / (1 + (-arb(float(given[0]))).exp()))
    total: dict[Any, arb] = {}

    def add(key: Any, value: arb) -> None:
        total[key] = total.get(key, arb(0)) + value

    evidence = sum((p * w for p, w in zip(probability, weight, strict=True)), arb(0))
    for some in product(range(4), repeat=count):
        p, w = arb(1), [weight[i] for i in some]
        for i in some:
            p *= probability[i]
        s = sum(w, arb(0))
        add("gap", p * (evidence.log() - (s / count).log()))
        add("ess", p * s * s / sum((v * v for v in w), arb(0)))
        for name, form in LOGS.items():
            drawn, e = arb(0), arb(form.exponent)
            powers = [v**e for v in w]
            whole = sum(powers, arb(0))
            if form.exponent == 0:  # logarithms of weights to the power 0, over 0, are means of log-weights
                logs = [v.log() for v in w]
                above = sum(logs, arb(0)) / count
                others = [(above * count - one) / (count - 1) for one in logs]
            else:
                above = (whole / count).log() / e
                others = [((whole - v) / (count - 1)).log() / e for v in powers]
            for i, v, other in zip(some, powers, others, strict=True):
                c = sum(
                    (f * ((v / whole) ** r if r else arb(1) / count) for r, f in form.score.items()), arb(0)
                )
                c += form.log_evidence * above + form.leave_one_out * other
                c += form.constant * (1 - arb(1) / count).log()
                drawn += c * score[i]
            add(("mean", name), p * drawn)
            add(("square", name), p * drawn * drawn)
    return total | {("var", name): total["square", name] - total["mean", name] ** 2 for name in LOGS}
