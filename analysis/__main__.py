"""The studies on the command line: `python -m analysis list | run | report | ledger | explorer | sweep`..."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from analysis import ledger, mathml, output, report, runner
from analysis.explorer.command import PAGE, explorer
from analysis.kept import Kept
from analysis.mnist.options import mnist
from analysis.run_all import run_all
from analysis.settings import Settings, read_assignments, read_toml
from analysis.study import Study, check_names, discover, settings_of, unknown_study
from analysis.sweep import cli as sweep_cli
from toyiwae.cli import console as refusals
from toyiwae.errors import InputError, ToyiwaeError
from toyiwae.records import provenance

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(sweep_cli.app, name="sweep")
app.command("explorer")(explorer)
app.command("mnist")(mnist)
console = Console(highlight=False, markup=False)

Quick = Annotated[bool, typer.Option("--quick", help="Small settings: seconds instead of minutes.")]
Full = Annotated[bool, typer.Option("--full", help="Full settings: hours; best with --sweeps.")]
Sweeps = Annotated[
    Path | None,
    typer.Option("--sweeps", help="Folder of stores in which cells are kept, so that a run can be resumed."),
]
File = Annotated[Path | None, typer.Option("--settings", help="TOML file with one table per study.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for figures, data and report.")]
Style = Annotated[
    str,
    typer.Option(
        "--style", metavar="VENUE", help="Sizes and type of the figures: jmlr, neurips, icml, slides."
    ),
]
Picture = Annotated[Path | None, typer.Option("--figure", help="Write the figure to this PNG file only.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Studies at a time.")]
Again = Annotated[bool, typer.Option("--again", help="Run all studies, not just those that have changed.")]
SET_HELP = "Override one setting; a value is TOML. May be given several times."


@app.command("list")
def list_() -> None:
    """The studies and what they ask."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "question", "settings"):
        table.add_column(heading, overflow="fold")
    for study in discover():
        table.add_row(study.name, mathml.plain(study.question), ", ".join(study.settings.model_fields))
    console.print(table)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="The study; `list` shows them.")],
    quick: Quick = False,
    full: Full = False,
    settings: File = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)
    ] = None,
    out: Folder = Path("results"),
    figure: Picture = None,
    style: Style = "jmlr",
    sweeps: Sweeps = None,
    processes: sweep_cli.Processes = None,
    scheduler: sweep_cli.Scheduler = None,
) -> None:
    """Run one study: figure, data and verdicts. Exit code 1 if a claim fails."""
    studies = {study.name: study for study in discover()}
    if name not in studies:
        raise InputError(unknown_study(name, studies))
    overrides = [read_toml(settings) if settings else {}, read_assignments(assignments or [], name)]
    check_names(studies.values(), *overrides)
    if unused := [other for other in overrides[1] if other != name]:
        raise InputError(f"--set {unused[0]}...: only {name} runs; use report, or run {unused[0]}")
    chosen = settings_of(studies[name], *overrides, quick=quick, full=full)
    venue = _venue(style)
    output.check_folder(figure.parent if figure is not None else out)
    with sweep_cli.keeping(sweeps, processes, scheduler):
        (outcome,) = run_all([(studies[name], chosen)], console, venue)
    if outcome.refused:  # a setting that only the computation can judge
        raise InputError(outcome.error.partition(": ")[2])
    _show_claims([outcome])
    if outcome.files and figure is not None:
        output.write_all(figure.parent, {figure.name: outcome.files[f"{name}.png"]})
    elif outcome.files:
        _write(out, outcome)
    raise typer.Exit(0 if outcome.passed else 1)


@app.command("report")
def report_(
    quick: Quick = False,
    settings: File = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="STUDY.KEY=VALUE", help=SET_HELP)
    ] = None,
    out: Folder = Path("results"),
    style: Style = "jmlr",
    jobs: Jobs = 2,
    again: Again = False,
) -> None:
    """Run all studies and write report.html; go on where it was stopped. Exit code 1 if a claim fails."""
    started = time.perf_counter()
    cells, venue = _cells(quick, settings, assignments), _venue(style)
    output.check_folder(out)
    outcomes = _outcomes(cells, jobs, Kept(out / ".kept", venue), again)
    words = ["python -m analysis report", *(["--quick"] if quick else [])]
    words += [f"--style {style}"] if style != "jmlr" else []
    source = _provenance()
    html = report.render(outcomes, source, " ".join(words))
    for outcome in outcomes:
        _write(out, outcome)
    files = ledger.files(outcomes, source) | {PAGE.name: PAGE.read_bytes()}
    output.write_all(out, {**files, "report.html": html.encode("utf-8")})
    _show_claims(outcomes)
    console.print(f"{out / 'report.html'} ({time.perf_counter() - started:.0f} s)")
    raise typer.Exit(0 if all(outcome.passed for outcome in outcomes) else 1)


