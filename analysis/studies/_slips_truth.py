"""What each printed formula of the deck gives beside the right one.

By enumeration of a latent with three states, by quadrature over one Gaussian latent, and by the exact answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

import toyiwae
from analysis.closed_limits import ClosedLimits
from analysis.studies._slips_states import Slip, States, apart
from toyiwae import Problem, Proposal
from toyiwae.problems.linear_gaussian import Data

MODEL = {
    "prior_mean": [0.3, -0.2], "prior_cov": [[1.2, 0.1], [0.1, 0.8]],
    "loading": [[1.0, 0.6], [0.1, 0.9], [0.4, -0.3]], "offset": [0.1, 0.0, -0.2],
    "noise_cov": [[0.5, 0.0, 0.0], [0.0, 0.7, 0.1], [0.0, 0.1, 0.9]],
}  # fmt: skip
DATA = {"x": [0.4, -1.0, 0.3]}


def slips(particles: int, large_k: int) -> Iterator[Slip]:
    """All slips that are wrong numbers; those of notation alone are left out."""
    states = States.of(particles)
    yield from (_simplest(particles), _weight(), states.baseline(), states.log_gradient(), states.discrete())
    yield from (_sign(), _family(), _theta(), _order(large_k), _budget())


def extras(particles: int, large_k: int) -> dict[str, float]:
    """The bias of VIMCO as printed, relative; and the slope of SNR(θ) in K where `∂ log Z/∂θ = 0`."""
    states, large_k = (
        States.of(particles),
        min(large_k, 10**6),
    )  # beyond, the slope of the evidence is rounding
    mean = states.expect(lambda w: states.vimco(w, outside=True))
    problem = _gaussian()
    center = problem.model.loading @ problem.model.prior_mean + problem.model.offset
    flat = dataclasses.replace(problem, data=Data(center))
    counts = (large_k // 4, large_k)
    truth = toyiwae.exact(flat, K=counts, estimators="iwae", parameters="prior_mean")
    few, many = (np.asarray(cell.gradients["iwae"].parameters["prior_mean"].snr) for cell in truth.results)
    slope = np.log(many / few) / np.log(4.0)
    return {
        "vimco_bias": apart(mean, states.slope(states.bound)),
        "flat_slope": float(slope[np.argmax(np.abs(slope + 0.5))]),
    }


def _gaussian(**changes: Any) -> Problem:
    tables = {
        "model": MODEL | changes,
        "proposal": {"mean": [0.2, 0.1], "cov": [[0.6, 0.1], [0.1, 0.7]]},
        "data": DATA,
    }
    return Problem.from_dict(tables)


def _line() -> tuple[float, float, float]:
    """E of p(x|z) under the prior, E_q[p(x,z)/q], E_q[p(z|x)/q], in units of Z; one latent, by the trapezoidal rule."""
    loading = {"prior_mean": [0.3], "prior_cov": [[1.2]], "loading": [[1.0], [0.1], [0.4]]}
    problem = Problem.from_dict(
        {"model": MODEL | loading, "proposal": {"mean": [0.2], "cov": [[0.6]]}, "data": DATA}
    )
    limits, model = ClosedLimits(problem), problem.model
    z, step = np.linspace(-14.0, 14.0, 4001, retstep=True)

    def normal(at: np.ndarray, mean: Any, cov: np.ndarray) -> np.ndarray:
        apart = at - mean
        far = (apart @ np.linalg.inv(cov) * apart).sum(-1)
        return np.exp(-0.5 * (far + np.linalg.slogdet(2 * np.pi * cov)[1]))

    evidence = np.exp(limits.log_evidence()[0])
    likelihood = normal(problem.data.x, z[:, None] @ model.loading.T + model.offset, model.noise_cov)
    joint = normal(z[:, None], model.prior_mean, model.prior_cov) * likelihood
    proposal = normal(z[:, None], problem.proposal.mean, problem.proposal.cov)
    weights = (
        proposal * (joint / proposal),
        proposal * (normal(z[:, None], limits.mean[0], limits.cov) / proposal),
    )
    return tuple(float(step * values.sum() / evidence) for values in (joint, *weights))  # pyright: ignore


def _simplest(particles: int) -> Slip:
    mean = _line()[0]
    return Slip(
        "simplest estimator", r"\sum_k p(x\mid z_k)", r"\frac{1}{K}\sum_k p(x\mid z_k)",
        f"its expectation against the evidence, $K$ = {particles}; by quadrature over the latent",
        abs(particles * mean - 1), abs(mean - 1),
    )  # fmt: skip


def _weight() -> Slip:
    _, joint, posterior = _line()
    return Slip(
        "IWAE 2", r"w=\frac{p(z\mid x)}{q(z\mid x)}", r"w=\frac{p(x,z)}{q(z\mid x)}",
        "the mean weight against the evidence; by quadrature over the latent", abs(posterior - 1),
        abs(joint - 1),
    )  # fmt: skip


def _sign() -> Slip:
    """The slide minimises what it writes as the ELBO, which has its maximum there."""
    problem = _gaussian()
    limits = ClosedLimits(problem)
    values = [
        float(toyiwae.ClosedForms(_with(problem, scale * limits.cov, limits.mean[0])).elbo[0])
        for scale in (1.0, 0.25, 4.0)
    ]
    known = float(limits.log_evidence()[0])
    return Slip(
        "VAE optimum", r"\mathrm{argmin}\,L_\mathrm{VAE}", r"\mathrm{argmax}\,L_\mathrm{VAE}",
        "the evidence against the least and the largest ELBO among the posterior, it four times as wide and "
        "four times as "
        "narrow",
        abs(min(values) / known - 1), abs(max(values) / known - 1),
    )  # fmt: skip


def _with(problem: Problem, cov: np.ndarray, mean: np.ndarray) -> Problem:
    return dataclasses.replace(problem, proposal=Proposal(cov, mean=mean))


def _family() -> Slip:
    """The optimal proposal is the posterior only where the family holds it."""
    problem = _gaussian()
    limits = ClosedLimits(problem)
    errors = {}
    for family in ("mean_field", "full"):
        (found,) = toyiwae.optimal_proposals(problem, [1], family=family)
        cov = found.problem.proposal.cov
        errors[family] = float(np.abs(cov - limits.cov).max() / np.abs(limits.cov).max())
    return Slip(
        "VAE optimum", r"\mathrm{argmax}_\phi L_\mathrm{VAE}=p(z\mid x)",
        r"\mathrm{argmax}_\phi L_\mathrm{VAE}=p(z\mid x)\;\text{if the family holds it}",
        "the covariance of the optimal proposal against the posterior's: diagonal ones (printed, without "
        "the condition), "
        "all (right)", errors["mean_field"], errors["full"],
    )  # fmt: skip


def _theta() -> Slip:
    """The ELBO's gradient in θ is that of log Z only with φ optimised again."""
    problem = _gaussian()
    limits = ClosedLimits(problem)
    truth = limits.evidence_slope()[0]
    size = float(np.abs(truth).max())
    fixed = toyiwae.ClosedForms(problem).renyi_bound_gradients(0.0)["prior_mean"][0]
    again = _with(problem, limits.cov, limits.mean[0])
    best = toyiwae.ClosedForms(again).renyi_bound_gradients(0.0)["prior_mean"][0]
    return Slip(
        "VAE optimum", r"\nabla_\theta L_\mathrm{VAE}=\nabla_\theta\log Z",
        r"\nabla_\theta L_\mathrm{VAE}=\nabla_\theta\log Z\;\text{at}\;q=p(z\mid x)",
        "the ELBO's gradient in the prior's mean against that of the evidence, at the problem's proposal and at the "
        "posterior",
        float(np.abs(fixed - truth).max()) / size, float(np.abs(best - truth).max()) / size,
    )  # fmt: skip


