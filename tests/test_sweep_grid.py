"""Grids: what is refused before anything runs, in which order cells come, and what identifies them."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w

import toyiwae
from analysis.sweep import grid as grids
from analysis.sweep.adaptive import Replicates
from analysis.sweep.experiment import Experiment, seed_of
from analysis.sweep.experiments import train
from tests.sweep_cells import TOY, ToySettings, grid, toy
from toyiwae import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = 'experiment = "exact"\n[settings]\nN = 2\n'
BAD = {
    "unknown estimator": (HEAD + '[axes]\nestimator = ["iwea"]\nK = [1]', "iwea.*did you mean iwae"),
    "estimator of a file": (HEAD + '[axes]\nestimator = ["a.py:b"]\nK = [1]', "write an experiment"),
    "K below the minimum": (HEAD + '[axes]\nestimator = ["vimco_arithmetic"]\nK = [8, 1]', "K = 1: .*2"),
    "empty axis": (HEAD + "[axes]\nK = []", "axis K is empty"),
    "negative K": (HEAD + "[axes]\nK = [1, -8]", "K = -8: .*greater than or equal to 1"),
    "K that is no whole number": (HEAD + "[axes]\nK = [1.5]", "K = 1.5: .*integer"),
    "K that is true": (HEAD + "[axes]\nK = [true]", "K = True: .*integer"),
    "duplicate value": (HEAD + "[axes]\nK = [1, 8, 1]", "axis K has 1 twice"),
    "duplicate name": (HEAD + "[axes]\nK = [1]\nN = [3]", "axis N stands under .settings., too"),
    "duplicate key": (HEAD + "[axes]\nK = [1]\nK = [2]", "not valid TOML"),
    "duplicate cell": (HEAD + "[[axes]]\nK = [1, 8]\n[[axes]]\nK = [8]", "cell K = 8: comes twice"),
    "unknown parameter": (
        HEAD + '[axes]\nK = [1]\nparameters = [["prior_meen"]]',
        "meen.*did you mean prior_mean",
    ),
    "unknown parameter of a file": (
        f'experiment = "exact"\n[settings]\nproblem = "{DOCS}/problem.toml"\nparameters = ["proposal_weight"]\n'
        "[axes]\nK = [1]",
        "'proposal_weight', which this problem does not have",
    ),
    "axis within an axis": (
        HEAD + '[axes]\n"K.x" = [1]\nK = [1]',
        "axis K.x reaches into K, which is an axis, too",
    ),
    "axis within a setting": (
        HEAD + '[axes]\nK = [1]\n"N.x" = [1]',
        "N.x reaches into N, which is under .settings",
    ),
    "no axes": (HEAD + "[axes]", "without any"),
    "axis that is no list": (HEAD + "[axes]\nK = 1", "axis K is 1: expected a list"),
    "unknown setting": (HEAD + "[axes]\nKs = [1]", "no setting Ks; did you mean K"),
    "missing setting": (HEAD + "[axes]\nM = [1]", "K is not given"),
    "NaN": (HEAD + "[axes]\nK = [1]\nmismatch = [nan]", "mismatch = nan: .*finite"),
    "negative mismatch": (HEAD + "[axes]\nK = [1]\nmismatch = [-0.1]", "mismatch = -0.1"),
    "unknown experiment": ('experiment = "exakt"\n[axes]\nK = [1]', "'exakt': did you mean exact"),
    "no experiment": ("[axes]\nK = [1]", "lacks experiment"),
    "unknown table": (HEAD + "[axes]\nK = [1]\n[axis]", "unknown key 'axis': did you mean axes"),
    "no such file": ('experiment = "no.py:E"\n[axes]\nK = [1]', "there is no file"),
    "blocks of what is not drawn": (HEAD + "[axes]\nK = [1]\n[replicates]\nblocks = 2", "is one block"),
}
ESTIMATE = 'experiment = "estimate"\n[settings]\nN = 2\n[axes]\nK = [1]\n[replicates]\n'
BAD |= {
    "half a target": (ESTIMATE + "target_se = 0.1", "half a target"),
    "unknown quantity": (ESTIMATE + 'target_se = 0.1\nquantity = "bond"', "'bond': did you mean bound"),
    "negative target": (ESTIMATE + 'target_se = -0.1\nquantity = "bound"', "greater than 0"),
    "fewer at most than at least": (ESTIMATE + "blocks = 3\nat_most = 2", "at_most is 2: .*at least 3"),
    "no such rule": (ESTIMATE + "target = 0.1", "unknown key 'target'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_grids_are_refused_in_one_line(name, tmp_path):
    text, words = BAD[name]
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        list(grids.load(file).cells())
    assert "\n" not in str(caught.value)


def test_a_file_and_python_make_the_same_cells(tmp_path):
    (tmp_path / "own.py").write_text("from tests.sweep_cells import TOY")
    file = tmp_path / "some.toml"
    file.write_text(
        'experiment = "own.py:TOY"\n[settings]\nseed = 4\n[axes]\nx = [0.5, 2]\nn = [1, 2]\n'
        '[replicates]\nquantity = "draw"\ntarget_se = 0.1'
    )
    found = grids.load(file)
    same = grid(
        name="some", settings={"seed": 4}, axes=[{"x": [0.5, 2.0], "n": [1, 2]}],
        replicates=Replicates(quantity="draw", target_se=0.1),
    )  # fmt: skip
    assert list(found.cells()) == list(same.cells())
    assert [json.loads(cell.own)["n"] for cell in found.cells()] == [1, 2, 1, 2]
    assert found.name == "some"
    assert len(found) == 4


def test_what_identifies_a_cell():
    (base,) = grid(axes=[{"x": [0.5]}]).cells()
    same = [
        grid(axes=[{"x": [0.5]}], settings={"n": 1, "kind": "sin"}),  # defaults, written out
        grid(axes=[{"n": [1]}], settings={"x": 0.5}),  # on another axis
        grid(axes=[{"x": [0.5]}], settings={"once": "/elsewhere"}),  # where, not what
    ]
    assert {cell.key for other in same for cell in other.cells()} == {base.key}
    others = [
        grid(axes=[{"x": [0.5]}], settings={"n": 2}),
        grid(axes=[{"x": [0.5]}], experiment=dataclasses.replace(TOY, version=2)),
        grid(axes=[{"x": [0.5]}], experiment=dataclasses.replace(TOY, name="other")),
    ]
    keys = [cell.key for other in others for cell in other.cells()]
    assert len({base.key, *keys}) == 4


def test_the_packages_version_identifies_a_cell_too(monkeypatch):
    (before,) = grid(axes=[{"x": [0.5]}]).cells()
    monkeypatch.setattr(toyiwae, "__version__", "99.0")
    (after,) = grid(axes=[{"x": [0.5]}]).cells()
    assert before.key != after.key


def test_names_with_dots_reach_into_tables():
    class Nested(ToySettings):
        model: dict[str, int] = {}  # noqa: RUF012

    experiment = Experiment("nested", 1, Nested, toy)
    found = grid(experiment=experiment, settings={"model": {"a": 1}}, axes=[{"model.b": [2, 3]}])
    assert [json.loads(cell.own) for cell in found.cells()] == [{"model.b": 2}, {"model.b": 3}]
    assert {json.loads(cell.common)[3]["model"]["a"] for cell in found.cells()} == {1}


def test_paths_are_relative_to_the_grid_and_content_identifies(tmp_path):
    text = (DOCS / "problem.toml").read_text()
    found = []
    for name, content in (("a", text), ("b", text), ("c", text.replace("0.", "1.", 1))):
        home = tmp_path / name
        home.mkdir()
        (home / f"{name}.toml").write_text(content)
        (home / "grid.toml").write_text(
            f'experiment = "exact"\n[axes]\nproblem = ["{name}.toml", "paper"]\nK = [2]\n'
        )
        found.append([cell.key for cell in grids.load(home / "grid.toml").cells()])
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] == found[2][1]


def test_a_resume_looks_at_every_file_but_not_at_every_cell(tmp_path):
    seen = []
    experiment = dataclasses.replace(TOY, check=lambda settings: seen.append(settings))
    found = grid(experiment=experiment, axes=[{"n": list(range(40)), "seed": list(range(50))}, {"n": [99]}])
    assert len(list(found.cells())) == len(seen) == 2001
    seen.clear()
    assert found.contents
    assert len(seen) == 2
    text = (DOCS / "problem.toml").read_text()
    for name, content in (("a.toml", text), ("b.toml", text.replace("0.", "1.", 1))):
        (tmp_path / name).write_text(content)
    (tmp_path / "grid.toml").write_text(
        'experiment = "exact"\n[axes]\nproblem = ["a.toml", "b.toml"]\nK = [2, 3]\n'
    )
    before = grids.load(tmp_path / "grid.toml").contents
    assert grids.load(tmp_path / "grid.toml").contents == before
    (tmp_path / "b.toml").write_text(text.replace("0.", "2.", 1))
    assert grids.load(tmp_path / "grid.toml").contents != before


def training(folder, **changes):
    """The only cell of a grid of trainings with files of one's own."""
    settings = {"K": 2, "model": {"kind": "bernoulli_vae"}, "training": {"epochs": 1}, **changes}
    text = tomli_w.dumps({"experiment": "train", "settings": settings, "axes": {"seed": [0]}})
    (folder / "grid.toml").write_text(text)
    (cell,) = grids.load(folder / "grid.toml").cells()
    return cell.key


