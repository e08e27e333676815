"""The page: its default state drawn from the oracle's numbers, with the script that computes all others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

import toyiwae
from analysis import report
from analysis.explorer import accuracy, density, words
from analysis.explorer.colors import DARK, LIGHT, readable
from analysis.explorer.drawing import (
    CURVE,
    HEIGHT,
    STROKE,
    WIDTH,
    Curve,
    figure,
    geometry,
    label,
    number,
    panels,
    strokes,
    symbol,
    word,
)
from analysis.explorer.gradients import PARTS, computed, omitted, quantities, quantity
from analysis.explorer.settings import (
    DEFAULT,
    DIGITS,
    DRAWN,
    PRESETS,
    VALUES,
    Setting,
    exact_numbers,
    problem,
)
from toyiwae import plot

NUMERICS = (
    "law.js", "contours.js", "quadrature.js", "gradients.js", "finite_k.js", "first_order.js", "density.js",
)  # fmt: skip
"""The script's parts that compute, in order; what is tested without a browser."""


def render() -> str:
    """The page as HTML: the same bytes whenever the oracle's numbers have the same six digits.

    Raises:
        ToyiwaeError: if the oracle withholds a number of the default state.
    """
    now = exact_numbers(DEFAULT, (DEFAULT.K,))[0]
    rows = exact_numbers(DEFAULT, CURVE, DRAWN)
    curves = {name: [row[name] for row in rows] for name in rows[-1]}
    style, script = _style(), "".join(map(_source, (*NUMERICS, "figures.js", "page.js")))
    return (
        report.environment()
        .get_template("explorer/page.html")
        .render(
            style=Markup(style),
            style_hash=_hash(style),
            script=Markup(script),
            script_hash=_hash(script),
            data=Markup(_json(_data())),
            title=words.TITLE,
            lead=words.LEAD,
            sliders=_sliders(),
            presets=PRESETS,
            default=DEFAULT,
            readouts=_readouts(now),
            estimators=_estimators(now),
            omitted=_omitted(),
            table=words.TABLE,
            stroke=STROKE,
            summary=_summary(now),
            weights=_weights(now),
            figures=_figures(now, curves),
            box={**geometry(()), "width": WIDTH, "height": HEIGHT},
            accuracy=_accuracy(),
            text=words.TEXT,
            formulas=words.FORMULAS,
            code=Markup(_code(DEFAULT)),
            version=toyiwae.__version__,
        )
    )


def numerics() -> str:
    """The part of the script that computes: `Law`, `FiniteK`."""
    return "".join(map(_source, NUMERICS))


def _source(name: str) -> str:
    return (report.TEMPLATES / "explorer" / name).read_text(encoding="utf-8")


