"""What a machine cannot do, or not in reasonable time, is one line: memory, time, devices, files without end."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import toyiwae
from toyiwae.cli import main

PROBLEM = str(Path(__file__).resolve().parents[1] / "docs" / "problem.toml")
ESTIMATE = ["estimate", PROBLEM, "--seed", "1"]


@pytest.fixture
def refused(capsys):
    """Runs a command line that must be refused; returns its one line."""

    def runner(*argv):
        assert main.main(list(argv)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"error: [^\n]+\n", err)
        return err

    return runner


# time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-K 1e12 -M 1e9 --replicates 2", r"K = 1000000000000, M = 1000000000 and 2 replicates take 4e\+21 standard"),
        ("-K 1 -M 1 --replicates 1e15", r"replicates take 2e\+15 .*noise repeats after 5\.6e\+14: lower K, M or rep"),
        ("-K 4,1e15 -M 1 --replicates 2", r"K = 1000000000000000, .* noise repeats"),
        ("-K 2 -M 1e9 --replicates 2", "M is 1000000000: at most 16777216 groups"),
        ("-K 1e12 -M 1e9 --replicates 2 --engine numba", r"take 4e\+21 standard normals, more than 4\.6e\+18: lower K"),
        ("-K 2 -M 1e9 --replicates 2 --engine numba -e jackknife", "2 is more than 16777216; declare a Form"),
    ],
)  # fmt: skip
def test_more_draws_than_there_is_noise_for(refused, options, message):
    pytest.importorskip("torch")
    engine = [] if "--engine" in options else ["--engine", "torch"]
    assert re.search(message, refused(*ESTIMATE, *options.split(), *engine))


def test_a_layout_counts_the_units_that_it_draws():
    noise = pytest.importorskip("toyiwae.montecarlo.noise")
    for sizes in ((1, 1, 5, 2), (4, 1, 9, 3), (2, 3, 7, 2), (1, 2, 500, 1)):
        layout = noise.Layout.of(*sizes, unit=40)
        outer = layout.shape[: max(layout.axis - 1, 0)]
        indices = 1 if layout.axis == noise.REPLICATES else 6
        for size in outer:
            indices *= size
        units = -(-6 // layout.block) if layout.axis == noise.REPLICATES else layout.units
        assert layout.total_units(6) == indices * units


def test_what_takes_long_is_announced(monkeypatch, capsys):
    api = pytest.importorskip("toyiwae.montecarlo.api")
    options = ["-K", "4", "-M", "3", "--replicates", "20"]
    assert main.main([*ESTIMATE, *options]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(api, "COSTLY", 1e-9)  # for 2 latents · 4 particles · 3 groups · 20 replicates
    assert main.main([*ESTIMATE, *options]) == 0
    announced = (
        r"note: .* the replicates make 4\.8e\+02 standard normals: about \S+ minutes on one CPU core\n"
    )
    assert re.fullmatch(announced, capsys.readouterr().err)
    with pytest.warns(toyiwae.CostWarning, match=r"4\.8e\+02"):
        toyiwae.estimate(toyiwae.load(PROBLEM), K=4, M=3, replicates=20, seed=1)
    with warnings.catch_warnings(record=True) as below:
        warnings.simplefilter("always")
        api._warn_of_cost(479, 1e12)
    assert below == []


@pytest.mark.parametrize(
    ("numbers", "time"),
    [(10**10, "33 minutes"), (10**11, "5.6 hours"), (10**13, "23 days"), (4 * 10**14, "2.5 years")],
)
def test_times_are_in_a_fitting_unit(numbers, time):
    api = pytest.importorskip("toyiwae.montecarlo.api")
    with pytest.warns(toyiwae.CostWarning, match=f"about {time} on one CPU core"):
        api._warn_of_cost(numbers, 5e6)


# memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("of 7 TiB"), "error: the problem is too large for memory: of 7 TiB"),
        (MemoryError(), "error: the problem is too large for memory"),
        (RecursionError("maximum depth"), "error: the input is nested too deeply, or too large: maximum depth"),
        (OverflowError("math range"), "error: a number of the problem is too large: math range"),
        (FileNotFoundError(2, "No such file", "/a"), "error: cannot use '/a': No such file"),
        (PermissionError(13, "Permission denied"), "error: Permission denied"),
    ],
)  # fmt: skip
def test_the_limits_of_the_machine_are_one_line(refused, monkeypatch, error, message):
    def fail(**_):
        raise error

    monkeypatch.setattr("toyiwae.exact", fail, raising=False)
    assert refused("exact", PROBLEM, "-K", "7") == f"{message}\n"


def test_other_exceptions_are_not_hidden(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr("toyiwae.exact", fail, raising=False)
    with pytest.raises(ZeroDivisionError):
        main.main(["exact", PROBLEM, "-K", "7"])


def test_memory_that_torch_cannot_have_is_a_memory_error(refused, monkeypatch):
    torch = pytest.importorskip("torch")
    sampler = pytest.importorskip("toyiwae.montecarlo.kernels.torch_sampler")

    def greedy(self, *_):
        torch.empty(2**50, dtype=torch.float64)
        yield

    monkeypatch.setattr(sampler.TorchSampler, "chunks", greedy)
    options = ["-K", "2", "--replicates", "2", "--engine", "torch"]
    assert "too large for memory" in refused(*ESTIMATE, *options)


# devices and files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu:5", "cpu:1", "cpu:127"])
def test_a_cpu_has_no_number(refused, device):
    pytest.importorskip("torch")
    message = refused(*ESTIMATE, "-K", "2", "--replicates", "2", "--device", device)
    assert message == f"error: device is '{device}': all CPU cores are one device, use cpu\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_file_that_may_have_no_end_is_not_read(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for name in (str(tmp_path / "pipe.toml"), os.devnull):
        assert (
            refused("exact", name, "-K", "2")
            == f"error: {name!r} is not a regular file: expected a TOML file\n"
        )


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    text = Path(PROBLEM).read_bytes()
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf" + text)
    assert toyiwae.load(tmp_path / "marked.toml") == toyiwae.load(PROBLEM)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "argv", [["--help"], ["exact", "--help"], ["--version"], ["exact", PROBLEM, "-K", "2"]]
)
def test_a_full_disk_is_one_line_whoever_writes(argv):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "toyiwae", *argv], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: cannot write the answer: No space left on device\n")
