"""IDX files: what is read under which name, and each fault in one line that names the file."""

import gzip
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from toyiwae import InputError
from toyiwae.problems.idx import LARGEST, find_idx, read_idx

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 4, 5), np.uint8)
LABELS = np.array([7, 0, 3], np.uint8)


def content(array: np.ndarray, *sizes: int, kind: int = 8) -> bytes:
    """An IDX file; with a header of other sizes or another type where they are given."""
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *(sizes or array.shape)) + array.tobytes()
    )


def written(folder: Path, data: bytes, name: str = "t10k-images-idx3-ubyte") -> Path:
    """A file with this content."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_arrays_are_read_raw_and_gzipped_whatever_the_name(pack, tmp_path):
    np.testing.assert_array_equal(read_idx(written(tmp_path, pack(content(IMAGES)))), IMAGES)
    found = read_idx(written(tmp_path, pack(content(LABELS)), "labels.gz"), "labels")
    np.testing.assert_array_equal(found, LABELS)
    assert found.dtype == np.uint8
    assert not found.flags.writeable


@pytest.mark.parametrize("below", ["", "raw/", "MNIST/raw/"])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_files_are_found_under_all_their_names(below, name, end, tmp_path):
    path = written(tmp_path, b"", f"{below}{name}{end}")
    written(tmp_path, b"", "train-labels-idx1-ubyte")
    assert find_idx(tmp_path, "t10k") == path
    with pytest.raises(
        InputError, match=r"holds no train-images-idx3-ubyte, raw or .gz: expected a folder with MNIST"
    ):
        find_idx(tmp_path, "train")


GOOD, ZIPPED = content(IMAGES), gzip.compress(content(IMAGES))
FAULTS = {
    "empty": (b"", "is empty: expected an IDX file of images; fetch it again"),
    "a web page": (
        b"\n<!DOCTYPE html><html>",
        "is a web page: expected an IDX file of images; fetch it again",
    ),
    "text": (b"not this", r"begins with b'not ': expected an IDX file of images"),
    "floats": (content(IMAGES, kind=13), r"begins with b'\x00\x00\r\x03': expected an IDX file of images"),
    "labels": (content(LABELS), "holds labels, not images: expected an idx3-ubyte file"),
    "four dimensions": (content(IMAGES[None]), "holds 4-dimensional arrays, not images"),
    "header cut": (GOOD[:9], "is empty or damaged: its header says 3 × 0 × 0 bytes"),
    "truncated": (GOOD[:-7], "is truncated after 53: its header says 3 × 4 × 5 bytes"),
    "truncated gzip": (ZIPPED[:-20], "is damaged gzip ("),
    "damaged gzip": (ZIPPED[:-6] + bytes(6), "is damaged gzip ("),
    "trailing": (GOOD + b"\0", "goes on after them: its header says 3 × 4 × 5 bytes"),
    "trailing, gzipped": (gzip.compress(GOOD + b"\0"), "goes on after them: its header says"),
    "no images": (content(IMAGES, 0, 4, 5), f"its header says 0 × 4 × 5 bytes, expected 1 to {LARGEST}"),
    "too many": (
        content(IMAGES, 2**32 - 1, 28, 28),
        "is empty or damaged: its header says 4294967295 × 28 × 28",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_refused_in_one_line(fault, tmp_path):
    data, message = FAULTS[fault]
    path = written(tmp_path, data)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_idx(path)
    assert str(caught.value).startswith(repr(str(path)))
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*absent"):
        read_idx(tmp_path / "absent")
    with pytest.raises(InputError, match="is a directory: expected an IDX file of labels"):
        read_idx(tmp_path, "labels")


def test_a_file_that_unpacks_beyond_its_header_costs_no_memory(tmp_path):
    """Much more packed, or announced, than there should be: neither is held in memory."""
    bomb = gzip.compress(content(IMAGES) + bytes(2**26))
    for data in (bomb, content(IMAGES, 2**20, 32, 32)):
        path = written(tmp_path, data)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"goes on after|is truncated"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**22


def test_what_is_no_path_and_no_kind_is_refused_in_one_line(tmp_path):
    path = written(tmp_path, content(IMAGES))
    with pytest.raises(InputError, match=r"^kind is 'image': expected images or labels$"):
        read_idx(path, "image")
    with pytest.raises(InputError, match=r"^kind is 'foo': expected images or labels$"):
        find_idx(tmp_path, "t10k", "foo")
    with pytest.raises(InputError, match=r"^path is None: expected the name of an IDX file of images$"):
        read_idx(None)
    with pytest.raises(InputError, match=r"elsewhere' is no folder: expected one with MNIST's files$"):
        find_idx(tmp_path / "elsewhere", "t10k")