def _style() -> str:
    """The sheet, and each estimator's colour, made legible on each background."""
    looks = {one.name: plot.look(one)["color"] for one in computed()}
    light, dark = (
        "".join(f".e-{name}{{--own:{readable(color, paper)}}}" for name, color in looks.items())
        for paper in (LIGHT, DARK)
    )
    return f"{_source('page.css')}{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}\n"


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """Strict JSON that cannot end the element that holds it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _data() -> dict[str, Any]:
    return {
        "values": VALUES,
        "texts": DIGITS,
        "spoken": {name: spoken for name, (_, _, spoken, _, _) in words.SLIDERS.items()},
        "default": asdict(DEFAULT),
        "presets": {name: asdict(setting) for name, setting in PRESETS.items()},
        "geometry": geometry(panels()),
        "quantities": quantities(computed()),
        "estimators": {one.name: word(one.name) for one in computed()},
        "labels": {one.name: label(one.name) for one in computed()},
        "drawn": DRAWN,
        "words": {**words.FILLED, "names": words.NAMES},
    }


def _text(setting: Setting, name: str) -> str:
    value = getattr(setting, name)
    return f"{value:.{DIGITS[name]}f}" if name in DIGITS else str(value)


def _sliders() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": label,
            "unit": unit,
            "spoken": spoken,
            "low": low,
            "high": high,
            "steps": len(VALUES[name]) - 1,
            "index": VALUES[name].index(getattr(DEFAULT, name)),
            "text": _text(DEFAULT, name),
        }
        for name, (label, unit, spoken, low, high) in words.SLIDERS.items()
    ]


def _readouts(now: dict[str, float]) -> list[dict[str, Any]]:
    first = first_order()["gap"][0] / DEFAULT.K
    asides = {
        "gap": words.FILLED["first"].format(first=number(first, 3)),
        "ess": words.FILLED["share"].format(share=number(100.0 * now["ess"] / DEFAULT.K, 3), K=DEFAULT.K),
    }
    return [
        {
            "name": name,
            "label": label,
            "unit": unit,
            **_value(now[name]),
            "aside": asides[name],
        }
        for name, (label, unit) in words.READOUTS.items()
    ]


def _estimators(now: dict[str, float]) -> list[dict[str, Any]]:
    """The rows of the table."""
    return [
        {
            "name": one.name,
            "label": ", ".join(filter(None, (word(one.name), plot.parameter(one)))),
            "drawn": one.name in DRAWN,
            "strokes": strokes(one.name),
            "symbol": symbol(one.name),
            "values": [
                {"name": name, **_value(now.get(name))}
                for name in (quantity(one.name, part) for part in PARTS)
            ],
        }
        for one in computed()
    ]


def _value(value: float | None) -> dict[str, str]:
    """A number for programs and for readers; None is of an estimator that needs more particles."""
    if value is None:
        return {"value": "", "text": words.FILLED["least"]}
    return {"value": f"{value:.9g}", "text": number(value)}


def _omitted() -> str:
    """Which estimators the page does not compute, and why; nothing if there is none."""
    listed = [
        words.TABLE["one"].format(names=", ".join(word(one.name) for one in some), reason=reason)
        for reason, some in omitted().items()
    ]
    return words.TABLE["omitted"].format(list="; ".join(listed)) if listed else ""


def _summary(now: dict[str, float]) -> str:
    text = {name: number(value, 3) for name, value in now.items()}
    listed = [
        words.FILLED["ratio"].format(name=word(name), **{part: text[quantity(name, part)] for part in PARTS})
        for name in DRAWN
    ]
    first = words.FILLED["summary"].format(K=DEFAULT.K, gap=text["gap"], ess=text["ess"])
    return f"{first} {words.FILLED['ratios'].format(list=', '.join(listed))}"


def first_order(setting: Setting = DEFAULT) -> dict[str, tuple[float, float]]:
    """Constant and power of K of each drawn quantity's law for large K, by the oracle's expansions.

    Raises:
        MissingMomentError: where the weights have too few moments for one.
    """
    made = problem(setting)
    half_variance = -float(toyiwae.series.bound(made, 1).value[1])
    found = {"gap": (half_variance, -1.0), "ess": (1.0 / (1.0 + 2.0 * half_variance), 1.0)}
    for name in DRAWN:
        for part, (parameter, _) in PARTS.items():
            law = toyiwae.series.snr_constant(made, toyiwae.estimators.get(name).form, parameter)
            groups = float(setting.M) ** float(law.exponent[0] if law.pooled else 0.5)
            found[quantity(name, part)] = (float(law.constant[0]) * groups, float(law.exponent[0]))
    return found


def _weights(now: dict[str, float]) -> dict[str, Any]:
    divergence = float(
        toyiwae.ClosedForms(problem(DEFAULT)).log_evidence[0] - toyiwae.ClosedForms(problem(DEFAULT)).elbo[0]
    )
    places = {"elbo": -divergence, "bound": -now["gap"], "evidence": 0.0}
    spoken = {name: number(place, 3) for name, place in places.items()}
    return {
        **density.figure(DEFAULT, places),
        "words": words.FILLED["weights"].format(**spoken),
        "caption": words.CAPTIONS["weights"],
    }


def _figures(now: dict[str, float], curves: dict[str, list[float]]) -> list[dict[str, Any]]:
    laws = {
        name: [constant * float(K) ** power for K in CURVE]
        for name, (constant, power) in first_order().items()
    }
    return [
        {
            **figure(panel, DEFAULT.K, now, curves, laws),
            "caption": words.CAPTIONS[panel.name],
            "words": " ".join(
                _words(curve, now, curves[curve.quantity])
                for curve in panel.curves
                if curve.quantity in curves
            ),
        }
        for panel in panels()
    ]


def _words(curve: Curve, now: dict[str, float], values: Sequence[float]) -> str:
    first, here, last = (number(value, 3) for value in (values[0], now[curve.quantity], values[-1]))
    name = words.NAMES.get(curve.quantity, curve.label)
    return words.FILLED["curve"].format(name=name, first=first, now=here, last=last, K=DEFAULT.K)


def _accuracy() -> str:
    record = accuracy.read()
    return words.ACCURACY.format(
        settings=record["settings"], numbers=record["numbers"], worst=number(record["stated"], 1)
    )


def _code(setting: Setting) -> str:
    fields = {name: f'<span data-setting="{name}">{_text(setting, name)}</span>' for name in VALUES}
    names = Markup('<span id="code-names">{}</span>').format(", ".join(f'"{name}"' for name in DRAWN))
    return str(
        Markup(words.CODE).format(**{name: Markup(field) for name, field in fields.items()}, names=names)
    )
