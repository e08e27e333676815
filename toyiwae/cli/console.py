"""What the command line writes where: answers to standard output all at once, one line for what was wrong to stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from toyiwae.errors import InputError, ToyiwaeError

# The base of typer's usage errors; click's own, or a copy inside typer, depending on typer's version.
_ClickException: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)  # pyright: ignore[reportAssignmentType]

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

EXPECTED = (ToyiwaeError, OSError, MemoryError, RecursionError, OverflowError)
"""What is no fault of the program's, and so a line and not a traceback."""

_LIMITS = {
    MemoryError: "the problem is too large for memory",
    RecursionError: "the input is nested too deeply, or too large",
    OverflowError: "a number of the problem is too large",
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def run(app: typer.Typer, argv: list[str], program: str) -> str | int:
    """What a command answers: text to write, or an exit code where it has written (`--help`).

    Raises:
        InputError: arguments that the program does not know, with the command that explains them.
    """
    try:
        return app(argv, prog_name=program, standalone_mode=False) or 0
    except _ClickException as error:
        context = getattr(error, "ctx", None)
        pointer = f" (see `{context.command_path} --help`)" if context is not None else ""
        raise InputError(f"{error.format_message()}{pointer}") from None  # pyright: ignore[reportAttributeAccessIssue]
    except typer.Abort:  # how older versions of typer hand on Ctrl-C
        return INTERRUPTED
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # how typer ends where a pipe is closed
            return BROKEN_PIPE
        raise


def write(answer: str | int) -> int:
    """Writes an answer to standard output and flushes it.

    Args:
        answer: text, which may have an `exit_code`, or only the exit code.

    Returns:
        The exit code.
    """
    text, code = ("", answer) if isinstance(answer, int) else (answer, getattr(answer, "exit_code", 0))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()
        return BROKEN_PIPE
    except OSError as error:
        return refuse(in_words(error))
    return code


def refuse(message: str) -> int:
    """Says in one line on standard error what was wrong; returns the exit code of bad input."""
    if sys.stderr is not None:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def note(message: Warning | str, *_: Any) -> None:
    """Shows a warning as a line on standard error; takes what `warnings.showwarning` does."""
    if sys.stderr is not None:
        print(f"note: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def in_words(error: BaseException) -> str:
    """What an expected exception says to the user; what could not be written is dropped."""
    if isinstance(error, ToyiwaeError):
        return str(error)
    if isinstance(error, OSError):
        return _system(error)
    limit = next(text for kind, text in _LIMITS.items() if isinstance(error, kind))
    return f"{limit}: {error}" if str(error) else limit


def text(show: Callable[..., None], *content: Any) -> str:
    """What `show(console, ...)` prints, for the terminal or pipe that stdout is."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        show(console, *content)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _system(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"cannot use {str(error.filename)!r}: {reason}"
    if error.errno not in _NO_ROOM:
        return reason
    _discard()
    return f"cannot write the answer: {reason}"


def _discard() -> None:
    """Drops what could not be written, so that the interpreter's own last flush does not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
