"""What `exact` returns: frozen records of exact numbers, each with a bound on its error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae import plot, records

Numbers = np.ndarray | None

_OPTIONAL = ("decimals", "best_constant", "best_constant_error")


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact mean and variance of one replicate of one parameter's gradient; arrays of the parameter's shape.

    Attributes:
        mean, var: of one replicate (M groups of K particles, averaged over the rows). None where no closed form
            exists, NaN in a coordinate whose error is above what `reason` says.
        snr: |mean| / √var; NaN where both are zero.
        mean_error, var_error: bounds on the absolute errors of `mean` and `var`; those of the others likewise.
        bias: mean less the gradient of the estimator's target (of L_K where it has none).
        rmse: √(bias² + var).
        rmse_evidence: the same against ∇ log p(x), which is 0 for the proposal's parameters.
        best_constant: with logarithms in the coefficients of the score, what makes a coordinate vary least
            when it is added to all of them (the mean stays); None elsewhere, NaN for a coordinate that is always 0.
        reason: why something is None or NaN.
        decimals: where digits were asked for, {"mean", "var", "snr", "bias", "rmse", "rmse_evidence"} as arrays of text
            with as many digits; None where mean and variance are 0.
    """

    mean: Numbers
    var: Numbers
    snr: Numbers
    mean_error: Numbers
    var_error: Numbers
    bias: Numbers = None
    rmse: Numbers = None
    rmse_evidence: Numbers = None
    snr_error: Numbers = None
    bias_error: Numbers = None
    rmse_error: Numbers = None
    rmse_evidence_error: Numbers = None
    best_constant: Numbers = None
    best_constant_error: Numbers = None
    reason: str | None = None
    decimals: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class GradientTruth:
    """One estimator at one (K, M).

    Attributes:
        target_bound: value of the bound that its proposal gradient climbs (its model's, if that has none), averaged
            over the rows.
        target_bound_error: bound on its absolute error.
        parameters: moments by parameter.
        cov: on request, {"model", "proposal"} -> covariance of one replicate between all coordinates asked for
            [F, F], parameters one after the other, each flattened by rows; None where it is not derived.
        directional_snr: on request, for the same two, √(E‖Δ∥‖² / E‖Δ⊥‖²) along and across the mean.
        cov_error, directional_snr_error: bounds on absolute errors.
        reason: why one of these is None or NaN.
        decimals: where digits were asked for, {"target_bound"} as text, and {"cov"}, of either part, as arrays of text.
    """

    target_bound: float | None
    target_bound_error: float | None
    parameters: dict[str, Moments]
    cov: dict[str, Numbers] | None = None
    cov_error: dict[str, Numbers] | None = None
    directional_snr: dict[str, float | None] | None = None
    directional_snr_error: dict[str, float | None] | None = None
    reason: str | None = None
    decimals: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the bound, the parameters, and what covers all coordinates together, if it was asked for."""
        entry: dict[str, Any] = {name: getattr(self, name) for name in ("target_bound", "target_bound_error")}
        entry |= {name: _without_nones(moments, *_OPTIONAL) for name, moments in self.parameters.items()}
        if self.cov is not None:
            entry |= {name: getattr(self, name) for name in ("cov", "cov_error")}
            entry |= {name: getattr(self, name) for name in ("directional_snr", "directional_snr_error")}
        rest = {"reason": self.reason, "decimals": self.decimals}
        rest |= enclosures(self.decimals)
        return entry | {name: value for name, value in rest.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Cell:
    """The truth at one (K, M): `bound` and `gap` are those of L_K, averaged over rows; ESS is E[(Σw)²/Σw²].

    Attributes:
        K, M: particles and groups.
        bound, gap, ess: None where the error is above what `reason` says.
        bound_error, gap_error, ess_error: bounds on absolute errors.
        gradients: by estimator.
        per_row: with many rows, gap and ESS of each, and their errors.
        reason: why something is None.
        decimals: where digits were asked for, {"bound", "gap", "ess"} as text.
    """

    K: int
    M: int
    bound: float | None
    bound_error: float | None
    gap: float | None
    gap_error: float | None
    ess: float | None
    ess_error: float | None
    gradients: dict[str, GradientTruth]
    per_row: dict[str, np.ndarray] | None = None
    reason: str | None = None
    decimals: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what was not asked for."""
        entry = _without_nones(self, "per_row", "decimals")
        return entry | {"gradients": {name: truth.to_dict() for name, truth in self.gradients.items()}}


@dataclass(frozen=True, eq=False)
class ExactResult:
    """What `exact` returns: log p(x) (averaged over rows), the posterior, and a cell for each K and M, K outermost.

    Attributes:
        log_evidence, log_evidence_error: log p(x) in nats, and a bound on its absolute error.
        posterior: of the latents: "mean" [D], or one for each of many observations [N, D]; "cov" [D, D] (with binary
            latents one for each, too); "mean_error" and "cov_error", bounds on their absolute errors.
        results: the cells.
        provenance: what was asked for, and by which version it was answered.
        decimals: where digits were asked for, {"log_evidence"} as text.
    """

    log_evidence: float
    log_evidence_error: float
    posterior: dict[str, np.ndarray]
    results: tuple[Cell, ...]
    provenance: dict[str, Any]
    decimals: dict[str, Any] | None = None

    def cell(self, K: int, M: int = 1) -> Cell:
        """The cell of one (K, M).

        Raises:
            KeyError: if it was not asked for.
        """
        return records.cell_at(self.results, K, M)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: null, with a reason beside it, where a number does not exist."""
        entry = _without_nones(self, "decimals")
        return records.plain(entry | {"results": [cell.to_dict() for cell in self.results]})

    def to_dataframe(self):
        """One row per (K, M, estimator, parameter, coordinate), with mean, var, snr, bias, rmse and errors.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return records.to_dataframe(self._rows())

    def plot(self):
        """A matplotlib figure: gap, effective sample size and SNRs against K; see `toyiwae.plot.figure`.

        Raises:
            InputError: a single K and no ratio that is known.
            MissingExtraError: if matplotlib is not installed.
        """
        return plot.figure(self)

    def _rows(self) -> Iterator[dict[str, Any]]:
        values = ("mean", "var", "snr", "bias", "rmse", "rmse_evidence")
        names = [column for value in values for column in (value, f"{value}_error")]
        for cell in self.results:
            shared = {name: getattr(cell, name) for name in ("K", "M", "bound", "gap", "ess")}
            if not cell.gradients:
                yield shared
            for name, truth in cell.gradients.items():
                for parameter, moments in truth.parameters.items():
                    columns = {column: getattr(moments, column) for column in names}
                    yield from records.coordinates(columns, **shared, estimator=name, parameter=parameter)


def _without_nones(record: Any, *optional: str) -> dict[str, Any]:
    """The fields of a record, without those of some that are None; with the enclosures of its decimals."""
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    found = {name: value for name, value in fields.items() if value is not None or name not in optional}
    return found | enclosures(record.decimals)


def enclosures(decimals: dict[str, Any] | None) -> dict[str, Any]:
    """{"enclosures": {"proven": True, name: {"lower", "upper"}}} of numbers with proven digits; {} without any."""
    if decimals is None:
        return {}
    ends = {
        name: {"lower": _end(text, "low"), "upper": _end(text, "high")} for name, text in decimals.items()
    }
    return {"enclosures": {"proven": True, **ends}}


def _end(text: Any, side: str) -> Any:
    if isinstance(text, dict):
        return {name: _end(one, side) for name, one in text.items()}
    if isinstance(text, np.ndarray):
        return [_end(one, side) for one in text]
    return None if text is None else getattr(text, side)
