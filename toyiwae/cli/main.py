"""The command line: `toyiwae exact | estimate | compare | check | list | train | evaluate | data`.

Commands return the whole text of their answer, and `main` writes it, so that an error leaves nothing on
standard output. Exit codes: 0 done; 1 `check`: does not conform, `train`: a bound or parameter is not finite; 2 bad
input, with one line on standard error, or `check`: cannot be judged; 130 interrupted; 141 the reader of the output went
away.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import toyiwae
from toyiwae.cli import compare, console, networks, options
from toyiwae.errors import CostWarning, DivergenceError, InputWarning, ToldElsewhereError

app = typer.Typer(
    name="toyiwae",
    help="Importance-weighted bounds and their gradient estimators, confronted with exact answers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(networks.data, name="data")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments after the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    if sys.stdout is None:
        return console.refuse("standard output is closed: nowhere to write the answer to")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # NumPy's, of overflow: what comes of it is refused
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = console.note
            answer = console.run(app, sys.argv[1:] if argv is None else list(argv), "toyiwae")
        return console.write(answer)
    except KeyboardInterrupt:
        return console.INTERRUPTED
    except ToldElsewhereError:
        return console.BAD_INPUT
    except console.EXPECTED as error:
        code = console.refuse(console.in_words(error))
        return 1 if isinstance(error, DivergenceError) else code


def _show_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"toyiwae {toyiwae.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit"),
    ] = None,
) -> None:
    """Holds the options that belong to no command."""


@app.command()
def exact(
    problem: options.Problem,
    K: options.K,
    M: options.M = None,
    estimators: options.Estimators = None,
    parameters: options.Parameters = None,
    covariance: Annotated[
        bool, typer.Option("--covariance", help="also covariances between coordinates, and directional SNRs")
    ] = False,
    digits: Annotated[
        str | None, typer.Option("--digits", metavar="N", help="N significant digits, in ball arithmetic")
    ] = None,
    plot: options.Plot = None,
    json: options.Json = False,
) -> str:
    """Exact bounds, effective sample sizes, and gradient means, variances and SNRs, without sampling."""
    if plot is not None:
        toyiwae.plot.check_file(plot)
    settings = _settings(problem, K, M, estimators, parameters)
    result = toyiwae.exact(**settings, covariance=covariance, digits=digits)  # pyright: ignore[reportArgumentType]
    if plot is not None:
        toyiwae.plot.save(result.plot(), plot)
    return _answer(result, "exact", problem, json)


@app.command()
def estimate(
    problem: options.Problem,
    K: options.K,
    replicates: Annotated[
        str,
        typer.Option(
            "--replicates", metavar="R", help="independent replicates, at least 2", show_default=False
        ),
    ],
    seed: Annotated[
        str, typer.Option("--seed", metavar="S", help="same seed, same numbers", show_default=False)
    ],
    M: options.M = None,
    estimators: options.Estimators = None,
    parameters: options.Parameters = None,
    device: Annotated[str, typer.Option("--device", metavar="D", help="cpu, cuda or cuda:N")] = "cpu",
    engine: Annotated[str, typer.Option("--engine", metavar="E", help="numba, torch, triton, auto")] = "auto",
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="P", help="float32, float64")
    ] = None,
    threads: Annotated[str | None, typer.Option("--threads", metavar="T", help="how many at once")] = None,
    json: options.Json = False,
) -> str:
    """The same by Monte Carlo, with standard errors and the z-score against the exact answer. Needs Numba or torch."""
    from toyiwae.arguments import whole_number

    count = whole_number(replicates, "replicates", minimum=2)
    start = whole_number(seed, "seed", minimum=0)
    settings = _settings(problem, K, M, estimators, parameters)
    options = {"device": device, "engine": engine, "precision": precision, "threads": threads}
    with warnings.catch_warnings():
        warnings.simplefilter("always", CostWarning)
        warnings.showwarning = console.note
        result = toyiwae.estimate(**settings, replicates=count, seed=start, **options)
    return _answer(result, "estimate", problem, json)


class _Verdict(str):
    """The text of an answer that has an exit code of its own."""

    exit_code = 0


@app.command()
def check(
    estimator: Annotated[str, typer.Argument(metavar="FILE:NAME", help="your function", show_default=False)],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="T",
            help="what it claims to be: a name from `toyiwae list`, or bound:NAME",
            show_default=False,
        ),
    ],
    form: Annotated[
        str, typer.Option("--form", metavar="F", help="replicates, coefficients or surrogate")
    ] = "replicates",
    K: Annotated[
        options.Names, typer.Option("-K", metavar="K,...", help="particles; the bank's if not given")
    ] = None,
    M: Annotated[
        options.Names, typer.Option("-M", metavar="M,...", help="groups; the bank's if not given")
    ] = None,
    parameters: Annotated[
        options.Names,
        typer.Option(
            "-p",
            "--parameters",
            metavar="P,...",
            help="whose gradients are judged; all that are returned if not given",
        ),
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="also many rows, an amortised proposal")] = False,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="stop at a proof of a gross error")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", help="seconds for one call")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="S", help="same seed, same numbers")] = None,
    vary_seed: Annotated[bool, typer.Option("--vary-seed", help="another seed in every run")] = False,
    json: options.Json = False,
) -> str:
    """Judge a gradient estimator of your own against exact answers: 0 conforms, 1 does not, 2 cannot be judged."""
    import importlib

    from toyiwae.arguments import whole_number

    options: dict[str, Any] = {"form": form, "rows": rows, "sequential": sequential, "timeout": timeout}
    options |= {
        name: ",".join(text) for name, text in (("K", K), ("M", M), ("parameters", parameters)) if text
    }
    if seed is not None:
        options["seed"] = whole_number(seed, "seed", minimum=0)
    elif vary_seed:
        options["seed"] = int.from_bytes(os.urandom(4), "big")
    report = toyiwae.check(estimator, target, **options)
    document = report.to_dict()
    show = importlib.import_module("toyiwae.conformance.report_table").show
    answer = _Verdict(_dumps(document) if json else console.text(show, document))
    answer.exit_code = report.exit_code
    return answer


@app.command("list")
def list_(json: options.Json = False) -> str:
    """The registered estimators: parameter, what they are unbiased for, flags, source."""
    from toyiwae.cli import listing

    entries = listing.entries()
    return _dumps({"estimators": entries}) if json else console.text(listing.show, entries)


app.command()(compare.compare)
app.command()(networks.train)
app.command()(networks.evaluate)


def _settings(
    problem: Path, K: list[str], M: options.Names, estimators: options.Names, parameters: options.Names
) -> dict[str, Any]:
    """The arguments that `toyiwae.exact` and `toyiwae.estimate` share, checked, cheap ones first."""
    from toyiwae import arguments
    from toyiwae import estimators as registry

    particles = arguments.whole_numbers(",".join(K), "K")
    groups = arguments.whole_numbers(",".join(M or ["1"]), "M")
    chosen = registry.select(",".join(estimators), particles) if estimators else None
    loaded = toyiwae.load(problem)
    asked = ",".join(parameters) if parameters else None
    names = arguments.parameter_names(asked, loaded.parameters, loaded.mean_parameters)
    own = {} if chosen is None else {"estimators": chosen}  # else each function's own
    return {"problem": loaded, "K": particles, "M": groups, "parameters": names, **own}


def _answer(result: Any, command: str, problem: Path, json: bool) -> str:
    """A result as text; its provenance also names the command and the problem's file."""
    document = result.to_dict()
    provenance = document["provenance"]
    provenance["arguments"] = {"command": command, "file": problem.name, **provenance["arguments"]}
    if json:
        return _dumps(document)
    from toyiwae.cli import tables

    return console.text(getattr(tables, command), document)


def _dumps(document: Any) -> str:
    from toyiwae import records

    return records.dumps(document) + "\n"
