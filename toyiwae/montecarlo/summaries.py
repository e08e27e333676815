"""From chunks of replicates to a cell of estimates: streaming moments, truths beside them, reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from toyiwae import stats
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.results import DirectionalSNR, EstimateCell, Estimated, GradientEstimate
from toyiwae.montecarlo.whitened import OF_MODEL
from toyiwae.truth import Cell, Moments

PARTS = ("model", "proposal")

Directions = dict[tuple[str, str], tuple[np.ndarray, str]]
"""(estimator, part) -> unit vector of the mean over the part's parameters in a row, "exact" or "pilot"."""


def part_of(parameter: str) -> str:
    """Whether a parameter is the model's or the proposal's."""
    return PARTS[0] if parameter in OF_MODEL else PARTS[1]


class CellSummary:
    """Takes in the chunks of one cell and keeps moments.

    Args:
        truth: the exact cell, or why there is none.
        directions: of the means, for the directional SNR.
    """

    def __init__(self, truth: Cell | str, directions: Directions):
        """Starts empty."""
        self._truth = truth
        self._values, self._ess = stats.Stream(), stats.Stream()
        self._gradients: dict[tuple[str, str], stats.Stream] = {}
        self._ratios = {key: _Ratio(*direction) for key, direction in directions.items()}

    def add(self, chunk: Chunk) -> None:
        """Takes in some replicates."""
        self._values.add(chunk.values)
        self._ess.add(chunk.ess)
        for estimator, parameters in chunk.gradients.items():
            for name, array in parameters.items():
                self._gradients.setdefault((estimator, name), stats.Stream()).add(array)
            for part in PARTS:
                if (estimator, part) in self._ratios:
                    self._ratios[estimator, part].add(flatten(parameters, part))

    def cell(self, particles: int, groups: int, estimators: Sequence[str]) -> EstimateCell:
        """The estimates."""
        truth = None if isinstance(self._truth, str) else self._truth
        reason = self._truth if isinstance(self._truth, str) else None
        bound = _number(
            self._values, *(() if truth is None else (truth.bound, truth.bound_error)), reason=reason
        )
        ess = _number(self._ess, *(() if truth is None else (truth.ess, truth.ess_error)), reason=reason)
        gradients: dict[str, dict[str, GradientEstimate]] = {name: {} for name in estimators}
        for (name, parameter), stream in self._gradients.items():
            exact = reason if truth is None else truth.gradients[name].parameters[parameter]
            gradients[name][parameter] = _gradient(stream.moments, exact)
        ratios = {
            name: {part: ratio.result() for (owner, part), ratio in self._ratios.items() if owner == name}
            for name in estimators
        }
        return EstimateCell(particles, groups, self._values.moments.count, bound, ess, gradients, ratios)


def exact_directions(truth: Cell | str, parameters: Sequence[str]) -> Directions:
    """The directions of those means that are known in every coordinate; a zero vector where the mean is zero."""
    found: Directions = {}
    if isinstance(truth, str):
        return found
    for name, gradient in truth.gradients.items():
        for part in {part_of(parameter) for parameter in parameters}:
            means = {p: gradient.parameters[p].mean for p in parameters if part_of(p) == part}
            known = {
                p: mean[None] for p, mean in means.items() if mean is not None and np.isfinite(mean).all()
            }
            if len(known) == len(means):
                found[name, part] = (_unit(flatten(known, part)[0]), "exact")
    return found


def pilot_directions(chunks: Iterable[Chunk], parameters: Sequence[str]) -> Directions:
    """The directions of the means of replicates independent of those that are projected on them."""
    streams: dict[tuple[str, str], stats.Stream] = {}
    for chunk in chunks:
        for name, gradients in chunk.gradients.items():
            for part in {part_of(parameter) for parameter in parameters}:
                streams.setdefault((name, part), stats.Stream()).add(flatten(gradients, part))
    return {key: (_unit(np.asarray(s.moments.mean)), "pilot") for key, s in streams.items()}


