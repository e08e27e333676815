"""Truths of problems whose latents have finitely many states: everything is a sum over a table.

A row of data is a DiscreteLaw and, for each kind of parameter, a table of gradients by state. Without a path
derivative the means of score terms come from the transforms of the score alone: with T = Σ s_k and E[s] = 0,

    E[T log Ẑ] = -K ∫ Λ_s Λ^(K-1) dt/t.

`EnumeratedSource` lists the 2^D states of binary latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from toyiwae.errors import InputError
from toyiwae.forms import Form, form_of_mean
from toyiwae.oracle.finite_k.bounds import common_grid
from toyiwae.oracle.finite_k.every_k import insert_single, joined, log_moments, moments_for_all
from toyiwae.oracle.finite_k.gradients import GradientMoments, mean_of
from toyiwae.oracle.finite_k.one_particle import first_gap
from toyiwae.oracle.finite_k.score_function import LogEngine, LogForm, LogMoments, mean_of_one, refusal
from toyiwae.oracle.laws.bounded import Bounded, concatenate, stack
from toyiwae.oracle.laws.discrete import DiscreteLaw, Table
from toyiwae.problems.binary import DiscreteProblem
from toyiwae.problems.parameter import Parameter
from toyiwae.truth.averages import Average, Averaged, Bounds
from toyiwae.truth.row import Row, log_sum
from toyiwae.truth.source import Jobs, LogAverage, LogVariance, LogVariances, no_covariance, with_errors


class RowTruth:
    """The integrals of one row at one exponent, for several K; tables and transforms are made once."""

    def __init__(self, row: Row, exponent: float, particles: Sequence[int]):
        self.row, self.exponent, self.particles = row, exponent, particles
        self.law = DiscreteLaw(row.log_prob, exponent * row.log_w)
        self.many = [k for k in particles if k > 1]
        self._tables: dict[Any, Table] = {}

    @cached_property
    def engine(self) -> LogEngine | None:
        """The engine of all K ≥ 2."""
        if not self.many:
            return None
        return LogEngine(self.law, self.many, common_grid(self.law, self.many))

    def bounds(self) -> tuple[Bounded, Bounded]:
        """Gap to log E[w^e] and expected sample size: [1, nK]."""
        one = Bounded(np.ones((1, 1)), np.zeros((1, 1)))
        engine = self.engine
        gap = insert_single(self.particles, engine and engine.gap(), first_gap(self.law))
        ess = insert_single(self.particles, engine and engine.ess(), one)
        off, many = abs(self.exponent) * float(self.row.log_w_error.max()), np.array(self.particles) > 1
        return gap.widened(off * self._sensitivity()), ess.widened(4.0 * off * ess.value * many)

    def _sensitivity(self) -> np.ndarray:
        """By how much the gap moves, to first order, where log-weights move by at most 1: [1, nK].

        `2 E[w (w-1)₊/(w+K-1)] ≥ Σ p_i w_i |1 - E[K/(w_i + S_{K-1})]|`, w in units of its mean: by Jensen's inequality,
        and since the sum without the modulus is 0.
        """
        mean = log_sum(self.law.log_prob + self.law.log_w) - log_sum(self.law.log_prob)
        log_w, k = self.law.log_w - mean, np.asarray(self.particles, dtype=float)[:, None]
        above = np.maximum(log_w, 0.0)
        part = -np.expm1(-above) / (1.0 + (k - 1.0) * np.exp(-above))
        return 2.0 * (part @ np.exp(self.law.log_prob - log_sum(self.law.log_prob) + log_w))[None]

    def prepare(self, jobs: Sequence[tuple[Form, Parameter]]) -> None:
        """The transforms that `moments` needs for several gradients, all of one power at once."""
        components = [self._components(*job) for job in jobs if not self._of_logs_alone(*job)]
        self._prepare([(parts, parts) for parts in components if parts])

    def prepare_logs(self, jobs: Sequence[tuple[Form, Parameter]]) -> None:
        """Those that `log_moments` needs."""
        forms = [(LogForm.of(form), parameter.moves) for form, parameter in jobs if form.exponent != 0.0]
        kinds = dict.fromkeys(kind for form, kind in forms if form.evidence or form.others + form.weight)
        scores = [self.table("score", kind) for kind in kinds]
        self._prepare([({1: s}, other) for s in scores for other in ({1: s}, {0: s})])

    def _prepare(self, pairs: Sequence[tuple[dict[int, Table], dict[int, Table]]]) -> None:
        if pairs and self.engine is not None:
            self.engine.prepare(pairs)

    def moments(self, form: Form, parameter: Parameter) -> GradientMoments | None:
        """Mean with all terms, variance without log terms; None where there is no coefficient.

        ∇ log Ẑ stands in place of its path derivative; the baselines' means are zero.
        """
        if self._of_logs_alone(form, parameter):
            return self._with_mean_log(form, parameter.moves)
        parts = self._components(form, parameter)
        found = moments_for_all(self.law, parts, self.particles, self.engine) if parts else None
        if parameter.part == "model" or self.row.path:
            return found
        evidence = (form.log_evidence + form.path.get(1, 0.0)) / self.exponent
        return self._with_log(found, evidence, parameter.moves) if evidence else found

    def _of_logs_alone(self, form: Form, parameter: Parameter) -> bool:
        """Whether the mean is that of the log-weights times the score, in closed form."""
        proposal = parameter.part == "proposal" and not self.row.path
        return proposal and form.exponent == 0.0 and bool(form.log_evidence)

    def _components(self, form: Form, parameter: Parameter) -> dict[int, Table]:
        """Power -> the function that a gradient sums with it."""
        terms: dict[int, list[tuple[float, tuple[str, str]]]] = {}
        if parameter.part == "model":
            terms = {r: [(factor, ("model", parameter.name))] for r, factor in form.model.items()}
        else:
            own = form_of_mean(form) if self.row.path else form
            for part in ("path", "score") if self.row.path else ("score",):
                for r, factor in getattr(own, part).items():
                    terms.setdefault(r, []).append((factor, (part, parameter.moves)))
        return {r: self._combined(tuple(listed)) for r, listed in sorted(terms.items())}

    def log_moments(self, form: Form, parameter: Parameter) -> LogMoments:
        """Variance with log terms, and what goes with it: [1, nK, F]."""
        score, row = self.table("score", parameter.moves), self.row
        log_mean = row.log_mean(self.exponent)
        return log_moments(self.law, self.engine, score, LogForm.of(form), log_mean, self.particles)

    def table(self, part: str, name: str) -> Table:
        """A function of the state, the same object at every call."""
        if (part, name) not in self._tables:
            self._tables[part, name] = self.law.table(getattr(self.row, part)[name])
        return self._tables[part, name]

    def _combined(self, listed: tuple[tuple[float, tuple[str, str]], ...]) -> Table:
        if listed not in self._tables:
            self._tables[listed] = Table.combine([(factor, self.table(*name)) for factor, name in listed])
        return self._tables[listed]

    def _with_mean_log(self, form: Form, kind: str) -> GradientMoments:
        """E[s ℓ], whatever K, for the mean of the log-weights in the place of log Ẑ."""
        form_of_one = LogForm(form.log_evidence, 0.0, 0.0, 0.0, 0.0)
        one = mean_of_one(self.law, self.table("score", kind), form_of_one)
        mean = insert_single(self.particles, None, one)
        nothing = Bounded.zeros(mean.shape)
        return GradientMoments(one[:, 0], nothing, nothing, mean)

    def _with_log(self, found: GradientMoments | None, evidence: float, kind: str) -> GradientMoments:
        score, form = self.table("score", kind), LogForm(evidence, 0.0, 0.0, 0.0, 0.0)
        many = self.engine.log_mean(score, form) if self.engine is not None else None
        mean = insert_single(self.particles, many, mean_of_one(self.law, score, form))
        limit = mean_of(self.law, 1, score) * evidence  # K E[s log Ẑ] → E[s w]
        shift = mean - limit[:, None]
        if found is None:
            return GradientMoments(limit, shift, Bounded.zeros(shift.shape), mean)
        return GradientMoments(limit + found.limit, shift + found.shift, found.var, mean + found.mean)


class TabulatedSource:
    """The truths of a problem given by rows of states."""

    def __init__(self, problem: Any, x: np.ndarray, rows: list[Row]):
        self.problem, self.x, self.rows = problem, x, rows
        self._known: dict[Any, RowTruth] = {}

    @property
    def evidence(self) -> Bounded:
        """Log p(x) of each row, round-off of the log-weights included: [N]."""
        return concatenate([row.log_mean(1.0) for row in self.rows])

    def missing_mean(self, exponent: float) -> str | None:
        """None: all moments exist."""
        return None

    def _truth(self, n: int, exponent: float, particles: Sequence[int]) -> RowTruth:
        key = (n, exponent, tuple(particles))
        if key not in self._known:
            self._known[key] = RowTruth(self.rows[n], exponent, particles)
        return self._known[key]

    def moments(
        self, exponent: float, particles: Sequence[int], jobs: Jobs, counts: Sequence[int]
    ) -> tuple[Bounds | None, dict[Any, Averaged]]:
        """Bounds of w^exponent, and means (with log terms) and variances (without) of gradients."""
        return self.bounds(particles, exponent) if particles else None, self.gradients(jobs, counts)

    def bounds(self, particles: Sequence[int], exponent: float) -> Bounds:
        """Bounds of w^exponent."""
        pairs = [self._truth(n, exponent, particles).bounds() for n in range(len(self.rows))]
        back = np.arange(len(pairs))
        gap, ess = (joined([pair[i] for pair in pairs], back) for i in range(2))
        if exponent == 1.0:
            return Bounds(Bounded.zeros(len(pairs)), gap, ess)
        return Bounds(concatenate([row.log_mean(exponent, apart=True) for row in self.rows]), gap, ess)

    def gradients(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, Averaged]:
        """Means with all terms, and variances without log terms."""
        record = self.problem.parameters.record
        exponents = [form_of_mean(form).exponent for form, _ in jobs.values()]
        sums = {key: Average(self.x, record(name), len(particles)) for key, (_, name) in jobs.items()}
        for exponent in dict.fromkeys(exponents):
            chosen = [key for key, own in zip(jobs, exponents, strict=True) if own == exponent]
            own = {key: (jobs[key][0], record(jobs[key][1])) for key in chosen}
            for n in range(len(self.rows)):
                truth = self._truth(n, exponent, particles)
                truth.prepare(list(own.values()))
                for key, job in own.items():
                    moments = truth.moments(*job)
                    if moments is not None:
                        sums[key].add(np.array([n]), moments)
        return {key: average.result() for key, average in sums.items()}

    def log_variances(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, LogVariances]:
        """Variances of gradients of the proposal with log terms."""
        record = self.problem.parameters.record
        reasons = {key: refusal(form) for key, (form, _) in jobs.items()}
        known = {key: (form, record(name)) for key, (form, name) in jobs.items() if reasons[key] is None}
        sums = {key: LogAverage(self.x, parameter, len(particles)) for key, (_, parameter) in known.items()}
        for exponent in dict.fromkeys(form.exponent for form, _ in known.values()):
            own = {key: job for key, job in known.items() if job[0].exponent == exponent}
            for n in range(len(self.rows)):
                truth = self._truth(n, exponent or 1.0, particles)
                truth.prepare_logs(list(own.values()))
                for key, job in own.items():
                    sums[key].add(np.array([n]), truth.log_moments(*job))
        found = {key: average.result() for key, average in sums.items()}
        found |= {
            key: LogVariance(None, f"not derived: {reason}") for key, reason in reasons.items() if reason
        }
        return {key: found[key].of_each(len(particles)) for key in jobs}

    def subset_variances(
        self, jobs: Sequence[tuple[int, str]], particles: Sequence[int]
    ) -> dict[tuple[int, str], LogVariance]:
        """Not derived for these laws."""
        return dict.fromkeys(jobs, LogVariance(None, "not derived"))

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Not computed.

        Raises:
            InputError: always.
        """
        raise no_covariance()


