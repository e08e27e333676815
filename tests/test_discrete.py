"""DiscreteProblem: a record with checks."""

import copy
import json
import pickle

import numpy as np
import pytest

from toyiwae import InputError
from toyiwae.problems.binary import MOST_LATENTS, DiscreteModel, DiscreteProblem, DiscreteProposal
from toyiwae.problems.linear_gaussian import Data


def example() -> dict:
    """Three binary latents seen through two numbers, amortised, two rows."""
    return {
        "model": {
            "prior_logit": [0.3, -1.2, 0.7],
            "loading": [[1.1, -0.4, 0.6], [0.2, 0.9, -1.3]],
            "offset": [0.3, -0.2],
            "noise_cov": [[0.7, 0.2], [0.2, 1.1]],
        },
        "proposal": {"weight": [[0.5, -0.1], [0.2, 0.4], [-0.3, 0.6]], "offset": [0.1, -0.5, 0.2]},
        "data": {"x": [[0.4, -1.1], [1.7, 0.2]]},
    }


def changed(path: str, value: object) -> dict:
    """The example with one field replaced."""
    tables = example()
    section, key = path.split(".")
    tables[section][key] = value
    return tables


def test_the_record_holds_read_only_arrays():
    problem = DiscreteProblem.from_dict(example())
    assert (problem.dim_z, problem.dim_x, problem.n_rows, problem.amortised) == (3, 2, 2, True)
    assert problem.parameters == {
        "prior_logit": (3,),
        "loading": (2, 3),
        "offset": (2,),
        "proposal_weight": (3, 2),
        "proposal_offset": (3,),
    }
    arrays = [array for entries in problem.tables().values() for array in entries.values()]
    assert not any(array.flags.writeable for array in arrays)
    assert DiscreteProblem.from_dict(json.loads(json.dumps(problem.to_dict()))) == problem


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_are_equal(clone):
    problem = DiscreteProblem.from_dict(example())
    assert clone(problem) == problem
    assert clone(problem).content_hash == problem.content_hash
    assert DiscreteProblem.from_dict(changed("model.offset", [0.3, -0.1])) != problem


def test_rows_carry_the_logits():
    rows = DiscreteProblem.from_dict(example()).rows()
    assert len(rows) == 2
    weight, offset = np.array(example()["proposal"]["weight"]), example()["proposal"]["offset"]
    for x, logit in zip(rows.x, rows.proposal_logit, strict=True):
        np.testing.assert_allclose(logit, weight @ x + offset, rtol=1e-14)
    tables = example() | {"proposal": {"logit": [0.3, 0.1, -0.2]}, "data": {"x": [0.4, -1.1]}}
    one = DiscreteProblem.from_dict(tables)
    assert list(one.parameters)[3:] == ["proposal_logit"]
    np.testing.assert_array_equal(one.rows().proposal_logit, [[0.3, 0.1, -0.2]])
    np.testing.assert_array_equal(one.rows().x, [[0.4, -1.1]])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "model.noise_cov",
            [[1, 2], [2, 1]],
            "model.noise_cov is not positive definite: smallest eigenvalue -1",
        ),
        (
            "model.loading",
            [[1.0, 2.0], [3.0, 4.0]],
            "model.loading has shape 2×2 but model.offset has 2 entries",
        ),
        ("model.offset", [0.1], "model.loading has shape 2×3 but model.offset has 1 entry and"),
        (
            "model.prior_logit",
            [0.1, np.inf, 0.2],
            "model.prior_logit[1] is inf: every entry must be a finite",
        ),
        ("model.prior_prob", [0.1], "[model] has the unknown key 'prior_prob': did you mean prior_logit?"),
        (
            "proposal.logit",
            [0.1, 0.2, 0.3],
            "proposal has logit and weight and offset: expected either logit, or",
        ),
        ("proposal.weight", [[0.1, 0.2]], "proposal.offset has 3 entries but proposal.weight has shape 1×2"),
        ("proposal.weight", [[0.1]] * 3, "proposal.weight has shape 3×1 but model.offset has 2 entries"),
        (
            "data.x",
            [0.1, 0.2, 0.3],
            "data.x has 3 entries but model.offset has 2 entries: expected 2 entries",
        ),
        ("data.x", [[True, 0.1]], "data.x[0, 0] is True: expected a number"),
    ],
)
def test_bad_fields_are_refused_in_one_line(path, value, message):
    with pytest.raises(InputError) as caught:
        DiscreteProblem.from_dict(changed(path, value))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_logit_for_each_latent():
    tables = example() | {"proposal": {"logit": [0.3, 0.1]}}
    with pytest.raises(
        InputError, match=r"proposal\.logit has 2 entries but model\.prior_logit has 3 entries"
    ):
        DiscreteProblem.from_dict(tables)


def test_states_must_be_few_enough_to_enumerate():
    def model(dim: int) -> DiscreteModel:
        return DiscreteModel(np.full(dim, 0.3), np.full((1, dim), 0.7), [0.2], [[1.3]])

    proposal = DiscreteProposal(logit=np.full(MOST_LATENTS, -0.4))
    assert DiscreteProblem(model(MOST_LATENTS), proposal, Data([0.5])).dim_z == 12
    with pytest.raises(InputError, match=r"model\.prior_logit has 13 entries: expected at most 12"):
        model(13)
