"""Where the user's estimator runs: in this process, or in one of its own that may hang or die."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from toyiwae.checks import real
from toyiwae.conformance import contract
from toyiwae.conformance.contract import Finding, Sample
from toyiwae.errors import InputError
from toyiwae.problem import Problem

_START = 120.0  # seconds that importing the user's file may take beyond the time of one call


class Isolated:
    """Calls of one estimator; with a timeout they run in a child process, started again after a hang.

    Args:
        estimator: a function, or "FILE:NAME".
        form: "replicates" or "coefficients".
        timeout: seconds for one call; None to run in this process.

    Raises:
        InputError: on entering, where the file or the name is not there.
    """

    def __init__(self, estimator: Callable[..., Any] | str, form: str, timeout: float | None):
        """Starts nothing yet."""
        if not isinstance(estimator, str) and not callable(estimator):
            raise InputError(
                f"estimator is a {type(estimator).__name__}: expected a function or 'FILE.py:NAME'"
            )
        self._estimator, self._form = estimator, form
        self._timeout = None if timeout is None else real(timeout, "timeout", 0.0, above=True)
        self._child: Any = None
        self._pipe: Any = None
        self.function: Callable[[Any], Any] | None = None

    def __enter__(self) -> Self:
        """Loads the estimator."""
        if self._timeout is None:
            self._replicates, self.function = _prepared(self._estimator, self._form)
        else:
            self._start()
            self.function = self._remote_function
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the child."""
        self._stop()

    def call(self, problem: Problem, K: int, M: int, replicates: int, seed: int) -> Sample:
        """One call.

        Raises:
            Finding: whatever it did wrong, a hang and a crash included.
        """
        if self._timeout is None:
            return contract.call(self._replicates, problem, K, M, replicates, seed)
        return self._ask(("call", (problem, K, M, replicates, seed)))

    def _remote_function(self, log_w: np.ndarray) -> Any:
        return self._ask(("function", (log_w,)))

    def _ask(self, message: Any) -> Any:
        if self._child is None:
            self._start()
        self._pipe.send(message)
        return self._answer(self._timeout or 0.0)

    def _answer(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                self._stop()
                raise Finding("no hang", f"a call did not end within {seconds:g} s")
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            code = self._stop()
            raise Finding("no crash", f"its process died with exit code {code}") from None
        if kind == "finding":
            raise Finding(*content)
        if kind == "refused":
            raise InputError(content)
        return content

    def _start(self) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs, self._estimator, self._form), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of forks beside threads; the child only computes
            self._child.start()
        theirs.close()
        try:
            self._answer(_START)
        except Finding as found:
            raise InputError(f"estimator {self._estimator!r} could not be loaded: {found.message}") from found

    def _stop(self) -> int | None:
        """Ends the child; returns its exit code."""
        if self._child is None:
            return None
        self._pipe.close()
        self._child.join(0.2)
        if self._child.is_alive():
            self._child.kill()
        self._child.join()
        code, self._child = self._child.exitcode, None
        return code


def _prepared(estimator: Callable[..., Any] | str, form: str) -> tuple[Callable[..., Any], Any]:
    """The function as replicates, and as it is where it is a formula."""
    function = contract.load(estimator) if isinstance(estimator, str) else estimator
    return (contract.from_coefficients(function), function) if form == "coefficients" else (function, None)


def _serve(pipe: Any, estimator: Callable[..., Any] | str, form: str) -> None:
    """The child: answers until the pipe closes."""
    try:
        replicates, function = _prepared(estimator, form)
    except InputError as error:
        pipe.send(("refused", str(error)))
        return
    pipe.send(("ready", None))
    while True:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if kind == "call":
                answer = contract.call(replicates, *content)
            else:
                answer = contract.evaluated(function, *content)
            pipe.send(("ok", answer))
        except Finding as found:
            pipe.send(("finding", (found.kind, found.message)))
        except Exception as error:
            pipe.send(("finding", ("no exception", f"it raised {type(error).__name__}: {error}"[:300])))
