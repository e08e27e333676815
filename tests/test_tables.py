"""Tables for people: reasons of missing numbers once each, numbers that are never cut."""

import io

import numpy as np
from rich.console import Console

import toyiwae
from tests.problems import random_problem
from toyiwae.cli.tables import Footnotes
from toyiwae.conformance import report_table
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.problems.proposal import Proposal


def shown(show, *content, width=80):
    """What is printed on a terminal of so many columns."""
    stream = io.StringIO()
    show(Console(file=stream, width=width, highlight=False, markup=False, emoji=False), *content)
    return stream.getvalue()


def test_reasons_that_differ_in_k_are_one_footnote_with_every_k():
    notes = Footnotes()
    reasons = [
        f"the variance at K = {k} is known to {size} of its size, not to 1e-08"
        for k, size in ((2, "3"), (16, "2e+02"))
    ]
    marks = [notes.mark(one) for one in (reasons[0], "no value", reasons[1], reasons[0], "no value at K = 2")]
    assert marks == ["[1]", "[2]", "[1]", "[1]", "[3]"]
    assert " ".join(shown(notes.show).split()) == (
        "[1] the variance at K = 2, 16 is known to 2e+02 of its size, not to 1e-08 "
        "[2] no value [3] no value at K = 2"
    )


def test_a_ratio_that_does_not_exist_has_its_reason():
    """Along the path DReG has no noise where q is the posterior: 0/0 by the proposal's parameters."""
    made = random_problem(4)
    posterior = condition(made.model, made.data.x)
    at = Problem(made.model, Proposal(posterior.cov, mean=np.ravel(posterior.mean)), made.data)
    truth = toyiwae.exact(
        at, K=[2, 4], estimators=("dreg", "iwae"), parameters=["proposal_mean", "proposal_chol"]
    )
    for cell in truth.to_dict()["results"]:
        found = cell["gradients"]["dreg"]
        assert found["proposal_mean"]["snr"] == [None] * made.dim_z
        assert found["proposal_mean"]["reason"] == "no SNR where mean and variance are zero"
        both = "which are zero by definition; no SNR where mean and variance are zero"
        assert found["proposal_chol"]["reason"].endswith(both)
        assert "reason" not in cell["gradients"]["iwae"]["proposal_mean"]


def test_the_numbers_of_a_judgement_are_whole_in_eighty_columns():
    check = {
        "name": "mean", "tier": 2, "problem": "a problem with a name of fifty characters, no less",
        "n": 1, "passed": True, "p_value": 1.234e-117, "shift_in_sd": 1.23e-15, "reason": None,
    }  # fmt: skip
    checks = [check] * 123_456 + [
        check | {"passed": False, "K": 3, "parameter": None, "index": None, "estimate": None, "truth": None}
    ]
    document = {
        "checks": checks, "verdict": "does not conform", "target": "iwae", "smallest_detectable": 0.1,
        "family_rate": 1e-3, "tests": 12,
    }  # fmt: skip
    out = shown(report_table.show, document)
    assert "1.2e-117" in out
    assert "1.23e-15" in out
    assert "123457" in out
    assert "…" not in out
    assert out.splitlines()[1].startswith("1 replicate, ")
    table = out.split("FAILED")[0].splitlines()
    assert max(map(len, table[2:])) <= 80
