"""Proposals and covariances as they are given: one for each observation, variances, in float32, transposed."""

import dataclasses
import pickle
import re
import tomllib
import warnings

import numpy as np
import pytest

import toyiwae
from tests.problems import random_cov, random_problem
from toyiwae import Data, InputError, InputWarning, Model, Problem, Proposal
from toyiwae.cli import main
from toyiwae.oracle.closed_form.renyi import ClosedForms

N, D = 4, 2
RNG = np.random.default_rng(5)
MEAN, VAR = RNG.normal(size=(N, D)), RNG.uniform(0.3, 0.9, (N, D))
COV = np.stack([random_cov(RNG, D) for _ in range(N)])
SPREADS = {
    "cov, shared": {"cov": COV[0]},
    "cov": {"cov": COV},
    "var, shared": {"var": VAR[0]},
    "var": {"var": VAR},
}
MANY = random_problem(3, D, 3, rows=N)


def with_proposal(**given: object) -> Problem:
    """A problem of four observations with this proposal."""
    return Problem(MANY.model, Proposal(**given), MANY.data)


@pytest.mark.parametrize("spread", SPREADS)
def test_every_observation_has_its_own_proposal(spread, tmp_path):
    problem = with_proposal(mean=MEAN, **SPREADS[spread])
    each = "shared" not in spread
    expected = next(iter(SPREADS[spread].values()))
    if "var" in spread:
        expected = np.vectorize(np.diag, signature="(d)->(d,d)")(expected)
    observations = problem.observations()
    np.testing.assert_array_equal(observations.proposal_mean, MEAN)
    np.testing.assert_array_equal(observations.proposal_cov, expected)
    np.testing.assert_array_equal(problem.proposal.cov, expected)
    assert not problem.proposal.cov.flags.writeable
    assert problem.parameters["proposal_mean"] == (N, D)
    assert problem.parameters["proposal_chol"] == ((N, D, D) if each else (D, D))
    for n in range(N):
        one = problem.row(n)
        np.testing.assert_array_equal(one.proposal.mean, MEAN[n])
        np.testing.assert_array_equal(one.proposal.cov, expected[n] if each else expected)
        assert not one.proposal.per_observation
    toyiwae.dump(problem, tmp_path / "problem.toml")
    again = Problem.from_dict(tomllib.loads((tmp_path / "problem.toml").read_text()))
    assert toyiwae.load(tmp_path / "problem.toml") == again
    for copy in (again, Problem.from_dict(problem.to_dict()), pickle.loads(pickle.dumps(problem))):
        assert copy == problem
        np.testing.assert_array_equal(copy.proposal.cov, expected)
    assert list(problem.to_dict()["proposal"]) == (["mean", "var"] if "var" in spread else ["cov", "mean"])


def test_the_hash_covers_what_each_observation_has():
    hashes = {with_proposal(mean=MEAN, **given).content_hash for given in SPREADS.values()}
    for array, name in ((VAR, "var"), (COV, "cov")):
        moved = array.copy()
        moved[2] *= 1.0 + 2.0**-50
        hashes.add(with_proposal(mean=MEAN, **{name: moved}).content_hash)
    assert len(hashes) == 6


def test_variances_serve_one_and_amortised_means_too():
    assert with_proposal(mean=MEAN[0], var=0.5).proposal.cov.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    affine = with_proposal(weight=np.ones((D, 3)), offset=[0.1, 0.2], var=VAR[0])
    np.testing.assert_array_equal(affine.row(2).proposal.var, VAR[0])
    assert affine.parameters["proposal_chol"] == (D, D)


@pytest.mark.parametrize("ask", [ClosedForms, lambda problem: toyiwae.optimal_proposals(problem, [2])])
def test_what_does_not_serve_them_says_so(ask):
    with pytest.raises(
        InputError, match=r"^proposal.mean is one for each observation, which .* does not serve: "
    ):
        ask(with_proposal(mean=MEAN, cov=COV))


