"""The exact answers: evidence, posterior, bounds, and every estimator's mean, variance, SNR, bias and RMSE.

`exact` looks estimators up in the registry, hands their Forms to the oracle and lays the numbers out. No sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae import arguments, records
from toyiwae.discrete import DiscreteProblem
from toyiwae.estimators import Estimator, registry
from toyiwae.forms import Bound, Form
from toyiwae.oracle.covariance import directional_snr
from toyiwae.oracle.finite_k import Estimate
from toyiwae.oracle.quadrature import QuadratureProblem, QuadratureSource
from toyiwae.oracle.solve import Averaged, Bounds
from toyiwae.oracle.sources import GaussianSource, LogVariance, Source
from toyiwae.oracle.tabulated import EnumeratedSource
from toyiwae.problem import Problem

_NO_FORM = "no closed form: the estimator has no Form and declares no target"
_NO_VARIANCE = "no closed form: the variance of {name} at this parameter is not derived"
_INEXACT = "the variance of {name} at K = {k} cancels: its error {error:.1g} is above 1e-6 of it"
_ACCURACY = 1e-6  # relative error of a variance from which it is not given


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact mean and variance of one replicate of one parameter's gradient; arrays of the parameter's shape.

    Attributes:
        mean, var: of one replicate (M groups of K particles, averaged over the rows); None where no closed form exists.
        snr: |mean| / √var; NaN where both are zero.
        mean_error, var_error: bounds on the absolute errors of `mean` and `var`.
        bias: mean less the gradient of the estimator's target (of L_K where it has none).
        rmse: √(bias² + var).
        rmse_evidence: the same against ∇ log p(x), which is 0 for the proposal's parameters.
        reason: why something is None.
    """

    mean: np.ndarray | None
    var: np.ndarray | None
    snr: np.ndarray | None
    mean_error: np.ndarray | None
    var_error: np.ndarray | None
    bias: np.ndarray | None = None
    rmse: np.ndarray | None = None
    rmse_evidence: np.ndarray | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class GradientTruth:
    """One estimator at one (K, M).

    Attributes:
        target_bound: value of the bound that its proposal gradient climbs.
        parameters: moments by parameter.
        cov: on request, {"model", "proposal"} -> covariance of one replicate between all coordinates asked for
            [F, F], parameters one after the other, each flattened by rows.
        directional_snr: on request, for the same two, √(E‖Δ∥‖² / E‖Δ⊥‖²) along and across the mean.
    """

    target_bound: float | None
    parameters: dict[str, Moments]
    cov: dict[str, np.ndarray] | None = None
    directional_snr: dict[str, float] | None = None

    def joint(self) -> dict[str, Any]:
        """What covers all coordinates together, if it was asked for."""
        return {} if self.cov is None else {"cov": self.cov, "directional_snr": self.directional_snr}


