"""Ctrl-C is heard where Python would drop what it raises: in a function that C code calls."""

import ctypes
import os
import signal
import threading
import time

import pytest

from toyiwae.montecarlo.kernels.tasks import Stopped, in_order
from toyiwae.signals import heard

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@ctypes.CFUNCTYPE(None)
def called_by_c():
    """Interrupts its own process, and is still there when the signal comes."""
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _handler_as_before():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    try:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_python_drops_it():
    """Why this is needed: nothing is raised here."""
    called_by_c()


def interrupted(how):
    """Whether what follows an interruption within `heard` was still run."""
    done = []

    def run():
        with heard():
            how()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        run()
    return bool(done)


def test_what_was_dropped_is_raised_at_the_end():
    assert interrupted(called_by_c)


def test_a_task_during_which_it_came_is_the_last():
    done = []

    def run(task):
        done.append(task)
        if task == 1:
            called_by_c()
        return task

    with pytest.raises(KeyboardInterrupt):
        list(in_order(run, range(5), 1, Stopped()))
    assert done == [0, 1]


def interrupt():
    """Interrupts this process where Python runs."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def test_it_acts_at_once_where_python_can_raise():
    assert not interrupted(interrupt)


def test_errors_are_raised_as_they_are():
    with pytest.raises(ValueError, match="mine"), heard():
        raise ValueError("mine")


def test_handlers_of_others_are_left_alone():
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        with heard():
            called_by_c()
        assert came == [True]
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_change_nothing():
    found = []

    def run():
        with heard():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
