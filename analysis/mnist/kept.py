"""Arrays on disk that are taken again only for what they were computed from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import toyiwae
from toyiwae.files import write_atomic

Arrays = Mapping[str, np.ndarray]


def key(what: Any, *files: Path) -> str:
    """The SHA-256 of arguments (as JSON), the version, and the content of files."""
    found = hashlib.sha256(json.dumps([what, toyiwae.__version__]).encode())
    for file in files:
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def taken(path: Path, of: str, compute: Callable[[], Mapping[str, Any]]) -> Arrays:
    """What is in an npz file with this key; computed and written if there is none.

    Args:
        path: the file; its folder is made.
        of: what `key` gave.
        compute: gives names and arrays.
    """
    found = _read(path)
    if found is None or str(found.get("of")) != of:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        arrays: dict[str, Any] = {"of": of, **compute()}
        np.savez_compressed(stream, **arrays)
        write_atomic(path, stream.getvalue())
        found = _read(path)
        assert found is not None
    return {name: array for name, array in found.items() if name != "of"}


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """All arrays of a file; None if there is none, or none that can be read."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
