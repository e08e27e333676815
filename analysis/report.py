"""The report: one HTML file that needs no network and opens with the table of claims."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis import mathml, sources
from analysis.runner import Outcome
from analysis.study import Claim

TEMPLATES = Path(__file__).parent / "templates"
INTRODUCTION = (
    "Each claim of the theory stands beside the number that measures it and the range in which that number "
    "must lie. The numbers are exact: they are computed without sampling. Monte Carlo appears only as an "
    r"independent check, with its standard errors. Throughout, $\log Z=\log p_\theta(x)$ is the log-evidence, "
    r"$w=p_\theta(x,z)/q_\phi(z\mid x)$ the importance weight of a sample $z\sim q_\phi$, and "
    r"$L_K=\mathrm{E}\,\log\frac{1}{K}\sum_k w_k$ the bound with $K$ samples."
)


def render(outcomes: Sequence[Outcome], provenance: Mapping[str, Any], command: str) -> str:
    """The report as HTML.

    Args:
        outcomes: of the studies, in order.
        provenance: versions and platform.
        command: what makes this report again.
    """
    from analysis import derivations  # SymPy takes a second that other commands need not wait for

    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    claims = [claim for outcome in outcomes for claim in outcome.claims]
    return (
        environment()
        .get_template("report.html")
        .render(
            introduction=INTRODUCTION,
            outcomes=outcomes,
            derivations=derivations.formulas(),
            derivations_introduction=derivations.INTRODUCTION,
            held=sum(claim.passed for claim in claims),
            total=len(claims),
            passed=bool(outcomes) and all(outcome.passed for outcome in outcomes),
            provenance={key: value for key, value in provenance.items() if not isinstance(value, Mapping)},
            command=command,
            style=Markup(style),
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )


def environment(*, autoescape: bool = True) -> jinja2.Environment:
    """The templates and their filters; what is not HTML needs no escapes."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "math": lambda formula, display=False: Markup(mathml.to_mathml(formula, display=display)),
        "prose": mathml.prose,
        "source": sources.shown,
        "measured": measured,
        "powers": powers,
        "tolerance": tolerance,
        "data_uri": lambda image, kind="png": f"data:image/{kind};base64," + base64.b64encode(image).decode(),
        "value": _setting,
    }
    return made


def number(value: float, digits: int = 4) -> str:
    """A number as plain text: 0.4987, −1.83×10^-7, 12, ∞."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = (
            f"{mantissa}×10^{int(exponent)}"
            if mantissa not in ("1", "-1")
            else f"{mantissa[:-1]}10^{int(exponent)}"
        )
    return text.replace("-", "−")


def in_prose(value: float, digits: int = 2) -> str:
    r"""A number as a formula for the text of a claim or a caption: $6.4\times 10^{-14}$."""
    text = number(value, digits).replace("−", "-").replace("×", r"\times ")
    base, _, exponent = text.partition("^")
    return f"${base}^{{{exponent}}}$" if exponent else f"${base}$"


def powers(text: str) -> Markup:
    """A number's text with the power of ten raised."""
    return Markup(re.sub(r"10\^(−?\d+)", r"10<sup>\1</sup>", str(Markup.escape(text))))


def measured(claim: Claim) -> str:
    """A claim's number, with digits that show how far it is from the value expected."""
    within = _within(claim)
    if claim.expected is None or not (0 < within < 1 and abs(claim.number) < 10):
        return number(claim.number)
    return f"{claim.number:.{2 - math.floor(math.log10(within))}f}".replace("-", "−")


def tolerance(claim: Claim) -> str:
    """The range a claim's number must lie in: ≤ 0.01, ≥ 0, −1 … 0, or −0.5 ± 0.02."""
    if claim.expected is not None:
        return f"{number(claim.expected)} ± {number(_within(claim))}"
    if math.isinf(claim.low):
        return f"≤ {number(claim.high)}"
    if math.isinf(claim.high):
        return f"≥ {number(claim.low)}"
    return f"{number(claim.low)} … {number(claim.high)}"


def _within(claim: Claim) -> float:
    return float(f"{(claim.high - claim.low) / 2:.6g}")


def _setting(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
