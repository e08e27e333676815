"""The whole download path against a server on loopback that does everything wrong a mirror can do."""

import gzip
import hashlib
import http.server
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toyiwae import InputError, ToyiwaeError
from toyiwae.networks.data import fetch as fetching
from toyiwae.networks.data.fetch import DATASETS, Dataset, Original, fetch

pytest.importorskip("pooch")

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
RNG = np.random.default_rng(6)


def idx(array: np.ndarray) -> bytes:
    """An IDX file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


CONTENT = {
    "train-images-idx3-ubyte": idx(RNG.integers(0, 256, (30, 28, 28), np.uint8)),
    "train-labels-idx1-ubyte": idx(RNG.integers(0, 10, 30, np.uint8)),
    "t10k-images-idx3-ubyte": idx(RNG.integers(0, 256, (9, 28, 28), np.uint8)),
}
SMALL = Dataset(
    "small",
    {name: Original(len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items()},
    (),
)
FIRST = next(iter(CONTENT))
GOOD = CONTENT[FIRST]


class Server(http.server.ThreadingHTTPServer):
    """Answers `/FOLDER/FILE.gz` by what `answers[FOLDER]` is; counts the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[str], dict[str, Any]]] = {
            "good": lambda name: {"body": gzip.compress(CONTENT[name])}
        }

    def mirror(self, folder: str, **answer: Any) -> str:
        """The address of a folder, whose every file is answered so."""
        if answer:
            self.answers[folder] = lambda name: answer
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        _, folder, name = self.path.split("/")
        self.server.asked.append(self.path)
        answer = self.server.answers[folder](name.removesuffix(".gz"))
        body, pieces = answer.get("body", b""), answer.get("pieces")
        self.send_response(answer.get("status", 200))
        for key, value in answer.get("headers", {}).items():
            self.send_header(key, value)
        if pieces is None:
            self.send_header("Content-Length", str(answer.get("length", len(body))))
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for piece in [body] if pieces is None else pieces():
                self.wfile.write(piece)
        except OSError:
            pass  # the client has seen enough
        self.close_connection = True

    def log_message(self, *_):
        """Nothing on the tests' standard error."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_files_come_once_and_are_what_they_should_be(server, tmp_path):
    lines = []
    home = fetch(SMALL, tmp_path / "new" / "folder", mirrors=[server.mirror("good")], report=lines.append)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == CONTENT
    assert lines[0] == f"{FIRST}: 23,536 bytes from {server.mirror('good')}{FIRST}.gz"
    assert len(server.asked) == len(CONTENT)
    fetch(SMALL, home, mirrors=[server.mirror("good")], report=lines.append)
    assert len(server.asked) == len(CONTENT)
    assert lines[-1] == "t10k-images-idx3-ubyte: already there"


@pytest.mark.parametrize("answer", ["raw", "encoded", "byte by byte"])
def test_however_a_mirror_packs_them(answer, server, tmp_path):
    server.answers["odd"] = {
        "raw": lambda name: {"body": CONTENT[name]},
        "encoded": lambda name: {
            "body": gzip.compress(CONTENT[name]),
            "headers": {"Content-Encoding": "gzip"},
        },
        "byte by byte": lambda name: {"pieces": lambda: (bytes([b]) for b in gzip.compress(CONTENT[name]))},
    }[answer]
    home = fetch(SMALL, tmp_path, mirrors=[server.mirror("odd")])
    assert {path.name: path.read_bytes() for path in home.iterdir()} == CONTENT


FLIPPED = bytearray(GOOD)
FLIPPED[5000] ^= 1
FAULTS = {
    "wrong checksum": ({"body": gzip.compress(bytes(FLIPPED))}, r"has the SHA-256 \w{64}, not "),
    "other sizes in the header": ({"body": gzip.compress(GOOD[:7] + b"\x1f" + GOOD[8:])}, "has the SHA-256"),
    "truncated": ({"body": gzip.compress(GOOD)[:-9000]}, r"is truncated: [\d,]+ of 23,536 bytes"),
    "truncated raw": ({"body": GOOD[:-1]}, "is truncated: 23,535 of 23,536 bytes"),
    "empty": ({"body": b""}, "is truncated: 0 of 23,536 bytes"),
    "one byte": ({"body": b"\x1f"}, "is truncated: 0 of 23,536 bytes"),
    "a page": ({"body": b"\n<!DOCTYPE html><html>moved</html>"}, "is a web page"),
    "a long page": ({"body": b"<html>" + b"x" * 200_000}, "is a web page"),
    "damaged gzip": ({"body": b"\x1f\x8b\x08\x00" + bytes(400)}, "is damaged gzip"),
    "goes on": ({"body": gzip.compress(GOOD + b"\0")}, "unpacks to more than 23,536 bytes"),
    "goes on after its end": ({"body": gzip.compress(GOOD) + bytes(200_000)}, "is longer than 23,536 bytes"),
    "a length too large": (
        {"body": gzip.compress(GOOD)[:-900], "length": 23_000},
        "broke off or did not answer",
    ),
    "a length too small": ({"body": gzip.compress(GOOD), "length": 2000}, "is truncated"),
    "an encoding it has not": ({"body": GOOD, "headers": {"Content-Encoding": "gzip"}}, "broke off"),
    "broken connection": ({"body": b"", "length": 23_000}, "broke off or did not answer"),
    "not there": ({"status": 404}, "answered 404 Not Found"),
    "ill": ({"status": 503, "body": b"later"}, "answered 503 Service Unavailable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_named_and_leaves_nothing_and_the_next_one_serves(fault, server, tmp_path):
    answer, message = FAULTS[fault]
    bad = server.mirror("bad", **answer)
    with pytest.raises(ToyiwaeError, match=message) as caught:
        fetch(SMALL, tmp_path, mirrors=[bad])
    assert str(caught.value).startswith(f"no mirror gave {FIRST} of small; {bad}{FIRST}.gz: ")
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    fetch(SMALL, tmp_path, mirrors=[bad, server.mirror("good")])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == CONTENT


def test_a_dead_mirror_is_passed_over(server, tmp_path, monkeypatch):
    dead, silent = Server(), threading.Event()
    dead.server_close()
    server.answers["silent"] = lambda _: {"pieces": lambda: (silent.wait(5) and b"" for _ in range(1))}
    monkeypatch.setattr(fetching, "SECONDS", 0.2)
    mirrors = [dead.mirror("good"), server.mirror("silent"), "ftp:/nowhere", "nonsense"]
    with pytest.raises(ToyiwaeError, match="did not answer") as caught:
        fetch(SMALL, tmp_path, mirrors=mirrors)
    assert str(caught.value).count("broke off or did not answer") == 4
    fetch(SMALL, tmp_path, mirrors=[*mirrors, server.mirror("good")])
    silent.set()
    assert {path.name for path in tmp_path.iterdir()} == set(CONTENT)


def test_a_file_of_that_name_with_other_content_is_left_alone(server, tmp_path):
    mine = tmp_path / f"{FIRST}.gz"
    mine.write_bytes(gzip.compress(bytes(FLIPPED)))
    before = mine.read_bytes()
    with pytest.raises(
        InputError, match=r"\.gz' is not small's \(by its SHA-256\): delete it, or choose another"
    ):
        fetch(SMALL, tmp_path, mirrors=[server.mirror("good")])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
    mine.write_bytes(b"")
    with pytest.raises(InputError, match="is empty: expected an IDX file"):
        fetch(SMALL, tmp_path, mirrors=[server.mirror("good")])


def test_a_full_disk_leaves_nothing_and_is_not_the_mirrors_fault(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(SMALL, tmp_path, mirrors=[server.mirror("good")])
    assert str(caught.value.filename).endswith(FIRST)
    assert list(tmp_path.iterdir()) == []


def test_names_and_folders(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="no data set 'mnits' to fetch: did you mean mnist"):
        fetch("mnits")
    monkeypatch.setenv(fetching.FOLDER_VARIABLE, str(tmp_path))
    assert fetching.default_folder("mnist") == tmp_path / "mnist"
    monkeypatch.delenv(fetching.FOLDER_VARIABLE)
    assert fetching.default_folder("mnist").parent.name == "toyiwae"
    for dataset in DATASETS.values():
        assert all(mirror.startswith("https://") for mirror in dataset.mirrors)


BOMB = """
import re, sys
import requests, pooch, numpy
from toyiwae import ToyiwaeError
from toyiwae.networks.data.fetch import fetch
try:
    fetch("mnist", sys.argv[1], mirrors=sys.argv[2:])
except ToyiwaeError as error:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], error)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("encoded", [False, True])
def test_a_decompression_bomb_costs_no_memory(encoded, server, tmp_path):
    """1.2 MB that unpack to 256 MB, as the file or as the encoding of the answer: the process stays below 100 MB."""
    packer = zlib.compressobj(1, wbits=31)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(2**8)) + packer.flush()
    headers = {"Content-Encoding": "gzip"} if encoded else {}
    mirror = server.mirror("bomb", body=packed, headers=headers)
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path / "data", mirror],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    peak, message = done.stdout.split(maxsplit=1)
    assert re.search("unpacks to more than 47,040,016 bytes|is longer than 47,040,016 bytes", message)
    assert int(peak) < 100_000
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files do not stand beside this clone")
def test_mnist_itself_over_the_command_line(server, tmp_path):
    server.answers["mnist"] = lambda name: {"body": (MNIST / f"{name}.gz").read_bytes()}
    command = [sys.executable, "-m", "toyiwae", "data", "fetch", "mnist", "--data-dir", str(tmp_path)]
    command += ["--mirror", "http://127.0.0.1:9/", "--mirror", server.mirror("mnist")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
    assert len(server.asked) == len(list(tmp_path.iterdir())) == 4
