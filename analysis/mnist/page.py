"""The runs on MNIST as a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis import report
from analysis.mnist.figures import name
from analysis.mnist.run import Deep, Linear, Plan
from toyiwae import records


def markdown(plan: Plan, linear: Linear, deep: Deep, facts: Mapping[str, Any]) -> str:
    """The page.

    Args:
        plan: sizes.
        linear: exact gaps.
        deep: the trained stack.
        facts: date, command, scale (what was left out, one sentence) and minutes.
    """
    found = {key: value for key, value in records.provenance().items() if isinstance(value, str)}
    return (
        report.environment(autoescape=False)
        .get_template("mnist.md")
        .render(
            **facts,
            linear=_linear(plan, linear),
            rows=_table(deep),
            differences=_differences(deep),
            step=deep.run.step,
            epochs=deep.run.step / deep.per_epoch,
            train=len(deep.run.images.train),
            test=deep.found["images"],
            largest_k=plan.largest_k,
            curve_images=plan.curve_images,
            versions=", ".join(f"{key} {value}" for key, value in found.items()),
        )
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
        "images": len(found.log_p),
        "latents": plan.latents,
        "encoder_images": plan.encoder_images,
        "error": f"{found.error:.0e}",
        "seconds": f"{found.seconds:.1f}",
        "log_p": f"{found.log_p.mean():.2f}",
        "rows": rows,
    }


def _table(deep: Deep) -> list[dict[str, str]]:
    """The evaluation of every method."""
    rows = []
    for member, entry in zip(deep.run.members, deep.found["members"], strict=True):
        one, many, most = entry["bounds"]
        rows.append(
            {
                "name": name(member),
                "log_p": f"{most['bound']:.2f} ± {most['se']:.2f}",
                "bound": f"{many['bound']:.2f}",
                "minus_kl": f"{many['minus_kl']:.2f}",
                "elbo": f"{one['bound']:.2f}",
                "ess": f"{many['ess']:.1f}",
                "heavy": f"{entry['pareto_k']['above_0.7']:.0%}",
                "active": f"{entry['active_units']} of {entry['units']}",
            }
        )
    return [{key: value.replace("-", "−") for key, value in row.items()} for row in rows]


def _differences(deep: Deep) -> list[dict[str, str]]:
    """Estimates of log p(x) of each method less the first's, image by image."""
    largest = deep.images[deep.images.particles == deep.images.particles.max()]
    wide = largest.pivot(index="image", columns="member", values="bound_estimate").to_numpy()
    first, rows = deep.run.members[0], []
    for e, member in list(enumerate(deep.run.members))[1:]:
        less = wide[:, e] - wide[:, 0]
        text = f"{less.mean():.2f} ± {less.std(ddof=1) / np.sqrt(len(less)):.2f}"
        rows.append({"name": f"{name(member)} less {name(first)}", "difference": text.replace("-", "−")})
    return rows


def training_rate(times: Path) -> str:
    """Steps a second of a run, from the last line of its `times.jsonl`, if there is one yet."""
    lines = times.read_text(encoding="utf-8").splitlines() if times.is_file() else []
    return f"{json.loads(lines[-1])['steps_per_second']:.1f}" if lines else "–"
