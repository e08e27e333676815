"""The package as others get it: its wheel in an environment of its own, without torch."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def call(*command, **kwargs):
    """Runs a command away from the clone, so that nothing is imported from there."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(part) for part in command]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env=environment, **kwargs
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling, of the extra dev")
    folder = tmp_path_factory.mktemp("dist")
    built = call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("toyiwae-*-py3-none-any.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of programs of a fresh environment that holds the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    probe = call(*install, "tomli-w", cwd=folder)
    if probe.returncode:
        pytest.skip(f"no package registry within reach: {probe.stderr.strip().splitlines()[-1:]}")
    installed = call(*install, wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return programs


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"toyiwae/__init__.py", "toyiwae/__init__.pyi", "toyiwae/py.typed"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"toyiwae"}
    present = {str(file.relative_to(ROOT)) for file in (ROOT / "toyiwae").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == present


def test_exact_answers_without_torch(environment, tmp_path):
    missing = call(environment / "python", "-c", "import torch", cwd=tmp_path)
    assert "No module named 'torch'" in missing.stderr
    problem = ROOT / "docs" / "problem.toml"
    done = call(
        environment / "toyiwae", "exact", problem, "-K", "1,1e6", "-e", "dreg", "--json", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert [cell["K"] for cell in document["results"]] == [1, 10**6]
    here = call(
        sys.executable, "-m", "toyiwae", "exact", problem, "-K", "1,1e6", "-e", "dreg", "--json", cwd=ROOT
    )
    for ours, theirs in zip(json.loads(here.stdout)["results"], document["results"], strict=True):
        assert theirs["gap"] == pytest.approx(ours["gap"], rel=1e-9)
    for argv in (["list"], ["--help"], ["exact", problem, "-K", "8"]):
        done = call(environment / "toyiwae", *argv, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_sampling_without_torch_names_the_extra(environment, tmp_path):
    options = ["-K", "8", "--replicates", "10", "--seed", "0"]
    problem = ROOT / "docs" / "problem.toml"
    done = call(environment / "toyiwae", "estimate", problem, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: toyiwae estimate needs torch, which is not installed: pip install 'toyiwae[torch]'\n"
    )
    done = call(environment / "python", "-c", "import toyiwae; toyiwae.estimate", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_data_frames_without_pandas_name_the_extra(environment, tmp_path):
    code = (
        "import sys, toyiwae\n"
        "result = toyiwae.exact(toyiwae.load(sys.argv[1]), K=2)\n"
        "try:\n    result.to_dataframe()\n"
        "except toyiwae.ToyiwaeError as error:\n    print(error)\n"
    )
    done = call(environment / "python", "-c", code, ROOT / "docs" / "problem.toml", cwd=tmp_path)
    assert "needs pandas, which is not installed: pip install 'toyiwae[analysis]'" in done.stdout, done.stderr
