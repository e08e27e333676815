"""Where the user's estimator runs: in this process, or in one of its own that may hang or die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from toyiwae.checks import real
from toyiwae.conformance.calling.call import Violation
from toyiwae.conformance.calling.forms import Loaded
from toyiwae.errors import InputError, ToyiwaeError

_START = 120.0  # seconds that importing the user's file may take beyond the time of one call


class Runner:
    """Runs one estimator; with a timeout they run in a child process, started again after a hang.

    Args:
        estimator: a function, or "FILE:NAME".
        form: one of `toyiwae.conformance.calling.forms.FORMS`.
        timeout: seconds for one call; None to run in this process.

    Raises:
        InputError: on entering, where the file or the name is not there.
        MissingExtraError: on entering, a surrogate where torch is not installed.

    Attributes:
        sample, formula, mixed: those of `Loaded`, wherever they run; a hang and a crash are violations too.
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
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Loads the estimator."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_surroundings())
            if self._timeout is None:
                loaded = Loaded.of(self._estimator, self._form)
            else:
                self._start()
                formula = self._remote("formula") if self._form == "coefficients" else None
                mixed = self._remote("mixed") if self._form == "surrogate" else None
                loaded = Loaded(self._remote("sample"), formula, mixed)
            self.sample, self.formula, self.mixed = loaded.sample, loaded.formula, loaded.mixed
            self._restore = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the child; the working directory and torch's default dtype are as before."""
        self._stop()
        self._restore.close()

    def _remote(self, name: str) -> Callable[..., Any]:
        """A function of `Loaded`, run in the child."""

        def ask(*arguments: Any) -> Any:
            if self._child is None:
                self._start()
            with contextlib.suppress(OSError):  # it died since the last call: the answer says so
                self._pipe.send((name, arguments))
            return self._answer(self._timeout or 0.0)

        return ask

    def _answer(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                self._stop()
                raise Violation("no hang", f"a call did not end within {seconds:g} s")
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            code = self._stop()
            raise Violation("no crash", f"its process died with exit code {code}") from None
        if kind == "violation":
            raise Violation(*content)
        if kind == "refused":
            kind, message = content
            raise kind(message)
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
        except Violation as found:
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


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Puts back what user code may have changed for everybody: the working directory and torch's default dtype."""
    try:
        folder = Path.cwd()
    except OSError:
        folder = None
    torch = sys.modules.get("torch")
    dtype = None if torch is None else torch.get_default_dtype()
    try:
        yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_default_dtype(torch.float32 if dtype is None else dtype)


def _serve(pipe: Any, estimator: Callable[..., Any] | str, form: str) -> None:
    """The child: answers until the pipe closes."""
    try:
        loaded = Loaded.of(estimator, form)
        if form == "surrogate":
            _try_gradients()
    except ToyiwaeError as error:
        pipe.send(("refused", (type(error), str(error))))
        return
    pipe.send(("ready", None))
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(("ok", getattr(loaded, name)(*arguments)))
        except Violation as found:
            pipe.send(("violation", (found.kind, found.message)))


def _try_gradients() -> None:
    """Gradients of torch in a forked process: not where the parent's threads made some, and on one thread.

    Raises:
        InputError: where they cannot be had.
    """
    torch: Any = sys.modules["torch"]
    torch.set_num_threads(1)  # the parent's threads are not here, and waiting for them would be for ever
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError as error:
        raise InputError(
            f"a surrogate cannot run in a process of its own after torch's gradients ran in this one ({error}): leave"
            " out the timeout, or use the command line"
        ) from error
