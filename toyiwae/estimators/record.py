"""What is known of an estimator: its function and its claims, in one record."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from array_api_compat import array_namespace

from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.estimators.subsets import subset_average
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import Array, promoted, tempered

BoundOf = Callable[[int, int], Bound]
"""A bound as a function of K, the particles in a group, and M, the groups."""


@dataclass(frozen=True)
class Target:
    """What the gradients are unbiased for.

    Attributes:
        model: the bound whose gradient the generative part has as its mean; None if it is that of no bound.
        proposal: likewise for the proposal's part.
    """

    model: BoundOf | None
    proposal: BoundOf | None


def both(bound: BoundOf) -> Target:
    """The same bound for the generative and the proposal's gradient."""
    return Target(bound, bound)


def elbo_bound(particles: int, groups: int) -> Bound:
    """`L_1`."""
    return Bound.elbo()


def iwae_bound(particles: int, groups: int) -> Bound:
    """`L_K`."""
    return Bound.iwae(particles)


@dataclass(frozen=True, eq=False)
class Estimator:
    """A gradient estimator: a pure function of the log-weights, and what it claims.

    Calling it with log-weights `[..., M, K]` gives `Coefficients` of the same shape.

    Attributes:
        name: as asked for, e.g. `"ciwae:0.5"`.
        family: the name without the parameter.
        function: log-weights -> Coefficients, without the checks of a call.
        target: the bounds that its gradients are unbiased for.
        value: the bound that the reported value estimates.
        form: the coefficients as data, or None where they are no such polynomials.
        vanishes_at_posterior: the proposal's gradient is 0, sample by sample, where q is the posterior.
        shift_invariant: a constant added to all log-weights leaves the coefficients as they are.
        min_particles: the smallest K.
        cite: keys into the bibliography.
        summary: one line.
        parameter_name: what the number after the colon is called; None in a family without one.
        parameter: its value.
        between: its smallest and largest value.
    """

    name: str
    family: str
    function: Callable[..., Coefficients]
    target: Target
    value: BoundOf
    form: Form | None
    vanishes_at_posterior: bool
    shift_invariant: bool
    min_particles: int
    cite: tuple[str, ...]
    summary: str
    parameter_name: str | None
    parameter: float | None
    between: tuple[float, float]
    _at: Callable[[str, Any], Estimator] = field(repr=False)

    def __call__(self, log_w: Array) -> Coefficients:
        """Coefficients of log-weights `[..., M, K]`.

        Raises:
            InputError: not an array of real numbers with at least the axes M and K, or K below the minimum.
        """
        return self.function(self._checked(log_w))

    def value_of(self, log_w: Array) -> Array:
        """The estimator's own value `[...]` of log-weights `[..., M, K]`: unbiased for `value`.

        The mean over groups of `log Ẑ_m`, unless the estimator declares another bound.
        """
        log_w = self._checked(log_w)
        bound = self.value(log_w.shape[-1], log_w.shape[-2])
        scaled = tempered(log_w, bound.exponent)
        terms = [float(weight) * subset_average(scaled, size) for size, weight in bound.terms]
        return array_namespace(log_w).mean(sum(terms[1:], terms[0]), axis=-1) / bound.exponent

    def check_particles(self, particles: int) -> None:
        """Refuse too few particles.

        Raises:
            InputError: K is below `min_particles`.
        """
        if particles < self.min_particles:
            raise InputError(f"K is {particles}: {self.name} needs K of at least {self.min_particles}")

    def at(self, parameter: float) -> Estimator:
        """The same family at another value of its parameter.

        Raises:
            InputError: a family without a parameter, or a value out of range.
        """
        return self._at(f"{self.family}:{parameter}", parameter)

    def _checked(self, log_w: Array) -> Array:
        log_w = promoted(log_w)
        if log_w.ndim < 2 or 0 in log_w.shape[-2:]:
            raise InputError(
                f"log-weights have shape {tuple(log_w.shape)}: expected [..., M, K], M and K ≥ 1"
            )
        self.check_particles(log_w.shape[-1])
        return log_w


def family(
    function: Callable[..., Coefficients], claims: dict[str, Any], shared: dict[str, Any]
) -> Estimator:
    """The member of a family at its default parameter.

    Args:
        function: log-weights, and perhaps a parameter with a default, -> Coefficients.
        claims: fields of the record; what is callable among them is called with the family's parameter.
        shared: fields of the record that are the same for all members.

    Raises:
        InputError: a function of another shape or without a docstring.
    """
    name = function.__name__
    arguments = list(inspect.signature(function).parameters.values())
    defaults = [argument.default for argument in arguments[1:]]
    if not arguments or len(defaults) > 1 or inspect.Parameter.empty in defaults:
        raise InputError(f"estimator {name!r}: expected the arguments log_w, or log_w, parameter=default")
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    if not summary:
        raise InputError(f"estimator {name!r} has no docstring: its first line is the summary")
    parameter_name = arguments[1].name if defaults else None

    def at(spelled: str, parameter: Any) -> Estimator:
        if parameter_name is None and parameter is not None:
            raise InputError(f"estimator {spelled!r}: {name} takes no parameter")
        if parameter_name is not None:
            wanted = f"estimator {spelled!r}: {parameter_name}"
            parameter = _in_range(parameter, wanted, shared["between"], whole=isinstance(defaults[0], int))
        takes = parameter_name is not None
        made = {
            key: claim(parameter) if takes and callable(claim) else claim for key, claim in claims.items()
        }
        made["value"] = made["value"] or iwae_bound
        return Estimator(
            name=spelled,
            family=name,
            function=functools.partial(function, **{parameter_name: parameter})
            if parameter_name
            else function,
            summary=summary,
            parameter_name=parameter_name,
            parameter=parameter,
            _at=at,
            **made,
            **shared,
        )

    return at(name, defaults[0] if defaults else None)


def _in_range(value: Any, wanted: str, between: tuple[float, float], *, whole: bool) -> float:
    low, high = between
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a finite number"
        least = f" of at least {low:g}" if low > -math.inf else ""
        most = f" and at most {high:g}" if high < math.inf else ""
        raise InputError(f"{wanted} is {shown(value)}: expected {kind}{least}{most}")
    return int(value) if whole else float(value)
