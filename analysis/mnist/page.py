"""The study on MNIST as a page of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis import report
from analysis.mnist import published
from analysis.mnist.linear import Linear
from analysis.mnist.plans import Plan
from analysis.mnist.results import Method, Results
from toyiwae import plot, records

WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}


def markdown(plan: Plan, linear: Linear, found: Results | None, facts: Mapping[str, Any]) -> str:
    """The page.

    Args:
        plan: sizes.
        linear: exact gaps.
        found: what was measured of the deep model; None before its first step.
        facts: date, command, stem of the figures' names, and what of the plan was left out (`scale`, a sentence).
    """
    made = {key: value for key, value in records.provenance().items() if isinstance(value, str)}
    return (
        report.environment(autoescape=False)
        .get_template("mnist.md")
        .render(
            **facts,
            plan=plan,
            linear=_linear(plan, linear),
            deep=None if found is None else _deep(plan, found),
            versions=", ".join(f"{key} {value}" for key, value in made.items()),
        )
        + "\n"
    )


def _linear(plan: Plan, found: Linear) -> dict[str, Any]:
    """The numbers of the linear decoder, as text."""
    rows = [
        {
            "K": f"{k:,}",
            **{
                key: f"{float(value):.3f}"
                for key, value in (("mean", gap.mean()), ("median", np.median(gap)))
            },
            "largest": f"{gap.max():.2f}",
            "ess": f"{(ess / k).mean():.3f}",
        }
        for k, gap, ess in zip(found.K, found.gap, found.ess, strict=True)
    ]
    return {
        "images": f"{len(found.log_p):,}",
        "latents": plan.latents,
        "encoder_images": plan.encoder_images,
        "error": f"{found.error:.0e}",
        "seconds": f"{found.seconds:.1f}",
        "log_p": _number(found.log_p.mean()),
        "rows": rows,
    }


def _deep(plan: Plan, found: Results) -> dict[str, Any]:
    """The numbers of the deep model, as text."""
    first = found.stacks[0]
    test = first.evaluation["bound"].shape[-1]
    ours = published.conditions(first.run, test, plan.largest_k)
    per_image = found.seeds == 1
    epochs = [row.epoch for row in found.methods.itertuples()]
    beside = [
        {"what": what, "ours": _plain(own), "theirs": _plain(theirs), "agrees": agrees}
        for what, own, theirs, agrees in published.beside(ours)
    ]
    return {
        "rows": [_row(found, method) for method in found.names],
        "epochs": f"{min(epochs):.2f}"
        if min(epochs) == max(epochs)
        else f"{min(epochs):.2f} to {max(epochs):.2f}",
        "uneven": min(epochs) != max(epochs),
        "stacks": [
            {"name": stack.name, "members": len(stack.run.members), "step": f"{stack.run.step:,}"}
            for stack in found.stacks
        ],
        "rate": _rate(first.run.folder),
        "seeds": WORDS.get(found.seeds, str(found.seeds)),
        "per_image": per_image,
        "over": "images" if per_image else "seeds",
        "test": f"{test:,}",
        "data": _plain(ours.data),
        "train": f"{ours.train:,}",
        "network": ours.network,
        "device": str(first.run.settings.training.device),
        "products": ours.products,
        "schedule": first.run.settings.training.schedule,
        "differences": _differences(found, plan.largest_k),
        "published": _published(found) if first.run.images.name == "mnist" else [],
        "beside": beside,
        "comparable": published.comparable(ours) and not found.methods.step.nunique() > 1,
        "differ": ", ".join(row["what"] for row in beside if row["agrees"] is False),
    }


def _row(found: Results, method: Method) -> dict[str, str]:
    """A method's line of the table."""
    own = found.methods[_is(found, method)].iloc[0]

    def text(name: str, digits: int) -> str:
        se = own.get(f"{name}_se")
        value = _number(own[name], digits)
        return value if se is None or np.isnan(se) else f"{value} ± {se:.{digits}f}"

    return {
        "name": plot.label(*method),
        "log_p": text("log_p", 2),
        "bound": text("bound", 2),
        "minus_kl": text("minus_kl", 3),
        "elbo": text("elbo", 2),
        "ess": text("ess", 1),
        "heavy": f"{own.heavy:.0%}",
        "active": f"{own.active:g} of {own.units:g}",
        "epochs": f"{own.epoch:,.2f}",
    }


def _differences(found: Results, largest_k: int) -> list[dict[str, str]]:
    """Estimates of log p(x) of each method less the first's, image by image; of one seed each."""
    if found.seeds > 1:
        return []
    first, *rest = found.names
    base, rows = found.images(first, "bound", largest_k), []
    for method in rest:
        less = found.images(method, "bound", largest_k) - base
        se = less.std(ddof=1) / np.sqrt(len(less))
        name = f"{plot.label(*method)} less {plot.label(*first)}"
        rows.append({"name": name, "difference": f"{_number(less.mean())} ± {se:.2f}"})
    return rows


def _published(found: Results) -> list[dict[str, str]]:
    """The paper's table, a library's reproduction, and ours, where there is one."""
    rows = []
    for row in published.published().itertuples():
        method = (str(row.model), int(row.M), int(row.K))  # pyright: ignore[reportArgumentType]
        known = method in found.names
        rows.append(
            {
                "name": plot.label(*method),
                "theirs": f"{_number(row.log_p)} ± {row.se:.2f}",
                "again": "" if np.isnan(row.reproduction) else _number(row.reproduction),  # pyright: ignore[reportArgumentType, reportCallIssue]
                "ours": _row(found, method)["log_p"] if known else "",
            }
        )
    return rows


def _is(found: Results, method: Method) -> Any:
    frame = found.methods
    return np.logical_and.reduce(
        [frame[key] == value for key, value in zip(published.METHOD, method, strict=True)]
    )


def _rate(folder: Path | None) -> str:
    """Steps a second of a run, from the last line of its `times.jsonl`, if there is one yet."""
    times = None if folder is None else folder / "times.jsonl"
    lines = times.read_text(encoding="utf-8").splitlines() if times is not None and times.is_file() else []
    return f"{json.loads(lines[-1])['steps_per_second']:,.1f}" if lines else "–"


def _plain(value: Any) -> str:
    """A condition as text; what Markdown would read as a sign of its own is escaped."""
    if isinstance(value, str):
        return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", " ".join(value.split()))
    return f"{value:,.2f}".removesuffix(".00") if isinstance(value, float) else f"{value:,}"


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")
