"""The problem with a nonlinear decoder: its truth by two other ways, and bugs that it alone shows."""

# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false

import math

import numpy as np
import pytest

import toyiwae
from tests.members import surrogate_of
from toyiwae import estimators
from toyiwae.conformance import api
from toyiwae.conformance.bank.bank import bank, nonlinear_bank
from toyiwae.conformance.checks.hypothesis_tests import compare
from toyiwae.conformance.truths import nonlinear
from toyiwae.conformance.truths.targets import Target
from toyiwae.weights import log_mean_exp

torch = pytest.importorskip("torch", reason="surrogates need torch")

ENTRY = nonlinear_bank()[0]
pytestmark = pytest.mark.usefixtures("remembered_truths")


def densities(changed=None):
    """The nonlinear problem's log w(ε) by its own formulas, one parameter perhaps changed by a complex step."""
    arrays = ENTRY.problem.arrays
    values = {
        name: getattr(arrays.model, name).astype(complex) for name in ("prior_mean", "loading", "offset")
    }
    values |= {"proposal_mean": arrays.proposal.mean.astype(complex)}
    values |= {"proposal_chol": np.sqrt(arrays.proposal.cov).astype(complex)}
    for name, (index, step) in (changed or {}).items():
        values[name][index] += step
    precision = np.linalg.inv(arrays.model.noise_cov)
    constant = -0.5 * np.linalg.slogdet(2 * np.pi * arrays.model.noise_cov)[1]

    def log_w(z):
        prior = -0.5 * (z - values["prior_mean"][0]) ** 2 / arrays.model.prior_cov[0, 0]
        prior = prior - 0.5 * np.log(2 * np.pi * arrays.model.prior_cov[0, 0])
        misfit = arrays.data.x[:, None] - values["loading"] @ np.tanh(z)[None] - values["offset"][:, None]
        likelihood = constant - 0.5 * (misfit * (precision @ misfit)).sum(0)
        std = values["proposal_chol"][0, 0]
        log_q = -0.5 * ((z - values["proposal_mean"][0]) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        return prior + likelihood - log_q, log_q

    return log_w


def bound(K, changed=None):
    """L_1 or L_2 by a tensor rule over z, so that derivatives pass through the densities alone."""
    z = np.arange(-14.0, 15.0, 0.05)
    log_w, log_q = densities(changed)(z)
    mass = 0.05 * np.exp(log_q)
    if K == 1:
        return mass @ log_w
    larger = np.maximum(log_w.real[:, None], log_w.real)
    both = np.log((np.exp(log_w[:, None] - larger) + np.exp(log_w - larger)) / 2) + larger
    return mass @ both @ mass


@pytest.mark.parametrize("K", [1, 2])
def test_its_truth_agrees_with_derivatives_of_a_direct_quadrature(K):
    entry = type(ENTRY)("nonlinear", ENTRY.problem, ((K, 1),), "")
    truth = nonlinear.truths(Target.of("iwae"), entry)[K, 1]
    assert float(truth["value"].mean) == pytest.approx(bound(K).real, rel=1e-10)
    for name, shape in ENTRY.problem.parameters.items():
        found = [bound(K, {name: (index, 1e-30j)}).imag / 1e-30 for index in np.ndindex(shape)]
        np.testing.assert_allclose(np.ravel(truth[name].mean), found, rtol=1e-8)


@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_its_truth_agrees_with_monte_carlo(name):
    """NumPy noise, derivatives by complex steps along each particle: nothing of torch, nothing of the oracle."""
    n, K, tiny = 40_000, 2, 1e-30
    entry = type(ENTRY)("nonlinear", ENTRY.problem, ((K, 1),), "")
    truth = nonlinear.truths(Target.of(name), entry)[K, 1]
    noise = np.random.default_rng(5).standard_normal(n * K)
    mean, std = ENTRY.problem.arrays.proposal.mean[0], math.sqrt(ENTRY.problem.arrays.proposal.cov[0, 0])
    z = mean + std * noise
    log_w = densities()(z)[0].real.reshape(n, 1, K)
    claimed = estimators.get(name)
    made = claimed(log_w)
    slope = (densities()(z + tiny * 1j)[0].imag / tiny).reshape(n, 1, K)
    samples = {"value": log_mean_exp(log_w)[:, 0]}
    for parameter, shape in ENTRY.problem.parameters.items():
        columns = []
        for index in np.ndindex(shape):
            total = (densities({parameter: (index, tiny * 1j)})(z)[0].imag / tiny).reshape(n, 1, K)
            if parameter.startswith("proposal"):
                along = noise.reshape(n, 1, K) if parameter.endswith("chol") else 1.0
                columns.append((made.path * slope * along - made.score * total).sum((1, 2)))
            else:
                columns.append((made.model * total).sum((1, 2)))
        samples[parameter] = np.stack(columns, -1).reshape(n, *shape)
    tests = [compare(samples[p], truth[p].mean).p_value for p in samples]
    tests += [compare((samples[p] - truth[p].mean) ** 2 / truth[p].var, np.ones(())).p_value for p in samples]
    smallest, count = min(np.min(p) for p in tests), sum(np.size(p) for p in tests)
    assert smallest > 1e-6 / count  # a bias above 0.033 standard deviations would be found


# bugs that only a nonlinear decoder shows ----------------------------------------------------------------


def coarse(log_joint, log_q, sample, *, K, M):
    """DReG whose path derivative is a central difference with a step that only a quadratic forgives."""
    z, step = sample(M, K), 0.7
    fixed = z.detach()
    log_w = log_joint(fixed) - log_q(fixed, detach=True)
    axes = step * torch.eye(z.shape[-1], dtype=z.dtype)
    sides = [log_joint(fixed + side * axis) for axis in axes for side in (1, -1)]
    slope = torch.stack(
        [(up - down) / (2 * step) for up, down in zip(sides[::2], sides[1::2], strict=True)], -1
    )
    path = (slope.detach() * z).sum(-1) - log_q(z, detach=True)
    weights = log_w.softmax(-1).detach()
    losses = {"model": (weights * log_w).sum(-1).mean(-1), "proposal": (weights**2 * path).sum(-1).mean(-1)}
    return (log_w.logsumexp(-1) - math.log(K)).mean(-1), losses


def expanded(log_joint, log_q, sample, *, K, M):
    """IWAE with log p(x, z) expanded to second order around 0."""
    z = sample(M, K)
    start = torch.zeros_like(z).requires_grad_(True)
    value = log_joint(start)
    (slope,) = torch.autograd.grad(value.sum(), start, create_graph=True)
    (curvature,) = torch.autograd.grad((slope * z).sum(), start, create_graph=True)
    quadratic = value + (slope * z).sum(-1) + 0.5 * (curvature * z).sum(-1)
    log_w = quadratic - log_q(z)
    return (log_w.logsumexp(-1) - math.log(K)).mean(-1)


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "target"), [(coarse, "dreg"), (expanded, "iwae")])
def test_what_is_right_for_quadratics_only_passes_every_linear_problem(wrong, target):
    report = toyiwae.check(wrong, target, form="surrogate")
    assert report.verdict == "does not conform"
    assert {failure.problem for failure in report.failures} == {"nonlinear"}


