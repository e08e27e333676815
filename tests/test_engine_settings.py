"""How many threads an engine takes, what it refuses, users' functions on threads, and users without a home."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae.errors import InputError
from toyiwae.estimators import registry
from toyiwae.montecarlo import engines
from toyiwae.montecarlo.callers import Caller

PROBLEM = random_problem(1)


@pytest.mark.parametrize(
    ("asked", "expected"), [("3", 3), ("2,4", 2), ("99999", 1024), ("²", 5), ("-1", 5), ("", 5)]
)
def test_threads_are_those_of_openmp_else_the_machines_cores(asked, expected, monkeypatch):
    """On systems without `sched_getaffinity`, too."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert engines._usual_threads() == expected


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("setting", ["budget", "threads"])
@pytest.mark.parametrize("value", [-5, 0, "x", 1.5])
def test_budget_and_threads_are_whole_numbers_on_every_engine(engine, setting, value):
    with pytest.raises(InputError, match=f"^{setting} is .*: expected a whole number of at least 1$"):
        toyiwae.estimate(PROBLEM, K=2, replicates=2, seed=0, engine=engine, **{setting: value})


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    pytest.importorskip("numba")
    from toyiwae.montecarlo.kernels.lanes import cache

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.folder.__wrapped__() is None


@pytest.mark.parametrize("threads", [None, 3])
def test_users_functions_run_one_at_a_time_unless_threads_are_asked_for(threads, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))  # what is registered here stays here
    inside, most, both = [], [], threading.Barrier(2)

    @toyiwae.estimators.estimator(target=toyiwae.estimators.both(toyiwae.estimators.iwae_bound))
    def counting(log_w):
        """IWAE, and how many are inside at once."""
        inside.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.02)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()
        return toyiwae.estimators.get("iwae")(log_w)

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    settings = engines.Settings(engine="numba", threads=threads)
    sampler = engines.sampler_for(PROBLEM, [counting], ("proposal_mean",), settings)
    list(sampler.chunks(2**13, 1, 128, 0))
    assert len(most) > 8
    assert (max(most) == 1) is (threads is None)
    free = Caller(toyiwae.estimators.get("iwae"), threading.Lock())
    assert isinstance(free._lock, contextlib.nullcontext)
