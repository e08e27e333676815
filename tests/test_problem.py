"""Problem: what is accepted, what is refused and in which words; files and pickles keep every bit."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.problems import random_problem
from toyiwae import InputError, InputWarning, Problem, load
from toyiwae.problems.linear_gaussian import Data, Model, Proposal

EXAMPLE = """
[model]
prior_mean = [0.3, -0.2]
prior_cov = [[1.2, 0.1], [0.1, 0.8]]
loading = [[1.0, 0.2], [0.1, 0.9], [0.4, -0.3]]
offset = [0.1, 0, -0.2]
noise_cov = [[0.5, 0.0, 0.0], [0.0, 0.7, 0.1], [0.0, 0.1, 0.9]]
[proposal]
mean = [0.2, 0.1]
cov = [[0.6, 0.1], [0.1, 0.7]]
[data]
x = [0.4, -1.0, 0.3]
"""
NAN, INF = float("nan"), float("inf")


def example() -> dict:
    """The example of a problem file, as plain data."""
    return {
        "model": {
            "prior_mean": [0.3, -0.2],
            "prior_cov": [[1.2, 0.1], [0.1, 0.8]],
            "loading": [[1.0, 0.2], [0.1, 0.9], [0.4, -0.3]],
            "offset": [0.1, 0, -0.2],
            "noise_cov": [[0.5, 0.0, 0.0], [0.0, 0.7, 0.1], [0.0, 0.1, 0.9]],
        },
        "proposal": {"mean": [0.2, 0.1], "cov": [[0.6, 0.1], [0.1, 0.7]]},
        "data": {"x": [0.4, -1.0, 0.3]},
    }


def changed(path: str, value: object) -> dict:
    """The example with one field replaced."""
    tables = example()
    section, key = path.split(".")
    tables[section][key] = value
    return tables


def refusal(tables: dict) -> str:
    """The message with which a problem is refused; it must be one line."""
    with pytest.raises(InputError) as caught:
        Problem.from_dict(tables)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def written(folder: Path, text: str | bytes) -> Path:
    """A file with this content."""
    path = folder / "problem.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_example_is_read(tmp_path):
    problem = load(written(tmp_path, EXAMPLE))
    assert problem == Problem.from_dict(example())
    assert (problem.dim_z, problem.dim_x, problem.n_rows, problem.amortised) == (2, 3, 1, False)
    np.testing.assert_array_equal(problem.model.offset, [0.1, 0.0, -0.2])
    assert problem.model.loading.dtype == np.float64
    assert list(problem.parameters.items()) == [
        ("prior_mean", (2,)),
        ("loading", (3, 2)),
        ("offset", (3,)),
        ("proposal_mean", (2,)),
        ("proposal_chol", (2, 2)),
    ]
    assert problem.mean_parameters == ("prior_mean", "proposal_mean")


def test_an_amortised_problem_has_other_parameters():
    problem = random_problem(1, 2, 3, rows=4, amortised=True)
    assert problem.amortised
    assert problem.n_rows == 4
    assert problem.parameters["proposal_weight"] == (2, 3)
    assert list(problem.parameters)[3:] == ["proposal_weight", "proposal_offset", "proposal_chol"]
    assert problem.mean_parameters == ("prior_mean", "proposal_weight", "proposal_offset")


def test_rows_carry_the_proposal_means():
    problem = random_problem(2, 3, 2, rows=5, amortised=True)
    rows, proposal = problem.rows(), problem.proposal
    assert len(rows) == 5
    for n, x in enumerate(problem.data.x):
        row = problem.row(n)
        np.testing.assert_allclose(rows.proposal_mean[n], proposal.weight @ x + proposal.offset, rtol=1e-13)
        np.testing.assert_array_equal(row.proposal.mean, rows.proposal_mean[n])
        np.testing.assert_array_equal(row.data.x, x)
        assert not row.amortised
    assert problem.row(-1) == problem.row(4)
    with pytest.raises(InputError, match=r"observation 5 does not exist: data.x holds 5"):
        problem.row(5)


def test_one_mean_serves_all_rows():
    problem = random_problem(2, 3, 2, rows=4)
    means = problem.rows().proposal_mean
    assert means.shape == (4, 3)
    np.testing.assert_array_equal(means, np.broadcast_to(np.asarray(problem.proposal.mean), (4, 3)))
    one = random_problem(2, 3, 2)
    assert one.rows().x.shape == (1, 2)
    assert one.row(0) == one


# what is refused

ASYMMETRIC = [[0.6, 0.1], [0.3, 0.7]]
RAGGED = [[1.0, 0.2], [0.1], [0.4, -0.3]]
REFUSED = [
    ("proposal.cov", [[1, 2], [2, 1]], "proposal.cov is not positive definite: smallest eigenvalue -1;"),
    ("proposal.cov", [[-1, 0], [0, 1]], "proposal.cov is not positive definite: smallest eigenvalue -1;"),
    ("proposal.cov", [[1, 1], [1, 1]], "proposal.cov is singular to double precision"),
    ("model.prior_cov", [[0, 0], [0, 1]], "model.prior_cov is not positive definite: smallest eigenvalue 0;"),
    ("proposal.cov", ASYMMETRIC, "proposal.cov is not symmetric: [0, 1] is 0.1 but [1, 0] is 0.3"),
    ("model.noise_cov", [[1.0, 0.1]], "model.noise_cov has shape 1×2: a covariance is square"),
    ("model.noise_cov", [[1, 0], [0, 1]], "model.noise_cov has shape 2×2 but model.offset has 3 entries"),
    (
        "model.loading",
        [[1, 2, 3], [4, 5, 6]],
        "model.loading has shape 2×3 but model.offset has 3",
    ),
    ("model.loading", [[1, 2, 3], [4, 5, 6]], "model.prior_mean has 2 entries: expected shape 3×2"),
    ("proposal.mean", [0.1], "proposal.mean has 1 entry but proposal.cov has shape 2×2: expected 2 entries"),
    ("proposal.cov", [[1.0]], "but proposal.cov has shape 1×1: expected 1 entry"),
    ("data.x", [0.4, -1.0], "data.x has 2 entries but model.offset has 3 entries: expected 3 entries"),
    ("data.x", [[0.4, -1.0]], "data.x has shape 1×2 but model.offset has 3 entries: expected shape 1×3"),
    ("data.x", [[0.4, 1.0, NAN]], "data.x[0, 2] is nan: every entry must be a finite number"),
    ("model.offset", [0.4, -INF, 1.0], "model.offset[1] is -inf: every entry must be a finite number"),
    ("model.offset", [], "model.offset is empty: expected a list of numbers"),
    ("data.x", [[], []], "data.x is empty: expected a list of numbers or a list of rows of numbers"),
    ("model.offset", [0.4, True, 1.0], "model.offset[1] is True: expected a number"),
    ("model.offset", [0.4, "1.0", 1.0], "model.offset[1] is '1.0': expected a number"),
    ("model.offset", "many", "model.offset is 'many': expected a number"),
    ("model.offset", [0.4, None, 1.0], "model.offset[1] is None: expected a number"),
    ("model.offset", 0.4, "model.offset is 0-dimensional: expected a list of numbers"),
    ("model.offset", [0.4, 1j, 1.0], "model.offset is [0.4, 1j, 1.0]: expected a list of numbers, real"),
    ("model.offset", [0.4, 10**400, 1.0], "expected a list of numbers, real and within float64"),
    ("model.loading", RAGGED, "model.loading is ragged: its rows differ in length"),
    ("model.offset", [0.1, [0.2], 0.3], "model.offset is ragged"),
    ("model.loading", [1.0, 2.0], "model.loading is 1-dimensional: expected a list of rows of numbers"),
    ("data.x", [[[1.0, 2.0, 3.0]]], "data.x is 3-dimensional"),
    ("model.offset", {"a": 1.0}, "model.offset is {'a': 1.0}: expected a list of numbers"),
    (
        "proposal.weight",
        [[1, 0, 0], [0, 1, 0]],
        "proposal has mean and weight: expected either mean",
    ),
    ("model.prior_men", [0.1], "[model] has the unknown key 'prior_men': did you mean prior_mean?"),
    ("proposal.zebra", 1, "[proposal] has the unknown key 'zebra': known are cov, mean, weight, offset"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), REFUSED, ids=[f"{p}-{i}" for i, (p, *_) in enumerate(REFUSED)]
)
def test_bad_fields_are_refused_in_one_line(path, value, message):
    assert message in refusal(changed(path, value))


def test_missing_and_surplus_parts_are_refused():
    tables = example()
    del tables["model"]["noise_cov"]
    assert refusal(tables).startswith("[model] lacks noise_cov: it needs prior_mean, prior_cov, loading")
    tables = example()
    del tables["data"]
    assert refusal(tables) == "Problem lacks data: it needs model, proposal, data"
    assert "unknown key 'modell': did you mean model?" in refusal(example() | {"modell": {}})
    assert "[data] is 3: expected a table with the keys x" in refusal(example() | {"data": 3})
    tables = example()
    del tables["proposal"]["mean"]
    assert "proposal has none of them: expected either mean, or weight and offset" in refusal(tables)
    tables["proposal"]["weight"] = [[1, 0, 0], [0, 1, 0]]
    assert "proposal has weight: expected either mean, or weight and offset" in refusal(tables)
    tables["proposal"]["offset"] = [0.1, 0.2, 0.3]
    assert "proposal.offset has 3 entries but proposal.cov has shape 2×2: expected 2" in refusal(tables)
    tables["proposal"] |= {"offset": [0.1, 0.2], "weight": [[1, 0], [0, 1]]}
    assert "proposal.weight has shape 2×2 but model.offset has 3 entries and" in refusal(tables)


def test_parts_must_be_records():
    problem = Problem.from_dict(example())
    object.__setattr__(problem, "data", problem.model)  # the run-time type checks would stop the call itself
    with pytest.raises(InputError, match=r"data is Model.*: expected a Data"):
        problem.__post_init__()


def test_asymmetry_within_roundoff_is_averaged_away():
    cov = np.array([[0.6, 0.1], [0.1 * (1 + 3e-13), 0.7]])
    proposal = Proposal(cov, mean=[0.2, 0.1])
    np.testing.assert_array_equal(proposal.cov, proposal.cov.T)
    assert proposal.cov[0, 1] == pytest.approx(0.1, rel=3e-13)
    for factor in (1 + 1e-11, 1 - 1e-11):
        with pytest.warns(
            InputWarning, match=r"not symmetric: .* relative difference 9\.\de-12: taken for float32's"
        ):
            Proposal([[0.6, 0.6], [0.6 * factor, 0.7]], mean=[0.2, 0.1])


def test_units_of_the_coordinates_do_not_make_a_covariance_singular():
    proposal = Proposal([[1e-200, 3e-101], [3e-101, 1.0]], mean=[0.2, 0.1])
    assert proposal.cov[0, 0] == 1e-200
    with pytest.raises(InputError, match="singular to double precision"):
        Proposal([[1.0, 1.0], [1.0, 1 + 1e-16]], mean=[0.2, 0.1])
    Proposal([[1.0, 1.0], [1.0, 1 + 1e-10]], mean=[0.2, 0.1])


# records


def test_arrays_are_copies_and_read_only():
    mean, cov = np.array([0.2, 0.1]), np.array([[0.6, 0.1], [0.1, 0.7]])
    proposal = Proposal(cov, mean=mean)
    mean[0] = cov[0, 0] = 5.0
    np.testing.assert_array_equal(proposal.mean, [0.2, 0.1])
    assert proposal.cov[0, 0] == 0.6
    problem = random_problem(3, rows=3, amortised=True)
    arrays = [array for entries in problem.tables().values() for array in entries.values()]
    for array in [*arrays, problem.rows().x, problem.rows().proposal_mean]:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    with pytest.raises(AttributeError):
        problem.model = None  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))]
)
def test_copies_and_pickles_are_equal_and_read_only(clone):
    problem = random_problem(4, 2, 3, rows=2, amortised=True)
    again = clone(problem)
    assert again == problem
    assert hash(again) == hash(problem)
    assert not again.model.loading.flags.writeable
    assert not again.data.x.flags.writeable


def test_equality_and_hash_go_by_content():
    one, other = Problem.from_dict(example()), Problem.from_dict(example())
    assert one == other
    assert len({one, other, random_problem(1)}) == 2
    assert one.content_hash == other.content_hash
    assert one != "a problem"
    moved = Problem.from_dict(changed("data.x", [0.4, -1.0, np.nextafter(0.3, 1)]))
    assert moved != one
    one_of_many = Problem.from_dict(changed("data.x", [[0.4, -1.0, 0.3]]))
    assert one_of_many.content_hash != one.content_hash


def test_content_hash_does_not_change_between_versions():
    """It is the key of stored results."""
    expected = "53542601af38a42043ca090fb2ad0285b70f3706024fec3d54868beda6b2baf0"
    assert Problem.from_dict(example()).content_hash == expected


def test_arrays_of_other_kinds_are_taken():
    problem = Problem(
        Model(
            prior_mean=np.array([0.5, -0.25], np.float32),
            prior_cov=np.eye(2, dtype=int),
            loading=np.ones((3, 2), np.int8),
            offset=(1, 2, 3),
            noise_cov=2 * np.eye(3),
        ),
        Proposal(np.asfortranarray([[0.6, 0.1], [0.1, 0.7]]), mean=[np.float64(0.2), 1]),
        Data([np.array([0.5, 1.0, -0.0]), [1, 2, 3]]),
    )
    assert problem.n_rows == 2
    assert all(a.dtype == np.float64 for entries in problem.tables().values() for a in entries.values())
    assert not np.signbit(problem.data.x[0, 2])
    with pytest.raises(InputError, match=r"model\.offset"):
        Model([0.5], [[1.0]], [[1.0]], np.array([True]), [[1.0]])
