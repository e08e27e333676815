"""The store of sweeps: who may write, what is refused, full disks, network file systems, kills."""

import os
import re
import resource
import signal
import sqlite3
import time

import pytest

from analysis.sweep import mounts, run
from analysis.sweep.adaptive import Replicates
from analysis.sweep.run import sweep
from analysis.sweep.schema import FORMAT
from analysis.sweep.store import reading, writing
from tests import sweep_crashes
from tests.sweep_cells import exported, forked, grid, pausing
from toyiwae import InputError, ToyiwaeError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.sqlite"


def integrity(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def test_the_store_is_one_file_with_a_rollback_journal(path):
    sweep(grid(), path)
    assert integrity(path) == "ok"
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    connection.close()
    assert {file.name for file in path.parent.iterdir()} == {"a.sqlite", "a.sqlite.lock"}
    with reading(path) as store:
        assert store._query("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def planned(path):
    """How many cells a reader sees; none while the store is being made."""
    try:
        with reading(path) as store:
            return sum(store.counts())
    except InputError:
        return 0


def test_a_second_writer_is_refused_by_name_and_a_reader_is_not(path):
    with pausing(0.2):
        child = forked(lambda: sweep(grid(), path))
    try:
        deadline = time.monotonic() + 30
        while planned(path) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        words = rf"a\.sqlite' is in use by process {child} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC$"
        with pytest.raises(InputError, match=words):
            sweep(grid(), path)
        assert planned(path) == 12
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert sweep(grid(), path).to_do == 0  # the lock of a killed process needs no flag


def test_a_store_of_another_format_says_what_to_do(path):
    sweep(grid(), path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    words = rf"of format {FORMAT + 1}, but toyiwae \S+ reads format {FORMAT}: export it with the version that made it"
    for opened in (reading(path), writing(path)):
        with pytest.raises(InputError, match=words), opened:
            pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a store", "cannot be opened as a store: file is not a database"),
        (b"\0" * 8192, "cannot be opened as a store|is not a store of a sweep"),
    ],
)
def test_another_file_is_refused(path, content, words):
    path.write_bytes(content)
    with pytest.raises(InputError, match=words), writing(path):
        pass
    assert path.read_bytes() == content


def test_another_database_is_refused(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE others (a)")
    connection.close()
    with pytest.raises(InputError, match="is not a store of a sweep: name another file"), writing(path):
        pass


def test_a_missing_store_and_a_missing_folder(path):
    with pytest.raises(InputError, match="no such store"), reading(path):
        pass
    with pytest.raises(InputError, match="no such folder"):
        sweep(grid(), path.parent / "none" / "a.sqlite")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"seed": 1}}, r"settings is \{'seed': 1\}, but .* was made with \{\}: .*--update"),
        ({"axes": [{"n": [1, 2, 3]}]}, "axes is .*, but .* was made with"),
        ({"name": "other"}, "name is 'other', but .* was made with 'toy'"),
    ],
)
def test_edited_settings_are_refused_before_anything_runs(path, changes, words):
    sweep(grid(), path, limit=5)
    before = path.read_bytes()
    with pytest.raises(InputError, match=words):
        sweep(grid(**changes), path)
    assert path.read_bytes() == before
    sweep(grid(**changes), path, update=True)


def test_another_version_of_the_package_is_refused_with_what_to_do(path, monkeypatch):
    sweep(grid(), path)
    with monkeypatch.context() as patch:
        patch.setattr("toyiwae.__version__", "99.0")
        with pytest.raises(
            InputError, match=r"toyiwae is '99\.0', but .* was made with '.*': .* say --update"
        ):
            sweep(grid(), path)
        assert sweep(grid(), path, update=True).blocks == 12
        with reading(path) as store:
            assert store.unplanned() == 12  # rows of the old version stay
    assert sweep(grid(), path, update=True).blocks == 0


def test_a_full_disk_is_a_clear_message_and_the_store_stays(path):
    """A limit on the size of files stands for the disk."""
    many = grid(axes=[{"kind": ["sin", "cos"], "n": list(range(1, 201))}])
    whole = path.with_name("whole.sqlite")
    sweep(many, whole)
    sweep(many, path, limit=100)  # rows are written in batches: all others may be in one, which does not fit
    said = path.with_name("said")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size * 2 // 3, resource.RLIM_INFINITY))
        try:
            sweep(many, path)
        except ToyiwaeError as error:
            said.write_text(str(error))

    assert os.waitpid(forked(limited), 0)[1] == 0
    words = r"cannot use '.*a\.sqlite': .*(full|I/O error).*stored before is intact: make room"
    assert re.search(words, said.read_text())
    assert integrity(path) == "ok"
    with reading(path) as store:
        to_do, done, _ = store.counts()
    assert done >= 100
    assert to_do > 0
    assert sweep(many, path).blocks == to_do
    assert exported(path)[0] == exported(whole)[0]


MOUNTS = """
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
41 40 0:36 / /home/me/with\\040space rw - xfs /dev/sdb1 rw
42 22 0:37 / /scratch rw - lustre mgs:/fs rw
43 22 0:38 / /mnt/ssh rw - fuse.sshfs me@there: rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/tmp/a.sqlite", None),
        ("/home/me/a.sqlite", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/a.sqlite", None),
        ("/home/me/with space/a.sqlite", None),
        ("/scratch/me/a.sqlite", "lustre"),
        ("/mnt/ssh/a.sqlite", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_recognised(place, kind):
    assert mounts.network_file_system(place, MOUNTS) == kind


def test_a_network_file_system_is_said_when_a_store_is_made(path, monkeypatch):
    monkeypatch.setattr(run, "network_file_system", lambda path: "nfs4")
    notes = []
    sweep(grid(), path, note=notes.append)
    assert re.search(r"a\.sqlite' lies on a network file system \(nfs4\)", notes[0])
    sweep(grid(), path, note=notes.append)
    assert len(notes) == 1


def test_this_systems_mounts_are_read():
    assert mounts.network_file_system("/proc") is None


def test_old_rows_stay_until_gc(path):
    sweep(grid(), path)
    few = grid(axes=[{"kind": ["sin"], "x": [0.25], "n": [1, 4]}])
    assert sweep(few, path, update=True).blocks == 0
    with writing(path) as store:
        assert store.unplanned() == 10
        assert store.gc() == 10
        assert store.gc() == 0
    assert integrity(path) == "ok"
    assert sweep(grid(), path, update=True).blocks == 10


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Replicates(3), Replicates(2)),
        (Replicates(quantity="draw", target_se=0.08), Replicates(quantity="draw", target_se=0.15)),
        (Replicates(4), Replicates(quantity="draw", target_se=0.3)),
    ],
)
def test_blocks_beyond_the_plan_do_not_count(path, first, then):
    sweep(grid(replicates=first), path)
    assert sweep(grid(replicates=then), path, update=True).to_do == 0
    fresh = path.with_name("fresh.sqlite")
    sweep(grid(replicates=then), fresh)
    assert exported(path) == exported(fresh)
    assert sweep(grid(replicates=first), path, update=True).blocks == 0  # they are still there


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(capsys):
    assert sweep_crashes.main(20, 1) == 0, capsys.readouterr().out
