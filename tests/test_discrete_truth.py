"""Truths of problems with binary latents, against the enumeration of all K-tuples of states."""

# pyright: reportOptionalOperand=false, reportOperatorIssue=false

# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportCallIssue=false

import itertools

import numpy as np
import pytest
from scipy.special import expit, logsumexp

import toyiwae
from toyiwae import InputError, estimators
from toyiwae.estimators import Estimator
from toyiwae.oracle.finite_k.score_function import LogEngine, refusal
from toyiwae.problems.binary import DiscreteModel, DiscreteProblem, DiscreteProposal
from toyiwae.problems.linear_gaussian import Data
from toyiwae.truth.finite_states import EnumeratedSource


def problem(dim_z: int, *, amortised: bool = False, rows: int | None = None) -> DiscreteProblem:
    """An asymmetric problem with three observed coordinates."""
    rng = np.random.default_rng(dim_z)
    root = rng.normal(size=(3, 3)) * 0.4
    model = DiscreteModel(
        prior_logit=rng.normal(size=dim_z) * 0.6,
        loading=rng.normal(size=(3, dim_z)),
        offset=rng.normal(size=3) * 0.3,
        noise_cov=root @ root.T + np.diag([0.7, 1.1, 0.9]),
    )
    x = rng.normal(size=(rows, 3) if rows else 3)
    if amortised:
        weight, offset = rng.normal(size=(dim_z, 3)) * 0.3, rng.normal(size=dim_z) * 0.2
        return DiscreteProblem(model, DiscreteProposal(weight=weight, offset=offset), Data(x))
    return DiscreteProblem(model, DiscreteProposal(logit=rng.normal(size=dim_z) * 0.5), Data(x))


