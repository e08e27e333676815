"""Files: read TOML with errors in one line, write text all or nothing, arrays as readable TOML."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from toyiwae.errors import InputError


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: if the file is missing, no regular file (a directory, a pipe, a device), unreadable, not UTF-8
            (with or without a byte order mark), or not TOML (with the line).
    """
    name = repr(str(path))
    with reading(path, "a TOML file") as stream:
        content = stream.read()
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start}): expected a TOML file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not valid TOML: {' '.join(str(error).split())}") from None


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], expected: str) -> Iterator[BinaryIO]:
    """Opens a regular file for reading bytes.

    Args:
        path: the file.
        expected: what it should be, for messages.

    Raises:
        InputError: if it is missing, no regular file (a directory, a pipe, a device), or unreadable.
    """
    name = repr(str(path))
    try:
        path = Path(path)
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # to read it could take for ever
            raise InputError(f"{name} is not a regular file: expected {expected}")
        with open(path, "rb") as stream:
            yield stream
    except FileNotFoundError:
        raise InputError(f"no such file: {name}") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a directory: expected {expected}") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file (text as UTF-8) all or nothing, as `replacing` does; its errors are raised."""
    with replacing(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file beside `path` to write into, which takes its name at the end of the block, and goes if that fails.

    A reader sees the old file or the new one, also after a crash; a symbolic link stays one.

    Raises:
        InputError: if `path` is a directory.
        OSError: if the folder does not exist, is not writable, or is full; the old file is then untouched.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{str(path)!r} is a directory: expected a file name")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            error.filename = str(path)
        raise


def toml_value(text: str) -> Any:
    """The value that a text writes in TOML (`[1, 8]`, `0.5`, `true`); what is not TOML is the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def toml_text(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of vectors and matrices as TOML, one row per line; floats are exact (`repr`)."""
    lines: list[str] = []
    for table, entries in tables.items():
        lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        lines += [f"{key} = {_array_text(np.asarray(value))}" for key, value in entries.items()]
    return "\n".join(lines) + "\n"


def _array_text(array: np.ndarray) -> str:
    if array.ndim == 1:
        return f"[{', '.join(map(repr, array.tolist()))}]"
    return "[\n" + "".join(f"    {_array_text(row)},\n" for row in array) + "]"
