"""Digits on demand: right, rounded, shown, and for weights that are all equal."""

# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import copy
import json
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from flint import arb

import toyiwae
from tests.problems import random_problem
from toyiwae import records
from toyiwae.problems.linear_gaussian import Data, Model, Proposal
from toyiwae.truth.digits import proven

TWO = random_problem(3, 2, 3)
SHIFTED = random_problem(8, 1, 2)


@pytest.mark.slow
def test_digits_are_right_and_rounded() -> None:
    """Twenty digits agree with thirty; float64 numbers are the nearest to them."""
    options = {
        "K": [2, 1000],
        "M": 3,
        "estimators": "piwae,jackknife,score_function",
    }
    few, many = (toyiwae.exact(TWO, digits=digits, **options) for digits in (20, 30))
    pairs = [(few.log_evidence, few.decimals["log_evidence"], many.decimals["log_evidence"])]
    for a, b in zip(few.results, many.results, strict=True):
        pairs += [(getattr(a, key), a.decimals[key], b.decimals[key]) for key in ("bound", "gap", "ess")]
        for name, truth in a.gradients.items():
            other = b.gradients[name]
            pairs.append((truth.target_bound, truth.decimals["target_bound"], other.decimals["target_bound"]))
            for parameter, moments in truth.parameters.items():
                for key, texts in moments.decimals.items():
                    finer = np.ravel(other.parameters[parameter].decimals[key])
                    pairs += list(zip(np.ravel(getattr(moments, key)), np.ravel(texts), finer, strict=True))
    assert "var" in few.cell(2, 3).gradients["piwae"].parameters["proposal_mean"].decimals
    assert "var" in few.cell(2, 3).gradients["score_function"].parameters["proposal_mean"].decimals
    for value, text, finer in pairs:
        assert value == pytest.approx(float(text), rel=4e-16)
        assert abs(Fraction(text) - Fraction(finer)) <= abs(Fraction(finer)) / 10**19
        assert len(text.strip("-0.").replace(".", "").partition("e")[0]) <= 20


def test_a_variance_without_a_formula_has_no_digits() -> None:
    """The geometric leave-one-out at K > 2."""
    found = toyiwae.exact(TWO, K=3, estimators="vimco_geometric", parameters="proposal_mean", digits=12)
    decimals = found.cell(3).gradients["vimco_geometric"].parameters["proposal_mean"].decimals
    assert decimals is not None
    assert {*decimals} == {"mean", "bias"}


def _leaves(found):
    """(text, lower, upper) of every number with proven digits in a document."""
    if isinstance(found, list):
        return [leaf for one in found for leaf in _leaves(one)]
    if not isinstance(found, dict):
        return []
    leaves = [leaf for one in found.values() for leaf in _leaves(one)]
    if "enclosures" in found:
        assert found["enclosures"]["proven"] is True
        assert {*found["enclosures"]} == {"proven", *found["decimals"]}
        for name, texts in found["decimals"].items():
            ends = found["enclosures"][name]
            columns = (_entries(x) for x in (texts, ends["lower"], ends["upper"]))
            rows = zip(*columns, strict=True)
            leaves += [tuple(map(Fraction, row)) for row in rows if row != (None, None, None)]
    return leaves


def _entries(found):
    """The texts in lists, or in a list for each part."""
    if isinstance(found, dict):
        return [text for one in found.values() for text in _entries(one)]
    return [text for one in found for text in _entries(one)] if isinstance(found, list) else [found]


CASES = [
    (TWO, {"estimators": "ciwae:0.3"}),
    (random_problem(5, 1, 2, rows=2), {"estimators": "ciwae:0.3"}),
    (SHIFTED, {"estimators": "jackknife"}),
    (SHIFTED, {"estimators": "iwae_stl", "parameters": ["proposal_chol", "prior_mean"], "covariance": True}),
]


@pytest.mark.parametrize(
    ("problem", "asked"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * slow)
        for case, name, slow in zip(
            CASES, ["two", "observations", "jackknife", "biased"], [True, True, False, False], strict=True
        )
    ],
)
def test_ends_in_the_json_contain_what_more_digits_find(problem, asked) -> None:
    """Sixty digits lie between the ends that thirty give; every text is within one unit of its last place."""
    options = {"K": [3, 10**6], "M": 2, "parameters": "proposal_mean", **asked}
    few, many = (
        _leaves(json.loads(records.dumps(toyiwae.exact(problem, digits=digits, **options).to_dict())))
        for digits in (30, 60)
    )
    assert len(few) == len(many) > 10
    for (text, lower, upper), (_, low, high) in zip(few, many, strict=True):
        assert lower <= low <= high <= upper, (lower, low, high, upper)
        assert upper - lower <= max(abs(text) / 10**28, Fraction(1, 10**40))
        assert abs(text - low) <= max(abs(text) / 10**29, Fraction(1, 10**40))


