"""What `estimate` returns: frozen records, each number with its standard error and its truth, if known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyiwae import records, stats


@dataclass(frozen=True, eq=False)
class Estimated:
    """One estimated number.

    Attributes:
        estimate: its value; None where it does not exist.
        se: standard error.
        truth: the exact value, None where it is not known.
        z: (estimate − truth)/se.
        reason: why something is None.
    """

    estimate: float | None
    se: float | None
    truth: float | None = None
    z: float | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class GradientEstimate:
    """Moments of one replicate of one parameter's gradient, in arrays of the parameter's shape.

    Attributes:
        mean, mean_se: mean of a replicate and its standard error.
        var, var_se: variance of a replicate and its standard error.
        truth_mean, truth_var: the exact ones; None where they are not known.
        z: (mean − truth_mean)/mean_se.
        z_var: (var − truth_var)/var_se. Only roughly normal where replicates have heavy tails: where a few
            large ones are still to come, var and var_se are both too small.
        snr, snr_se: |mean|/std.
        rmse, rmse_se: root-mean-square distance of a replicate from the exact gradient of the estimator's
            target, or of L_K where it has no target.
        reason: why something is None or undefined.
    """

    mean: np.ndarray
    mean_se: np.ndarray
    var: np.ndarray
    var_se: np.ndarray
    truth_mean: np.ndarray | None
    truth_var: np.ndarray | None
    z: np.ndarray | None
    z_var: np.ndarray | None
    snr: np.ndarray
    snr_se: np.ndarray
    rmse: np.ndarray | None
    rmse_se: np.ndarray | None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class DirectionalSNR:
    """`√(E‖Δ∥‖² / E‖Δ⊥‖²)` over all parameters of one part, Δ∥ and Δ⊥ along and across the mean's direction.

    This is what `exact` gives. Rainforth et al. (2018) plot the mean of the ratio instead; for many coordinates
    the two agree.

    Attributes:
        estimate, se: the ratio and its standard error; None where nothing varies across the mean.
        mean_ratio, mean_ratio_se: `E[‖Δ∥‖/‖Δ⊥‖]` and its standard error; None where they do not exist.
        direction: "exact" if the mean's direction is exact, "pilot" if from independent replicates.
        reason: why something is None.

    References:
        rainforth2018tighter
    """

    estimate: float | None
    se: float | None
    mean_ratio: float | None
    mean_ratio_se: float | None
    direction: str | None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class EstimateCell:
    """The estimates at one (K, M).

    Attributes:
        K, M, replicates: particles, groups, and number of replicates.
        bound: L_K, averaged over the rows.
        ess: E[(Σw)²/Σw²], averaged over the rows.
        gradients: estimator -> parameter -> moments.
        directional_snr: estimator -> "model" or "proposal" -> ratio, over the parameters asked for.
    """

    K: int
    M: int
    replicates: int
    bound: Estimated
    ess: Estimated
    gradients: dict[str, dict[str, GradientEstimate]]
    directional_snr: dict[str, dict[str, DirectionalSNR]]


@dataclass(frozen=True)
class Agreement:
    """All z-scores of a result as one family of tests.

    Attributes:
        tests: how many (bounds, effective sample sizes, coordinates of gradient means).
        rate: family-wise probability of any false alarm.
        threshold: the |z| that calls for an alarm.
        largest_z: the largest |z| found; None without tests.
        passed: whether it stays below the threshold.
        smallest_shift: the bias that would have been found with probability `power`, in standard deviations
            of one replicate.
        power: that probability.
    """

    tests: int
    rate: float
    threshold: float | None
    largest_z: float | None
    passed: bool
    smallest_shift: float | None
    power: float


@dataclass(frozen=True, eq=False)
class EstimateResult:
    """What `estimate` returns: a cell for each K and M, K outermost."""

    results: tuple[EstimateCell, ...]
    provenance: dict[str, Any]

    def cell(self, K: int, M: int = 1) -> EstimateCell:
        """The cell of one (K, M).

        Raises:
            KeyError: if it was not asked for.
        """
        return records.cell_at(self.results, K, M)

    def agreement(self, rate: float = 1e-6, power: float = 0.999) -> Agreement:
        """Tests all estimates that have a truth against it, at a family-wise rate (Bonferroni).

        Estimators of one cell see the same noise, and so do parameters: the tests are dependent, which
        Bonferroni's threshold allows for.

        Raises:
            InputError: for a rate or power outside (0, 1).
        """
        found = np.array([score for cell in self.results for score in _scores(cell)])
        if not len(found):
            return Agreement(0, rate, None, None, True, None, power)
        count = min(cell.replicates for cell in self.results)
        threshold = stats.family_threshold(len(found), rate, dof=count - 1)
        largest = float(np.abs(found).max())
        shift = stats.smallest_detectable_shift(count, tests=len(found), rate=rate, power=power)
        return Agreement(len(found), rate, threshold, largest, largest <= threshold, shift, power)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: null, with a reason beside it, where a number does not exist."""
        agreement = self.agreement()
        if agreement.largest_z is not None and not np.isfinite(agreement.largest_z):
            agreement = replace(agreement, largest_z=None)
        return records.plain({"results": self.results, "agreement": agreement, "provenance": self.provenance})

    def to_dataframe(self) -> Any:
        """One row per (K, M, estimator, parameter, coordinate), with the cell's bound and ESS in every row.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return records.to_dataframe(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        columns = [name for name in GradientEstimate.__dataclass_fields__ if name != "reason"]
        for cell in self.results:
            shared: dict[str, Any] = {"K": cell.K, "M": cell.M, "replicates": cell.replicates}
            for name in ("bound", "ess"):
                value = getattr(cell, name)
                shared |= {name: value.estimate, f"{name}_se": value.se, f"{name}_truth": value.truth}
            if not any(cell.gradients.values()):
                yield shared
            for name, parameters in cell.gradients.items():
                for parameter, moments in parameters.items():
                    arrays = {column: getattr(moments, column) for column in columns}
                    yield from records.coordinates(arrays, **shared, estimator=name, parameter=parameter)


def _scores(cell: EstimateCell) -> Iterator[float]:
    """The z-scores of a cell, without those of what is the same in all replicates and right."""
    pairs: list[tuple[Any, Any]] = [(value.z, value.se) for value in (cell.bound, cell.ess)]
    for parameters in cell.gradients.values():
        pairs += [(moments.z, moments.mean_se) for moments in parameters.values()]
    for z, se in pairs:
        if z is not None:
            yield from np.ravel(z)[(np.ravel(z) != 0.0) | (np.ravel(se) > 0.0)]
