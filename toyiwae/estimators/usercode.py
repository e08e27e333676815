"""Running what users wrote: whatever goes wrong in it comes out as one exception with a message of one line."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np

PREFIX = "toyiwae_user_"
"""What the names of modules made from users' files begin with."""

T = TypeVar("T")


class UserCodeError(Exception):
    """A user's code failed: type and message in one line; the cause is what it raised."""


def run(call: Callable[[], T]) -> T:
    """Runs what the user wrote, or what touches the user's objects.

    What it prints goes to standard error; NumPy's error state and the filters of warnings are as before afterwards.

    Raises:
        UserCodeError: for anything that was raised, `sys.exit` included.
        KeyboardInterrupt: as it is.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), np.errstate(all="ignore"), warnings.catch_warnings():
            return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserCodeError(said(error)) from error


def said(error: BaseException) -> str:
    """Type and message of an exception in one line, whatever its `str` does."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be read)"
    return " ".join(f"{type(error).__name__}: {text}".split())[:300]


def execute(file: Path) -> ModuleType | None:
    """The module that a user's file makes; None if the file is no Python file.

    It is compiled anew each time: byte code beside the file may be that of an older version.

    Raises:
        UserCodeError: for anything that went wrong while it ran.
    """
    key = PREFIX + file.stem
    source = importlib.util.spec_from_file_location(key, file)
    loader = None if source is None else source.loader
    if source is None or not isinstance(loader, importlib.machinery.SourceFileLoader):
        return None
    module = sys.modules[key] = importlib.util.module_from_spec(source)
    run(lambda: exec(loader.source_to_code(file.read_bytes(), str(file)), vars(module)))
    return module
