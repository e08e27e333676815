"""The experiments there are: a cell's numbers are those of the functions that compute them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toyiwae
from analysis.sampling import engine_here
from analysis.studies import _snr_samples, gap
from analysis.sweep import export
from analysis.sweep import grid as grids
from analysis.sweep.adaptive import Replicates
from analysis.sweep.experiments import estimate, exact, train
from analysis.sweep.run import sweep
from analysis.sweep.store import reading
from toyiwae import InputError, montecarlo, stats

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_exact_is_exact(tmp_path):
    asked = grids.Grid(
        "e", exact.EXPERIMENT, [{"estimator": ["iwae", "ciwae:0.5"], "K": [1, 6], "mismatch": [0.1, 0.3]}],
        {"D": 3, "N": 2, "M": 2, "coordinates": True},
    )  # fmt: skip
    sweep(asked, tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        frame = export.to_dataframe(found, exact.EXPERIMENT)
    row: Any
    for _, row in frame.iterrows():
        right = toyiwae.exact(
            toyiwae.paper_problem(3, 2, row.mismatch, 0), K=row.K, M=2, estimators=row.estimator
        )
        (cell,) = right.results
        moments: Any = cell.gradients[row.estimator].parameters["proposal_weight"]
        assert (row.bound, row.gap_error) == (cell.bound, cell.gap_error)
        assert row["coordinates.var.proposal_weight"] == moments.var.tolist()
        assert row["snr_median.proposal_weight"] == np.median(moments.snr)
        norm = np.linalg.norm(moments.mean) / np.sqrt(np.sum(moments.var))
        assert row["snr.proposal_weight"] == pytest.approx(norm, rel=1e-12)


def test_a_problem_of_a_file_is_part_of_what_identifies_a_cell(tmp_path):
    file = tmp_path / "problem.toml"
    file.write_text((DOCS / "problem.toml").read_text())
    asked = grids.Grid("e", exact.EXPERIMENT, [{"K": [2]}], {"problem": str(file)})
    sweep(asked, tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        frame = export.to_dataframe(found, exact.EXPERIMENT)
    assert frame.bound[0] == toyiwae.exact(toyiwae.load(file), K=2).results[0].bound
    (before,) = asked.cells()
    text = file.read_text()
    changed = re.sub(r"(?m)^(x = .*?)(\d)\b", lambda found: f"{found[1]}9", text, count=1)
    assert changed != text
    file.write_text(changed)
    (after,) = asked.cells()
    assert before.key != after.key
    with pytest.raises(InputError, match="D belongs to problem 'paper'"):
        list(grids.Grid("e", exact.EXPERIMENT, [{"K": [2]}], {"problem": str(file), "D": 3}).cells())


def test_estimate_has_the_noise_of_the_function_and_its_exact_values(tmp_path):
    asked = grids.Grid(
        "e", estimate.EXPERIMENT, [{"estimator": ["iwae", "dreg"], "K": [4]}],
        {"D": 3, "N": 2, "mismatch": 0.3, "replicates": 200, "seed": 7}, Replicates(3),
    )  # fmt: skip
    sweep(asked, tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        frame: Any = export.to_dataframe(found, estimate.EXPERIMENT)
        first = found.rows_of(1)[0]
    problem = toyiwae.paper_problem(3, 2, 0.3, 0)
    right = toyiwae.estimate(problem, K=4, replicates=200, seed=7).results[0]
    assert first["mean.bound"] == pytest.approx(right.bound.estimate, rel=1e-14)
    truth = toyiwae.exact(problem, K=4, estimators=("iwae", "dreg")).results[0]
    assert frame.replicates.tolist() == [600, 600]
    assert frame.bound.nunique() == 1  # the same noise
    for name in ("bound", "ess"):
        z = stats.z_score(frame[name][0], getattr(truth, name), frame[f"{name}_se"][0])
        assert abs(z) < stats.family_threshold(2, 1e-6, dof=599)
    assert frame["std.proposal_offset"][1] < frame["std.proposal_offset"][0]  # DReG's


@pytest.mark.parametrize("experiment", [gap.SAMPLES, _snr_samples.SAMPLES])
def test_samples_of_studies_have_their_engine_in_the_cell_and_one_thread(experiment, tmp_path, monkeypatch):
    settings = {
        "dimension": 3,
        "rows": 2,
        "perturbation_std": 0.3,
        "seed": 0,
        "replicates": 20,
        "sample_seed": 1,
    }
    settings |= {"M": 1} if "M" in experiment.settings.model_fields else {}
    asked = grids.Grid("s", experiment, [{"K": [2]}], settings)
    keys = []
    for installed in (None, object()):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=installed: found)
        keys += [cell.key for cell in asked.cells()]
    monkeypatch.undo()
    assert len(set(keys)) == 2
    calls = []

    def watched(*arguments, **options):
        calls.append((options["engine"], options["threads"]))
        return replicates(*arguments, **options)

    replicates = montecarlo.replicates
    monkeypatch.setattr(montecarlo, "replicates", watched)
    sweep(asked, tmp_path / "a.sqlite")
    assert calls == [(engine_here(), 1)]


def test_train_gives_what_training_and_evaluation_give(tmp_path):
    file = grids.load(DOCS / "sweep_train.toml")
    model = {"kind": "bernoulli_vae", "hidden": [32]}
    changed = {"model": model, "training": {"epochs": 1, "batch": 50}, "folder": str(tmp_path / "runs")}
    settings = {**file.settings, **changed}
    asked = grids.Grid(
        "t", train.EXPERIMENT, [{"K": [4], "estimator": ["iwae"], "model.latents": [2, 3]}], settings
    )
    sweep(asked, tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        frame = export.to_dataframe(found, train.EXPERIMENT)
    tables = {
        "data": {"name": "digits", "train": 500},
        "model": {"kind": "bernoulli_vae", "latents": 3, "hidden": [32]},
        "members": [{"estimator": "iwae", "K": 4}],
        "training": {"epochs": 1, "batch": 50},
    }
    run = toyiwae.train(tables)
    bounds = toyiwae.evaluate(run, K=(4, 64), images=100).to_dict()["members"][0]["bounds"]
    assert frame.steps.tolist() == [10, 10]
    assert frame.train_bound[1] == run.metrics[-1]["bound"][0]
    assert frame.test_bound[1] == pytest.approx(bounds[0]["bound"], rel=1e-12)
    assert frame.test_log_likelihood[1] == pytest.approx(bounds[1]["bound"], rel=1e-12)
    assert len(list((tmp_path / "runs").iterdir())) == 2  # checkpoints of both
    with pytest.raises(InputError, match=r"training\.seeds is given: expected seed of the cell"):
        list(
            grids.Grid(
                "t", train.EXPERIMENT, asked.axes, settings | {"training": {"epochs": 1, "seeds": [1]}}
            ).cells()
        )


def test_the_grids_of_the_docs_are_good():
    for name, cells_ in (("sweep.toml", 48), ("sweep_train.toml", 8)):
        assert sum(1 for _ in grids.load(DOCS / name).cells()) == cells_