def test_what_follows_from_mean_and_variance_has_digits_too() -> None:
    """SNR, bias and RMSE anew from the decimals of mean and variance, each within a unit of its thirtieth place."""
    options = {"K": 1000, "M": 2, "parameters": ["prior_mean", "proposal_chol"]}
    found = toyiwae.exact(TWO, digits=30, estimators="iwae_stl,iwae,elbo", **options)
    pull = np.linalg.solve(TWO.model.prior_cov, found.posterior["mean"] - TWO.model.prior_mean)  # ∇ log p(x)
    truths = found.cell(1000, 2).gradients
    for name in truths:
        for parameter, slope in (("prior_mean", pull), ("proposal_chol", np.zeros((2, 2)))):
            made, target = (truths[e].parameters[parameter].decimals for e in (name, "iwae"))
            biased = name == "iwae_stl" and parameter == "proposal_chol"
            for index in np.ndindex(slope.shape):
                if made["snr"][index] is None:
                    assert index == (0, 1)
                    continue
                exact = {key: Decimal(text[index]) for key, text in made.items()}
                with localcontext(prec=40):
                    bias = exact["mean"] - Decimal(target["mean"][index]) if biased else Decimal(0)
                    expected = {"bias": bias, "rmse": (bias**2 + exact["var"]).sqrt()}
                    expected["snr"] = abs(exact["mean"]) / exact["var"].sqrt()
                    for key, value in expected.items():
                        assert abs(exact[key] - value) <= abs(value) * Decimal("1e-27"), (key, name)
                distance = float(exact["mean"]) - slope[index]
                whole = math.sqrt(distance**2 + float(exact["var"]))
                assert float(exact["rmse_evidence"]) == pytest.approx(whole, rel=1e-12)
                for key in ("snr", "bias", "rmse", "rmse_evidence"):
                    value = getattr(truths[name].parameters[parameter], key)[index]
                    assert value == float(exact[key])


def test_covariances_have_digits_of_which_variances_are_the_diagonal() -> None:
    options = {"K": 5, "M": 3, "parameters": ["proposal_mean", "proposal_chol"], "covariance": True}
    truth = toyiwae.exact(TWO, digits=25, estimators="dreg", **options).cell(5, 3).gradients["dreg"]
    cov, parameters = truth.decimals["cov"]["proposal"], truth.parameters
    var = np.concatenate([parameters[name].decimals["var"].ravel() for name in options["parameters"]])
    assert cov.shape == (6, 6)
    assert (np.diag(cov) == var).all()
    assert (np.abs(cov.astype(float) - truth.cov["proposal"]) <= truth.cov_error["proposal"]).all()
    assert (cov == cov.T).all()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        ("0", 5, "0.0"),
        ("4", 5, "4.0"),
        ("-1234.5678", 6, "-1234.57"),
        ("1234567.8", 3, "1.23e+6"),
        ("0.0000001234", 3, "1.23e-7"),
        ("2.5 +/- 0.04", 9, "2.5"),
        ("0.1 +/- 0.3", 9, "0.0"),
    ],
)
def test_decimals_show_no_digit_that_is_not_proven(value: str, digits: int, text: str) -> None:
    """Numbers of all sizes, and balls too wide for the digits asked for."""
    found = proven(arb(value), digits)
    assert str(found) == text
    assert Fraction(found.low) <= Fraction(value.partition(" ")[0]) <= Fraction(found.high)
    assert copy.deepcopy(found).low == found.low


@pytest.mark.parametrize("digits", [0, 1001, 2.5, "many"])
def test_digits_out_of_range_are_refused(digits: object) -> None:
    """By name."""
    with pytest.raises(toyiwae.InputError, match="digits is"):
        toyiwae.exact(TWO, K=2, digits=digits)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("digits", [None, pytest.param(15, marks=pytest.mark.slow)])
def test_equal_weights_have_answers_with_any_number_of_digits(digits: int | None) -> None:
    """A proposal that is the posterior, all of whose numbers are binary fractions: S/K = 1, and w̃ = 1/K."""
    one = np.eye(1)
    problem = toyiwae.Problem(
        Model(np.zeros(1), one, one, np.zeros(1), one),
        Proposal(0.5 * one, mean=np.array([0.5])),
        Data(np.ones(1)),
    )
    chosen = [e for e in toyiwae.estimators.all() if e.min_particles <= 4]
    cell = toyiwae.exact(problem, K=4, estimators=chosen, digits=digits, parameters="all").cell(4)
    assert cell.gap == 0.0
    assert cell.ess == 4.0
    assert cell.bound == pytest.approx(scipy.stats.norm.logpdf(1.0, scale=math.sqrt(2.0)), abs=1e-15)
    stl = cell.gradients["iwae_stl"].parameters
    assert stl["proposal_mean"].var == 0.0
    assert stl["prior_mean"].var == pytest.approx(0.5 / 4)  # Var[z]/K
    assert cell.gradients["iwae"].parameters["proposal_mean"].var == pytest.approx(2.0 / 4)  # Var[ε/σ]/K


@pytest.mark.parametrize("digits", [1, 4])
def test_few_digits_are_shown_and_more_are_computed(digits: int) -> None:
    plain, few = (toyiwae.exact(TWO, K=3, estimators="iwae", digits=d).cell(3) for d in (None, digits))
    assert few.reason is None
    for name in ("bound", "gap", "ess"):
        assert getattr(few, name) == pytest.approx(getattr(plain, name), rel=1e-13)
        assert len(few.decimals[name].replace(".0", "").strip("-0.").replace(".", "")) <= digits


def test_covariances_are_those_of_balls() -> None:
    """With digits, a covariance is right to the last place; without, it lies within its stated error of it."""
    options = {"K": [1, 3], "estimators": "dreg", "covariance": True}
    plain, finer = (toyiwae.exact(TWO, digits=digits, **options) for digits in (None, 12))
    for k in (1, 3):
        a, b = (found.cell(k).gradients["dreg"] for found in (plain, finer))
        value, error = a.cov["proposal"], a.cov_error["proposal"]
        assert (np.abs(value - b.cov["proposal"]) <= error).all()
        assert (b.cov_error["proposal"] <= 1e-15 * np.abs(b.cov["proposal"])).all()
        assert b.directional_snr["proposal"] == pytest.approx(a.directional_snr["proposal"], rel=1e-12)
