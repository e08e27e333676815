"""Runs of users' own code: modules named in a settings file, estimators whose file is part of what a run is."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import toyiwae
from tests import crashes
from tests.short_runs import IMAGES, MODULE
from toyiwae import InputError, stats
from toyiwae.networks.evaluation import diagnostics
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs.settings import read
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

pytest.importorskip("safetensors")

DOCS = Path(__file__).resolve().parents[1] / "docs"

SETTINGS = """
[data]
binarisation = "grey"
[model]
kind = "module"
file = "linear.py:make"
[[members]]
model = "iwae"
proposal = "dreg"
K = 6
[training]
epochs = 2
batch = 8
seeds = [3]
dtype = "float64"
[output]
checkpoint_every = 4
keep = 0
metrics_every = 3
"""

NO_ENCODER = MODULE.replace("self.encoder(x)", "self.encoder(x).detach()")


@pytest.fixture
def home(tmp_path):
    """A folder with a module and settings that name it."""
    (tmp_path / "linear.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def test_a_module_of_the_users_trains_from_a_settings_file_and_resumes_bit_for_bit(home, monkeypatch):
    """Paths in the file are relative to its folder, wherever one works."""
    monkeypatch.chdir("/")
    whole = toyiwae.train(home / "settings.toml", home / "whole", images=IMAGES)
    state = torch.get_rng_state()
    assert whole.step > 8
    for _ in range(3):
        toyiwae.train(home / "settings.toml", home / "broken", images=IMAGES, minutes=1e-9, resume=True)
    toyiwae.train(home / "settings.toml", home / "broken", images=IMAGES, resume=True)
    before, after = crashes.content(home / "whole"), crashes.content(home / "broken")
    assert {name: after[name] for name in before} == before
    loaded = toyiwae.load_run(home / "whole", images=IMAGES)
    for name, value in whole.model.parameters.items():
        assert torch.equal(loaded.model.parameters[name], value)
    assert torch.equal(torch.get_rng_state(), state)
    first = toyiwae.load_run(home / "whole", images=IMAGES, step=0)
    assert not torch.equal(first.model.parameters["decoder.weight"], whole.model.parameters["decoder.weight"])


def test_its_evaluation_agrees_with_the_exact_likelihood(home):
    run = toyiwae.train(home / "settings.toml", images=IMAGES)
    p = {name: value[0].numpy() for name, value in run.model.parameters.items()}
    x = run.images.test.astype(np.float64)
    stat = x @ p["encoder.weight"].T + p["encoder.bias"]
    model = Model(np.zeros(2), 1.0, p["decoder.weight"], p["decoder.bias"], 0.4**2)
    problem = Problem(model, Proposal(mean=stat[:, :2], var=np.exp(2 * stat[:, 2:])), Data(x))
    exact = toyiwae.exact(problem, K=[1, 8], parameters=[])
    found = toyiwae.evaluate(run, K=(1, 8, 1600))
    bounds = found.bounds
    se = np.sqrt((bounds.bound_se[0] ** 2).sum(-1)) / len(x)
    z = [(bounds.bound[0, i].mean() - exact.cell(K).bound) / se[i] for i, K in enumerate((1, 8))]
    assert np.abs(z).max() < stats.family_threshold(2, 1e-6)
    assert se.max() < 0.05
    log_p = condition(model, x).log_evidence.mean()
    assert bounds.bound[0, 2].mean() == pytest.approx(log_p, abs=6 * max(se[2], 1e-3))
    assert found.unit_variances[0] == pytest.approx(stat[:, :2].var(0), rel=1e-9)
    assert found.to_dict()["members"][0]["units"] == 2
    with pytest.raises(InputError, match="annealing_steps is 5: expected 0 for a module of yours"):
        toyiwae.evaluate(run, annealing_steps=5)


@pytest.mark.slow
def test_gradients_of_its_encoder_have_exact_moments(home):
    """Those by the bias of the encoder's means are means over images of those by each one's own proposal."""
    run = toyiwae.train(home / "settings.toml", images=IMAGES)
    x, member = torch.as_tensor(run.images.train[:5], dtype=torch.float64) / 255, run.members[0]
    state = torch.get_rng_state()
    noise = Noise((5,), dtype=x.dtype)
    found = diagnostics.gradient_moments(run.model, run.members, x[None], noise, 300)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(found) == ["encoder.bias", "encoder.weight"]
    p = {name: value[0].numpy() for name, value in run.model.parameters.items()}
    stat = x.numpy() @ p["encoder.weight"].T + p["encoder.bias"]
    problem = Problem(
        Model(np.zeros(2), 1.0, p["decoder.weight"], p["decoder.bias"], 0.4**2),
        Proposal(mean=stat[:, :2], var=np.exp(2 * stat[:, 2:])),
        Data(x.numpy()),
    )
    answers = [
        toyiwae.exact(problem.row(n), K=member.K, estimators=[member.proposal], parameters=["proposal_mean"])
        for n in range(len(x))
    ]
    rows = [one.results[0].gradients[member.proposal].parameters["proposal_mean"] for one in answers]
    mean, var = (np.array([getattr(row, name) for row in rows]).sum(0) for name in ("mean", "var"))
    bias = found["encoder.bias"]
    exact = mean / len(x), var / len(x) ** 2
    sampled, errors = (
        np.array([getattr(bias, name + kind)[0, :2] for name in ("mean", "var")]) for kind in ("", "_se")
    )
    assert np.abs((sampled - exact) / errors).max() < stats.family_threshold(4, 1e-6)
    assert errors[1].max() < 0.2 * exact[1].min()


def test_its_evaluation_has_signal_to_noise_ratios_of_the_encoder_alone(home):
    found = toyiwae.evaluate(toyiwae.train(home / "settings.toml", images=IMAGES), snr_replicates=6)
    assert found.snr is not None
    sizes = found.snr.shape[1], found.to_dict()["members"][0]["encoder_snr"]["weights"]
    assert sizes == (4 * (IMAGES.train.shape[1] + 1),) * 2
    (home / "linear.py").write_text(NO_ENCODER, encoding="utf-8")
    (home / "settings.toml").write_text(SETTINGS.replace("dreg", "vimco_arithmetic"), encoding="utf-8")
    run, told = toyiwae.train(home / "settings.toml", images=IMAGES), []
    with pytest.raises(InputError, match="no parameter that is trained: expected snr_replicates to be 0"):
        toyiwae.evaluate(run, snr_replicates=6, note=told.append)
    assert told == []  # before any bound


def test_other_code_is_another_run(home):
    toyiwae.train(home / "settings.toml", home / "run", images=IMAGES)
    (home / "linear.py").write_text(MODULE.replace("0.4", "0.5"), encoding="utf-8")
    with pytest.raises(InputError, match="other settings, or with other code"):
        toyiwae.train(home / "settings.toml", home / "run", images=IMAGES, resume=True)
    with pytest.raises(InputError, match="other settings"):
        toyiwae.load_run(home / "run", images=IMAGES)


def test_the_code_of_an_estimator_is_part_of_what_a_run_is(tmp_path):
    file, source = tmp_path / "mine.py", (DOCS / "my_estimator.py").read_text(encoding="utf-8")
    hashes = []
    for comment in ("", "# another day\n", ""):
        file.write_text(source + comment, encoding="utf-8")
        settings = read({
            "model": {"kind": "linear_gaussian"},
            "members": [{"estimator": f"{file}:halfway", "K": 4}],
            "training": {"epochs": 1},
        })  # fmt: skip
        hashes.append(settings.content_hash)
    assert hashes[0] == hashes[2] != hashes[1]


def test_an_estimator_of_a_settings_file_lies_beside_it(home, monkeypatch):
    """Whose path is no part of what a run is; tables name one from the working directory, as `--set` does."""
    (home / "mine.py").write_text((DOCS / "my_estimator.py").read_text(encoding="utf-8"), encoding="utf-8")
    own = SETTINGS.replace('"dreg"', '"mine.py:halfway"')
    (home / "settings.toml").write_text(own, encoding="utf-8")
    beside = read(home / "settings.toml")
    assert beside.stack()[0].proposal == f"{home / 'mine.py'}:halfway"
    with pytest.raises(InputError, match=r"there is no file .*mine\.py"):
        read(tomllib.loads(own))
    monkeypatch.chdir(home)
    assert read(tomllib.loads(own)).content_hash == beside.content_hash
    toyiwae.train(tomllib.loads(own), "run", images=IMAGES)
    monkeypatch.chdir("/")
    assert toyiwae.load_run(home / "run", images=IMAGES).members == beside.stack()


def test_what_another_process_is_writing_in_the_folder_stays(home):
    toyiwae.train(home / "settings.toml", home / "run", images=IMAGES)
    own = home / "run" / "checkpoints" / ".step-0000000004.safetensors.0a.part"
    others = home / "run" / ".evaluation-10.json.0b.part"
    for part in (own, others):
        part.write_bytes(b"half")
    toyiwae.train(home / "settings.toml", home / "run", images=IMAGES, resume=True)
    assert not own.exists()
    assert others.exists()


REFUSED = {
    "linear.py": "expected FILE.py:NAME, a function of the training mean that returns a module",
    "gone.py:make": "expected FILE.py:NAME",
    "linear.py:other": "defines no function 'other'",
    "linear.py:nothing": "linear.py:nothing returned a NoneType: expected a torch.nn.Module",
    "linear.py:fails": "linear.py:fails failed: ValueError: no weights",
}


@pytest.mark.parametrize("file", REFUSED)
def test_what_cannot_be_a_module_is_refused_in_one_line(home, file):
    with pytest.raises(InputError) as caught:
        toyiwae.train(home / "settings.toml", images=IMAGES, assignments=[f"model.file={home / file}"])
    assert REFUSED[file] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_module_is_trained_alone_and_not_compiled(home):
    with pytest.raises(InputError, match="trained alone: expected one member, not 2"):
        toyiwae.train(home / "settings.toml", images=IMAGES, assignments=["training.seeds=[1, 2]"])
    with pytest.raises(InputError, match="not compiled here"):
        toyiwae.train(home / "settings.toml", images=IMAGES, assignments=["training.compile=true"])
