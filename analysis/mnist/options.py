"""The options of `python -m analysis mnist`; torch, which takes a second that `list` need not wait for, comes later."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(highlight=False, markup=False)


def mnist(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick/--full", help="Minutes; or hours: the paper's scale on a GPU, else what a CPU does."
        ),
    ] = True,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="MNIST's files; the user's cache if not given."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of runs, figures and page.")] = Path(
        "results/mnist"
    ),
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="Of training in this call; on a CPU 110.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Stop after so many, counted from the first.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu or cuda; with --full by default a GPU if there is one."),
    ] = None,
    stack: Annotated[
        list[str] | None, typer.Option("--stack", help="Only this stack of the plan; several times for more.")
    ] = None,
    docs: Annotated[
        Path | None, typer.Option("--docs", help="Where the page goes, with its figures.")
    ] = None,
    any_images: Annotated[
        bool, typer.Option("--any-images", help="IDX files of --data-dir may be others than MNIST's.")
    ] = False,
) -> None:
    """MNIST: a linear decoder's exact gaps, the papers' methods of training; goes on where it stopped."""
    name = "analysis.mnist.command"  # torch takes a second that `list` need not wait for
    importlib.import_module(name).run(
        {
            "quick": quick,
            "device": device,
            "stacks": tuple(stack or ()),
            "epochs": epochs,
            "minutes": minutes,
        },
        data_dir=data_dir,
        out=out,
        docs=docs,
        any_images=any_images,
        note=lambda line: console.print(line, soft_wrap=True),
    )
