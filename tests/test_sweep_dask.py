"""Sweeps on a Dask cluster: the same rows, also while Dask's fault injector kills workers; only the package needed."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from analysis.sweep import executors
from analysis.sweep.adaptive import Replicates
from analysis.sweep.run import sweep
from tests.sweep_cells import exported, grid, pausing
from toyiwae import InputError

distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: pip install 'toyiwae[cluster]'"
)
chaos = pytest.importorskip("distributed.chaos")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # what killed workers leave behind
]

GRID = grid(
    axes=[{"kind": ["sin", "cos"], "n": list(range(1, 101))}],
    replicates=Replicates(quantity="draw", target_se=0.08, at_most=20),
)

ROOT = Path(__file__).resolve().parents[1]
DEATHS = 2
"""Workers that must have been killed at least."""


@contextlib.contextmanager
def cluster():
    """The address of a scheduler with two workers, which are started again when they end, as a batch system does."""
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--no-nanny",
        "--nthreads",
        "1",
        "--no-dashboard",
    ]
    over = threading.Event()

    def supervise(address):
        def started():
            nowhere = subprocess.DEVNULL
            return subprocess.Popen([*command, address], cwd=ROOT, stdout=nowhere, stderr=nowhere)

        workers = [started(), started()]
        while not over.wait(0.1):
            workers = [worker if worker.poll() is None else started() for worker in workers]
        for worker in workers:
            worker.kill()
            worker.wait()

    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as found:
        thread = threading.Thread(target=supervise, args=(found.scheduler_address,))
        thread.start()
        try:
            with distributed.Client(found) as client:
                client.wait_for_workers(2, timeout=60)
            yield found.scheduler_address
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "a.sqlite"
    sweep(GRID, path)
    return exported(path)


def hide_the_studies():
    """On a worker: nothing outside the package can be imported."""
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] in ("analysis", "tests")]:
        del sys.modules[name]
    sys.modules["analysis"] = sys.modules["tests"] = None  # pyright: ignore[reportArgumentType]


def test_workers_need_nothing_but_the_package(tmp_path, expected):
    with cluster() as address:
        with distributed.Client(address) as client:
            client.run(hide_the_studies)
        sweep(GRID, tmp_path / "a.sqlite", workers=executors.dask(address))
    assert exported(tmp_path / "a.sqlite") == expected


@pytest.mark.parametrize("mode", ["sys.exit", "graceful", "segfault"])
def test_workers_that_die_change_nothing(mode, tmp_path, expected):
    with cluster() as address, distributed.Client(address) as client:
        seen = set(client.scheduler_info(n_workers=-1)["workers"])
        client.register_plugin(chaos.KillWorker(delay="2 s", mode=mode))
        for turn in range(20):
            path = tmp_path / f"{turn}.sqlite"
            with pausing(0.005):
                summary = sweep(GRID, path, workers=executors.dask(address), batch_seconds=0.1)
            assert summary.failed == summary.to_do == 0
            assert exported(path) == expected
            seen |= set(client.scheduler_info(n_workers=-1)["workers"])
            if len(seen) >= 2 + DEATHS:
                break
        else:
            pytest.fail(f"only {len(seen) - 2} workers were killed")


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'") as caught:
        sweep(GRID, tmp_path / "a.sqlite", workers=executors.dask("tcp://127.0.0.1:9"))
    assert "\n" not in str(caught.value)
