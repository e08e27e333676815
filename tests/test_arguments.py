"""Whole numbers and names, as Python values and as text."""

from fractions import Fraction

import numpy as np
import pytest

from toyiwae.arguments import LARGEST, names, parameter_names, whole_number, whole_numbers
from toyiwae.errors import InputError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8, (8,)),
        (np.int32(8), (8,)),
        (1e6, (1_000_000,)),
        ("1e6", (1_000_000,)),
        ("1_000_000", (1_000_000,)),
        ("1,16,1000000", (1, 16, 1_000_000)),
        (" 1 , 16 ", (1, 16)),
        ("16,1,16", (16, 1)),
        ([3, 1], (3, 1)),
        (np.array([3, 1]), (3, 1)),
        (range(1, 4), (1, 2, 3)),
        ("1e12,1E3,2.0", (10**12, 1000, 2)),
        (str(LARGEST), (LARGEST,)),
        (Fraction(8, 2), (4,)),
    ],
)
def test_whole_numbers_in_every_spelling(value, expected):
    found = whole_numbers(value, "K")
    assert found == expected
    assert all(type(number) is int for number in found)


REFUSED = [
    *(
        "",
        " ",
        ",",
        "1,,2",
        "1,",
        "0",
        "-3",
        "1.5",
        "abc",
        "1e-3",
        "15e-1",
        "nan",
        "inf",
        "1e999",
        "1 2",
        "0x10",
    ),
    *(
        "٣",
        "1__0",
        "_1",
        "1e16",
        "--",
        "1;2",
        "1e999999999",
        None,
        True,
        1.5,
        float("nan"),
        float("inf"),
        0,
        -3,
        1j,
    ),
    *([], [1, 0], ["a"], [[1, 2]], [1.5], (), {}, np.array([0.5]), LARGEST + 1, b"8", len),
]


@pytest.mark.parametrize("value", REFUSED, ids=repr)
def test_anything_else_is_refused_in_one_line_that_names_the_field(value):
    with pytest.raises(InputError) as caught:
        whole_numbers(value, "K")
    message = str(caught.value)
    assert message.startswith("K is ")
    assert "expected" in message
    assert "\n" not in message
    assert len(message) < 150


def test_a_minimum_other_than_one():
    assert whole_number("0", "seed", minimum=0) == 0
    with pytest.raises(InputError, match="replicates is 1: expected a whole number of at least 2"):
        whole_number(1, "replicates", minimum=2)


def test_names_keep_order_and_pass_other_items_on():
    assert names("iwae, ciwae:0.5,iwae", "estimators") == ("iwae", "ciwae:0.5")
    assert names(["dreg", abs], "estimators") == ("dreg", abs)
    for value in ("", "iwae,,dreg", ["iwae", " "], []):
        with pytest.raises(InputError, match="estimators is "):
            names(value, "estimators")


def test_parameter_names():
    known = {"prior_mean": (2,), "loading": (3, 2), "proposal_mean": (2,)}
    assert parameter_names(None, known, ["prior_mean"]) == ("prior_mean",)
    assert parameter_names("all", known, []) == tuple(known)
    assert parameter_names("proposal_mean,prior_mean", known, []) == ("proposal_mean", "prior_mean")
    with pytest.raises(InputError, match=r"'prior_men'.*did you mean prior_mean"):
        parameter_names("prior_men", known, [])
    with pytest.raises(InputError, match="parameters contains 3"):
        parameter_names([3], known, [])
