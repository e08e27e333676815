"""The engine of sweeps: the same rows on every executor, failures, lost workers, adaptive replicates, Ctrl-C."""

import csv
import dataclasses
import importlib
import io
import json
import os
import signal
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

from analysis.sweep import executors
from analysis.sweep.adaptive import Replicates
from analysis.sweep.export import to_dataframe
from analysis.sweep.run import sweep
from analysis.sweep.store import reading
from tests.sweep_cells import TOY, exported, forked, grid, of_all, pausing, toy
from toyiwae import InputError, ToyiwaeError

TARGET = Replicates(quantity="draw", target_se=0.08, at_most=40)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Exports of a plain sweep and of one with a target, run cell by cell."""
    folder = tmp_path_factory.mktemp("expected")
    sweep(grid(), folder / "toy.sqlite")
    sweep(grid(replicates=TARGET), folder / "target.sqlite")
    return exported(folder / "toy.sqlite"), exported(folder / "target.sqlite")


def test_rows_are_those_of_the_experiment(tmp_path):
    summary = sweep(grid(), tmp_path / "a.sqlite")
    assert (summary.done, summary.failed, summary.to_do, summary.blocks) == (12, 0, 0, 12)
    with reading(tmp_path / "a.sqlite") as store:
        frame = to_dataframe(store, TOY)
    for (_, row), cell in zip(frame.iterrows(), grid().cells(), strict=True):
        own = json.loads(cell.own)
        settings = TOY.settings(**own)
        assert {name: row[name] for name in own} == own
        assert row.draw == of_all([toy(settings, 0)])["draw"]
        assert row["list"] == toy(settings, 0)["list"]


def test_threads_give_the_same(tmp_path, expected):
    for rule, right in zip((Replicates(), TARGET), expected, strict=True):
        path = tmp_path / f"{rule.blocks}{rule.at_most}.sqlite"
        sweep(grid(replicates=rule), path, workers=executors.threads(2))
        assert exported(path) == right


def test_processes_give_the_same(tmp_path, expected):
    sweep(grid(replicates=TARGET), tmp_path / "a.sqlite", workers=executors.processes(2))
    assert exported(tmp_path / "a.sqlite") == expected[1]


FAKE = """
threads = 3
def get_num_threads():
    return threads
def set_num_threads(count):
    global threads
    threads = count
