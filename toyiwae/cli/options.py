"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Problem = Annotated[Path, typer.Argument(metavar="PROBLEM.toml", help="problem file", show_default=False)]
Names = list[str] | None
K = Annotated[
    list[str],
    typer.Option("-K", metavar="K,...", help="particles inside the log, e.g. 1,16,1e6", show_default=False),
]
M = Annotated[
    Names, typer.Option("-M", metavar="M,...", help="groups averaged outside the log; 1 if not given")
]
Estimators = Annotated[
    Names,
    typer.Option(
        "-e",
        "--estimators",
        metavar="NAME[:PARAMETER],...",
        help="from `toyiwae list`, or FILE.py:NAME; iwae if not given, score_function for binary latents",
    ),
]
Parameters = Annotated[
    Names,
    typer.Option(
        "-p",
        "--parameters",
        metavar="NAME,...",
        help="whose gradients, all or none; the prior's and the proposal's mean if not given",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="strict JSON instead of tables")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="also write a figure: .png, .pdf or .svg")
]