def idx(folder, ink):
    """IDX files of two images, twelve pixels each."""
    for split in ("train", "t10k"):
        head = bytes([0, 0, 8, 3, *(byte for size in (2, 3, 4) for byte in size.to_bytes(4, "big"))])
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + bytes([ink] * 24))


def test_the_users_files_identify_a_training(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "images").mkdir(parents=True)
        idx(tmp_path / place / "images", 7)
        (tmp_path / place / "net.py").write_text("def net(mean):\n    return None\n")
        (tmp_path / place / "est.py").write_text((DOCS / "my_estimator.py").read_text())
    data = {"data": {"name": "idx", "folder": "images"}, "estimator": "iwae"}
    module = {"model": {"kind": "module", "file": "net.py:net"}, "estimator": "iwae"}
    spec = {"estimator": "est.py:halfway"}  # beside the grid, wherever one works
    pair = {"model_estimator": "iwae", "proposal_estimator": "est.py:halfway"}
    for settings in (data, module, spec, pair):
        assert training(tmp_path / "a", **settings) == training(tmp_path / "b", **settings)
    before = [training(tmp_path / "a", **settings) for settings in (data, module, spec, pair)]
    idx(tmp_path / "a" / "images", 8)
    for file in (tmp_path / "a" / "net.py", tmp_path / "a" / "est.py"):
        file.write_text(f"{file.read_text()}\n# edited\n")
    after = [training(tmp_path / "a", **settings) for settings in (data, module, spec, pair)]
    assert not set(before) & set(after)
    with pytest.raises(InputError, match=r"'idx': expected the folder of the files in data\.folder"):
        training(tmp_path / "a", data={"name": "idx"}, estimator="iwae")