@app.command("ledger")
def ledger_(
    quick: Quick = False,
    settings: File = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="STUDY.KEY=VALUE", help=SET_HELP)
    ] = None,
    out: Folder = Path("results"),
    jobs: Jobs = 2,
    again: Again = False,
) -> None:
    """Write all claims, ledger.csv and ledger.json, and run what `report` has not. Exit code 1 if one fails."""
    cells = _cells(quick, settings, assignments)
    output.check_folder(out)
    outcomes = _outcomes(cells, jobs, Kept(out / ".kept", None), again)
    output.write_all(out, ledger.files(outcomes, _provenance()))
    _show_claims(outcomes)
    raise typer.Exit(0 if all(outcome.passed for outcome in outcomes) else 1)


def _venue(name: str) -> str:
    """The style of a venue, refused before anything is computed if there is none."""
    return importlib.import_module("analysis.style").check_venue(name)  # loads matplotlib: a second


def _provenance() -> dict[str, Any]:
    """Versions and platform, torch's too where only workers have loaded it."""
    torch = {"torch": metadata.version("torch")} if importlib.util.find_spec("torch") else {}
    return {key: value for key, value in provenance().items() if key != "torch"} | torch


def _cells(quick: bool, settings: Path | None, assignments: list[str] | None) -> list[tuple[Study, Settings]]:
    """All studies, with their settings from the command line."""
    studies = discover()
    overrides = [read_toml(settings) if settings else {}, read_assignments(assignments or [])]
    check_names(studies, *overrides)
    return [(study, settings_of(study, *overrides, quick=quick)) for study in studies]


def _outcomes(
    cells: list[tuple[Study, Settings]], jobs: int, kept: Kept, again: bool
) -> list[runner.Outcome]:
    """What came of the studies, in this run or in an earlier one."""
    try:
        return run_all(
            cells, console, kept.venue or "jmlr", jobs=jobs, kept=kept.emptied() if again else kept
        )
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on with the studies that are left")
        raise typer.Exit(sweep_cli.INTERRUPTED) from None


@app.command("audit")
def audit_(
    keys: Annotated[
        list[str] | None, typer.Argument(help="ADAPTER or ADAPTER:FUNCTION of subjects.toml; by default all.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The settings of the tests.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Libraries at a time.")] = 2,
    out: Annotated[Path, typer.Option("--out", help="Folder for audit.html and audit.json.")] = Path(
        "results"
    ),
    docs: Annotated[Path | None, typer.Option("--docs", help="Also write the page of the docs.")] = None,
) -> None:
    """Run the conformance suite on other libraries. Exit code 1 if one fails elsewhere than recorded."""
    # the conformance suite takes a second to load that other commands need not wait for
    from analysis.audit import page
    from analysis.audit.run import Outcome, audit, chosen

    def show(outcome: Outcome) -> None:
        result = outcome.result
        failing = f" ({', '.join(sorted(result.fails))})" if result.fails else ""
        console.print(
            f"{result.subject.key}: {page.verdict(result)}{failing}, {outcome.seconds:.0f} s", soft_wrap=True
        )

    outcomes = audit(chosen(keys or []), light=quick, jobs=jobs, done=show)
    words = ["python -m analysis audit", *(keys or []), *(["--quick"] if quick else [])]
    source = provenance()
    run = page.facts(outcomes, quick, datetime.now(UTC).date().isoformat(), " ".join(words))
    data = json.dumps(page.document(outcomes, run, source), ensure_ascii=False, indent=1, allow_nan=False)
    html = page.html(outcomes, run, source)
    output.write_all(out, {"audit.json": data.encode("utf-8"), "audit.html": html.encode("utf-8")})
    if docs is not None:
        output.write_all(docs.parent, {docs.name: page.markdown(outcomes, run, source).encode("utf-8")})
    console.print(f"{out / 'audit.html'}: {run['conform']} of {run['ran']} objectives conform")
    for key in run["changed"]:
        console.print(f"✗ {key}: not as recorded in subjects.toml")
    raise typer.Exit(1 if run["changed"] else 0)


@app.command("bench")
def bench_(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks; by default all.")] = None,
) -> None:
    """Time the exact answers, samplers and networks on this machine; the same as `python -m analysis.benchmarks`."""
    importlib.import_module("analysis.benchmarks.__main__").main(names or ())


def _write(folder: Path, outcome: runner.Outcome) -> None:
    files = outcome.files | output.code(outcome.study) if outcome.files else {}
    output.write_all(folder, files)
    for path in output.stale(folder, outcome.study.name, files):
        path.unlink(missing_ok=True)


def _show_claims(outcomes: list[runner.Outcome]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "claim", "measured", "must be"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("measured", "must be"))
    for outcome in outcomes:
        if outcome.error:
            table.add_row("✗", f"{outcome.study.title}: {outcome.error}", "", "")
        for claim in outcome.claims:
            mark = "✓" if claim.passed else "✗"
            table.add_row(mark, mathml.plain(claim.text), report.measured(claim), report.tolerance(claim))
    console.print(table)


def main() -> None:
    """Runs the command line; errors that are a message to the user take one line and exit code 2."""
    given = sys.argv[1:]
    try:
        sys.exit(refusals.run(app, given + ["--help"] * (given in ([], ["sweep"])), "python -m analysis"))
    except (ToyiwaeError, OSError) as error:
        sys.exit(refusals.refuse(refusals.in_words(error)))


if __name__ == "__main__":
    main()
