"""Which estimators' gradients the page computes, as data for its script, and why it leaves out the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toyiwae import estimators
from toyiwae.estimators import Estimator
from toyiwae.forms import Form

PARTS = {"model": ("prior_mean", ("model",)), "proposal": ("proposal_mean", ("path", "score"))}
"""Gradient -> its parameter, of which the coordinate along the shift counts, and the parts of the Form it is of."""

LEAST_EXPONENT = 0.5
"""Powers of weights that are nearer to 1 leave the script too few digits in the variance of Σ w̃^r, r > 1."""


def reason(estimator: Estimator) -> str | None:
    """Why the page's script cannot compute an estimator's ratios; None if it can."""
    form = estimator.form
    if form is None:
        return "coefficients that are no polynomials in the normalised weights"
    if form.has_log_terms or form.constant:
        return "coefficients with logarithms of sums of weights"
    if not 0.0 <= form.exponent <= 1.0:
        return "weights raised to a power outside 0 to 1"
    if form.exponent < LEAST_EXPONENT and max((*form.model, *form.path, *form.score), default=0) > 1:
        return f"squares of weights raised to a power below {LEAST_EXPONENT:g}"
    if form.path and form.score and ("path" in form.pooled) != ("score" in form.pooled):
        return "a gradient whose parts are normalised over different particles"
    return None


def computed() -> list[Estimator]:
    """The registered estimators whose ratios the script computes."""
    return [one for one in estimators.all() if reason(one) is None]


def omitted() -> dict[str, list[Estimator]]:
    """The others: reason -> estimators."""
    found: dict[str, list[Estimator]] = {}
    for one in estimators.all():
        if why := reason(one):
            found.setdefault(why, []).append(one)
    return found


def quantity(name: str, part: str) -> str:
    """What a ratio is called in the page."""
    return f"{name}-{part}"


def quantities(chosen: Iterable[Estimator]) -> dict[str, dict[str, Any]]:
    """Quantity -> its gradient as the script takes it, with its estimator and the least K."""
    found = {}
    for one in chosen:
        assert one.form is not None
        for part, (_, kinds) in PARTS.items():
            found[quantity(one.name, part)] = {
                "estimator": one.name,
                "least": one.min_particles,
                **_data(one.form, kinds),
            }
    return found


def _data(form: Form, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Powers with their factors of the derivatives."""
    powers = sorted({power for kind in kinds for power in getattr(form, kind)})
    terms = [
        [power, {kind: getattr(form, kind)[power] for kind in kinds if power in getattr(form, kind)}]
        for power in powers
    ]
    return {"exponent": form.exponent, "pooled": not set(kinds).isdisjoint(form.pooled), "terms": terms}
