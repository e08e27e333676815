"""Data sets over the network: one mirror after another, unpacked while they come, kept only if every byte is right.

A mirror may pack a file as it likes; what counts is the SHA-256 of what it unpacks to, which is known beforehand, as is
the size. So a file is unpacked, counted and hashed piece by piece, in bounded memory, and given up as soon as it is
longer than it should be.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError, ToyiwaeError
from toyiwae.extras import import_extra
from toyiwae.files import replacing
from toyiwae.problems.idx import find_idx, read_idx

FOLDER_VARIABLE = "TOYIWAE_DATA"
"""Environment variable that names the folder of data sets; by default the user's cache."""

SECONDS = 30.0
"""How long a mirror may keep silent."""

_PIECE = 2**16
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Original:
    """A file as its authors published it, unpacked: bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A data set in IDX files.

    Attributes:
        name: how users ask for it.
        files: name of a file, without `.gz` -> what it is.
        mirrors: addresses of folders that hold the files, gzipped, in the order in which they are tried.
    """

    name: str
    files: Mapping[str, Original]
    mirrors: tuple[str, ...]


DATASETS = {
    "mnist": Dataset(
        "mnist",
        {
            "train-images-idx3-ubyte": Original(
                47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "train-labels-idx1-ubyte": Original(
                60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            "t10k-images-idx3-ubyte": Original(
                7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            "t10k-labels-idx1-ubyte": Original(
                10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    )
}
"""Name -> data set that `fetch` knows."""


def fetch(
    name: str | Dataset,
    folder: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[str] | None = None,
    report: Callable[[str], Any] = lambda line: None,
) -> Path:
    """Brings a data set's files into a folder, unpacked; those that are there already are checked and left alone.

    Args:
        name: of the data set, from `DATASETS`.
        folder: where to; by default `default_folder`.
        mirrors: addresses of folders to take the files from, in this order, instead of the data set's own.
        report: told what happens, one line a file.

    Returns:
        The folder.

    Raises:
        InputError: no such data set; a file of that name with other content, which is left alone.
        ToyiwaeError: no mirror gave the file as it should be; the message says what each gave. No part of it stays.
        MissingExtraError: pooch is not installed.
        OSError: the folder is not writable, or full.
    """
    dataset = name if isinstance(name, Dataset) else known(name)
    home = Path(default_folder(dataset.name) if folder is None else folder)
    home.mkdir(parents=True, exist_ok=True)
    for file, original in dataset.files.items():
        present = _present(home, file)
        if present is None:
            address = _first(mirrors or dataset.mirrors, home / file, original, dataset.name)
            report(f"{file}: {original.size:,} bytes from {address}")
        elif sha256(present, file) == original.sha256:
            report(f"{file}: already there")
        else:
            raise InputError(
                f"{str(present)!r} is not {dataset.name}'s (by its SHA-256): delete it, or choose another folder"
            )
    return home


def known(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {shown(name)} to fetch: {nearest(str(name), DATASETS)}")
    return DATASETS[name]


def default_folder(name: str) -> Path:
    """Where a data set's files are kept: below $TOYIWAE_DATA, else in the user's cache.

    Raises:
        MissingExtraError: pooch, which knows where that is, is not installed.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen) / name
    pooch = import_extra("pooch", extra="networks", purpose="the folder of data sets")
    return Path(pooch.os_cache("toyiwae")) / name


def sha256(path: Path, file: str) -> str:
    """The SHA-256 of an IDX file, unpacked.

    Args:
        path: where it lies, raw or gzipped.
        file: its name as published, which says what it holds.

    Raises:
        InputError: if it is damaged.
    """
    return sha256_of(read_idx(path, "labels" if "labels" in file else "images"))


def sha256_of(array: np.ndarray) -> str:
    """The SHA-256 of the IDX file that holds this array of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    found = hashlib.sha256(header)
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _present(folder: Path, file: str) -> Path | None:
    """The file in the folder, under any name that it goes by."""
    split, kind, _ = file.split("-", 2)
    try:
        return find_idx(folder, split, kind)
    except InputError:
        return None


def _first(mirrors: Sequence[str], target: Path, original: Original, name: str) -> str:
    """Takes a file from the first mirror that has it as it should be; the address that it came from."""
    pooch = import_extra("pooch", extra="networks", purpose="toyiwae data fetch")
    requests = import_extra("requests", extra="networks", purpose="toyiwae data fetch")
    faults = []
    for mirror in mirrors:
        address = f"{mirror.rstrip('/')}/{target.name}.gz"
        try:
            with replacing(target) as stream:
                sink = _Unpacker(stream, original)
                pooch.HTTPDownloader(timeout=SECONDS, chunk_size=_PIECE)(address, sink, None)
                sink.finish()
        except (requests.RequestException, _WrongError) as error:
            faults.append(f"{address}: {_in_words(error)}")
        else:
            return address
    raise ToyiwaeError(f"no mirror gave {target.name} of {name}; {'; '.join(faults)}")


def _in_words(error: Exception) -> str:
    """What went wrong with a mirror, in one short line."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"answered {response.status_code} {response.reason}"
    if isinstance(error, _WrongError):
        return str(error)
    return f"broke off or did not answer ({type(error).__name__})"


class _WrongError(Exception):
    """A mirror gives something else than the file."""


class _Unpacker:
    """What a download is written into: unpacks gzip, counts, hashes and passes on; never more than it should be.

    Args:
        stream: where the unpacked bytes go.
        original: what they should be.
    """

    def __init__(self, stream: BinaryIO, original: Original) -> None:
        self._stream, self._original = stream, original
        self._hash, self._size, self._received = hashlib.sha256(), 0, 0
        self._start: bytes | None = b""  # until there are enough bytes to tell what it is
        self._gzip: Any = None

    def write(self, piece: bytes) -> None:
        """Takes the next bytes."""
        self._received += len(piece)
        if self._received > self._original.size + _PIECE:
            raise _WrongError(f"is longer than {self._original.size:,} bytes")
        if self._start is not None:
            piece = self._start + piece
            self._start = piece if len(piece) < len(_GZIP) else None
            if self._start is not None:
                return
            if piece.lstrip()[:1] == b"<":
                raise _WrongError("is a web page")
            if piece.startswith(_GZIP):
                self._gzip = zlib.decompressobj(wbits=31)
        if self._gzip is None:
            self._pass_on(piece)
            return
        try:
            while piece and not self._gzip.eof:
                self._pass_on(self._gzip.decompress(piece, _PIECE))
                piece = self._gzip.unconsumed_tail
        except zlib.error as error:
            raise _WrongError(f"is damaged gzip ({error})") from None

    def flush(self) -> None:
        """Does nothing: the file is flushed once, at its end."""

    def finish(self) -> None:
        """Checks that it was the file and all of it."""
        if self._size < self._original.size:
            raise _WrongError(f"is truncated: {self._size:,} of {self._original.size:,} bytes")
        if self._hash.hexdigest() != self._original.sha256:
            raise _WrongError(f"has the SHA-256 {self._hash.hexdigest()}, not {self._original.sha256}")

    def _pass_on(self, content: bytes) -> None:
        self._size += len(content)
        if self._size > self._original.size:
            raise _WrongError(f"unpacks to more than {self._original.size:,} bytes")
        self._hash.update(content)
        self._stream.write(content)
