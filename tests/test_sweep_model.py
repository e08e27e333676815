"""A sweep does what a dict would do, whatever happens to it: cells added and taken away, kills, edits, sweeping up."""

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from analysis.sweep.adaptive import Replicates
from analysis.sweep.export import cells
from analysis.sweep.run import sweep
from analysis.sweep.store import Store, reading, writing
from tests.sweep_cells import TOY, ToySettings, forked, grid, of_all, toy
from toyiwae import InputError

VALUES = [0.25, 0.5, 1.0, 1.5, 2.0]


class Sweeping(RuleBasedStateMachine):
    """The dict holds what identifies a cell -> its row; beside it stands what the store has planned."""

    @initialize(blocks=st.integers(1, 2))
    def start(self, blocks):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.sqlite"
        self.xs, self.n, self.version, self.blocks = [1.0], 1, 1, blocks
        self.rows: dict[bytes, dict] = {}
        self.planned: list[tuple[bytes, dict]] = []
        self.run(limit=1)

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def grid(self):
        return grid(
            experiment=dataclasses.replace(TOY, version=self.version),
            settings={"n": self.n},
            axes=[{"kind": ["cos", "sin"], "x": self.xs}],
            replicates=Replicates(self.blocks),
        )

    def row(self, own):
        """What a cell's row must be."""
        chosen = ToySettings(n=self.n, **own)
        rows = [json.loads(json.dumps(toy(chosen, block), default=float)) for block in range(self.blocks)]
        return of_all(rows)

    def adopt(self):
        self.planned = [(cell.key, json.loads(cell.own)) for cell in self.grid.cells()]

    @rule(x=st.sampled_from(VALUES))
    def add(self, x):
        self.xs = [*self.xs, x] if x not in self.xs else self.xs

    @precondition(lambda self: len(self.xs) > 1)
    @rule(place=st.integers(0, 4))
    def take_away(self, place):
        self.xs = [x for index, x in enumerate(self.xs) if index != place % len(self.xs)]

    @rule(n=st.sampled_from([1, 2, 5]))
    def edit(self, n):
        self.n = n

    @rule(version=st.sampled_from([1, 2]))
    def raise_version(self, version):
        self.version = version

    @rule(limit=st.integers(1, 6))
    def run(self, limit):
        order = [(cell.key, json.loads(cell.own)) for _, cell in self.grid.ordered()]
        left = [(key, own) for key, own in order if key not in self.rows][:limit]
        summary = sweep(self.grid, self.path, limit=limit, update=True)
        self.adopt()
        self.rows |= {key: self.row(own) for key, own in left}
        assert summary.blocks <= self.blocks * len(left)
        assert summary.to_do == sum(key not in self.rows for key, _ in order)

    @rule(writes=st.integers(1, 3), before=st.booleans())
    def kill(self, writes, before):
        """Dies at one of its commits, before or after it."""
        count = [0]

        def mortal(store, *arguments):
            count[0] += 1
            if count[0] == writes and before:
                os.kill(os.getpid(), signal.SIGKILL)
            write(store, *arguments)
            if count[0] == writes:
                os.kill(os.getpid(), signal.SIGKILL)

        def work():
            Store.write = mortal  # pyright: ignore[reportAttributeAccessIssue]
            sweep(self.grid, self.path, update=True)

        write = Store.write
        os.waitpid(forked(work), 0)
        self.adopt()
        with reading(self.path) as store:
            there = store.keys(self.blocks)
        assert set(self.rows) <= there
        self.rows |= {key: self.row(own) for key, own in self.planned if key in there}
        assert set(self.rows) == there

    @rule()
    def plain_run_of_an_edited_grid_is_refused(self):
        with reading(self.path) as store:
            edited = store.declaration != json.loads(json.dumps(self.grid.declaration))
        if edited:
            before = self.path.read_bytes()
            with pytest.raises(InputError, match="--update"):
                sweep(self.grid, self.path)
            assert self.path.read_bytes() == before

    @rule()
    def gc(self):
        with writing(self.path) as store:
            store.gc()
        kept = {key for key, _ in self.planned}
        self.rows = {key: row for key, row in self.rows.items() if key in kept}

    @rule()
    def resume(self):
        self.run(limit=100)

    @invariant()
    def exports_what_the_dict_has(self):
        if not hasattr(self, "path"):
            return
        with reading(self.path) as store:
            version = (store.declaration or {})["version"]
            found = list(cells(store, dataclasses.replace(TOY, version=version)))
        assert found == [(own, self.rows[key]) for key, own in self.planned if key in self.rows]
        connection = sqlite3.connect(self.path)
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.close()


@pytest.mark.slow
def test_a_sweep_is_a_dict():
    case = Sweeping.TestCase
    case.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
    case().runTest()
