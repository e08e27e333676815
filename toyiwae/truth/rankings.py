"""What `compare` returns: frozen records of exact numbers of each estimator at each split, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from toyiwae import plot, records


@dataclass(frozen=True, eq=False)
class Entry:
    """One estimator at one split of the budget, for the parameters of one part.

    Attributes:
        estimator, K, M: what it is of; M groups of K particles.
        rank: 1 is best; what is not told apart has the same; None where the number that decides is not known.
        rmse_evidence, rmse, relative_rmse, snr: see `compare`.
        bias, std: ‖bias‖ to the gradient of the target, and √(tr Cov Δ).
        rmse_evidence_error, ...: bounds on absolute errors.
        reason: why something is None, or not finite.
    """

    estimator: str
    K: int
    M: int
    rank: int | None = None
    rmse_evidence: float | None = None
    rmse: float | None = None
    relative_rmse: float | None = None
    snr: float | None = None
    bias: float | None = None
    std: float | None = None
    rmse_evidence_error: float | None = None
    rmse_error: float | None = None
    relative_rmse_error: float | None = None
    snr_error: float | None = None
    bias_error: float | None = None
    std_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Ranking:
    """All entries of one part, the best first, what is not known last.

    Attributes:
        parameters: whose gradients.
        by: the number that decides, of `Entry`.
        entries: in order.
    """

    parameters: tuple[str, ...]
    by: str
    entries: tuple[Entry, ...]

    @property
    def best(self) -> Entry | None:
        """The first entry; None where nothing is known."""
        return self.entries[0] if self.entries[0].rank is not None else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns.

    Attributes:
        budget: T = M·K, the particles of each estimate.
        parts: "model" and "proposal", those whose parameters were asked for -> ranking.
        provenance: what was asked for, and by which version it was answered.
    """

    budget: int
    parts: dict[str, Ranking]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: null, with a reason beside it, where a number does not exist."""
        return records.plain(self)

    def to_dataframe(self):
        """One row per part and entry, in the order of the ranking.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return records.to_dataframe(self._rows())

    def plot(self):
        """A matplotlib figure: errors and SNRs against K; see `toyiwae.plot.comparison_figure`.

        Raises:
            InputError: a budget with a single split.
            MissingExtraError: if matplotlib is not installed.
        """
        return plot.comparison_figure(self)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for part, ranking in self.parts.items():
            for entry in ranking.entries:
                yield {"part": part, **{field.name: getattr(entry, field.name) for field in fields(entry)}}
