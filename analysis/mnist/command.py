"""`python -m analysis mnist`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis import output
from analysis.mnist import figures, page, run
from analysis.style import house_style
from toyiwae.networks.data import fetch

MINUTES = 110.0
"""Of training with the full settings: with everything else about two hours."""


def mnist(
    *,
    quick: bool,
    data_dir: Path | None,
    out: Path,
    minutes: float,
    docs: Path | None,
    note: Callable[[str], Any],
) -> Path | None:
    """Computes what is not there yet, and writes figures and page.

    Args:
        quick: small settings, a few minutes.
        data_dir: folder of MNIST's files; by default where `toyiwae data fetch mnist` puts them.
        out: folder of everything; quick runs have one of their own in it.
        minutes: of training in this call, 0 for none.
        docs: where the page goes; its figures into `figures/` beside it.
        note: told what is done, a line each.

    Returns:
        The page, or None without the data.

    Raises:
        InputError: files in the folder that are not MNIST's; a run there with other settings.
    """
    data = data_dir or Path(fetch.default_folder("mnist"))
    if data_dir is None and not data.is_dir():
        note(f"skipped: no MNIST in {str(data)!r}; `toyiwae data fetch mnist` brings it, or give --data-dir")
        return None
    plan, home = (run.QUICK, out / "quick") if quick else (run.FULL, out)
    linear = run.linear(plan, data, home, note)
    deep = run.deep(plan, data, home, minutes, note)
    target = docs or home / "mnist.md"
    with house_style():
        drawn = {
            "linear": figures.linear(linear),
            "training": figures.curves(deep),
            "samples": figures.samples(deep),
        }
        images = {f"mnist-{name}.png": output.figure_bytes(figure, "png") for name, figure in drawn.items()}
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m analysis mnist --{'quick' if quick else 'full'}",
        "scale": "Its settings are those of a quick look."
        if quick
        else "Training goes on with every call; this is how far it has come.",
        "minutes": f"{MINUTES:g}",
        "rate": page.training_rate(home / "deep" / "times.jsonl"),
    }
    output.write_all(target.parent / "figures", images)
    output.write_all(target.parent, {target.name: page.markdown(plan, linear, deep, facts).encode()})
    return target
