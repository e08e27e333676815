"""Nothing a user's estimator does crashes the suite, and nothing it changes for everybody stays changed."""

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from toyiwae import estimators
from toyiwae.cli import main
from toyiwae.conformance import api
from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.calling.call import as_array

LIGHT = {"K": 2, "M": 2, "shift": 0.3, "parameters": "proposal_mean"}
pytestmark = pytest.mark.usefixtures("remembered_truths")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The first problem of the bank: what is tested here happens on every one."""
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])


def iwae(problem, *, K, M, replicates, seed):
    """A correct estimator."""
    drawn, claimed = particles.draw(problem, K, M, replicates, seed), estimators.get("iwae")
    return claimed.value_of(drawn.log_w).mean(1), drawn.gradients(claimed(drawn.log_w))


def only_iwae(change):
    """A correct estimator that does something else as well."""

    def estimator(problem, **options):
        change()
        return iwae(problem, **options)

    return estimator


# arrays --------------------------------------------------------------------------------------------------


class OnlyDlpack:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        """The array's own."""
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        """The array's own."""
        return self._array.__dlpack_device__()


class OnlyArray:
    """An array that NumPy can ask for, as those of JAX are."""

    def __init__(self, array):
        self._array = array
        self.dtype = array.dtype

    def __array__(self, dtype=None, copy=None):
        """The array."""
        return self._array


@pytest.mark.parametrize("kind", [OnlyDlpack, OnlyArray, np.ndarray.tolist])
def test_arrays_of_other_libraries_convert(kind):
    def estimator(problem, **options):
        values, gradients = iwae(problem, **options)
        return kind(values), {name: kind(array) for name, array in gradients.items()}

    assert toyiwae.check(estimator, "iwae", **LIGHT).verdict == "conforms"


@pytest.mark.parametrize(
    ("dtype", "digits"), [("float64", 15), ("float32", 6), ("float16", 3), ("bfloat16", 2), ("int64", 15)]
)
def test_tensors_of_every_dtype_convert(dtype, digits):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1.0, -2.0]).to(getattr(torch, dtype))
    for made in (tensor, tensor.clone().requires_grad_(True) if dtype != "int64" else tensor):
        array, carried = as_array(made)
        assert array.dtype == np.float64
        assert array.tolist() == [1.0, -2.0]
        assert carried == digits
    with pytest.raises(TypeError, match="real numbers"):
        as_array(torch.tensor([1j]))


class Raises:
    """An object that refuses to become an array, in the rudest way."""

    dtype = "float64"

    def __array__(self, dtype=None, copy=None):
        """Raises."""
        raise SystemExit("no array")


class Unreadable(Exception):
    """An exception whose message cannot be read."""

    def __str__(self):
        """Raises."""
        raise ValueError("no message")


def recurse():
    return recurse()


def raise_unreadable():
    raise Unreadable


# what goes wrong is found --------------------------------------------------------------------------------

BROKEN = {
    "an unreadable exception": (only_iwae(raise_unreadable), "no exception", "Unreadable"),
    "sys.exit": (only_iwae(lambda: sys.exit("bye")), "no exception", "SystemExit: bye"),
    "an exception of the lowest kind": (only_iwae(lambda: (_ for _ in ()).throw(GeneratorExit)), "no exception", ""),
    "endless recursion": (only_iwae(recurse), "no exception", "RecursionError"),
    "a huge allocation": (only_iwae(lambda: np.ones(10**15)), "no exception", "Memory"),
    "a generator": (lambda problem, **options: (_ for _ in range(2)), "shapes", "generator"),
    "an object that raises": (lambda problem, **options: (Raises(), {}), "shapes", "no array"),
    "objects": (lambda problem, **options: (np.array([object()] * options["replicates"]), {}), "shapes", "object"),
    "complex numbers": (lambda problem, **options: (1j * iwae(problem, **options)[0], {}), "shapes", "complex"),
    "ragged lists": (lambda problem, **options: ([[1.0], [1.0, 2.0]], {}), "shapes", "value"),
    "a name that is none": (lambda problem, **options: (None, {Raises(): 1.0}), "shapes", "gradient of"),
    "another name": (lambda problem, **options: (None, {"prior_men": 1.0}), "shapes", "prior_mean"),
}  # fmt: skip