class Enumerated:
    """All K-tuples of states of one row: probabilities, log-weights [tuples, 1, K] and gradients by state."""

    def __init__(self, made: DiscreteProblem, particles: int):
        model, logit, x = made.model, np.asarray(made.proposal.logit), made.data.x
        z = np.array(list(itertools.product([0.0, 1.0], repeat=made.dim_z)))
        misfit = x - model.offset - z @ model.loading.T
        precision = np.linalg.inv(model.noise_cov)

        def bernoulli(logits):
            return np.where(z == 1.0, np.log(expit(logits)), np.log(expit(-logits))).sum(axis=1)

        log_q = bernoulli(logit)
        log_p = bernoulli(model.prior_logit) - 0.5 * np.einsum("ni,ij,nj->n", misfit, precision, misfit)
        log_p -= 0.5 * np.linalg.slogdet(2 * np.pi * model.noise_cov)[1]
        self.log_evidence, self.posterior = logsumexp(log_p), np.exp(log_p - logsumexp(log_p)) @ z
        tuples = np.array(list(itertools.product(range(len(z)), repeat=particles)))
        self.weights = np.exp(log_q[tuples].sum(axis=1))
        self.log_w = (log_p - log_q)[tuples][:, None]
        pull = misfit @ precision
        by_state = {
            "prior_logit": z - expit(model.prior_logit),
            "loading": (pull[:, :, None] * z[:, None]).reshape(len(z), -1),
            "offset": pull,
            "proposal_logit": z - expit(logit),
        }
        self.gradients = {name: table[tuples] for name, table in by_state.items()}  # [tuples, K, F]

    def moments(self, estimator: Estimator, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of an estimator's gradient."""
        made = estimator(self.log_w)
        coefficients = made.score if name.startswith("proposal_") else made.model
        drawn = np.einsum("tk,tkf->tf", coefficients[:, 0], self.gradients[name])
        mean = self.weights @ drawn
        return mean, self.weights @ (drawn - mean) ** 2


def without_path(particles: int = 2) -> list[Estimator]:
    """The estimators that need no path derivative."""
    forms = [e for e in estimators.all() if e.form is not None and not e.form.path]
    return [e for e in forms if e.min_particles <= particles]


@pytest.mark.parametrize(("dim_z", "particles"), [(2, 1), (2, 2), (2, 3), (2, 6), (3, 2), (3, 4)])
def test_moments_agree_with_enumeration(dim_z: int, particles: int) -> None:
    """Means and variances of every estimator without a path, and of the model's gradients of all others."""
    made = problem(dim_z)
    truth = Enumerated(made, particles)
    chosen = without_path(particles)
    exact = toyiwae.exact(made, K=particles, estimators=chosen, parameters="all")
    cell = exact.cell(particles)
    assert exact.log_evidence == pytest.approx(truth.log_evidence, rel=1e-13)
    np.testing.assert_allclose(exact.posterior["mean"], truth.posterior, rtol=1e-12)
    log_mean = logsumexp(truth.log_w[:, 0], axis=1) - np.log(particles)
    assert cell.bound == pytest.approx(float(truth.weights @ log_mean), rel=1e-12)
    w = np.exp(truth.log_w[:, 0])
    assert cell.ess == pytest.approx(float(truth.weights @ (w.sum(1) ** 2 / (w**2).sum(1))), rel=1e-12)
    exact_variances = set()
    for estimator in chosen:
        for name, moments in cell.gradients[estimator.name].parameters.items():
            mean, var = truth.moments(estimator, name)
            np.testing.assert_allclose(np.ravel(moments.mean), mean, rtol=1e-10, atol=1e-13)
            if moments.var is None:
                assert "geometric" in (moments.reason or "")
                continue
            np.testing.assert_allclose(np.ravel(moments.var), var, rtol=1e-9)
            assert np.all(np.abs(np.ravel(moments.var) - var) <= np.ravel(moments.var_error) + 1e-13 * var)
            exact_variances.add((estimator.family, name))
    assert len({family for family, name in exact_variances if name == "proposal_logit"}) == len(chosen) - (
        particles > 2  # of two particles the other one is its own geometric mean
    )


def test_the_target_is_the_gradient_of_the_bound() -> None:
    """The mean of an unbiased score-function estimator is the derivative of L_K in the proposal's logits."""
    made = problem(3)
    exact = toyiwae.exact(made, K=[1, 5, 4000], estimators="score_function")
    step = 1e-5
    for cell in exact.results:
        mean = cell.gradients["score_function"].parameters["proposal_logit"].mean
        for axis in range(3):
            values = []
            for sign in (1.0, -1.0):
                logit = np.array(made.proposal.logit)
                logit[axis] += sign * step
                moved = DiscreteProblem(made.model, DiscreteProposal(logit=logit), made.data)
                values.append(toyiwae.exact(moved, K=cell.K, estimators="score_function").cell(cell.K).gap)
            slope = -(values[0] - values[1]) / (2 * step)
            assert mean[axis] == pytest.approx(slope, rel=1e-6, abs=1e-10)


def test_rows_of_data_average() -> None:
    """An amortised proposal over rows: means average, variances shrink, and the weight's gradient carries x."""
    made = problem(2, amortised=True, rows=3)
    options = {"K": 4, "M": 2, "estimators": without_path(4)}
    together = toyiwae.exact(made, parameters="all", **options).cell(4, 2)
    logits, x = made.rows().proposal_logit, made.rows().x
    singles = [
        DiscreteProblem(made.model, DiscreteProposal(logit=logits[n]), Data(x[n])) for n in range(made.n_rows)
    ]
    cells = [toyiwae.exact(single, **options).cell(4, 2) for single in singles]
    np.testing.assert_allclose(together.per_row["gap"], [cell.gap for cell in cells], rtol=1e-12)
    for name, truth in together.gradients.items():
        parts = [cell.gradients[name].parameters["proposal_logit"] for cell in cells]
        means = np.stack([part.mean for part in parts])
        np.testing.assert_allclose(
            truth.parameters["proposal_offset"].mean, means.mean(0), rtol=1e-10, atol=1e-14
        )
        carried = (means[:, :, None] * x[:, None]).mean(0)
        np.testing.assert_allclose(truth.parameters["proposal_weight"].mean, carried, rtol=1e-10, atol=1e-14)
        if parts[0].var is not None:
            var = np.stack([part.var for part in parts])
            np.testing.assert_allclose(truth.parameters["proposal_offset"].var, var.sum(0) / 9, rtol=1e-10)


def test_twelve_latents_at_many_particles() -> None:
    """4,096 states: the plain score function's variance and every mean exist at any K."""
    made = problem(12)
    exact = toyiwae.exact(made, K=[10, 10**6], estimators="score_function,rws_wake_phi")
    for cell in exact.results:
        assert cell.gap_error <= 1e-9 * cell.gap
        for truth in cell.gradients.values():
            moments = truth.parameters["proposal_logit"]
            assert moments.var is not None
            assert np.all(moments.var > 0)
            assert np.all(moments.var_error <= 1e-8 * moments.var)


def test_what_needs_a_path_derivative_is_refused() -> None:
    """Reparameterised estimators have model gradients here, and no proposal gradients."""
    made = problem(2)
    for estimator in estimators.all():
        exact = toyiwae.exact(made, K=3, estimators=estimator, parameters="prior_logit")
        assert np.shape(exact.cell(3).gradients[estimator.name].parameters["prior_logit"].mean) == (2,)
        if estimator.form is None or estimator.form.path:
            with pytest.raises(InputError, match="path derivative"):
                toyiwae.exact(made, K=3, estimators=estimator)
    with pytest.raises(InputError, match="covariance"):
        toyiwae.exact(made, K=3, estimators="score_function", covariance=True)


def test_transforms_are_made_ahead_and_none_in_vain(monkeypatch):
    """Of functions: those that moments and variances with logarithms then use, each once."""
    asked: list[tuple] = []
    plain, seen = LogEngine.request, LogEngine.get

    def request(engine, wanted):
        asked.extend(("made", power, *map(id, factors)) for power, factors in wanted if factors)
        return plain(engine, wanted)

    def get(engine, power, *factors):
        asked.append(("used", power, *map(id, factors)))
        return seen(engine, power, *factors)

    monkeypatch.setattr(LogEngine, "request", request)
    monkeypatch.setattr(LogEngine, "get", get)
    made = problem(3)
    parameters = [made.parameters.record(name) for name in ("prior_logit", "proposal_logit")]
    truth = EnumeratedSource(made)._truth(0, 1.0, (2, 8))
    forms = [e.form for e in estimators.all() if e.form is not None and e.form.exponent == 1.0]
    jobs = [(form, parameter) for form in forms for parameter in parameters]
    logs = [(form, parameters[1]) for form in forms if form.has_log_terms and refusal(form) is None]
    truth.prepare(jobs)
    truth.prepare_logs(logs)
    ahead = {key[1:] for key in asked if key[0] == "made"}
    assert truth.engine is not None
    known = dict(truth.engine._transforms)
    for job in jobs:
        truth.moments(*job)
    for form, parameter in logs:
        truth.log_moments(form, parameter)
    used = {key[1:] for key in asked if key[0] == "used"}
    assert len(ahead) > 20
    # those of power 0 go with others of one estimator, and squares of the score with some logarithms alone
    assert {frozenset(key) for key in ahead if key[0]} <= {frozenset(key) for key in used}
    assert not any(power for power, factors in truth.engine._transforms.keys() - known.keys() if factors)