NOT_DEFINITE, ASYMMETRIC = COV.copy(), COV.copy()
NOT_DEFINITE[2, 0, 1] = NOT_DEFINITE[2, 1, 0] = 9.0
ASYMMETRIC[3, 0, 1] += 0.1
FACTOR = [[1.0, 0.0], [0.4, 1.0]]
REFUSED = {
    "no spread": ({"mean": MEAN}, "proposal has none of them: expected either cov, or var"),
    "both": ({"mean": MEAN, "cov": COV, "var": VAR}, "proposal has cov and var: expected either cov, or var"),
    "too few": (
        {"mean": MEAN[:3], "var": 0.5},
        "proposal.mean has shape 3×2 but data.x holds 4 observations: expected shape 4×2",
    ),
    "three cov": (
        {"mean": MEAN, "cov": COV[:3]},
        "proposal.cov is one for each of 3 observations but proposal.mean has 4",
    ),
    "three var": (
        {"mean": MEAN, "var": VAR[:3]},
        "proposal.var is one for each of 3 observations but proposal.mean has 4",
    ),
    "one mean": (
        {"mean": MEAN[0], "var": VAR},
        "proposal.var is one for each of 4 observations but the mean is not",
    ),
    "definite": ({"mean": MEAN, "cov": NOT_DEFINITE}, "proposal.cov[2] is not positive definite: smallest"),
    "symmetric": ({"mean": MEAN, "cov": ASYMMETRIC}, "proposal.cov[3] is not symmetric: [0, 1] is"),
    "a variance": ({"mean": MEAN, "var": -VAR}, "proposal.var[0, 0] is -"),
    "dimension": (
        {"mean": MEAN, "var": [0.4, 0.5, 0.6]},
        "proposal.mean has shape 4×2 but proposal.var has 3 entries",
    ),
    "transposed": (
        {"mean": MEAN.T, "cov": COV},
        "expected shape 4×2 (its transpose would fit: is it transposed?)",
    ),
    "latents": ({"mean": [[0.1]] * 4, "var": 0.2}, "proposal.var has 1 entry but model.prior_mean has 2"),
    "weight": ({"weight": np.ones((3, D)), "offset": [0.1, 0.2], "cov": COV[0]}, "is it transposed?)"),
    "a factor": (
        {"mean": MEAN[0], "cov": FACTOR},
        "relative difference 0.4; give L Lᵀ for a Cholesky factor L",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_proposals_that_do_not_fit_are_refused_in_one_line(fault):
    given, message = REFUSED[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        with_proposal(**given)
    assert len(str(caught.value).splitlines()) == 1


def test_variances_stand_for_a_diagonal_covariance():
    """A vector or a scalar where a covariance belongs, and shown as the matrix that it stands for."""
    model = Model([0.1, 0.2], 1.5, np.ones((3, 2)), [0.1, 0.0, -0.2], noise_cov=[0.5, 0.7, 0.9])
    problem = Problem(model, Proposal([0.6, 0.7], mean=[0.2, 0.1]), Data([0.4, -1.0, 0.3]))
    shown = problem.to_dict()
    assert shown["model"]["prior_cov"] == [[1.5, 0.0], [0.0, 1.5]]
    assert shown["model"]["noise_cov"] == [[0.5, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.9]]
    assert shown["proposal"]["cov"] == [[0.6, 0.0], [0.0, 0.7]]
    tables = problem.to_dict()
    tables["model"] |= {"prior_cov": 1.5, "noise_cov": [0.5, 0.7, 0.9]}
    tables["proposal"]["cov"] = [0.6, 0.7]
    assert Problem.from_dict(tables) == problem
    with pytest.raises(
        InputError, match=r"^model.noise_cov\[1\] is -0.7: a variance must be greater than 0$"
    ):
        Model([0.1, 0.2], 1.5, np.ones((3, 2)), [0.1, 0.0, -0.2], noise_cov=[0.5, -0.7, 0.9])


def test_asymmetry_of_float32_is_averaged_away_with_a_note(tmp_path, capsys):
    """V diag(s) Vᵀ in float32 is symmetric to seven digits; a note says by how much it is not."""
    rng = np.random.default_rng(8)
    vectors = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32)
    cov = (vectors * rng.uniform(0.3, 1.1, 4).astype(np.float32)) @ vectors.T
    cov[0, 1] *= np.float32(1 + 2e-7)
    with pytest.warns(
        InputWarning, match=r"proposal.cov is not symmetric: .*relative difference .*e-0[78]: taken for"
    ):
        proposal = Proposal(cov, mean=np.zeros(4))
    np.testing.assert_array_equal(proposal.cov, proposal.cov.T)
    np.testing.assert_allclose(proposal.cov, cov, rtol=2e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickle.loads(pickle.dumps(proposal)) == proposal
    problem = random_problem(1)
    toyiwae.dump(problem, tmp_path / "problem.toml")
    entry = repr(float(problem.proposal.cov[0, 1]))
    text = (tmp_path / "problem.toml").read_text().replace(entry, repr(float(entry) * (1 + 1e-7)), 1)
    (tmp_path / "problem.toml").write_text(text)
    assert main.main(["exact", str(tmp_path / "problem.toml"), "-K", "2"]) == 0
    noted = capsys.readouterr().err
    assert noted.startswith("note: ")
    assert re.search(
        r"is not symmetric: .*e-0[78]: taken for float32's rounding, \(C \+ Cᵀ\)/2 is used\n$", noted
    )
    with pytest.raises(
        InputError, match=r"relative difference 8.5e-06; if only rounding did that, give \(C \+ Cᵀ\)/2$"
    ):
        Proposal([[0.6, 0.5], [0.5 * (1 + 1.1e-5), 0.7]], mean=[0.2, 0.1])


def test_a_transposed_matrix_is_called_so():
    """Where the transpose would fit, the message says so."""
    tables = random_problem(2, 2, 3, rows=4, amortised=True).to_dict()
    for section, key in (("model", "loading"), ("proposal", "weight"), ("data", "x")):
        faulty = {name: dict(table) for name, table in tables.items()}
        faulty[section][key] = np.transpose(faulty[section][key]).tolist()
        with pytest.raises(InputError, match=rf"^{section}.{key} has shape .*its transpose would fit: is it"):
            Problem.from_dict(faulty)


def test_tensors_of_torch_are_taken():
    """What an encoder returns still hangs on its graph."""
    torch = pytest.importorskip("torch")
    mean, std = (
        torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in (MEAN, np.sqrt(VAR))
    )
    problem = with_proposal(mean=mean, var=std**2)
    np.testing.assert_array_equal(problem.observations().proposal_mean, MEAN.astype(np.float32))
    np.testing.assert_allclose(np.diagonal(problem.proposal.cov, axis1=1, axis2=2), VAR, rtol=1e-6)


@pytest.mark.parametrize("spread", SPREADS)
def test_replace_and_repr_take_what_was_given(spread):
    proposal = Proposal(mean=MEAN, **SPREADS[spread])
    name = spread[:3]
    text = repr(proposal)
    assert text.startswith("Proposal(")
    assert f"{name}=" in text
    assert ("cov=" in text) == ("cov" in vars(proposal)) == (name == "cov")  # no covariance was made for it
    assert dataclasses.replace(proposal) == proposal
    assert dataclasses.replace(proposal, mean=MEAN + 1) == Proposal(mean=MEAN + 1, **SPREADS[spread])
    assert dataclasses.replace(proposal, **{name: 0.5}) == Proposal(mean=MEAN, **{name: 0.5})
    other = {"cov": None, "var": None} | {"cov" if name == "var" else "var": 0.5}
    assert dataclasses.replace(proposal, **other) == Proposal(mean=MEAN, **other)


TRIL = np.linalg.cholesky(COV[:3])
TRIL_REFUSED = {
    "scales": ({"scale": np.ones((2, 2))}, "scale is one for each of 2 observations but loc has shape 3×2"),
    "not square": ({"scale_tril": np.ones((3, 2))}, "scale_tril has shape 3×2: expected a square matrix"),
    "singular": ({"scale_tril": [[1.0, 0.0], [1.0, 0.0]]}, "scale_tril is singular: expected no zero on"),
    "nan": ({"scale_tril": [[1.0, 0.0], [np.nan, 1.0]]}, "scale_tril[1, 0] is nan: every entry must be"),
    "loc": ({"loc": [0.1, 0.2, 0.3]}, "loc has 3 entries but scale_tril has shape 3×2×2: expected 2"),
    "one loc": ({"loc": [0.1, 0.2]}, "scale_tril is one for each of 3 observations but loc has 2 entries"),
    "negative": ({"scale": -1.0}, "scale contains -1: expected standard deviations greater than 0"),
    "length": ({"scale": [1.0, 1.0, 1.0]}, "scale has 3 entries but scale_tril has shape 3×2×2: expected 2"),
}


@pytest.mark.parametrize("fault", TRIL_REFUSED)
def test_factors_are_refused_under_their_own_names(fault):
    given, message = TRIL_REFUSED[fault]
    with pytest.raises(InputError, match="^" + re.escape(message)):
        Proposal.from_scale_tril(**({"loc": MEAN[:3], "scale_tril": TRIL} | given))
    one = Proposal.from_scale_tril(MEAN[:3], TRIL, 2.0)
    np.testing.assert_allclose(one.cov, 4.0 * COV[:3], rtol=1e-14)


def test_hints_name_var():
    with pytest.raises(
        InputError, match=r"shape 4×2: a covariance is square; variances for each .* go in `var`"
    ):
        Proposal(mean=MEAN, cov=VAR)
    tables = MANY.to_dict()
    tables["proposal"]["std"] = [1.0, 1.0]
    with pytest.raises(InputError, match=r"\[proposal\] has the unknown key 'std': var takes variances"):
        Problem.from_dict(tables)
    with pytest.raises(
        InputError, match=r"\[proposal\] is 3: expected a table with the keys cov, mean, weight"
    ):
        Problem.from_dict(MANY.to_dict() | {"proposal": 3})
    with pytest.raises(InputError, match=r"observation 1\.0 does not exist: data.x holds 4"):
        MANY.row(1.0)  # pyright: ignore[reportArgumentType]
    one = Data(MANY.data.x[:1])
    with pytest.raises(InputError, match=r"data.x holds 1 observation: expected"):
        Problem(MANY.model, Proposal(mean=MEAN, cov=COV), one)


def test_the_note_on_asymmetry_points_at_the_line_of_the_user():
    with pytest.warns(InputWarning) as caught:
        Proposal(mean=MEAN[0], cov=COV[0] * (1.0 + np.triu(np.full((D, D), 1e-7), 1)))
    assert caught[0].filename == __file__


def test_the_observation_that_is_too_far_is_named():
    x = np.array(MANY.data.x)
    x[2] = 1e5
    problem = Problem(MANY.model, Proposal(mean=MEAN[0], cov=COV[0]), Data(x))
    with pytest.raises(toyiwae.PrecisionError, match=r"^observation 2: the weights reach over") as caught:
        toyiwae.exact(problem, K=8, parameters="none")
    assert "inf" not in str(caught.value)


def test_entries_above_the_diagonal_are_not_shown(tmp_path, capsys):
    problem = with_proposal(mean=MEAN, cov=COV)
    toyiwae.dump(problem, tmp_path / "problem.toml")
    assert main.main(["exact", str(tmp_path / "problem.toml"), "-K", "4", "-p", "proposal_chol"]) == 0
    shown = capsys.readouterr().out
    assert f"{N * 3} numbers" in shown
    assert "[1]" not in shown
    assert main.main(["exact", str(tmp_path / "problem.toml"), "-K", "4", "-p", "none"]) == 0
    assert "gradient" not in capsys.readouterr().out
    moments = toyiwae.exact(problem, K=4, parameters="proposal_chol").to_dict()["results"][0]["gradients"][
        "iwae"
    ]
    expected = "no SNR of the entries above the diagonal, which are zero by definition"
    assert moments["proposal_chol"]["reason"] == expected
