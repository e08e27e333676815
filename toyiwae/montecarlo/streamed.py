"""One row of data whose noise is too large to hold: coefficients from a first pass over its log-weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from toyiwae.errors import InputError
from toyiwae.estimators.evaluate import Summary, coefficients
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import Array, LogSum

HELD = 2**24
"""Most particles M·K of which all log-weights are held, for an estimator without a Form (128 MiB)."""

Where = tuple[slice, slice]
"""The groups and the particles that a block holds: all groups' particles, or some particles of one group."""


class Asked(NamedTuple):
    """An estimator as two passes take it: its name, its Form if any, and log-weights `[..., M, K]` -> Coefficients."""

    name: str
    form: Form | None
    call: Callable[[Array], Coefficients]


class Streamed:
    """The first pass observes blocks of log-weights, the second gets their coefficients.

    Estimators with a Form need a summary per group, whatever K; the others need all log-weights of the row.

    Args:
        estimators: whose coefficients.
        groups: M.
        particles: K.
    """

    def __init__(self, estimators: Sequence[Asked], groups: int, particles: int):
        """Starts with nothing observed."""
        refuse_formless(estimators, groups, particles)
        self._estimators, self._groups, self._particles = tuple(estimators), groups, particles
        self._exponents = (2.0, *(e.form.exponent for e in self._estimators if e.form is not None))
        self._summaries: dict[int, Summary] = {}
        self._pooled: dict[float, LogSum] = {}
        self._log_w: Array = None
        self._whole: dict[str, Coefficients] = {}

    def observe(self, where: Where, log_w: Array) -> None:
        """Takes in log-weights `[1, 1, m, k]` of a block; blocks come in order."""
        first, summary = where[0].start, Summary.of(log_w, self._exponents)
        known = self._summaries.get(first)
        self._summaries[first] = summary if known is None else known.merge(summary)
        if any(estimator.form is None for estimator in self._estimators):
            if self._log_w is None:
                shape = (1, 1, self._groups, self._particles)
                xp = array_namespace(log_w)
                self._log_w = xp.empty(shape, dtype=log_w.dtype, device=device(log_w))
            self._log_w[:, :, *where] = log_w

    def coefficients(self, where: Where, log_w: Array) -> list[Coefficients]:
        """Each estimator's coefficients `[1, 1, m, k]` of a block, after all blocks were observed."""
        return [self._of(estimator, where, log_w) for estimator in self._estimators]

    @property
    def log_evidence(self) -> Array:
        """`log Ẑ` of each group `[1, 1, M]`."""
        return _joined([summary.log_evidence for summary in self._ordered()])

    @property
    def ess(self) -> Array:
        """Effective sample size of each group `[1, 1, M]`."""
        return _joined([summary.ess for summary in self._ordered()])

    def _of(self, estimator: Asked, where: Where, log_w: Array) -> Coefficients:
        if estimator.form is None:
            if estimator.name not in self._whole:
                self._whole[estimator.name] = estimator.call(self._log_w)
            whole = self._whole[estimator.name]
            index = (slice(None), slice(None), *where)
            return Coefficients(whole.model[index], whole.path[index], whole.score[index])
        pooled = self._pool(estimator.form) if estimator.form.pooled else None
        summary = self._summaries[where[0].start]
        return coefficients(estimator.form, log_w, summary, pooled=pooled, groups=self._groups)

    def _pool(self, form: Form) -> LogSum:
        """The sum over all groups."""
        if form.exponent not in self._pooled:
            parts = [summary.sums[form.exponent].pool() for summary in self._ordered()]
            total = parts[0]
            for part in parts[1:]:
                total = total.merge(part)
            self._pooled[form.exponent] = total
        return self._pooled[form.exponent]

    def _ordered(self) -> Iterator[Summary]:
        return (self._summaries[first] for first in sorted(self._summaries))


def refuse_unheld(estimators: Iterable[Any], groups: int, particles: int) -> None:
    """Refuses what two passes cannot hold: too many particles without a Form, or too many groups.

    Raises:
        InputError: naming the estimator, or M.
    """
    refuse_formless(estimators, groups, particles)
    if groups > HELD:
        raise InputError(f"M is {groups}: at most {HELD} groups of a row can be held at once, lower M")


def refuse_formless(estimators: Iterable[Any], groups: int, particles: int) -> None:
    """Refuses more particles than may be held for an estimator without a Form.

    Raises:
        InputError: naming the estimator.
    """
    for estimator in estimators:
        if estimator.form is None and groups * particles > HELD:
            raise InputError(
                f"{estimator.name} has no Form, so all M·K log-weights of a row are held at once:"
                f" {groups}·{particles} is more than {HELD}; declare a Form, or lower K or M"
            )


def _joined(parts: Sequence[Array]) -> Array:
    """Arrays of one group after the other."""
    return array_namespace(parts[0]).concat(parts, axis=-1)