class EnumeratedSource(TabulatedSource):
    """The truths of a problem with binary latents, by its 2^D states."""

    def __init__(self, problem: DiscreteProblem):
        rows = problem.rows()
        self.states = ((np.arange(2**problem.dim_z)[:, None] >> np.arange(problem.dim_z)) & 1).astype(float)
        made = [self._row(problem, x, logit) for x, logit in zip(rows.x, rows.proposal_logit, strict=True)]
        super().__init__(problem, rows.x, made)

    def _row(self, problem: DiscreteProblem, x: np.ndarray, logit: np.ndarray) -> Row:
        model, z = problem.model, self.states
        noise = cho_factor(model.noise_cov, lower=True)
        misfit = x - model.offset - z @ model.loading.T  # [n, D_x]
        pull = cho_solve(noise, misfit.T)  # [D_x, n]
        log_norm = np.log(np.diag(noise[0])).sum() + 0.5 * len(x) * np.log(2 * np.pi)
        log_joint = _log_bernoulli(z, model.prior_logit) - 0.5 * (misfit.T * pull).sum(axis=0) - log_norm
        log_prob = _log_bernoulli(z, logit)
        loading = (pull[:, None, :] * z.T[None]).reshape(-1, len(z))
        gradients = {"prior_logit": (z - expit(model.prior_logit)).T, "loading": loading, "offset": pull}
        return Row(log_prob, log_joint - log_prob, gradients, {"mean": (z - expit(logit)).T})

    @property
    def many_rows(self) -> bool:
        """Whether the data were given as rows."""
        return self.problem.data.x.ndim == 2

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Mean [N, D] and covariance [N, D, D] of the latents given each row; of one row without N."""
        pairs = [row.posterior(self.states) for row in self.rows]
        mean, cov = (stack([pair[i] for pair in pairs]) for i in range(2))
        return with_errors(mean, cov) if self.many_rows else with_errors(mean[0], cov[0])

    def check(self, estimators: Sequence[Any], parameters: Sequence[str]) -> None:
        """Refuse gradients of the proposal that need a path derivative.

        Raises:
            InputError: naming the estimator.
        """
        if all(self.problem.parameters.record(name).part == "model" for name in parameters):
            return
        for estimator in estimators:
            if estimator.form is None or estimator.form.path:
                raise InputError(
                    f"estimator {estimator.name!r} needs the path derivative ∂z/∂φ, which discrete latents do not"
                    " have: ask for a score-function estimator, or for the model's parameters only"
                )


def _log_bernoulli(z: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Log Π σ(logit)^z σ(-logit)^(1-z) of states [n, D]: [n]."""
    return -(z * np.logaddexp(0.0, -logit) + (1.0 - z) * np.logaddexp(0.0, logit)).sum(axis=1)