def flatten(gradients: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    """All of one part's gradients in a row: `[R, coordinates]`."""
    chosen = [array.reshape(len(array), -1) for name, array in gradients.items() if part_of(name) == part]
    return np.concatenate(chosen, axis=1)


class _Ratio:
    """Streams what is along a direction and what is across it.

    The ratio of the mean squares exists wherever Δ⊥ varies; the mean of the ratio if Δ⊥ varies in at least two
    dimensions, its variance if in at least three.
    """

    PROBED = 8

    def __init__(self, direction: np.ndarray, origin: str):
        self._direction, self._origin = direction, origin
        self._ratios, self._squares = stats.Stream(), stats.Stream()
        self._probe, self._unit = np.zeros((0, len(direction))), None

    def add(self, gradients: np.ndarray) -> None:
        along = gradients @ self._direction
        across = gradients - along[:, None] * self._direction
        self._probe = np.concatenate([self._probe, across[: self.PROBED - len(self._probe)]])
        length = np.linalg.norm(across, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._ratios.add(np.nan_to_num(np.abs(along) / length, posinf=np.inf))
        squares = np.stack([along**2, length**2], axis=1)
        if self._unit is None:  # both of order 1, so that the covariance below keeps its digits
            self._unit = np.maximum(squares.mean(axis=0), np.finfo(float).tiny)
        squares = squares / self._unit
        self._squares.add(np.column_stack([squares, squares.sum(axis=1)]))

    def result(self) -> DirectionalSNR:
        if not self._direction.any():
            return self._nothing("the mean is zero and has no direction")
        size = np.abs(self._probe).max(initial=0.0)
        free = int(np.linalg.matrix_rank(self._probe / size, tol=1e-9)) if size > 0 else 0
        if free == 0:
            return self._nothing("nothing varies across the mean's direction")
        value, se = self._of_squares()
        moments = self._ratios.moments
        if free == 1:
            reason = "mean_ratio is infinite: the gradient varies in one dimension across its mean"
            return DirectionalSNR(value, se, None, None, self._origin, reason)
        if free == 2:
            reason = "mean_ratio_se is infinite: the gradient varies in two dimensions across its mean"
            return DirectionalSNR(value, se, float(moments.mean), None, self._origin, reason)
        return DirectionalSNR(value, se, float(moments.mean), float(moments.mean_se), self._origin)

    def _nothing(self, reason: str) -> DirectionalSNR:
        return DirectionalSNR(None, None, None, None, self._origin, reason)

    def _of_squares(self) -> tuple[float, float]:
        """√(ā/b̄) of the squares a along and b across, and its standard error by the delta method."""
        assert self._unit is not None
        moments = self._squares.moments
        a, b, _ = np.asarray(moments.mean)
        var_a, var_b, var_sum = np.asarray(moments.var)
        spread = var_a / a**2 + var_b / b**2 - (var_sum - var_a - var_b) / (a * b)
        value = float(np.sqrt(a / b) * np.sqrt(self._unit[0] / self._unit[1]))
        return value, 0.5 * value * float(np.sqrt(max(spread, 0.0) / moments.count))


def _number(
    stream: stats.Stream, truth: float | None = None, error: float | None = 0.0, *, reason: str | None = None
) -> Estimated:
    moments = stream.moments
    mean, se = float(moments.mean), float(moments.mean_se)
    if truth is None or error is None:
        return Estimated(mean, se, reason=reason)
    return Estimated(mean, se, truth, float(stats.z_score(mean, truth, se, error + _round_off(mean))))


def _gradient(moments: stats.Moments, exact: Moments | str | None) -> GradientEstimate:
    """Moments beside what is known of them."""
    known = exact if isinstance(exact, Moments) else None
    reasons = [exact if isinstance(exact, str) else known.reason if known else None]
    if not (moments.var > 0).all():
        reasons.append("snr is 0/0 or infinite where the variance is 0")
    truth_mean, truth_var = (known.mean, known.var) if known else (None, None)
    z = z_var = rmse = rmse_se = None
    if known and truth_mean is not None:
        error = 0.0 if known.mean_error is None else known.mean_error
        z = np.asarray(stats.z_score(moments.mean, truth_mean, moments.mean_se, error))
        if known.bias is not None:
            rmse, rmse_se = (np.asarray(part) for part in moments.rmse(truth_mean - known.bias))
    if known and truth_var is not None:
        error = 0.0 if known.var_error is None else known.var_error
        z_var = np.asarray(stats.z_score(moments.var, truth_var, moments.var_se, error))
    own = (moments.mean, moments.mean_se, moments.var, moments.var_se)
    return GradientEstimate(
        *(np.asarray(part) for part in own),
        truth_mean=truth_mean,
        truth_var=truth_var,
        z=z,
        z_var=z_var,
        snr=np.asarray(moments.snr),
        snr_se=np.asarray(moments.snr_se),
        rmse=rmse,
        rmse_se=rmse_se,
        reason="; ".join(filter(None, reasons)) or None,
    )


def _round_off(value: float) -> float:
    """What float64 leaves of a sum of this size: the spread of values that are equal in theory."""
    return 16.0 * float(np.finfo(float).eps) * abs(value)


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else np.zeros_like(vector)
