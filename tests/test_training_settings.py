"""Settings of a training: what is refused, and in which words; what a file keeps."""

import inspect
import re
from pathlib import Path

import pytest

from tests.short_runs import short
from toyiwae import InputError
from toyiwae.networks import models
from toyiwae.networks.runs.settings import MODELS, read

pytest.importorskip("safetensors")

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "train.toml"

FAULTS = {
    "training.epochs=x": "training.epochs is 'x': expected a valid integer",
    "training.epochs=0": "training.epochs is 0: expected greater than or equal to 1",
    "training.epoch=3": "training has the unknown key 'epoch': did you mean epochs?",
    "trianing.epochs=3": "the settings has the unknown key 'trianing': did you mean training?",
    "training=3": "training is 3: expected a table",
    "training.seeds=[-1]": "training.seeds[0] is -1: expected greater than or equal to 0",
    "training.seeds=[]": "training.seeds is empty: expected at least one",
    "training.seeds=[1, 1]": "two members are the same: ",
    "training.learning_rates=[inf]": "training.learning_rates[0] is inf: expected a finite number",
    "training.learning_rates=[nan]": "training.learning_rates[0] is nan: expected a finite number",
    "training.learning_rates=[0.0]": "training.learning_rates[0] is 0.0: expected greater than 0",
    "training.dtype=float16": "training.dtype is 'float16': expected 'float32' or 'float64'",
    "training.device=abacus": "training.device is 'abacus': ",
    "training.batch=51": "training.batch is 51: expected at most 50, all images",
    "model.kind=vae": "model.kind is 'vae': expected bernoulli_vae or linear_gaussian or two_layer_vae",
    "model={latents = 3}": "model.kind is None: expected bernoulli_vae or",
    "model.latents=1.5": "model.latents is 1.5: expected a valid integer",
    "model.layers=1": "model has the unknown key 'layers': did you mean latents?",
    "model.proposal=bernoulli": "binary latents have no path derivative",
    "model={kind = 'linear_gaussian', noise_var = 1e-4}": "model: noise_var is 0.0001: expected more than floor_var",
    "model.products=float16": "model.products is 'float16': expected 'float32', 'tf32' or 'bfloat16'",
    "members=[]": "members is empty: expected at least one",
    "members=[{estimator = 'iwae'}]": "members[0] lacks K",
    "members=[{estimator = 'iwae', K = 0}]": "members[0].K is 0: expected greater than or equal to 1",
    "members=[{estimator = 'iwea', K = 2}]": "members[0]: unknown estimator 'iwea': did you mean iwae?",
    "members=[{model = 'iwae', K = 2}]": "members[0]: expected either estimator, or both model and proposal",
    "members=[{estimator = 'iwae', K = 2}, {estimator = 'iwae', K = 3}]": "members have M·K = 2, 3: expected the same",
    "data.binarisation=threshold": "data.binarisation is 'threshold': expected 'dynamic', 'fixed' or 'grey'",
    "data.train=51": "data.train is 51: expected at most 50",
    "data.name=1979-05-27": "a setting is datetime.date(1979, 5, 27): expected numbers, texts",
    "output.tensorboard=1": "output.tensorboard is 1: expected a valid boolean",
    "epochs": "--set epochs: expected TABLE.KEY=VALUE",
    "members.0.K=3": "--set members.0.K=3: members is [{",
}


@pytest.mark.parametrize("assignment", FAULTS)
def test_bad_settings_are_refused_in_one_line_and_nothing_is_written(assignment, tmp_path):
    with pytest.raises(InputError, match=re.escape(FAULTS[assignment])) as caught:
        short(tmp_path / "run", assignment)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_step_refuses_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        InputError, match=r"products = 'bfloat16' rounds float32, not .*64: choose dtype float32"
    ):
        short(tmp_path / "run", "model.products=bfloat16", "training.dtype=float64")
    assert list(tmp_path.iterdir()) == []


def test_settings_survive_their_file(tmp_path):
    settings = read(EXAMPLE, ["training.batch=7", "model.hidden=[3, 4]"])
    (tmp_path / "settings.toml").write_text(settings.toml(), encoding="utf-8")
    assert read(tmp_path / "settings.toml") == settings
    assert settings.content_hash != read(EXAMPLE).content_hash
    assert read(EXAMPLE, ["data.folder=x", "output.keep=9"]).content_hash == read(EXAMPLE).content_hash
    assert len(settings.stack()) == 4
    assert [member.seed for member in settings.stack()] == [1, 2, 1, 2]


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "module"])
def test_the_settings_of_a_model_are_the_arguments_of_its_function(kind):
    arguments = inspect.signature(getattr(models, kind)).parameters
    fields = {name: field for name, field in MODELS[kind].model_fields.items() if name != "kind"}
    assert set(fields) == set(arguments) - {"seeds", "data_mean", "device", "dtype"}
    for name, field in fields.items():
        if arguments[name].default is not inspect.Parameter.empty:
            assert field.default == arguments[name].default
