"""The command `python -m analysis explorer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis import output

PAGE = Path(__file__).parents[2] / "docs" / "explorer.html"
"""The page as it is committed."""


def explorer(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = PAGE,
    measure: Annotated[
        bool, typer.Option("--measure", help="First measure its accuracy again: minutes, needs Node.js.")
    ] = False,
) -> None:
    """Write the interactive page: one file that needs no network."""
    from analysis.explorer import accuracy, page  # the oracle, of no use to the other commands

    if measure:
        for name, worst in accuracy.write(page.numerics())["worst"].items():
            typer.echo(f"{name}: {worst}")
    output.write_all(out.parent, {out.name: page.render().encode("utf-8")})
    typer.echo(out)
