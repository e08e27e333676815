"""The store of a sweep: one SQLite file, a row for every block of every cell, safe against `kill -9` and full disks.

Rows belong to a cell, and a cell is identified by a hash of its settings, the experiment's version and the package's.
Writing a row again changes nothing; rows of other settings or versions stay until `gc`. Rollback journal, never WAL
(wrong on network file systems), `synchronous=FULL`, one writer, kept apart from others by a lock file; readers need no
lock. What is written in one call of `write` is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import toyiwae
from analysis.sweep import schema
from analysis.sweep.grid import Grid
from analysis.sweep.work import Result
from toyiwae import locks
from toyiwae.errors import InputError, ToyiwaeError

WAIT_SECONDS = 60.0
TO_DO, DONE, FAILED = range(3)
WANTED = "block < plan.blocks"  # a cell may have more: of a plan that was made before
UNPLANNED = "cell NOT IN (SELECT cell FROM plan)"


class Planned(NamedTuple):
    """A cell that is to be run: its place in the order, its number, and its settings as JSON."""

    position: int
    cell: int
    own: str
    common: str


class Store:
    """An open store.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection):
        """Takes what `writing` and `reading` have opened."""
        self.path, self._connection = path, connection

    @property
    def declaration(self) -> dict[str, Any] | None:
        """Of the grid whose cells are planned; None in a new store."""
        found = self._query("SELECT value FROM facts WHERE name = 'grid'").fetchone()
        return json.loads(found[0]) if found else None

    @property
    def contents(self) -> str | None:
        """The `contents` of the grid whose cells are planned; None in a new store."""
        found = self._query("SELECT value FROM facts WHERE name = 'contents'").fetchone()
        return found[0] if found else None

    def adopt(self, grid: Grid) -> None:
        """Plans the cells of a grid, in place of those planned before; rows there are count as done.

        Raises:
            InputError: for bad cells; nothing is changed then.
        """
        ordered, replicates = grid.ordered(), grid.replicates
        commons = {cell.common for _, cell in ordered}
        most = replicates.blocks if replicates.target_se is None else replicates.at_most
        with self._transaction():
            self._many("INSERT OR IGNORE INTO commons (settings) VALUES (?)", ((text,) for text in commons))
            number = dict(self._query("SELECT settings, id FROM commons"))
            self._many(
                "INSERT INTO cells (key, common, own) VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET common = excluded.common, own = excluded.own",
                ((cell.key, number[cell.common], cell.own) for _, cell in ordered),
            )
            self._query("DELETE FROM plan")
            self._many(
                "INSERT INTO plan SELECT ?, ?, id, 0, ? FROM cells WHERE key = ?",
                (
                    (position, place, replicates.blocks, cell.key)
                    for position, (place, cell) in enumerate(ordered)
                ),
            )
            if replicates.target_se is None:
                self._query(
                    "UPDATE plan SET state = ? WHERE blocks = "
                    f"(SELECT count(*) FROM blocks AS there WHERE there.cell = plan.cell AND {WANTED})",
                    (DONE,),
                )
            self._query(
                "UPDATE plan SET state = ? WHERE state = ? AND cell IN (SELECT cell FROM failures WHERE block < ?)",
                (FAILED, TO_DO, most),
            )
            facts = [("grid", json.dumps(grid.declaration)), ("contents", grid.contents)]
            self._many("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)

    def counts(self) -> tuple[int, int, int]:
        """How many of the planned cells are to do, done, and failed."""
        sums = ", ".join(f"ifnull(sum(state = {state}), 0)" for state in (TO_DO, DONE, FAILED))
        return self._query(f"SELECT {sums} FROM plan").fetchone()

    def to_do(self, after: int, limit: int) -> list[Planned]:
        """The next cells to be run, beyond a position."""
        query = (
            "SELECT position, cell, own, settings FROM plan JOIN cells ON cells.id = cell "
            "JOIN commons ON commons.id = common WHERE state = ? AND position > ? ORDER BY position LIMIT ?"
        )
        return [Planned(*found) for found in self._query(query, (TO_DO, after, limit))]

    def rows_of(self, cell: int) -> dict[int, dict[str, Any]]:
        """Block -> row of one cell."""
        found = self._query("SELECT block, row FROM blocks WHERE cell = ?", (cell,))
        return {block: json.loads(row) for block, row in found}

    def write(self, origin: str, results: Sequence[Result], states: Mapping[int, tuple[int, int]]) -> None:
        """Writes rows and failures of blocks, and the states of cells: all of it or nothing.

        Args:
            origin: where the rows come from, as JSON.
            results: of blocks; a row takes the place of a failure.
            states: cell -> DONE or FAILED, and how many of its blocks count, from the first one on.

        Raises:
            ToyiwaeError: no room, or the file cannot be written; what was written before stays.
        """
        with self._transaction():
            self._query("INSERT OR IGNORE INTO origins (record) VALUES (?)", (origin,))
            (number,) = self._query("SELECT id FROM origins WHERE record = ?", (origin,)).fetchone()
            rows = [result for result in results if result.row is not None]
            self._many(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?)",
                ((r.cell, r.block, number, r.seconds, r.row) for r in rows),
            )
            self._many("DELETE FROM failures WHERE cell = ? AND block = ?", ((r.cell, r.block) for r in rows))
            self._many(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
                ((r.cell, r.block, number, r.error, r.traceback) for r in results if r.row is None),
            )
            self._many(
                "UPDATE plan SET state = ?, blocks = ? WHERE cell = ?",
                ((*state, cell) for cell, state in states.items()),
            )

    def forget_failures(self) -> int:
        """Failed cells are to do again; how many. Their failures stay on record until a row takes their place."""
        with self._transaction():
            return self._query("UPDATE plan SET state = ? WHERE state = ?", (TO_DO, FAILED)).rowcount

    def failures(self, limit: int = -1) -> list[tuple[dict[str, Any], int, str, str]]:
        """(settings on the axes, block, error, traceback) of the planned cells that failed, in the grid's order."""
        query = (
            "SELECT own, block, error, traceback FROM plan JOIN cells ON cells.id = plan.cell "
            "JOIN failures ON failures.cell = plan.cell WHERE state = ? ORDER BY place, block LIMIT ?"
        )
        return [(json.loads(own), *rest) for own, *rest in self._query(query, (FAILED, limit))]

    def finished(self) -> Iterator[tuple[int, str, str, str]]:
        """(place, settings on the axes, common settings, row) of every block that counts, cell by cell in order."""
        query = (
            "SELECT place, own, settings, row FROM plan JOIN cells ON cells.id = plan.cell JOIN commons ON "
            f"commons.id = common JOIN blocks ON blocks.cell = plan.cell AND {WANTED} WHERE state = ? "
            "ORDER BY place, block"
        )
        return iter(self._query(query, (DONE,)))

    def origins(self) -> list[dict[str, Any]]:
        """Where the rows of the finished cells come from, with how many blocks each."""
        query = (
            "SELECT record, count FROM origins JOIN (SELECT origin, count(*) AS count FROM plan JOIN blocks ON "
            f"blocks.cell = plan.cell AND {WANTED} WHERE state = ? GROUP BY origin) ON origin = id ORDER BY record"
        )
        return [json.loads(record) | {"blocks": count} for record, count in self._query(query, (DONE,))]

    def timings(self, limit: int) -> list[tuple[str, float]]:
        """(settings on the axes, seconds of all blocks) of finished cells, spread over the grid."""
        step = max(1, self.counts()[DONE] // limit)
        query = (
            "SELECT own, sum(seconds) FROM plan JOIN cells ON cells.id = plan.cell JOIN blocks ON blocks.cell = "
            f"plan.cell AND {WANTED} WHERE state = ? AND position % ? = 0 GROUP BY plan.cell LIMIT ?"
        )
        return list(self._query(query, (DONE, step, limit)))

    def keys(self, blocks: int) -> set[bytes]:
        """What identifies the cells, planned or not, that have their first so many blocks."""
        query = (
            "SELECT key FROM cells JOIN blocks ON cell = id WHERE block < ? GROUP BY id HAVING count(*) = ?"
        )
        return {key for (key,) in self._query(query, (blocks, blocks))}

    def unplanned(self) -> int:
        """How many blocks belong to cells that are not planned."""
        return self._query(f"SELECT count(*) FROM blocks WHERE {UNPLANNED}").fetchone()[0]

    def gc(self) -> int:
        """Deletes what belongs to cells that are not planned, and gives the room back; how many blocks went."""
        with self._transaction():
            count = self._query(f"DELETE FROM blocks WHERE {UNPLANNED}").rowcount
            self._query(f"DELETE FROM failures WHERE {UNPLANNED}")
            self._query("DELETE FROM cells WHERE id NOT IN (SELECT cell FROM plan)")
            self._query("DELETE FROM commons WHERE id NOT IN (SELECT common FROM cells)")
            used = "SELECT origin FROM blocks UNION SELECT origin FROM failures"
            self._query(f"DELETE FROM origins WHERE id NOT IN ({used})")
        self._query("VACUUM")
        return count

    def _query(self, query: str, values: Any = (), *, many: bool = False) -> sqlite3.Cursor:
        try:
            execute = self._connection.executemany if many else self._connection.execute
            return execute(query, values)
        except sqlite3.DatabaseError as error:
            raise ToyiwaeError(
                f"cannot use {str(self.path)!r}: {error}; what was stored before is intact: make room, or mend the "
                "disk, and run the same command again"
            ) from error

    def _many(self, query: str, values: Iterable[Sequence[Any]]) -> None:
        self._query(query, values, many=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._query("BEGIN IMMEDIATE")
        try:
            yield
            self._query("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back itself when the disk is full
                self._connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def writing(path: str | Path, *, create: bool = True) -> Iterator[Store]:
    """The store in a file, for this process alone; made if there is none.

    Raises:
        InputError: another process writes to it; no store, or one of another format; none, and not to be made.
        ToyiwaeError: it cannot be written.
    """
    path = Path(path)
    if not path.exists() and not create:
        raise InputError(f"no such store: {str(path)!r}")
    if not path.parent.is_dir():
        raise InputError(f"no such folder: {str(path.parent)!r}")
    lock, new = lock_of(path), not lock_of(path).exists()
    with locks.only_process(lock, f"the store {str(path)!r}"), contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(_opened(path, make=create))
        except BaseException:
            if new:
                lock.unlink(missing_ok=True)
            raise
        yield store


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[Store]:
    """The store in a file, also while another process writes to it.

    Raises:
        InputError: there is none, or one of another format.
    """
    if not Path(path).is_file():
        raise InputError(f"no such store: {str(path)!r}")
    with _opened(Path(path), make=False) as store:
        yield store


def lock_of(path: str | Path) -> Path:
    """The lock file of a store."""
    return Path(f"{path}.lock")


@contextlib.contextmanager
def _opened(path: Path, *, make: bool) -> Iterator[Store]:
    asked = "PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master"
    with contextlib.ExitStack() as stack:
        try:
            connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
            stack.enter_context(contextlib.closing(connection))
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -65536")  # KiB
            application, version, tables = (connection.execute(query).fetchone()[0] for query in asked)
            if make and not tables:
                schema.make(connection)
                application, version = schema.APPLICATION, schema.FORMAT
        except sqlite3.Error as error:
            raise InputError(f"{str(path)!r} cannot be opened as a store: {error}") from None
        if application != schema.APPLICATION:
            raise InputError(f"{str(path)!r} is not a store of a sweep: name another file")
        if version != schema.FORMAT:
            raise InputError(
                f"{str(path)!r} is a store of format {version}, but toyiwae {toyiwae.__version__} reads format "
                f"{schema.FORMAT}: export it with the version that made it, or name another file"
            )
        yield Store(path, connection)
