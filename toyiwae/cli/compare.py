"""`toyiwae compare`: which estimator, which K, which M, for a budget of particles."""

from __future__ import annotations

from typing import Annotated

import typer

import toyiwae
from toyiwae.cli import console, options


def compare(
    problem: options.Problem,
    budget: Annotated[
        str, typer.Option("--budget", metavar="T", help="particles of each estimate, M·K", show_default=False)
    ],
    estimators: Annotated[
        options.Names,
        typer.Option(
            "-e",
            "--estimators",
            metavar="NAME[:PARAMETER],...",
            help="from `toyiwae list`, or FILE.py:NAME; the whole list if not given",
        ),
    ] = None,
    parameters: options.Parameters = None,
    by: Annotated[str, typer.Option("--by", metavar="BY", help="rank by rmse or by snr")] = "rmse",
    every: Annotated[bool, typer.Option("--all", help="the whole ranking, not its first lines")] = False,
    plot: options.Plot = None,
    json: options.Json = False,
) -> str:
    """Which estimator, K and M? All of them at every split M·K = T, ranked by exact errors of their gradients."""
    from toyiwae import arguments, records
    from toyiwae.truth.comparison import LARGEST_BUDGET

    particles = arguments.whole_number(budget, "budget", maximum=LARGEST_BUDGET)
    if plot is not None:
        toyiwae.plot.check_file(plot)
    result = toyiwae.compare(
        toyiwae.load(problem),
        budget=particles,
        estimators=None if estimators is None else ",".join(estimators),
        parameters=None if parameters is None else ",".join(parameters),
        by=by,
    )
    if plot is not None:
        toyiwae.plot.save(result.plot(), plot)
    document = result.to_dict()
    provenance = document["provenance"]
    provenance["arguments"] = {"command": "compare", "file": problem.name, **provenance["arguments"]}
    if json:
        return records.dumps(document) + "\n"
    from toyiwae.cli import rankings

    return console.text(rankings.show, document, every)
