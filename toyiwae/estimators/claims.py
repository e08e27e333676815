"""What an estimator may claim, checked where it is registered: bounds, targets, a Form, the smallest K."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from toyiwae.arguments import whole_number
from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.estimators.usercode import said
from toyiwae.forms import Bound, Form

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
    return Bound.iwae(particles, "K")


def check(who: str, claims: Mapping[str, Any]) -> None:
    """Refuses claims of another kind.

    Args:
        who: how messages call the estimator.
        claims: `target`, `form`, `value`, `vanishes_at_posterior`, `subsets` and `min_particles`.

    Raises:
        InputError: naming the claim, and what it must be.
    """
    target, form, least = claims["target"], claims["form"], claims["min_particles"]
    if not isinstance(target, Target):
        expected = "Target(model, proposal) or both(bound), each bound a function of K and M, or None"
        raise InputError(f"{who}: target is {shown(target)}: expected {expected}")
    if form is not None and not isinstance(form, Form):
        raise InputError(f"{who}: form is {shown(form)}: expected Form({{power: factor}}, ...), or None")
    _flag(who, "vanishes_at_posterior", claims["vanishes_at_posterior"])
    whole_number(least, f"{who}: min_particles", maximum=10**6)
    if claims["subsets"] is not None:
        whole_number(claims["subsets"], f"{who}: subsets", maximum=least)
    leave_one_out = form and (form.leave_one_out or form.leave_one_out_geometric or form.constant)
    if least < 2 and leave_one_out:
        raise InputError(
            f"{who}: min_particles is {least}: expected at least 2, since the Form has leave-one-out terms"
        )
    bounds = {"target.model": target.model, "target.proposal": target.proposal, "value": claims["value"]}
    for name, bound in bounds.items():
        for particles, groups in ((least, 1), (least + 1, 2)) if bound is not None else ():
            _check_bound(f"{who}: {name}", bound, particles, groups)


def check_shared(who: str, between: Any, shift_invariant: Any, cite: Any) -> None:
    """Refuses claims of another kind that do not depend on a parameter.

    Raises:
        InputError: naming the claim, and what it must be.
    """
    _flag(who, "shift_invariant", shift_invariant)
    if not isinstance(cite, (tuple, list)) or not all(isinstance(key, str) for key in cite):
        raise InputError(f"{who}: cite is {shown(cite)}: expected a key into the bibliography, or several")
    pair = isinstance(between, (tuple, list)) and len(between) == 2
    if (
        not pair
        or not all(isinstance(end, Real) and not math.isnan(end) for end in between)
        or between[0] > between[1]
    ):
        raise InputError(f"{who}: between is {shown(between)}: expected the smallest and the largest value")


def refuse_other_than_bound(who: str, answer: Any, particles: int, groups: int) -> None:
    """Refuses what a bound, as a function of K and M, may not return.

    Raises:
        InputError: no Bound.
    """
    if not isinstance(answer, Bound):
        at = f"at K = {particles}, M = {groups}"
        raise InputError(f"{who} is {shown(answer)} {at}: expected a Bound, such as Bound.iwae(K)")


def _check_bound(who: str, bound: Any, particles: int, groups: int) -> None:
    if not callable(bound):
        raise InputError(f"{who} is {shown(bound)}: expected a function of K and M, such as iwae_bound")
    try:
        answer = bound(particles, groups)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{who} at K = {particles}, M = {groups} raised {said(error)}") from error
    refuse_other_than_bound(who, answer, particles, groups)


def _flag(who: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{who}: {name} is {shown(value)}: expected True or False")