"""


@pytest.mark.parametrize("pool", [False, True])
def test_torch_has_one_thread_in_cells_and_its_own_number_afterwards(tmp_path, monkeypatch, pool):
    """Also if a cell is the first to import it; here it is another module of that name."""
    (tmp_path / "torch.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        sys.modules, "torch", None
    )  # what is there afterwards is what is there now, if anything
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    def run(settings, block):
        return toy(settings, block) | {"value": importlib.import_module("torch").get_num_threads()}

    experiment = dataclasses.replace(TOY, run=run)
    with ThreadPoolExecutor(1) as own:
        workers = executors.of_executor(own, 1) if pool else executors.serial()
        sweep(grid(experiment=experiment), tmp_path / "a.sqlite", workers=workers)
    with reading(tmp_path / "a.sqlite") as store:
        assert set(to_dataframe(store, TOY)["value"]) == {1}
    assert importlib.import_module("torch").get_num_threads() == 3


def test_an_executor_of_ones_own_serves(tmp_path, expected):
    with ThreadPoolExecutor(1) as pool:
        sweep(grid(), tmp_path / "a.sqlite", workers=executors.of_executor(pool, 1))
    assert exported(tmp_path / "a.sqlite") == expected[0]


def test_a_sweep_goes_on_where_a_limit_ended_it(tmp_path, expected):
    path = tmp_path / "a.sqlite"
    for left in (7, 2, 0):
        assert sweep(grid(), path, limit=5).to_do == left
    assert sweep(grid(), path).blocks == 0
    assert exported(path) == expected[0]


def test_a_target_is_reached_with_few_blocks_too_many(expected):
    rows = list(csv.DictReader(io.StringIO(expected[1][0].decode())))
    blocks = np.array([int(row["blocks"]) for row in rows])
    errors = np.array([float(row["draw_se"]) for row in rows])
    assert ((errors <= 0.08) | (blocks == 40)).all()
    assert (errors[blocks > 1] > 0.08 / 1.5).all()
    assert len(set(blocks)) > 2
    assert blocks.max() <= 40


def test_blocks_are_resumed_one_by_one(tmp_path, expected):
    path, done = tmp_path / "a.sqlite", []

    def broken(settings, block):
        done.append(block)
        if len(done) == 30:
            raise KeyboardInterrupt
        return toy(settings, block)

    with pytest.raises(KeyboardInterrupt):
        sweep(grid(experiment=dataclasses.replace(TOY, run=broken), replicates=TARGET), path)
    with reading(path) as store:
        kept = sum(store._query("SELECT count(*) FROM blocks").fetchone())
    assert kept == 29
    rest = sweep(grid(replicates=TARGET), path)
    assert exported(path) == expected[1]
    with reading(path) as store:
        assert rest.blocks + kept == sum(store._query("SELECT count(*) FROM blocks").fetchone())


def test_a_cell_that_raises_is_recorded_and_the_others_go_on(tmp_path):
    once, path = tmp_path / "mended", tmp_path / "a.sqlite"
    bad = grid(axes=[{"trouble": ["", "overflow", "exit"], "x": [1.0, 2.0]}], settings={"once": str(once)})
    os.mkdir(tmp_path / "x")
    never = grid(axes=bad.axes, settings={"once": str(tmp_path / "x" / "y" / "z")})  # cannot be touched
    summary = sweep(never, path)
    assert (summary.done, summary.failed) == (2, 4)
    with reading(path) as store:
        found = store.failures()
        frame = to_dataframe(store, TOY)
    assert [own for own, *_ in found] == [
        {"trouble": trouble, "x": x} for trouble in ("overflow", "exit") for x in (1.0, 2.0)
    ]
    assert all("FileNotFoundError" in error and "Traceback" in text for *_, error, text in found)
    assert len(frame) == 2
    assert sweep(never, path).blocks == 0  # failures stay until they are asked for
    once.touch()
    mended = sweep(bad, path, update=True, retry_failed=True)
    assert (mended.done, mended.failed, mended.blocks) == (6, 0, 4)
    with reading(path) as store:
        assert store.failures() == []


def test_what_is_raised_is_said_with_its_traceback(tmp_path):
    sweep(grid(axes=[{"trouble": ["overflow"], "x": [2.5]}]), tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as store:
        ((own, block, error, text),) = store.failures()
    assert (own["x"], block, error) == (2.5, 0, "ArithmeticError: overflow at x = 2.5")
    assert "in toy" in text


class Losing(Executor):
    """Loses what was submitted, as a broken pool does, at the submissions of given numbers."""

    made, lost = 0, ()

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        Losing.made += 1
        if Losing.made in Losing.lost:
            future.set_exception(executors.BrokenExecutor("a worker died"))
        else:
            future.set_result(fn(*args))
        return future


@pytest.mark.parametrize("lost", [(2,), (2, 3, 4), tuple(range(2, 30, 3))])
def test_blocks_of_lost_workers_run_again(tmp_path, expected, monkeypatch, lost):
    monkeypatch.setattr(Losing, "made", 0)
    monkeypatch.setattr(Losing, "lost", lost)
    workers = executors.Workers(Losing, lambda executor: 2, lambda executor: None)
    sweep(grid(replicates=TARGET), tmp_path / "a.sqlite", workers=workers)
    assert exported(tmp_path / "a.sqlite") == expected[1]
    assert Losing.made > len(lost)


def test_workers_that_never_work_end_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(Losing, "lost", range(10**6))
    workers = executors.Workers(Losing, lambda executor: 2, lambda executor: None)
    with pytest.raises(ToyiwaeError, match="workers die before they finish anything: BrokenExecutor"):
        sweep(grid(), tmp_path / "a.sqlite", workers=workers)


def test_a_worker_of_another_version_is_refused(tmp_path, monkeypatch):
    class Other(executors.Serial):
        def submit(self, fn, /, *args, **kwargs):
            with monkeypatch.context() as patch:
                patch.setattr("toyiwae.__version__", "0.0.1")
                return super().submit(fn, *args, **kwargs)

    workers = executors.Workers(Other, lambda executor: 1, lambda executor: None)
    with pytest.raises(ToyiwaeError, match=r"a worker has toyiwae 0\.0\.1, the sweep"):
        sweep(grid(), tmp_path / "a.sqlite", workers=workers)


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_fails_alone(tmp_path):
    """Innocent cells that were on their way with it run again and are done."""
    axes = [{"trouble": ["", "kill"], "x": [1.0], "n": [1]}, {"n": list(range(2, 30))}]
    path = tmp_path / "a.sqlite"
    summary = sweep(grid(axes=axes), path, workers=executors.processes(2))
    assert (summary.done, summary.failed) == (29, 1)
    with reading(path) as store:
        ((own, _, error, _),) = store.failures()
    assert own["trouble"] == "kill"
    assert "its worker was lost" in error


@pytest.mark.slow
def test_a_cell_whose_worker_was_killed_once_is_done(tmp_path):
    axes = [{"trouble": ["kill"], "x": [1.0], "n": [1]}, {"n": list(range(2, 30))}]
    once = {"once": str(tmp_path / "once")}
    summary = sweep(grid(axes=axes, settings=once), tmp_path / "a.sqlite", workers=executors.processes(2))
    assert (summary.done, summary.failed) == (29, 0)


def interrupted(path, workers, pause, after):
    """Sends Ctrl-C to a sweep in a process of its own; seconds until it ended, rows it kept."""
    with pausing(pause):
        child = forked(lambda: sweep(grid(), path, workers=workers))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if path.exists() and kept(path) >= after:
            break
    began = time.monotonic()
    os.kill(child, signal.SIGINT)
    os.waitpid(child, 0)
    return time.monotonic() - began, kept(path)


def kept(path):
    try:
        with reading(path) as store:
            return store.counts()[1]
    except InputError:  # it is just being made
        return 0


def test_ctrl_c_keeps_what_is_finished(tmp_path, expected):
    seconds, rows = interrupted(tmp_path / "a.sqlite", executors.serial(), 0.1, 3)
    assert seconds < 2
    assert 3 <= rows < 12
    sweep(grid(), tmp_path / "a.sqlite")
    assert exported(tmp_path / "a.sqlite") == expected[0]


@pytest.mark.slow
def test_ctrl_c_ends_processes_in_the_middle_of_a_cell(tmp_path, expected):
    path = tmp_path / "a.sqlite"
    sweep(grid(), path, limit=4)
    seconds, rows = interrupted(path, executors.processes(2), 30.0, 4)
    assert seconds < 2
    assert rows == 4
    sweep(grid(), path)
    assert exported(path) == expected[0]