def test_cells_with_other_evaluations_keep_other_checkpoints(tmp_path, monkeypatch):
    folders = []

    def trained(tables, folder, **options):
        folders.append(folder.name)
        raise ArithmeticError

    monkeypatch.setattr(toyiwae, "train", trained)
    model, training = {"kind": "bernoulli_vae"}, {"epochs": 1}
    for changes in ({}, {"test_k": 8}, {"test_images": 5}, {}):
        values = {"K": 2, "model": model, "training": training, "estimator": "iwae", **changes}
        asked = train.TrainSettings.model_validate(values)
        settings = asked.model_copy(update={"folder": str(tmp_path)}).model_dump(mode="json")
        with pytest.raises(ArithmeticError):
            train.run(SimpleNamespace(**settings), 0)
    assert len(set(folders)) == 3
    assert folders[0] == folders[3]


def test_the_coarse_picture_comes_first():
    found = grid(axes=[{"kind": ["sin", "cos"], "n": list(range(1, 10)), "seed": [5, 6, 7]}])
    order = [json.loads(cell.own) for _, cell in found.ordered()]
    first = [(cell["kind"], cell["n"], cell["seed"]) for cell in order[:4]]
    assert first == [("sin", 1, 5), ("sin", 9, 5), ("cos", 1, 5), ("cos", 9, 5)]
    halves = {(cell["n"], cell["seed"]) for cell in order[:12]}
    assert halves == {(n, seed) for n in (1, 5, 9) for seed in (5, 6)}
    assert sorted(place for place, _ in found.ordered()) == list(range(54))


def test_seeds_of_blocks_are_whole_numbers_that_do_not_repeat():
    found = {seed_of(seed, block) for seed in range(50) for block in range(50)}
    assert len(found) == 2500
    assert all(0 <= seed < 2**49 for seed in found)
    assert [seed_of(seed, 0) for seed in (0, 7)] == [0, 7]


def test_a_grid_of_the_docs_size_is_checked_in_seconds():
    found = grid(axes=[{"kind": ["sin", "cos"], "n": list(range(1, 51)), "seed": list(range(20))}])
    assert len({cell.key for cell in found.cells()}) == 2000
