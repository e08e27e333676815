"""One process at a time: who is refused, in which words, and which locks are known to be stale."""

import json
import os
import re
import subprocess
import sys

import pytest

from toyiwae import InputError, locks


def test_a_second_holder_is_refused_by_name(tmp_path):
    lock = tmp_path / "a.lock"
    with locks.only_process(lock, "the thing"):
        found = locks.holder(lock)
        assert found is not None
        assert found["pid"] == os.getpid()
        words = rf"^the thing is in use by process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC$"
        with pytest.raises(InputError, match=words), locks.only_process(lock, "the thing"):
            pass
    assert locks.holder(lock) is None
    with locks.only_process(lock, "the thing"):
        pass


@pytest.fixture(params=["flock", "record"])
def kind(request, monkeypatch):
    """With the system's locks, and where there are none."""
    if request.param == "record":
        monkeypatch.setattr(locks, "fcntl", None)
    return request.param


def gone(**changes):
    """The record of a process that is no more, or is another by now."""
    return locks.this_process() | changes


def test_a_lock_of_this_process_before_the_machine_was_started_is_stale(kind, tmp_path):
    (tmp_path / "a.lock").write_text(json.dumps(gone(boot="another")))
    with locks.only_process(tmp_path / "a.lock", "it"):
        pass


def test_a_lock_of_another_process_with_the_same_number_is_stale(kind, tmp_path):
    (tmp_path / "a.lock").write_text(json.dumps(gone(started=1)))
    with locks.only_process(tmp_path / "a.lock", "it"):
        pass


def test_a_lock_of_a_process_that_has_ended_is_stale(kind, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = gone(pid=child.pid, started=locks._started(child.pid))
    assert locks.is_alive(record)
    child.communicate()
    assert not locks.is_alive(record)
    (tmp_path / "a.lock").write_text(json.dumps(record))
    with locks.only_process(tmp_path / "a.lock", "it"):
        pass


def test_without_the_systems_locks_the_record_of_a_process_that_runs_keeps_others_out(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    (tmp_path / "a.lock").write_text(json.dumps(gone()))
    with pytest.raises(InputError, match="in use by process"), locks.only_process(tmp_path / "a.lock", "it"):
        pass


def test_without_the_systems_locks_another_host_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    lock = tmp_path / "a.lock"
    lock.write_text(json.dumps(gone(host="elsewhere", boot="another")))
    words = f"on elsewhere since .*; if that process is gone, delete {re.escape(repr(str(lock)))}$"
    with pytest.raises(InputError, match=words), locks.only_process(lock, "it"):
        pass


@pytest.mark.parametrize("content", ["", "1234\n", '{"pid": 12', "[1]"])
def test_a_record_that_was_not_finished_is_none(kind, content, tmp_path):
    (tmp_path / "a.lock").write_text(content)
    with locks.only_process(tmp_path / "a.lock", "it"):
        pass
