"""A report as tables for people: the verdict, a line for each tier and problem, and every failure in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from toyiwae.conformance.report import TIERS

_SHOWN = 12


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Prints the document of `CheckReport.to_dict`."""
    checks = document["checks"]
    console.print(f"{document['verdict']}   target {document['target']}")
    if "reason" in document:
        console.print(f"reason: {document['reason']}")
    sampled = [check for check in checks if check["n"] and check["tier"] >= 2]
    if sampled:
        count, least = max(check["n"] for check in sampled), document["smallest_detectable"]
        effect = f", minimum detectable effect {least:.3g} standard deviations" if least else ""
        rate, tests = document["family_rate"], document["tests"]
        times = f"{count} replicate{'' if count == 1 else 's'}"
        console.print(f"{times}{effect}; family-wise error rate {rate:g}, over {tests} tests")
    console.print(_summary(checks))
    failed = [check for check in checks if check["passed"] is False]
    for check in failed[:_SHOWN]:
        console.print(_line(check), soft_wrap=True)
    if len(failed) > _SHOWN:
        console.print(f"… and {len(failed) - _SHOWN} more (--json has all)")
    for reason in dict.fromkeys(check["reason"] for check in checks if check["passed"] is None):
        count = sum(check["passed"] is None and check["reason"] == reason for check in checks)
        console.print(f"not judged ({count}): {reason}", soft_wrap=True)


def _summary(checks: Iterable[Mapping[str, Any]]) -> Table:
    """Counts by tier and problem, with the worst of each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("tier", "problem"):  # on a narrow terminal these are broken, numbers never
        table.add_column(name, overflow="fold")
    for name in ("checks", "failed", "refused", "least p", "shift"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for check in checks:
        groups.setdefault((check["tier"], check["problem"] or ""), []).append(check)
    for (tier, problem), members in sorted(groups.items(), key=lambda item: item[0][0]):
        p = [check["p_value"] for check in members if check["p_value"] is not None]
        shift = [abs(check["shift_in_sd"]) for check in members if check["shift_in_sd"] is not None]
        counts = [sum(check["passed"] is state for check in members) for state in (False, None)]
        table.add_row(
            f"{tier} {TIERS[tier]}",
            problem,
            str(len(members)),
            *(str(count) if count else "" for count in counts),
            f"{min(p):.1e}" if p else "",
            f"{max(shift):.3g}" if shift else "",
        )
    return table


def _line(check: Mapping[str, Any]) -> str:
    """One failure."""
    where = [f"{key}={check[key]}" for key in ("K", "M", "n", "seed") if check.get(key) is not None]
    coordinate = ",".join(map(str, check["index"] or []))
    what = (check["parameter"] or "") + (f"[{coordinate}]" if coordinate else "")
    parts = [f"FAILED {check['name']}: {what}".rstrip(" :"), f"on {check['problem']}", " ".join(where)]
    if check["estimate"] is not None and check["truth"] is not None:
        parts.append(f"{check['estimate']:.6g}, truth {check['truth']:.6g}")
    shift, p = check["shift_in_sd"], check["p_value"]
    found = [f"{shift:+.3g} sd" if shift is not None else "", f"p = {p:.1e}" if p is not None else ""]
    parts.append(", ".join(filter(None, found)))
    if check.get("reason"):
        parts.append(check["reason"])
    return "; ".join(filter(None, parts))
