"""`python -m analysis sweep plan | run | status | export | gc`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from analysis.sweep import executors, export, forecast, grid
from analysis.sweep.cells import Place, kept_in
from analysis.sweep.engine import BATCH_SECONDS
from analysis.sweep.executors import Workers
from analysis.sweep.lookup import find
from analysis.sweep.progress import duration
from analysis.sweep.run import sweep
from analysis.sweep.store import lock_of, reading, writing
from toyiwae import files, locks
from toyiwae.errors import InputError

app = typer.Typer(help="Grids of cells: crash-safe, resumable, on any executor.")
console = Console(highlight=False, markup=False, soft_wrap=True)

STORES = Path("results") / "sweeps"
INTERRUPTED = 130

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="TOML file of the grid.")]
Either = Annotated[Path, typer.Argument(metavar="GRID|STORE", help="The grid's TOML file, or the store.")]
StoreFile = Annotated[
    Path | None,
    typer.Option("--store", help="SQLite file of the rows; by default results/sweeps/NAME.sqlite."),
]
Processes = Annotated[int | None, typer.Option("--processes", min=1, help="Run on so many processes.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Run on so many threads.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster: tcp://HOST:PORT.")
]


@app.command()
def plan(file: GridFile, store: StoreFile = None, processes: Processes = None) -> None:
    """Check a grid; say what is stored, what is to do, and about how long that takes. Writes nothing."""
    asked = grid.load(file)
    path = store or _default(asked.name)
    expected = forecast.forecast(asked, path)
    console.print(f"{asked.name}: {len(asked):,} cells of {asked.experiment.name}")
    for name in asked.names:
        values = dict.fromkeys(str(value) for table in asked.axes for value in table.get(name, ()))
        console.print(f"  {name}: {', '.join(list(values)[:12])}{', …' if len(values) > 12 else ''}")
    console.print(f"stored: {expected.done:,}, failed: {expected.failed:,}, to do: {expected.to_do:,}")
    if expected.edited:
        console.print(
            f"{path} was made for other cells or another version: run with --update, or another --store"
        )
    if expected.seconds is None and expected.to_do:
        console.print("time: unknown until some cells have run; try run --limit 20")
    elif expected.to_do:
        assert expected.seconds is not None
        time = duration(expected.seconds / (processes or 1))
        console.print(f"time: about {time} on {processes or 1} process{'es' if (processes or 1) > 1 else ''}")


@app.command()
def run(
    file: GridFile,
    store: StoreFile = None,
    processes: Processes = None,
    threads: Threads = None,
    scheduler: Scheduler = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many cells.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take the grid, or the version, as it is now into the store.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run cells again that failed.")
    ] = False,
    batch: Annotated[float, typer.Option("--batch", help="Seconds of work sent at a time.")] = BATCH_SECONDS,
) -> None:
    """Run what has no rows yet; again after an interruption. Exit code 1 if cells failed, 130 on Ctrl-C."""
    workers = chosen_workers(processes, threads, scheduler)
    if batch <= 0:
        raise InputError(f"--batch is {batch}: expected seconds greater than 0")
    asked = grid.load(file)
    path = store or _default(asked.name)
    if store is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        summary = sweep(
            asked, path, workers=workers, limit=limit, update=update, retry_failed=retry_failed,
            batch_seconds=batch, note=_note,
        )  # fmt: skip
    except KeyboardInterrupt:
        _note(f"interrupted; what was finished is in {path}: run the same command to go on")
        raise _leaving(INTERRUPTED) from None
    console.print(
        f"{summary.done:,} of {len(asked):,} cells done, {summary.failed:,} failed, {summary.to_do:,} to do; "
        f"{summary.blocks:,} blocks in {duration(summary.seconds)}; {path}"
    )
    if summary.failed:
        console.print(f"see: python -m analysis sweep status {path}")
    raise typer.Exit(1 if summary.failed else 0)


@app.command()
def status(
    file: Either,
    store: StoreFile = None,
    tracebacks: Annotated[bool, typer.Option("--tracebacks", help="Show them whole.")] = False,
    most: Annotated[int, typer.Option("--most", min=0, help="Failed cells to show.")] = 20,
) -> None:
    """Say how a sweep stands, who works on it, and which cells failed, with their settings."""
    path = _store(file, store)
    with reading(path) as found:
        declared = found.declaration or {}
        to_do, done, failed = found.counts()
        total = to_do + done + failed
        what = f"{declared.get('name')}: {declared.get('experiment')}, version {declared.get('version')}"
        console.print(f"{what}, toyiwae {declared.get('toyiwae')}" if declared else "no grid yet")
        share = f" ({100 * done / total:.1f} %)" if total else ""
        console.print(f"{done:,} of {total:,} cells done{share}, {failed:,} failed, {to_do:,} to do")
        if unplanned := found.unplanned():
            console.print(f"{unplanned:,} rows of other settings or versions, kept until gc")
        holder = locks.holder(lock_of(path))
        console.print(f"written by {locks.in_words(holder)}" if holder else "nobody writes to it")
        for own, block, error, traceback in found.failures(most):
            words = ", ".join(f"{name} = {value}" for name, value in own.items())
            console.print(f"✗ {words} (block {block}): {error}")
            if tracebacks:
                console.print(traceback)
        if failed > most:
            console.print(f"… and {failed - most:,} more")
        if failed:
            console.print("run them again: python -m analysis sweep run GRID --retry-failed")


@app.command("export")
def export_(
    file: Either,
    out: Annotated[Path, typer.Option("--out", help="FILE.csv, or FILE.nc for netCDF.")],
    store: StoreFile = None,
) -> None:
    """Write the finished cells, in the order of the grid, with their provenance."""
    if out.suffix not in export.FORMATS:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(export.FORMATS)}")
    if not out.parent.is_dir():
        raise InputError(f"no such folder: {str(out.parent)!r}")
    path = _store(file, store)
    with reading(path) as found:
        if file.suffix == ".toml":
            experiment = grid.load(file).experiment
        else:
            experiment = find((found.declaration or {}).get("experiment"))
        count = export.FORMATS[out.suffix](found, experiment, out)
        to_do, _, failed = found.counts()
    rest = f"; {to_do:,} are to do and {failed:,} failed" if to_do or failed else ""
    console.print(f"{out}: {count:,} cells{rest}")


@app.command()
def gc(file: Either, store: StoreFile = None) -> None:
    """Delete rows of other settings and versions from a store."""
    path = _store(file, store)
    before = path.stat().st_size if path.is_file() else 0
    with writing(path, create=False) as found:
        count = found.gc()
    console.print(f"{path}: {count:,} rows deleted, {(before - path.stat().st_size) / 1e6:.1f} MB given back")


def chosen_workers(processes: int | None, threads: int | None, scheduler: str | None) -> Workers:
    """What options ask cells to run on.

    Raises:
        InputError: more than one of them.
    """
    given = {"--processes": processes, "--threads": threads, "--scheduler": scheduler}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InputError(f"{' and '.join(names)} are given: expected one of them")
    if processes is not None:
        return executors.processes(processes)
    if threads is not None:
        return executors.threads(threads)
    return executors.serial() if scheduler is None else executors.dask(scheduler)


@contextlib.contextmanager
def keeping(folder: Path | None, processes: int | None, scheduler: str | None) -> Iterator[None]:
    """Within the block, cells of studies are kept in stores in a folder, and run as options ask.

    Raises:
        InputError: options that say where to run, and no folder.
    """
    if folder is None:
        if processes is not None or scheduler is not None:
            raise InputError(
                "--processes and --scheduler run cells that are kept: expected --sweeps FOLDER, too"
            )
        yield
        return
    with kept_in(Place(folder, chosen_workers(processes, None, scheduler), _note)):
        yield


def _default(name: str) -> Path:
    if Path(name).name != name:
        raise InputError(f"name is {name!r}: expected one that can be a file's name, or --store")
    return STORES / f"{name}.sqlite"


def _store(file: Path, store: Path | None) -> Path:
    """The store that an argument and an option name."""
    if store is not None:
        return store
    if file.suffix != ".toml":
        return file
    return _default(str(files.read_toml(file).get("name", file.stem)))


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _leaving(code: int) -> typer.Exit:
    """What ends the process; at once if threads still run a cell, which nothing can stop."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        os._exit(code)
    return typer.Exit(code)
