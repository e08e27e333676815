"""A user's own estimator: what goes wrong in it is one line, and its Form is that of its function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyiwae.errors import InputError
from toyiwae.estimators import evaluate, usercode
from toyiwae.estimators.claims import BoundOf, Target, refuse_other_than_bound
from toyiwae.estimators.record import Estimator
from toyiwae.estimators.subsets import subset_gradient
from toyiwae.forms import PARTS, Coefficients

SEED = 20_260_102
CELLS = ((1, 0), (3, 1), (2, 4))
"""Pairs (M, particles above the smallest K) at which a Form and its function are compared."""

TOLERANCE = {np.float64: 1e-9, np.float32: 1e-4}
"""Largest difference, relative to the largest coefficient, by the precision of the function's answer."""


@dataclass(frozen=True)
class _Guarded:
    """A user's function; what it raises becomes an InputError that names the estimator."""

    func: Callable[..., Any]
    who: str

    def __call__(self, *arguments: Any) -> Any:
        """The function's answer."""
        try:
            return usercode.run(lambda: self.func(*arguments))
        except usercode.UserCodeError as error:
            raise InputError(f"{self.who} raised {error}") from error.__cause__


@dataclass(frozen=True)
class _GuardedBound(_Guarded):
    """A user's bound as a function of K and M."""

    def __call__(self, *arguments: Any) -> Any:
        """The bound."""
        answer = super().__call__(*arguments)
        refuse_other_than_bound(self.who, answer, *arguments)
        return answer


def guarded(found: Estimator) -> Estimator:
    """The same estimator, whose functions answer or raise an InputError in one line.

    What they raise and what they return is the user's own in Python, but bad input where a file is named, as on the
    command line.
    """
    who = f"estimator {found.name!r}"

    def bound(name: str, function: BoundOf | None) -> Any:
        return None if function is None else _GuardedBound(function, f"{who}: {name}")

    target = Target(
        bound("target.model", found.target.model), bound("target.proposal", found.target.proposal)
    )
    return replace(
        found,
        function=_Guarded(found.function, who),
        target=target,
        value=bound("value", found.value),
        _at=lambda spelled, parameter: guarded(found._at(spelled, parameter)),
    )


def compare(estimator: Estimator) -> None:
    """Compares an estimator's function with its Form, or the average that it claims, at a few random log-weights.

    Raises:
        InputError: with the first coefficient that differs; where the function changes the log-weights that it is
            given; and as a call does.
    """
    if estimator.form is None and estimator.subsets is None and not isinstance(estimator.function, _Guarded):
        return
    for groups, more in CELLS:
        particles = estimator.min_particles + more
        log_w = np.random.default_rng([SEED, groups, particles]).normal(-2.0, 1.5, (2, groups, particles))
        made = _call(estimator, log_w)
        if estimator.form is not None:
            _refuse_difference(estimator.name, made, evaluate.coefficients(estimator.form, log_w), "Form")
        if estimator.subsets is not None:
            average = subset_gradient(log_w, estimator.subsets) / groups
            expected = Coefficients(average, average, -average)
            _refuse_difference(estimator.name, made, expected, "average over subsets")


def _call(estimator: Estimator, log_w: np.ndarray) -> Coefficients:
    """The estimator at NumPy's log-weights; at those of torch, if it needs them and its author has imported torch."""
    given = log_w.copy()
    try:
        made = estimator(given)
    except Exception:
        torch: Any = sys.modules.get("torch")
        if torch is None:
            raise
        given = torch.from_numpy(log_w.copy())
        made = estimator(given)
    if not np.array_equal(np.asarray(given), log_w):
        raise InputError(
            f"estimator {estimator.name!r} changes the log-weights that it is given: copy them first"
        )
    return made


def _refuse_difference(name: str, made: Coefficients, expected: Coefficients, what: str) -> None:
    largest = max(float(np.abs(getattr(expected, part)).max()) for part in PARTS)
    for part in PARTS:
        one, other = np.asarray(getattr(made, part)), getattr(expected, part)
        tolerance = TOLERANCE.get(one.dtype.type, 1e-4) * max(largest, 1e-300)
        different = ~(np.abs(one - other) <= tolerance)
        if different.any():
            _, m, k = where = tuple(int(i) for i in np.argwhere(different)[0])
            raise InputError(
                f"estimator {name!r}: the {what} is not that of the function: {part} is {one[where]:.6g} by the"
                f" function and {other[where]:.6g} by the {what}, for particle {k + 1} of {one.shape[2]} in group"
                f" {m + 1} of {one.shape[1]} at random log-weights"
            )
