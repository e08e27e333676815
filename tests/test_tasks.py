"""Tasks of the kernels on threads: in order, all threads at work, errors in their turn, nothing left behind."""

import itertools
import threading
import time

import numpy as np
import pytest

from toyiwae.montecarlo.kernels.tasks import Stopped, in_order

THREADS = (1, 2, 3, 8)


@pytest.mark.parametrize("threads", THREADS)
def test_results_come_in_order_whoever_was_slow(threads):
    def run(task):
        time.sleep(0.001 * (task % 5 == 0))
        return task * task

    assert list(in_order(run, range(60), threads, Stopped())) == [task * task for task in range(60)]
    assert list(in_order(run, [], threads, Stopped())) == []


@pytest.mark.parametrize("threads", THREADS)
def test_as_many_threads_work_as_were_asked_for_and_the_caller_is_one(threads):
    together = threading.Barrier(threads)

    def run(task):
        if task < threads:
            together.wait(timeout=20)  # all of them are in a task at once, or this breaks
        return threading.get_ident()

    ran = list(in_order(run, range(10 * threads), threads, Stopped()))
    assert threading.get_ident() in ran
    assert len(set(ran)) <= threads


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_waits_for_its_turn(threads):
    def run(task):
        if task == 7:
            raise ValueError("the seventh")
        return task

    found = in_order(run, range(50), threads, Stopped())
    assert list(itertools.islice(found, 7)) == list(range(7))
    with pytest.raises(ValueError, match="the seventh"):
        next(found)


@pytest.mark.parametrize("threads", THREADS)
def test_whoever_goes_leaves_no_thread_and_nothing_much_was_done_ahead(threads):
    begun: list[int] = []
    found = in_order(begun.append, itertools.count(), threads, Stopped())
    next(found)
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("toyiwae")]
    assert len(begun) <= (3 * threads if threads > 1 else 1)


def held(own):
    """A task's function: other threads hold their first task until the caller's has done `own` with five of its."""
    caller, release, done = threading.get_ident(), threading.Event(), []

    def run(task):
        if threading.get_ident() != caller and not release.is_set():
            assert release.wait(timeout=20)
            return "held"
        done.append(task)
        if len(done) == 5:
            release.set()
        return own(task)

    return run


def test_the_caller_takes_tasks_while_another_threads_is_not_done():
    ran = list(in_order(held(lambda _: "caller"), range(6), 2, Stopped()))
    assert len(ran) == 6
    assert ran.count("caller") >= 5


def test_an_error_of_the_callers_own_task_waits_for_its_turn_too():
    def own(task):
        raise ValueError(f"task {task}")

    found = in_order(held(own), range(6), 2, Stopped())
    with pytest.raises(ValueError, match=r"task [01]"):  # the first, unless another thread held it
        list(found)


def test_ctrl_c_in_the_callers_own_task_ends_it_at_once():
    caller = threading.get_ident()

    def run(task):
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        time.sleep(0.01)  # so that the caller has to help

    with pytest.raises(KeyboardInterrupt):
        for _ in in_order(run, itertools.count(), 2, Stopped()):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("toyiwae")]


def test_all_threads_run_in_the_callers_context():
    together = threading.Barrier(2)

    def run(task):
        together.wait(timeout=20)
        return threading.get_ident(), np.geterr()["over"]

    with np.errstate(over="raise"):
        ran = set(in_order(run, range(2), 2, Stopped()))
    assert len(ran) == 2
    assert {over for _, over in ran} == {"raise"}
