"""IDX files, the format of MNIST: a header of big-endian sizes, then one byte a value; raw or gzipped."""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.files import reading

DIMENSIONS = {"images": 3, "labels": 1}
"""Kind of file -> dimensions of its array: [N, height, width] of images, [N] of labels."""

LARGEST = 2**31
"""Most bytes that a header may announce: 2 GiB, 45 times MNIST's training images."""

_PIECE = 2**20
_UNSIGNED_BYTES = b"\x00\x00\x08"


def read_idx(path: Any, kind: str = "images") -> np.ndarray:
    """The array of an IDX file of unsigned bytes; gzip is recognised by its content.

    Args:
        path: the file.
        kind: what it holds, "images" or "labels".

    Returns:
        uint8 [N, height, width] of images, [N] of labels; read-only.

    Raises:
        InputError: naming the file, if it is missing, something else (a web page), of the other kind, damaged,
            shorter or longer than its header says, or larger than `LARGEST`.
    """
    expected = f"an IDX file of {_known(kind)}"
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is {shown(path)}: expected the name of {expected}")
    with reading(path, expected) as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        try:
            return _parsed(gzip.GzipFile(fileobj=stream) if zipped else stream, repr(str(path)), kind)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(
                f"{str(path)!r} is damaged gzip ({error}): expected {expected}; fetch it again"
            ) from None


def find_idx(folder: str | os.PathLike[str], split: str, kind: str = "images") -> Path:
    """The file of MNIST's `split` ("train" or "t10k") in a folder, under any name that it goes by.

    Those are `t10k-images-idx3-ubyte` and `t10k-images.idx3-ubyte`, each with or without `.gz`, in the folder or
    where torchvision puts them below it.

    Raises:
        InputError: if there is none, or no such folder.
    """
    _known(kind)
    if not isinstance(folder, (str, os.PathLike)) or not Path(folder).is_dir():
        raise InputError(f"{str(folder)!r} is no folder: expected one with MNIST's files")
    names = [f"{split}-{kind}{mark}idx{DIMENSIONS[kind]}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    for path in (Path(folder, below, name) for below in ("", "raw", "MNIST/raw") for name in names):
        if path.is_file():
            return path
    raise InputError(f"{str(folder)!r} holds no {names[0]}, raw or .gz: expected a folder with MNIST's files")


def _known(kind: Any) -> str:
    """A kind of file that there is."""
    if kind not in tuple(DIMENSIONS):
        raise InputError(f"kind is {shown(kind)}: expected images or labels")
    return kind


def _parsed(stream: Any, name: str, kind: str) -> np.ndarray:
    """What an open file, or what unpacks one, holds."""
    count = DIMENSIONS[kind]
    magic = stream.read(4)
    if magic[:3] != _UNSIGNED_BYTES or len(magic) < 4:
        page = magic.lstrip()[:1] == b"<"
        what = "is a web page" if page else f"begins with {shown(magic)}" if magic else "is empty"
        raise InputError(f"{name} {what}: expected an IDX file of {kind}; fetch it again")
    if magic[3] != count:
        found = next(
            (other for other, n in DIMENSIONS.items() if n == magic[3]), f"{magic[3]}-dimensional arrays"
        )
        raise InputError(f"{name} holds {found}, not {kind}: expected an idx{count}-ubyte file")
    sizes = [int.from_bytes(stream.read(4), "big") for _ in range(count)]
    total = prod(sizes)
    header = f"its header says {' × '.join(map(str, sizes))} bytes"
    if not 0 < total <= LARGEST:
        raise InputError(f"{name} is empty or damaged: {header}, expected 1 to {LARGEST}")
    content = bytearray()
    while len(content) <= total and (piece := stream.read(min(total + 1 - len(content), _PIECE))):
        content += piece  # in pieces: a header that lies costs no more memory than the file has content
    if len(content) != total:
        fault = f"is truncated after {len(content)}" if len(content) < total else "goes on after them"
        raise InputError(f"{name} {fault}: {header}; fetch it again")
    array = np.frombuffer(content, np.uint8).reshape(sizes)
    array.setflags(write=False)
    return array
