"""Tasks of the kernels on threads: in order, all threads at work, errors in their turn, nothing left behind."""

import itertools
import threading
import time

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
    before, begun, stopped = threading.active_count(), [], Stopped()
    found = in_order(lambda task: begun.append(task), itertools.count(), threads, stopped)
    next(found)
    found.close()
    assert threading.active_count() == before
    assert len(begun) <= 1 + 4 * threads


def test_the_caller_takes_tasks_while_another_threads_is_not_done():
    """Of two threads one holds the first task; all the others that may be ahead are done by the caller."""
    release, done = threading.Event(), []

    def run(task):
        if threading.current_thread() is not threading.main_thread() and not release.is_set():
            release.wait(timeout=20)
            return "held"
        done.append(task)
        if len(done) == 5:
            release.set()
        return "caller"

    ran = list(in_order(run, range(6), 2, Stopped()))
    assert ran.count("caller") >= 5
    assert len(ran) == 6
