"""Files of problems: what is read and refused, and that every bit survives them."""

import json
import os
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.problems import random_problem
from tests.test_problem import EXAMPLE, example, written
from toyiwae import InputError, Problem, dump, load
from toyiwae.files import toml_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected the sections [model], [proposal] and [data]"),
        ("# only a comment\n\n", "is empty: expected the sections"),
        ("[model]\nprior_mean = [0.3,, 1]\n", "is not valid TOML: Invalid value (at line 2, column 19)"),
        ("[model]\nx = 1\nx = 2\n", "is not valid TOML: Cannot overwrite a value (at line 3"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0): expected a TOML file"),
        (b"PK\x03\x04", "is not valid TOML"),
        (EXAMPLE.replace("[data]", "[date]"), "unknown key 'date': did you mean data?"),
        (EXAMPLE.replace("0.3]\n", "nan]\n"), "data.x[2] is nan: every entry must be a finite number"),
        (EXAMPLE.replace("-1.0", "true"), "data.x[1] is True: expected a number"),
        (EXAMPLE.replace("-1.0", "1979-05-27"), "data.x is [0.4, datetime.date(1979, 5, 27), 0.3]: expected"),
        ("a = " + "[" * 20_000, "is not valid TOML"),
        ("a = 1" + "0" * 5_000, "is not valid TOML"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        load(written(tmp_path, text))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_paths_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such file: '.*absent.toml'"):
        load(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="is a directory: expected a TOML file"):
        load(tmp_path)
    with pytest.raises(InputError, match="is a directory: expected a file name"):
        dump(Problem.from_dict(example()), tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        load("a\0b")


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([None, 1, 3]))
def test_files_keep_every_bit(seed, amortised, rows):
    problem = random_problem(seed, 2, 3, rows=rows, amortised=amortised)
    with tempfile.TemporaryDirectory() as folder:
        dump(problem, Path(folder, "problem.toml"))
        again = load(Path(folder, "problem.toml"))
    assert again == problem
    for section, entries in problem.tables().items():
        for key, array in entries.items():
            assert again.tables()[section][key].tobytes() == array.tobytes()
    assert Problem.from_dict(json.loads(json.dumps(problem.to_dict(), allow_nan=False))) == problem


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_any_finite_float_survives_a_file(values):
    text = toml_text({"data": {"x": np.array([values, values])}})
    assert repr(tomllib.loads(text)["data"]["x"]) == repr([values, values])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_dump_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "problem.toml"
    dump(random_problem(1), path)
    before = path.read_bytes()

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        dump(random_problem(2), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["problem.toml"]


def test_dump_keeps_a_symbolic_link(tmp_path):
    target, link = tmp_path / "target.toml", tmp_path / "link.toml"
    link.symlink_to(target)
    dump(random_problem(1), link)
    assert link.is_symlink()
    assert load(target) == random_problem(1)