@pytest.mark.parametrize(("wrong", "target"), [(coarse, "dreg"), (expanded, "iwae")])
def test_what_is_right_for_quadratics_only_fails_on_the_nonlinear_decoder_only(wrong, target, monkeypatch):
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])  # the truths of all take longer than the judging
    report = toyiwae.check(wrong, target, form="surrogate", K=3, M=(1, 2), shift=0.2)
    assert report.verdict == "does not conform"
    assert {failure.problem for failure in report.failures} == {"nonlinear"}
    assert any(failure.tier == 2 for failure in report.failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iwae", "vimco_arithmetic"])
def test_type_i_errors_keep_to_the_family_wise_rate(name, monkeypatch):
    """On the nonlinear problem alone, whose variances are judged by estimated fourth moments."""
    monkeypatch.setattr(api, "bank", lambda: ())
    runs, rate = 200, 0.05
    options = {"form": "surrogate", "rate": rate, "shift": 0.08}
    reports = [
        toyiwae.check(surrogate_of(estimators.get(name)), name, seed=seed, **options) for seed in range(runs)
    ]
    failed = sum(report.verdict != "conforms" for report in reports)
    tails = [math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(failed)]
    assert 1.0 - sum(tails) > 1e-3, [report.failures for report in reports if report.failures]