@pytest.mark.parametrize("factor", [1e60, 1e160, 1e300])
@pytest.mark.parametrize("sequential", [False, True])
def test_huge_numbers_fail_in_words(factor, sequential, tmp_path, capsys):
    file = tmp_path / "huge.py"
    file.write_text(
        "from tests.test_conformance_hostile import iwae\n"
        "def huge(problem, **options):\n"
        "    values, gradients = iwae(problem, **options)\n"
        f"    return {factor} * values, {{name: {factor} * g for name, g in gradients.items()}}\n"
    )
    asked = ["check", f"{file}:huge", "--target", "iwae", "-K", "2", "-M", "2"]
    assert main.main(asked + ["--sequential"] * sequential) == 1
    printed = capsys.readouterr()
    assert "FAILED" in printed.out + printed.err
    assert "nan" not in printed.out


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("timeout", [None, 60])
def test_what_goes_wrong_is_a_violation(kind, timeout):
    estimator, name, message = BROKEN[kind]
    report = toyiwae.check(estimator, "iwae", timeout=timeout)
    assert report.verdict == "does not conform"
    assert report.failures[0].name == name
    assert message in (report.failures[0].reason or "")


@pytest.mark.parametrize("kind", ["an unreadable exception", "sys.exit"])
def test_what_goes_wrong_in_a_formula_is_a_violation(kind):
    def formula(log_w):
        return BROKEN[kind][0](bank()[0].problem, K=2, M=2, replicates=1, seed=1)

    report = toyiwae.check(formula, "iwae", form="coefficients")
    assert {failure.name for failure in report.failures} >= {"no exception", "K = 1"}


@pytest.mark.parametrize("line", ["import sys; sys.exit(3)", "1 / 0", "def f(:", "raise KeyError('x')"])
def test_a_file_that_cannot_be_run_is_bad_input(line, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(line)
    assert main.main(["check", f"{tmp_path / 'mine.py'}:f", "--target", "iwae"]) == 2
    assert "failed: " in capsys.readouterr().err


def test_a_generator_moved_in_the_child_is_found():
    report = toyiwae.check(only_iwae(np.random.normal), "iwae", timeout=60, **LIGHT)
    assert {failure.name for failure in report.failures} == {"global generators untouched"}


def test_a_callable_without_a_readable_name_is_judged():
    class Anonymous:
        def __getattr__(self, name):
            raise RuntimeError(name)

        def __call__(self, problem, **options):
            return iwae(problem, **options)

    assert toyiwae.check(Anonymous(), "iwae", **LIGHT).verdict == "conforms"


# what it changes for everybody ---------------------------------------------------------------------------


def test_what_it_changes_does_not_stay_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch = sys.modules.get("torch")
    (tmp_path / "elsewhere").mkdir()

    def change():
        os.chdir(tmp_path / "elsewhere")
        np.seterr(all="raise")
        warnings.simplefilter("error")
        if torch is not None:
            torch.set_default_dtype(torch.float16)

    errors, filters = np.geterr(), list(warnings.filters)
    assert toyiwae.check(only_iwae(change), "iwae", **LIGHT).verdict == "conforms"
    assert Path.cwd() == tmp_path
    assert np.geterr() == errors
    assert warnings.filters == filters
    assert torch is None or torch.get_default_dtype() == torch.float32


def test_a_working_directory_that_is_gone_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change():
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    assert toyiwae.check(only_iwae(change), "iwae", **LIGHT).verdict == "conforms"
    assert Path.cwd() == tmp_path


def test_megabytes_of_output_stay_out_of_the_answer(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from tests.test_conformance_hostile import iwae\nprint('loaded')\n"
        "def loud(problem, **options):\n    print('x' * 1_000_000)\n    return iwae(problem, **options)\n"
    )
    argv = ["check", f"{tmp_path / 'mine.py'}:loud", "--target", "iwae", "-K", "2", "-M", "2", "--json"]
    assert main.main(argv) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "conforms"
    assert "loaded" in captured.err
    assert len(captured.err) > 1_000_000