def _order(large_k: int) -> Slip:
    """O(√(MK)) holds of the inference network's ratio too, which falls: only Θ says what the slide means."""
    counts = (large_k // 4, large_k)
    truth = toyiwae.exact(
        _gaussian(), K=counts, estimators="iwae", parameters=("prior_mean", "proposal_mean")
    )
    growth = {}
    for name in ("prior_mean", "proposal_mean"):
        few, many = (np.asarray(cell.gradients["iwae"].parameters[name].snr) for cell in truth.results)
        growth[name] = float(np.max(np.abs(many / few / 2.0 - 1)))
    return Slip(
        "SNR", r"\mathrm{SNR}(\theta)=O(\sqrt{MK})", r"\mathrm{SNR}(\theta)=\Theta(\sqrt{MK})",
        "growth of a ratio over that of $\\sqrt{K}$ when $K$ is multiplied by four: for φ, of which "
        "$O(\\sqrt{MK})$ holds "
        f"as well, and for θ, of which Θ does; $K$ = {large_k:,}", growth["proposal_mean"], growth["prior_mean"],
    )  # fmt: skip


def _budget() -> Slip:
    """With T = M·L particles PIWAE's φ follows L_L; the slide's index makes it a bound of all T."""
    problem, groups, inside = _gaussian(), 4, 8
    found = toyiwae.exact(
        problem, K=inside, M=groups, estimators="piwae", parameters="proposal_mean"
    ).results[0]
    mean = np.asarray(found.gradients["piwae"].parameters["proposal_mean"].mean)
    truth = toyiwae.exact(problem, K=(inside, groups * inside), estimators="dreg", parameters="proposal_mean")
    inner, whole = (np.asarray(c.gradients["dreg"].parameters["proposal_mean"].mean) for c in truth.results)
    return Slip(
        "PIWAE", r"\mathrm{E}[\Delta(\phi)]=\nabla_\phi L_{ML}", r"\mathrm{E}[\Delta(\phi)]=\nabla_\phi L_L",
        f"PIWAE's mean gradient in φ against DReG's with all {groups * inside} particles and with the "
        f"{inside} of a group, "
        "which comes from another integral", apart(whole, mean), apart(inner, mean),
    )  # fmt: skip
