"""`python -m analysis mnist`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from analysis import output
from analysis.mnist import deep, figures, page
from analysis.mnist.linear import linear
from analysis.mnist.plans import Plan, Wish, chosen
from analysis.mnist.results import Results, results
from analysis.style import house_style
from toyiwae.networks.data import fetch
from toyiwae.networks.data.images import Images, images_named

Note = Callable[[str], Any]

TITLE = {"quick": "MNIST on a CPU", "full": "MNIST on a CPU", "table": "MNIST at the paper's scale"}
SCALE = {
    "quick": "Its settings are those of a quick look: a small network, few images, one epoch.",
    "full": "Training goes on with every call; this is how far it has come.",
    "table": "Training goes on with every call, to the paper's 3,280 epochs; this is how far it has come.",
}


def run(wish: Mapping[str, Any], *, note: Note, **where: Any) -> None:
    """The command: a wish's fields, and where data, results and page lie; says where the page is."""
    written = mnist(Wish(**wish), note=note, **where)
    if written is not None:
        note(str(written))


def mnist(
    wish: Wish, *, data_dir: Path | None, out: Path, docs: Path | None, any_images: bool = False, note: Note
) -> Path | None:
    """Computes what is not there yet, and writes figures and page.

    Args:
        wish: which plan, and how much of it.
        data_dir: folder of MNIST's files; by default where `toyiwae data fetch mnist` puts them.
        out: folder of everything; all but the plan for two hours of a CPU have one of their own in it.
        docs: where the page goes; its figures into `figures/` beside it.
        any_images: whether the files may hold other images than MNIST's; the page names the folder then.
        note: told what is done, a line each.

    Returns:
        The page, or None without the data.

    Raises:
        InputError: files in the folder that are not MNIST's; a run there with other settings; no such device or stack.
    """
    data = data_dir or Path(fetch.default_folder("mnist"))
    if data_dir is None and not data.is_dir():
        note(f"skipped: no MNIST in {str(data)!r}; `toyiwae data fetch mnist` brings it, or give --data-dir")
        return None
    plan = chosen(wish, torch.cuda.is_available())
    images = images_named("idx" if any_images else "mnist", data)
    return study(fitted(plan, images), deep.Place(data, images, out / plan.home), wish, docs, note)


def fitted(plan: Plan, images: Images) -> Plan:
    """The plan with no more images, and no more latents of the linear decoder, than there are."""
    train, test = len(images.train), len(images.test)
    return replace(
        plan,
        train=None if plan.train is None else min(plan.train, train),
        test=min(plan.test, test),
        curve_images=min(plan.curve_images, test),
        linear_images=min(plan.linear_images, test),
        encoder_images=min(plan.encoder_images, train),
    )


def study(plan: Plan, place: deep.Place, wish: Wish, docs: Path | None, note: Note) -> Path:
    """The whole study at a plan's size; whatever is finished is not computed again."""
    exact = linear(plan, place.data, place.home, note)
    if plan.minutes is None or plan.minutes > 0:
        deep.train_stacks(plan, place, plan.minutes, wish.epochs, note)
    stacks = deep.measure(plan, place, note)
    found = results(stacks) if stacks else None
    target = docs or place.home / "mnist.md"
    with house_style():
        drawn = {
            f"{target.stem}-{name}.png": output.figure_bytes(figure, "png")
            for name, figure in _figures(plan, exact, found).items()
        }
    option = "quick" if plan.name == "quick" else "full"
    device = " --device cuda" if plan.name == "table" else ""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m analysis mnist --{option}{device}",
        "scale": SCALE[plan.name],
        "title": TITLE[plan.name] if place.name == "mnist" else f"A folder of images: {TITLE[plan.name]}",
        "stem": target.stem,
    }
    output.write_all(target.parent / "figures", drawn)
    output.write_all(target.parent, {target.name: page.markdown(plan, exact, found, facts).encode()})
    return target


def _figures(plan: Plan, exact: Any, found: Results | None) -> dict[str, Any]:
    """Name -> figure."""
    drawn = {"linear": figures.linear(exact)}
    if found is None:
        return drawn
    return drawn | {
        "training": figures.training(found, staged=plan.schedule == "stages"),
        "results": figures.outcome(found, plan.largest_k),
        "budget": figures.budget(found, plan.largest_k),
        "snr": figures.signal(found),
        "samples": figures.pictures(found),
    }
