"""The ledger: every claim that the studies settle, one row each, with its source, its number and its verdict."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import sources
from analysis.runner import Outcome
from analysis.study import Claim
from toyiwae import records

COLUMNS: tuple[str, ...] = (
    "study", "row", "source", "claim", "formula", "condition", "number", "expected", "low", "high", "verdict",
    "evidence",
)  # fmt: skip


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row per claim, in the report's order; a study that broke down is one row that fails.

    Returns:
        `source`: slides and works; empty for a check of this package's own. `number`: what was measured, which must
        lie between `low` and `high` (None: no such limit). `expected`: the value of the theory, if it gives one.
        `evidence`: how it was measured. `verdict`: "pass" or "fail".
    """
    found = []
    for outcome in outcomes:
        claims = outcome.claims
        if outcome.error:
            claims = (Claim("The study runs.", "", math.nan, note=outcome.error),)
        for place, claim in enumerate(claims, start=1):
            limits = {name: _finite(getattr(claim, name)) for name in ("number", "expected", "low", "high")}
            found.append(
                {
                    "study": outcome.study.name, "row": place, "source": sources.shown(claim.source),
                    "claim": claim.text, "formula": claim.formula, "condition": claim.condition, **limits,
                    "verdict": "pass" if claim.passed else "fail", "evidence": claim.note,
                }
            )  # fmt: skip
    return found


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def files(outcomes: Sequence[Outcome], provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The ledger as `ledger.csv` and `ledger.json`, the latter with counts and provenance."""
    found = rows(outcomes)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    held = sum(row["verdict"] == "pass" for row in found)
    document = {"held": held, "total": len(found), "provenance": provenance, "claims": found}
    lines = json.dumps(records.plain(document), ensure_ascii=False, indent=1, allow_nan=False)
    return {"ledger.csv": text.getvalue().encode("utf-8"), "ledger.json": f"{lines}\n".encode()}
