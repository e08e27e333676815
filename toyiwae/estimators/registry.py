"""The registry: one record per estimator, made by one decorator from one function and its claims.

    @estimator(target=both(iwae_bound), form=Form({1: 1}, {1: 1}, {1: -1}), cite="burda2016iwae")
    def iwae(log_w):
        "IWAE: the gradient of log Ẑ."
        weights = normalise(log_w) / log_w.shape[-2]
        return Coefficients(model=weights, path=weights, score=-weights)

Every claim is tested in both directions: an estimator declared biased that turns out unbiased fails too.
Nothing else lists estimators; tables, tests, figures and the command line ask this registry.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from toyiwae import arguments
from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError
from toyiwae.estimators import usercode, users
from toyiwae.estimators.claims import BoundOf, Target, check_shared
from toyiwae.estimators.record import Estimator, family
from toyiwae.forms import Coefficients, Form

_REGISTRY: dict[str, Estimator] = {}
_OWN = "toyiwae."
"""What the names of the modules begin with whose estimators the tests of the package compare with their Forms."""


def estimator(
    *,
    target: Target | Callable[[Any], Target],
    form: Form | Callable[[Any], Form] | None = None,
    value: BoundOf | Callable[[Any], BoundOf] | None = None,
    vanishes_at_posterior: bool | Callable[[Any], bool] = False,
    shift_invariant: bool = True,
    subsets: int | Callable[[Any], int] | None = None,
    min_particles: int | Callable[[Any], int] = 1,
    cite: str | tuple[str, ...] = (),
    between: tuple[float, float] = (-math.inf, math.inf),
) -> Callable[[Callable[..., Coefficients]], Estimator]:
    """Register an estimator: decorates a function `log_w [..., M, K] -> Coefficients`.

    The first line of the function's docstring is the summary. A second argument, which must have a default,
    makes it a family with a parameter (whole, if the default is): then each claim that is a function is
    called with the parameter and returns the claim.

    Args:
        target: what the gradients are unbiased for; `Target(None, None)` if for nothing.
        form: the coefficients as data, if they are polynomials in the normalised weights.
        value: the bound that the reported value estimates; by default `L_K`, by the mean of `log Ẑ_m`.
        vanishes_at_posterior: whether the proposal's gradient is 0, sample by sample, where q is the
            posterior.
        shift_invariant: whether a constant added to all log-weights leaves the coefficients as they are.
        subsets: the size m of subsets of particles, if the coefficients are averages of those of IWAE over all of them.
        min_particles: the smallest K.
        cite: key or keys into the bibliography.
        between: the smallest and largest value of the parameter.

    Raises:
        InputError: a name that toyiwae itself registered, a claim of another kind, or a function of another shape.
    """
    cite = (cite,) if isinstance(cite, str) else cite
    check_shared("an estimator", between, shift_invariant, cite)
    claims = {
        "target": target,
        "form": form,
        "value": value,
        "vanishes_at_posterior": vanishes_at_posterior,
        "subsets": subsets,
        "min_particles": min_particles,
    }
    shared = {"shift_invariant": shift_invariant, "cite": tuple(cite), "between": tuple(between)}

    def register(function: Callable[..., Coefficients]) -> Estimator:
        made = family(function, claims, shared)
        known, module = _REGISTRY.get(made.name), function.__module__
        new = known is None or _module(known.function) == module
        if not new and not module.startswith(usercode.PREFIX):
            raise InputError(f"an estimator named {made.name!r} is registered already: choose another name")
        _REGISTRY[made.name] = made
        return made

    return register


def _module(function: Callable[..., Coefficients]) -> str:
    """Where a function, its parameter perhaps bound and its calls perhaps guarded, was defined."""
    while hasattr(function, "func"):
        function = function.func  # pyright: ignore[reportFunctionMemberAccess]
    return function.__module__


def names() -> tuple[str, ...]:
    """The families, in the order of the table in the docs."""
    return tuple(_REGISTRY)


def all() -> tuple[Estimator, ...]:
    """One estimator of each family, at its default parameter."""
    return tuple(_REGISTRY.values())


def get(spec: str | Estimator) -> Estimator:
    """The estimator that a name asks for.

    Args:
        spec: `"name"`, `"name:parameter"`, `"FILE.py:name"` for one of the user's own (see `load_user`), or
            an estimator, which is returned as it is.

    Raises:
        InputError: an unknown name (with the nearest one), a parameter that is missing, out of range or not
        wanted.
    """
    if isinstance(spec, Estimator):
        return spec
    if not isinstance(spec, str) or not spec:
        raise InputError(f"estimator {shown(spec)}: expected a name such as 'iwae' or 'ciwae:0.5'")
    if ".py:" in spec:
        return load_user(spec)
    name, colon, parameter = spec.partition(":")
    if name == "miwae":
        raise InputError("estimator 'miwae' is iwae with M > 1 groups: ask for iwae and for M > 1")
    if name not in _REGISTRY:
        raise InputError(f"unknown estimator {shown(name)}: {nearest(name, _REGISTRY)}")
    return _chosen(_REGISTRY[name], spec, parameter if colon else None)


def select(specs: Any, particles: Sequence[int] = ()) -> tuple[Estimator, ...]:
    """The estimators that a list of names asks for, in order, each once.

    Args:
        specs: text with commas, or a sequence of what `get` takes.
        particles: the values of K that they will be used at.

    Raises:
        InputError: as `get` does; none at all; a K below an estimator's minimum; a user's estimator whose
            function returns other coefficients than its Form.
    """
    chosen = {found.name: found for found in map(get, arguments.names(specs, "estimators"))}
    for estimator in chosen.values():
        for count in particles:
            estimator.check_particles(count)
        if not of_the_package(estimator):
            users.compare(estimator)
    return tuple(chosen.values())


def of_the_package(found: Estimator) -> bool:
    """Whether an estimator's function is one of the package's own, and so without side effects."""
    return _module(found.function).startswith(_OWN)


def run_file(spec: str, file: Path) -> ModuleType:
    """The module that a user's file makes; the registry stays as it is.

    Args:
        spec: what asks for it, for messages.
        file: the file.

    Raises:
        InputError: no such file, no Python file, or an error while it is run.
    """
    if not file.is_file():
        raise InputError(f"estimator {shown(spec)}: there is no file {str(file)!r}")
    before = dict(_REGISTRY)
    try:
        module = usercode.execute(file)
    except usercode.UserCodeError as error:
        raise InputError(
            f"estimator {shown(spec)}: running {str(file)!r} failed: {error}"
        ) from error.__cause__
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(before)
    if module is None:
        raise InputError(f"estimator {shown(spec)}: {str(file)!r} is not a Python file")
    return module


def load_user(spec: str) -> Estimator:
    """An estimator from the user's own file; the registry stays as it is.

    Args:
        spec: `"FILE.py:name"` or `"FILE.py:name:parameter"`; `name` is a function decorated with
            `@toyiwae.estimator` in that file.

    Raises:
        InputError: no such file, an error while it is run, or no such estimator in it.
    """
    path, _, rest = spec.partition(".py:")
    file, (name, colon, parameter) = Path(f"{path}.py"), rest.partition(":")
    module = run_file(spec, file)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Estimator)}
    if name not in found:
        hint = nearest(name, found) if found else "decorate a function with @toyiwae.estimator"
        raise InputError(f"estimator {shown(spec)}: {str(file)!r} defines no estimator {name!r}: {hint}")
    return users.guarded(_chosen(found[name], spec, parameter if colon else None))


def _chosen(default: Estimator, spec: str, parameter: str | None) -> Estimator:
    """The default, or the family's member whose parameter is given as text; either named as asked for."""
    if parameter is None:
        return replace(default, name=spec)
    return default._at(spec, _number(parameter))


def _number(text: str) -> float | str:
    """The number that a text writes, an int if it can be; the text itself if it writes none."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
