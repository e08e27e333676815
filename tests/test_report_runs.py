"""Reports on several processes, stopped and started again: the same files whatever happens on the way."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from analysis import kept as kept_module
from analysis import runner
from analysis.kept import Kept
from analysis.run_all import run_all
from analysis.study import Claim, discover, settings_of
from analysis.sweep import executors
from tests.report_studies import Own, breaks, dies, study

ROOT = Path(__file__).resolve().parents[1]


def quiet():
    return Console(file=io.StringIO(), width=120)


def found(outcomes):
    """What must not depend on how studies were run."""
    return [(one.study.name, one.claims, one.caption, one.files, one.error) for one in outcomes]


def test_an_outcome_is_kept_to_the_last_bit(tmp_path):
    odd = [
        Claim("t", "x", np.float64(0.1) + 0.2, -math.inf, math.inf, "n", None, "slide: SNR", "$K>1$"),
        Claim.near("t", "x", math.nan, expected=1 / 3, within=1e-17),
        Claim("t", "x", math.inf, low=0.0),
    ]
    outcome = runner.run(study("odd", 1, verdicts=lambda table: odd), Own())
    kept = Kept(tmp_path / "new")
    kept.save(outcome)
    again = kept.load(outcome.study, Own())
    assert again is not None
    assert again.files == outcome.files
    assert again.seconds == outcome.seconds
    assert repr(again.claims) == repr(outcome.claims).replace(
        "np.float64(0.30000000000000004)", "0.30000000000000004"
    )


def test_an_outcome_is_not_taken_where_anything_has_changed(tmp_path, monkeypatch):
    one, kept = study("one", 1), Kept(tmp_path)
    kept.save(runner.run(one, Own()))
    assert kept.load(one, Own())
    assert not kept.load(one, Own(points=5))
    assert not kept.load(study("two", 1), Own())
    assert not Kept(tmp_path, "slides").load(one, Own())
    monkeypatch.setattr(kept_module, "code", lambda: "other")
    assert not kept.load(one, Own())


class Named(Own):
    """Settings that name a folder."""

    folder: str = ""

    def reads(self):
        """The folder."""
        return (Path(self.folder),)


def test_an_outcome_is_not_taken_where_what_its_settings_name_holds_something_else(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").write_bytes(b"first")
    one, kept, own = study("one", 1, settings=Named), Kept(tmp_path / "kept"), Named(folder=str(data))
    kept.save(runner.run(one, own))
    assert kept.load(one, own)
    (data / "images").write_bytes(b"other")
    assert not kept.load(one, own)
    (data / "images").write_bytes(b"first")
    assert kept.load(one, own)
    (data / "more").write_bytes(b"")
    assert not kept.load(one, own)


def test_the_bibliography_and_python_are_part_of_what_made_an_outcome(tmp_path, monkeypatch):
    before = kept_module.code.__wrapped__()
    assert kept_module.code.__wrapped__() == before
    with monkeypatch.context() as patch:
        patch.setattr(kept_module.sys, "version", "4.0")
        assert kept_module.code.__wrapped__() != before
    other = tmp_path / "references.bib"
    other.write_bytes(kept_module.BIBLIOGRAPHY.read_bytes() + b"\n")
    monkeypatch.setattr(kept_module, "BIBLIOGRAPHY", other)
    assert kept_module.code.__wrapped__() != before


def edited(kept, change):
    """Changes the file of the study `one`."""
    path = kept.folder / "one.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("source", ["slide: nowhere", "nobody1900nothing"])
def test_a_claim_whose_source_does_not_exist_counts_as_none(tmp_path, source):
    one, kept = study("one", 1), Kept(tmp_path)
    kept.save(runner.run(one, Own()))
    edited(kept, lambda document: document["claims"][1].update(source=source))
    assert not kept.load(one, Own())


@pytest.mark.parametrize("name", ["../one.png", "/one.png", "below/one.png", "..", ""])
def test_a_file_that_would_leave_the_folder_counts_as_none(tmp_path, name):
    one, kept = study("one", 1), Kept(tmp_path)
    kept.save(runner.run(one, Own()))
    edited(kept, lambda document: document["files"].update({name: ""}))
    assert not kept.load(one, Own())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"key": 1}'])
def test_a_spoilt_file_counts_as_none(tmp_path, content):
    (tmp_path / "one.json").write_bytes(content)
    assert not Kept(tmp_path).load(study("one", 1), Own())


def test_a_claim_of_another_version_counts_as_none(tmp_path):
    one, kept = study("one", 1), Kept(tmp_path)
    kept.save(runner.run(one, Own()))
    edited(kept, lambda document: document["claims"][0].update(novel=1))
    assert not kept.load(one, Own())


def test_the_second_run_computes_only_what_broke_down_or_is_new(tmp_path):
    asked = []

    def counted(settings):
        asked.append(settings.points)
        return study("x", 1).compute(settings)

    broken, kept = study("broken", 2, compute=breaks), Kept(tmp_path)
    cells = [(study("one", 1, compute=counted), Own()), (broken, Own())]
    first = run_all(cells, quiet(), kept=kept)
    cells.append((study("new", 3, compute=counted), Own(points=7)))
    stream = io.StringIO()
    second = run_all(cells, Console(file=stream, width=120), kept=kept)
    assert asked == [4, 7]
    assert found(second[:2]) == found(first)
    assert second[1].error == "InputError: nothing to study"
    assert "One: 2 of 2 claims hold (kept)" in stream.getvalue()
    run_all(cells, quiet(), kept=kept.emptied())
    assert asked == [4, 7, 4, 7]


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(monkeypatch):
    for name in executors.THREADS:  # with as many threads as there are, sums have other last digits
        monkeypatch.delenv(name, raising=False)
    names = ("gap", "limit", "digits")
    studies = [one for one in discover() if one.name in names]
    cells = [(one, settings_of(one, quick=True)) for one in studies]
    assert len(cells) == len(names)
    assert found(run_all(cells, quiet(), jobs=2)) == found(run_all(cells, quiet(), jobs=1))


@pytest.mark.slow
def test_a_lost_process_costs_only_its_own_study():
    one, two, last = study("one", 1), study("two", 2), study("last", 4, compute=breaks)
    cells = [(one, Own()), (two, Own(seconds=1.0)), (study("deadly", 3, compute=dies), Own()), (last, Own())]
    outcomes = run_all(cells, quiet(), jobs=2)
    assert [outcome.error for outcome in outcomes] == [
        "", "", "its process was lost, twice: out of memory?", "InputError: nothing to study",
    ]  # fmt: skip
    assert found(outcomes[:2]) == found(run_all(cells[:2], quiet(), jobs=1))


def test_one_study_alone_still_has_a_process_of_its_own(tmp_path, monkeypatch):
    """What is asked for is noted in place of starting processes, whose imports take seconds."""
    asked = []

    def run_on(jobs, cells, places, venue, watch):
        asked.append((jobs, list(places)))
        for place in places:
            watch.begins(place)
            one, own = cells[place]
            watch.ends(place, runner.run(one, own, venue))

    monkeypatch.setattr("analysis.workers.run_on", run_on)
    cells, kept = [(study("one", 1), Own()), (study("two", 2), Own())], Kept(tmp_path)
    kept.save(runner.run(*cells[0]))
    run_all(cells, quiet(), jobs=2, kept=kept)
    assert asked == [(1, [1])]
    run_all(cells, quiet(), jobs=2, kept=kept)
    run_all(cells, quiet(), jobs=1, kept=kept.emptied())
    assert asked == [(1, [1])]


@pytest.mark.slow
def test_the_last_study_left_does_not_take_the_report_with_it(tmp_path):
    """One is kept, the other kills its process: this one, if it ran here."""
    cells, kept = [(study("one", 1), Own()), (study("deadly", 2, compute=dies), Own())], Kept(tmp_path)
    kept.save(runner.run(*cells[0]))
    stream = io.StringIO()
    first, last = run_all(cells, Console(file=stream, width=120), jobs=2, kept=kept)
    assert first.passed
    assert last.error == "its process was lost, twice: out of memory?"
    assert "Deadly: broke down" in stream.getvalue()


@pytest.mark.slow
def test_a_study_that_cannot_be_sent_breaks_down_alone():
    local = study("local", 1, caption=lambda table: "here")
    first, second = run_all([(local, Own()), (study("one", 2), Own())], quiet(), jobs=2)
    assert "local" in first.error or "lambda" in first.error
    assert second.passed


def start(folder, *words):
    """Starts `report` on two processes, with the studies of `report_studies`."""
    command = [
        sys.executable,
        "-m",
        "tests.report_studies",
        "report",
        "--jobs",
        "2",
        "--out",
        str(folder),
        *words,
    ]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    return process


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid):
    """Processes that a process has started, and those of theirs, as long as they live."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    own = {pid}
    for _ in pairs:
        own |= {child for child, parent in pairs if parent in own}
    return own - {pid}


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGKILL])
def test_a_report_that_was_stopped_ends_with_the_same_files(tmp_path, signalled):
    gate, folder, whole = tmp_path / "gate", tmp_path / "out", tmp_path / "whole"
    held = ["--set", f"three.gate='{gate}'"]
    process = start(folder, *held)
    wait_for(lambda: len(list((folder / ".kept").glob("*.json"))) == 4)
    workers = children(process.pid)
    assert workers
    began = time.monotonic()
    os.kill(process.pid, signalled)
    out, err = process.communicate(timeout=60)
    if signalled == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; the same command goes on" in out
        assert "Traceback" not in err
    wait_for(lambda: not any(alive(worker) for worker in workers))
    assert time.monotonic() - began < 20
    assert not (folder / "report.html").exists()
    gate.touch()
    for target in (folder, whole):
        again = start(target, *held)
        out, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert ("(kept)" in out) is (target == folder)
    names = sorted(path.name for path in whole.iterdir() if path.name != ".kept")
    assert sorted(path.name for path in folder.iterdir() if path.name != ".kept") == names
    for name in names:
        if name != "report.html":  # which has run times
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