@dataclass(frozen=True, eq=False)
class Cell:
    """The truth at one (K, M): `bound` and `gap` are those of L_K, averaged over rows; ESS is E[(Σw)²/Σw²]."""

    K: int
    M: int
    bound: float
    gap: float
    gap_error: float
    ess: float
    ess_error: float
    gradients: dict[str, GradientTruth]
    per_row: dict[str, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class ExactResult:
    """What `exact` returns: log p(x) (averaged over rows), the posterior, and a cell for each K and M, K outermost."""

    log_evidence: float
    posterior: dict[str, np.ndarray]
    results: tuple[Cell, ...]
    provenance: dict[str, Any]

    def cell(self, K: int, M: int = 1) -> Cell:
        """The cell of one (K, M).

        Raises:
            KeyError: if it was not asked for.
        """
        for cell in self.results:
            if (cell.K, cell.M) == (K, M):
                return cell
        raise KeyError(f"no cell K={K}, M={M}: this result has K={sorted({c.K for c in self.results})}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: null, with a reason beside it, where a number does not exist."""
        converted = []
        for cell in self.results:
            entry = {
                name: getattr(cell, name)
                for name in ("K", "M", "bound", "gap", "gap_error", "ess", "ess_error")
            }
            entry["gradients"] = {
                name: {"target_bound": truth.target_bound, **truth.parameters, **truth.joint()}
                for name, truth in cell.gradients.items()
            }
            converted.append(entry | ({"per_row": cell.per_row} if cell.per_row is not None else {}))
        return records.plain(
            {
                "log_evidence": self.log_evidence,
                "posterior": self.posterior,
                "results": converted,
                "provenance": self.provenance,
            }
        )

    def to_dataframe(self):
        """One row per (K, M, estimator, parameter, coordinate), with mean, var, snr, bias, rmse and errors.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return records.to_dataframe(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        names = ("mean", "var", "snr", "mean_error", "var_error", "bias", "rmse", "rmse_evidence")
        for cell in self.results:
            shared = {name: getattr(cell, name) for name in ("K", "M", "bound", "gap", "ess")}
            if not cell.gradients:
                yield shared
            for name, truth in cell.gradients.items():
                for parameter, moments in truth.parameters.items():
                    columns = {column: getattr(moments, column) for column in names}
                    yield from records.coordinates(columns, **shared, estimator=name, parameter=parameter)


def exact(
    problem: Problem | DiscreteProblem | QuadratureProblem,
    *,
    K: int | Sequence[int],
    M: int | Sequence[int] = 1,
    estimators: str | Estimator | Sequence[str | Estimator] = ("iwae",),
    parameters: Sequence[str] | str | None = None,
    covariance: bool = False,
) -> ExactResult:
    """Exact bounds and gradient moments of a problem, at any K, M and dimension.

    Values and gradients are those of the average over the rows of data; variances are of one replicate, with
    independent noise for each row.

    Args:
        problem: the model, the proposal and the data: linear-Gaussian, with binary latents, or a user's own density.
        K: particles inside the log, one or several.
        M: groups averaged outside, one or several.
        estimators: names such as "iwae", "ciwae:0.5" or "FILE.py:name", or estimators.
        parameters: whose gradients; by default the parameters of the prior's and the proposal's mean; "all" for all.
        covariance: also the covariance between coordinates, and from it the directional SNR.

    Raises:
        InputError: for a K or M that is not a whole number of at least 1, an unknown estimator or parameter, and a K
            below an estimator's minimum.
    """
    counts, groups = arguments.whole_numbers(K, "K"), arguments.whole_numbers(M, "M")
    chosen = registry.select(estimators, counts)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    source = _source(problem)
    source.check(chosen, wanted)
    plan = _Plan(source, counts, groups, chosen, wanted, joint=covariance)
    cells = tuple(plan.cell(k, m) for k in counts for m in groups)
    asked = {
        "K": counts,
        "M": groups,
        "estimators": [estimator.name for estimator in chosen],
        "parameters": list(wanted),
        "problem": problem.content_hash,
    }
    return ExactResult(
        float(np.mean(source.log_evidence)),
        source.posterior,
        cells,
        records.provenance(asked),
    )


class _Plan:
    """What the oracle is asked for, once, and how its answers fill the cells."""

    def __init__(self, source: Source, counts, groups, chosen, wanted, *, joint: bool):
        self.source, self.chosen, self.wanted = source, chosen, wanted
        self.problem, self.groups = source.problem, groups
        targets = [
            bound for k in counts for m in groups for e in chosen for bound in _targets(e, k, m) if bound
        ]
        pooled = [k * m for e in chosen if e.form and e.form.pooled for k in counts for m in groups]
        inner = [
            particles
            for e in chosen
            if e.form is None
            for bound in self._formless(e, counts, groups)
            for particles, _ in bound.terms
        ]
        self.particles = sorted({*counts, *pooled, *inner})
        self.bounds: dict[float, Bounds] = {}
        by_exponent: dict[float, set[int]] = {1.0: set(counts)}
        for bound in targets:
            by_exponent.setdefault(bound.exponent, set()).update(particles for particles, _ in bound.terms)
        self._bound_particles = {e: sorted(ks) for e, ks in by_exponent.items()}
        for exponent, ks in self._bound_particles.items():
            self.bounds[exponent] = source.bounds(ks, exponent)
        jobs = {(e.form, p): (e.form, p) for e in chosen if e.form for p in wanted}
        logs = {job: job for job in jobs if self._has_logs(*job)}
        reference = Form({1: 1.0}, {1: 1.0}, {1: -1.0})
        exponents = {bound.exponent for bound in targets} | {1.0}
        for exponent in exponents:
            form = Form(reference.model, reference.path, reference.score, exponent=exponent)
            jobs |= {(form, p): (form, p) for p in wanted}
        self.moments = source.gradients(jobs, self.particles) if chosen and wanted else {}
        self.logs: dict[Any, LogVariance] = source.log_variances(logs, self.particles) if logs else {}
        self.covariances = self._joint() if joint else None

    def _has_logs(self, form: Form, name: str) -> bool:
        return name not in self.source.model_parameters and bool(form.has_log_terms or form.constant)

    @staticmethod
    def _formless(estimator, counts, groups) -> list[Bound]:
        return [bound for k in counts for m in groups for bound in _targets(estimator, k, m) if bound]

    # bounds ----------------------------------------------------------------------------------------------------------

    def _value(self, bound: Bound) -> float:
        """Its value, averaged over the rows."""
        known, ks = self.bounds[bound.exponent], self._bound_particles[bound.exponent]
        total = 0.0
        for particles, weight in bound.terms:
            gap = known.gap.value[:, ks.index(particles)]
            rows = self.source.log_evidence + (known.log_mean - gap) / bound.exponent
            total += weight * float(np.mean(rows))
        return total

    def cell(self, k: int, m: int) -> Cell:
        """The cell (k, m)."""
        known, column = self.bounds[1.0], self._bound_particles[1.0].index(k)
        gap, ess = known.gap.value[:, column], known.ess.value[:, column]
        per_row = {"gap": gap, "ess": ess} if self.source.many_rows else None
        truths = {estimator.name: self._truth(estimator, k, m) for estimator in self.chosen}
        return Cell(
            k,
            m,
            float(np.mean(self.source.log_evidence - gap)),
            float(np.mean(gap)),
            float(np.mean(known.gap.error[:, column])),
            float(np.mean(ess)),
            float(np.mean(known.ess.error[:, column])),
            truths,
            per_row,
        )

    # gradients -------------------------------------------------------------------------------------------------------

    def _truth(self, estimator, k: int, m: int) -> GradientTruth:
        model, proposal = _targets(estimator, k, m)
        climbed = proposal or model
        parameters = {}
        for name in self.wanted:
            target = model if name in self.source.model_parameters else proposal
            parameters[name] = self._moments(estimator, name, target, k, m)
        value = None if climbed is None else self._value(climbed)
        if self.covariances is None or estimator.form is None:
            return GradientTruth(value, parameters)
        cov, snr = {}, {}
        for part, names in self._parts().items():
            found = self.covariances.get((estimator.form, part))
            if found is not None:
                total, repeats = pooling(estimator.form, part, k, m)
                cov[part] = found[self.particles.index(total)] / repeats
                mean = np.concatenate([np.ravel(parameters[name].mean) for name in names])
                snr[part] = float(directional_snr(mean[None], cov[part][None])[0])
        return GradientTruth(value, parameters, cov, snr)

    def _parts(self) -> dict[str, list[str]]:
        model = [name for name in self.wanted if name in self.source.model_parameters]
        proposal = [name for name in self.wanted if name not in self.source.model_parameters]
        return {part: names for part, names in (("model", model), ("proposal", proposal)) if names}

    def _joint(self) -> dict[tuple[Form, str], np.ndarray]:
        """Covariances of every form that is polynomial in the part."""
        forms = {e.form for e in self.chosen if e.form is not None}
        return {
            (form, part): self.source.covariance(form, names, self.particles)
            for form in forms
            for part, names in self._parts().items()
            if part == "model" or not form.has_log_terms
        }

    def _moments(self, estimator, name: str, target: Bound | None, k: int, m: int) -> Moments:
        form = estimator.form
        zero = np.zeros(self.problem.parameters[name])
        if form is None:
            if target is None:
                return Moments(None, None, None, None, None, reason=_NO_FORM)
            limit, shift, error = self._target_mean(target, name)
            return Moments(
                limit + shift, None, None, error, None, zero, reason=_NO_VARIANCE.format(name=estimator.name)
            )
        found = self.moments[form, name]
        total, repeats = pooling(form, "model" if name in self.source.model_parameters else "proposal", k, m)
        index = self.particles.index(total)
        mean, mean_error = found.mean.value[index], found.mean.error[index]
        bias = zero if target is not None else self._bias(found, index, Bound.iwae(k), name)
        from_evidence = self._from_evidence(found, index, name)
        spread, reason = self._spread(estimator, name, index, found)
        if spread is None:
            return Moments(mean, None, None, mean_error, None, bias, reason=reason)
        var, var_error = spread.value / repeats, spread.error / repeats
        var = np.where(np.abs(var) <= var_error, np.maximum(var, 0.0), var)
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.abs(mean) / np.sqrt(var)
        rmse, rmse_evidence = np.sqrt(bias**2 + var), np.sqrt(from_evidence**2 + var)
        return Moments(mean, var, snr, mean_error, var_error, bias, rmse, rmse_evidence)

    def _spread(
        self, estimator, name: str, index: int, found: Averaged
    ) -> tuple[Estimate | None, str | None]:
        """The variance of one group's gradient and its error, or why there is none."""
        if (estimator.form, name) not in self.logs:
            return Estimate(found.var.value[index], found.var.error[index]), None
        logs = self.logs[estimator.form, name]
        if logs.var is None:
            return None, f"{_NO_VARIANCE.format(name=estimator.name)}: {logs.reason}"
        value, error = logs.var.value[index], logs.var.error[index]
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = float(np.max(np.where(error > 0.0, error / np.abs(value), 0.0), initial=0.0))
        if relative > _ACCURACY:
            k = self.particles[index]
            return None, _INEXACT.format(name=estimator.name, k=k, error=relative)
        return Estimate(value, error), None

    def _reference(self, exponent: float, name: str) -> Averaged:
        form = Form({1: 1.0}, {1: 1.0}, {1: -1.0}, exponent=exponent)
        found = self.moments[(form, name)]
        assert found is not None
        return found

    def _target_mean(self, bound: Bound, name: str):
        reference = self._reference(bound.exponent, name)
        limit = sum(weight for _, weight in bound.terms) * reference.limit
        indices = [(self.particles.index(particles), weight) for particles, weight in bound.terms]
        shift = sum(weight * reference.shift.value[i] for i, weight in indices)
        return limit, shift, np.asarray(sum(abs(weight) * reference.mean.error[i] for i, weight in indices))

    def _bias(self, found: Averaged, index: int, bound: Bound, name: str) -> np.ndarray:
        limit, shift, _ = self._target_mean(bound, name)
        return (found.limit - limit) + (found.shift.value[index] - shift)

    def _from_evidence(self, found: Averaged, index: int, name: str) -> np.ndarray:
        return (found.limit - self._reference(1.0, name).limit) + found.shift.value[index]


def _source(problem: Any) -> Source:
    """How a problem's questions are answered."""
    if isinstance(problem, DiscreteProblem):
        return EnumeratedSource(problem)
    if isinstance(problem, QuadratureProblem):
        return QuadratureSource(problem)
    return GaussianSource(problem)


def _targets(estimator, k: int, m: int) -> tuple[Bound | None, Bound | None]:
    target = estimator.target
    model = target.model(k, m) if target and target.model else None
    proposal = target.proposal(k, m) if target and target.proposal else None
    return model, proposal


def pooling(form: Form, part: str, k: int, m: int) -> tuple[int, int]:
    """Particles that a weight is normalised over, and independent repeats that are averaged.

    Args:
        form: the estimator.
        part: "model" or "proposal".
        k: K.
        m: M.
    """
    pooled = part in form.pooled or (part == "proposal" and "path" in form.pooled)
    return (k * m, 1) if pooled else (k, m)
