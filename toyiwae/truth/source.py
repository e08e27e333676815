"""What `exact` asks of a problem: one interface over linear-Gaussian problems and those given by tables of states.

A Source answers for all rows of a problem, averaged over the data:

* `log_evidence` [N] and `log_evidence_error` [N], `posterior` {"mean", "cov"}
* `log_mean_error(exponent)`           -> bound on the error of `Bounds.log_mean` [N]
* `missing_mean(exponent)`             -> why E[w^exponent] does not exist, or None
* `bounds(particles, exponent)`        -> Bounds
* `gradients(jobs, particles)`         -> {key: Averaged}, of one group's gradient; means include log terms
* `log_variances(jobs, particles)`     -> {key: LogVariance}, of gradients with log terms
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from toyiwae.errors import InputError
from toyiwae.forms import Form
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.truth.averages import Averaged, Bounds

Jobs = Mapping[Any, tuple[Form, str]]


@dataclass(frozen=True)
class LogVariance:
    """Variance of one group's gradient with log terms, `[nK, *shape]`; or what it is instead: "not derived: …"."""

    var: Bounded | None
    reason: str | None = None


@runtime_checkable
class Source(Protocol):
    """A problem whose truths can be computed; see the module's text."""

    @property
    def problem(self) -> Any:
        """The problem itself."""
        ...

    @property
    def log_evidence(self) -> np.ndarray:
        """Log p(x) of each row: [N]."""
        ...

    @property
    def log_evidence_error(self) -> np.ndarray:
        """Bounds on the errors of `log_evidence`: [N]."""
        ...

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Mean and covariance of the latents given the data."""
        ...

    @property
    def many_rows(self) -> bool:
        """Whether the data were given as rows."""
        ...

    def check(self, estimators: Sequence[Any], parameters: Sequence[str]) -> None:
        """Refuse estimators that cannot be answered for, by an InputError."""
        ...

    def log_mean_error(self, exponent: float) -> np.ndarray:
        """Bounds on the errors of log E[w^exponent], in units of the evidence: [N]."""
        ...

    def missing_mean(self, exponent: float) -> str | None:
        """Why E[w^exponent] does not exist, or None where it does."""
        ...

    def bounds(self, particles: Sequence[int], exponent: float) -> Bounds:
        """Bounds of w^exponent."""
        ...

    def gradients(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, Averaged]:
        """Means with all terms, and variances without log terms."""
        ...

    def log_variances(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, LogVariance]:
        """Variances of gradients of the proposal with log terms."""
        ...

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Covariance between all coordinates."""
        ...


def no_covariance() -> InputError:
    """The refusal of what only linear-Gaussian problems have."""
    return InputError("covariance between coordinates: it is computed for linear-Gaussian problems only")
