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
from toyiwae.estimators import claims as claimed
from toyiwae.estimators.claims import BoundOf, Target, iwae_bound
from toyiwae.estimators.subsets import subset_average
from toyiwae.estimators.usercode import said
from toyiwae.forms import PARTS, Coefficients, Form
from toyiwae.weights import Array, promoted, tempered


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
        subsets: the m of an estimator whose coefficients are the averages over all subsets of m particles of those of
            IWAE; None of all others.
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
    subsets: int | None
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
            InputError: not an array of real numbers with at least the axes M and K, or K below the minimum; a
                function that answers with anything but coefficients of that shape.
        """
        log_w = self._checked(log_w)
        answer = self.function(log_w)
        refuse_other_than_coefficients(answer, log_w, self.name)
        return answer

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
    name, arguments, summary = _signature(function)
    defaults = [argument.default for argument in arguments[1:]]
    parameter_name = arguments[1].name if defaults else None

    def at(spelled: str, parameter: Any) -> Estimator:
        if parameter_name is None and parameter is not None:
            raise InputError(f"estimator {spelled!r}: {name} takes no parameter")
        if parameter_name is not None:
            wanted = f"estimator {spelled!r}: {parameter_name}"
            parameter = _in_range(parameter, wanted, shared["between"], whole=isinstance(defaults[0], int))
        takes = parameter_name is not None
        made = {
            key: _claim_at(spelled, key, claim, parameter) if takes and callable(claim) else claim
            for key, claim in claims.items()
        }
        made["value"] = iwae_bound if made["value"] is None else made["value"]
        claimed.check(f"estimator {spelled!r}", made)
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


def refuse_other_than_coefficients(answer: Any, log_w: Array, name: str) -> None:
    """Refuses what an estimator's function may not return.

    Raises:
        InputError: no Coefficients, or a part that is no array of the kind and the shape of the log-weights.
    """
    if not isinstance(answer, Coefficients):
        kind = type(answer).__name__
        raise InputError(f"estimator {name!r} returned a {kind}: expected Coefficients(model, path, score)")
    xp, expected = array_namespace(log_w), tuple(log_w.shape)
    for part in PARTS:
        array = getattr(answer, part)
        if type(array) is type(log_w) and (array.dtype, array.shape) == (log_w.dtype, log_w.shape):
            continue  # which is most of them, and asks for no namespace
        try:
            right = array_namespace(array) is xp and xp.isdtype(array.dtype, "real floating")
        except TypeError:
            right = False
        if not right:
            raise InputError(
                f"estimator {name!r}: {part} is {shown(array)}, a {type(array).__name__}: expected an array of"
                f" floating-point numbers like log_w, a {type(log_w).__name__}"
            )
        if tuple(array.shape) != expected:
            raise InputError(
                f"estimator {name!r}: {part} has shape {tuple(array.shape)}: expected that of log_w, {expected}"
            )


def _signature(function: Callable[..., Coefficients]) -> tuple[str, list[inspect.Parameter], str]:
    """Name, arguments and summary of an estimator's function.

    Raises:
        InputError: no function of log_w and at most one parameter, or one without a docstring.
    """
    name = getattr(function, "__name__", None)
    if not callable(function) or name is None:
        raise InputError(f"an estimator is {shown(function)}: expected @estimator(...) above a function")
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        arguments = []
    kinds = [argument.kind for argument in arguments]
    fitting = (
        1 <= len(arguments) <= 2
        and kinds[0] in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        and all(kind in (kinds[0].POSITIONAL_OR_KEYWORD, kinds[0].KEYWORD_ONLY) for kind in kinds[1:])
        and all(argument.default is not inspect.Parameter.empty for argument in arguments[1:])
    )
    if not fitting:
        raise InputError(f"estimator {name!r}: expected the arguments log_w, or log_w, parameter=default")
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    if not summary:
        raise InputError(f"estimator {name!r} has no docstring: its first line is the summary")
    return name, arguments, summary


def _claim_at(spelled: str, key: str, claim: Callable[[Any], Any], parameter: Any) -> Any:
    """What a family claims at one value of its parameter.

    Raises:
        InputError: the claim raised something.
    """
    try:
        return claim(parameter)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"estimator {spelled!r}: {key} at {parameter} raised {said(error)}") from error


def _in_range(value: Any, wanted: str, between: tuple[float, float], *, whole: bool) -> float:
    low, high = between
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a finite number"
        least = f" of at least {low:g}" if low > -math.inf else ""
        most = f" and at most {high:g}" if high < math.inf else ""
        raise InputError(f"{wanted} is {shown(value)}: expected {kind}{least}{most}")
    return int(value) if whole else float(value)
