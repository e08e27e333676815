"""`toyiwae train` and `toyiwae data fetch`: they need the extra `networks`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import toyiwae
from toyiwae.cli import console
from toyiwae.extras import import_extra

if TYPE_CHECKING:
    from rich.console import Console

data = typer.Typer(
    help="Data sets for `toyiwae train`.", context_settings={"help_option_names": ["-h", "--help"]}
)


def train(
    settings: Annotated[
        Path, typer.Argument(metavar="SETTINGS.toml", help="settings file", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the run's folder", show_default=False)],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="a setting in place of the file's; repeatable"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="where the IDX files of the images lie")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from DIR's latest checkpoint, if there is one")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="strict JSON instead of a table")] = False,
) -> str:
    """Train a stack of models, one for each estimator, seed and learning rate."""
    from toyiwae import records

    import_extra("torch", extra="networks", purpose="toyiwae train")
    import_extra("pydantic", extra="networks", purpose="toyiwae train")
    run = toyiwae.train(
        settings, out, resume=resume, assignments=assignments or (), data_dir=data_dir, note=console.note
    )
    document = {"folder": out.name, **run.to_dict()}
    return records.dumps(document) + "\n" if json else console.text(_show, document)


@data.callback()
def _data() -> None:
    """Holds `fetch`."""


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="where to; the user's cache if not given")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="URL", help="a folder with the gzipped files; repeatable, in order"),
    ] = None,
) -> str:
    """Bring a data set's files here, each checked by its SHA-256; what is there already is left alone."""
    from toyiwae.networks.data.fetch import fetch as bring

    return f"{bring(name, data_dir, mirrors=mirror, report=console.note)}\n"


def _show(console: Console, document: Mapping[str, Any]) -> None:
    """The members and their last line of metrics."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "proposal", "M", "K", "seed", "learning rate", "bound", "ESS"):
        table.add_column(heading, justify="left" if heading in ("model", "proposal") else "right")
    for member in document["members"]:
        numbers = [member[key] for key in ("bound", "ess")]
        shown = ["–" if number is None else f"{number:.4f}" for number in numbers]
        keys = ("model", "proposal", "M", "K", "seed", "learning_rate")
        table.add_row(*(f"{member[key]}" for key in keys), *shown)
    console.print(f"{document['data']}; after step {document['step']}")
    console.print(table)
