"""An estimator of the user's own: whatever is wrong with it is one line, and its Form must be that of its function."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae import estimators, stats
from toyiwae.cli import main
from toyiwae.errors import InputError
from toyiwae.estimators import Target, both, estimator, iwae_bound, registry, users
from toyiwae.forms import Bound, Coefficients, Form
from toyiwae.weights import normalise

PROBLEM = str(Path(__file__).resolve().parents[1] / "docs" / "problem.toml")
HEADER = """\
import sys
from toyiwae.estimators import Bound, Coefficients, Form, Target, both, estimator, iwae_bound
from toyiwae.weights import normalise
def iwae(log_w):
    shares = normalise(log_w) / log_w.shape[-2]
    return Coefficients(shares, shares, -shares)
"""
RIGHT = "target=both(iwae_bound), form=Form({1: 1}, {1: 1}, {1: -1})"
FORMLESS = "target=both(iwae_bound)"


def source(claims=RIGHT, body="return iwae(log_w)", arguments="log_w", before=""):
    """A user's file with one estimator, `mine`."""
    return f'{HEADER}{before}\n@estimator({claims})\ndef mine({arguments}):\n    """Mine."""\n    {body}\n'


def asked(folder, text, command="exact", *options, parameter=""):
    """Writes a user's file and returns the command line that asks for its estimator."""
    file = folder / "mine.py"
    file.write_text(text, encoding="utf-8")
    more = ["--replicates", "20", "--seed", "1"] if command == "estimate" else []
    return [command, PROBLEM, "-K", "7", "-e", f"{file}:mine{parameter}", *more, *options]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command with the estimator of a user's file: exit code, standard output, standard error."""

    def runner(*what, **options):
        code = main.main(asked(tmp_path, *what, **options))
        return code, *capsys.readouterr()

    return runner


def line(answer):
    """The one line of a command that was refused."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]*mine\.py[^\n]*\n", err), err
    return err


WRONG = {  # a file, and what its line says under both commands
    "sys.exit(0)": (source(before="sys.exit(0)"), "failed: SystemExit: 0"),
    "sys.exit with text": (source(before="raise SystemExit('bye')"), "failed: SystemExit: bye"),
    "the lowest exception": (source(before="raise BaseException('low')"), "failed: BaseException: low"),
    "form a dict": (source("target=both(iwae_bound), form={1: 1}"), r"form is {1: 1}: expected Form\("),
    "target a number": (source("target=3"), r"target is 3: expected Target\("),
    "target a bound": (source("target=iwae_bound"), r"target is <function iwae_bound.*: expected Target\("),
    "target of numbers": (source("target=Target(3, None)"), "target.model is 3: expected a function of K and M"),
    "target of no bounds": (
        source("target=Target(None, lambda K, M: K)"),
        "target.proposal is 1 at K = 1, M = 1: expected a Bound",
    ),
    "target that raises": (source("target=both(lambda K, M: 1 / 0)"), "raised ZeroDivisionError"),
    "value a number": (source(RIGHT + ", value=3"), "value is 3: expected a function of K and M"),
    "value false": (source(RIGHT + ", value=False"), "value is False: expected a function of K and M"),
    "between a number": (source(RIGHT + ", between=3"), "between is 3: expected the smallest and the largest"),
    "between backwards": (source(RIGHT + ", between=(2, 1)"), r"between is \(2, 1\): expected"),
    "between NaN": (source(RIGHT + ", between=(float('nan'), 1)"), r"between is \(nan, 1\): expected"),
    "cite": (source(RIGHT + ", cite=3"), "cite is 3: expected a key"),
    "min_particles": (source(RIGHT + ", min_particles=0.5"), "min_particles is 0.5: expected a whole number"),
    "min_particles far too large": (source(RIGHT + ", min_particles=10**9"), "min_particles is 1000000000"),
    "vanishes": (source(RIGHT + ", vanishes_at_posterior='no'"), "vanishes_at_posterior is 'no': expected True"),
    "shift": (source(RIGHT + ", shift_invariant=None"), "shift_invariant is None: expected True"),
    "leave-one-out at K = 1": (
        source("target=both(iwae_bound), form=Form({1: 1}, score={1: -1}, leave_one_out=1)"),
        "min_particles is 1: expected at least 2",
    ),
    "an unknown claim": (source(RIGHT + ", targets=3"), "unexpected keyword argument 'targets'"),
    "no call of the decorator": (
        HEADER + '@estimator\ndef mine(log_w):\n    """Mine."""\n    return iwae(log_w)\n',
        "failed: TypeError",
    ),
    "no function": (HEADER + "mine = estimator(target=both(iwae_bound))(3)", r"an estimator is 3: expected @est"),
    "any arguments": (source(arguments="log_w, *more"), "expected the arguments log_w"),
    "no argument by position": (source(arguments="*, log_w"), "expected the arguments log_w"),
    "a parameter of text": (source(arguments="log_w, power='2'"), "power is '2': expected a finite number"),
    "a claim of a parameter that raises": (
        source("target=lambda power: 1 / 0", arguments="log_w, power=2"),
        "target at 2 raised ZeroDivisionError",
    ),
    "a bound in place of a claim of a parameter": (
        source(RIGHT + ", value=iwae_bound", arguments="log_w, power=2"),
        "value at 2 raised TypeError",
    ),
    "an answer of another kind": (source(FORMLESS, "return 3"), r"returned a int: expected Coefficients\("),
    "three arrays": (source(FORMLESS, "return log_w, log_w, log_w"), r"returned a tuple: expected Coef"),
    "an exception": (source(FORMLESS, "raise KeyError('x')"), "raised KeyError: 'x'"),
    "an exit": (source(FORMLESS, "sys.exit(0)"), "raised SystemExit: 0"),
    "endless recursion": (source(FORMLESS, "return mine(log_w)"), "raised RecursionError"),
    "another shape": (
        source(FORMLESS, "return Coefficients(log_w[..., :1], log_w, log_w)"),
        r"model has shape \(2, 3, 1\): expected that of log_w, \(2, 3, 2\)",
    ),
    "numbers": (source(FORMLESS, "return Coefficients(log_w, log_w, 0)"), "score is 0, a int: expected an array"),
    "whole numbers": (
        source(FORMLESS, "return Coefficients(log_w, log_w, log_w > 0)"),
        "score is .*: expected an array of floating-point numbers",
    ),
    "log-weights that it changes": (
        source(FORMLESS, "log_w -= 1.0; return iwae(log_w)"),
        "changes the log-weights that it is given: copy them first",
    ),
    "another Form": (
        source("target=both(iwae_bound), form=Form({}, {1: 0.5}, {})", "s = normalise(log_w)\n    "
               "return Coefficients(0 * s, s**2 / s.shape[-2], 0 * s)"),
        r"Form is not that of the function: path is 1 by the function and 0\.5 by the Form, for particle 1 of 1",
    ),
    "another number of groups": (
        source(body="s = normalise(log_w)\n    return Coefficients(s, s, -s)"),
        r"model is 0\.\d+ by the function and 0\.\d+ by the Form, for particle 1 of 2 in group 1 of 3",
    ),
    "NaN": (source(body="return iwae(log_w * float('nan'))"), "model is nan by the function"),
}  # fmt: skip


LATER = {  # what shows only at the K asked for, or at the second value of a parameter
    "a bound": (source("target=both(lambda K, M: 3 if K > 5 else Bound.iwae(K))"), "", "target.model is 3 at K = 7"),
    "a bound that raises": (source("target=both(lambda K, M: Bound.iwae(K // (K < 7)))"), "", "ZeroDivisionError"),
    "a claim": (
        source("target=lambda b: both(iwae_bound) if b < 2 else 3", arguments="log_w, b=1"), ":2", "target is 3",
    ),
    "another Form at another value": (
        source("target=lambda b: both(iwae_bound), form=lambda b: Form({1: 1}, {b: 1}, {})",
               "s = normalise(log_w)\n    return Coefficients(s / s.shape[-2], s / s.shape[-2], 0 * s)", "log_w, b=1"),
        ":2", r"mine:2': the Form is not that of the function: path",
    ),
}  # fmt: skip

# All of them in one process where the package's annotations are not checked at run time, as a user's are not.
DRIVER = """
import contextlib, io, json, sys
from toyiwae.cli import main
for argv in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main(argv)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=sys.__stdout__)
"""
COMMANDS = ["exact", "estimate"]
FAULTS = [*WRONG, *LATER]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(fault, command) -> exit code, standard output, standard error."""
    keys = [(fault, command) for fault in FAULTS for command in COMMANDS]
    commands = []
    for fault, command in keys:
        text, parameter, _ = LATER.get(fault) or (WRONG[fault][0], "", "")
        commands.append(asked(tmp_path_factory.mktemp("user"), text, command, parameter=parameter))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return dict(zip(keys, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(answers, fault, command):
    if command == "estimate":
        pytest.importorskip("torch")
    message = (WRONG.get(fault) or LATER[fault])[-1]
    assert re.search(message, line(answers[fault, command]))


def test_a_function_that_fails_at_the_k_asked_for_is_one_line(run):
    pytest.importorskip("torch")
    body = "if log_w.shape[-1] == 7: raise ValueError('seven')\n    return iwae(log_w)"
    assert "raised ValueError: seven" in line(run(source(FORMLESS, body), "estimate"))
    assert run(source(FORMLESS, body))[0] == 0  # `exact` asks the claims alone


def test_what_it_prints_goes_to_standard_error(run):
    loud = "print('called')\n    return iwae(log_w)"
    for command in ("exact", "estimate"):
        code, out, err = run(source(body=loud, before="print('loaded')"), command, "--json")
        assert code == 0
        assert json.loads(out)["results"]
        assert {"loaded", "called"} == set(err.split())


def test_a_file_is_read_anew_and_leaves_nothing_beside_it(run, tmp_path):
    one, other = (source(before=f"raise ValueError({digit})") for digit in "12")
    assert "ValueError: 1" in line(run(one))
    assert "ValueError: 2" in line(run(other))
    assert run(source())[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]


def test_a_function_in_torch_alone_is_compared_too(run):
    pytest.importorskip("torch")
    before = "import torch"
    body = "s = torch.softmax(log_w, -1) / log_w.shape[-2]\n    return Coefficients(s, s, {} * s)"
    assert run(source(body=body.format("-1"), before=before))[0] == 0
    assert "score is" in line(run(source(body=body.format("1"), before=before)))


# in Python ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _registry(monkeypatch):
    """What a test registers is forgotten."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.mark.usefixtures("_registry")
def test_a_form_is_compared_wherever_an_estimator_is_selected():
    @estimator(target=both(iwae_bound), form=Form({1: 1}, {1: 0.5}))
    def half(log_w):
        """Says half of what it does."""
        shares = normalise(log_w) / log_w.shape[-2]
        return Coefficients(shares, shares**2, 0 * shares)

    problem = random_problem(1)
    for asked in ("half", half):
        with pytest.raises(InputError, match="estimator 'half': the Form is not that of the function: path"):
            toyiwae.exact(problem, K=3, estimators=asked)


@pytest.mark.usefixtures("_registry")
def test_an_average_over_subsets_is_compared_too():
    @estimator(target=both(lambda K, M: Bound.iwae(2)), subsets=2, min_particles=2)
    def pairs(log_w):
        """Says that it averages pairs, and averages all."""
        shares = normalise(log_w) / log_w.shape[-2]
        return Coefficients(shares, shares, -shares)

    message = "estimator 'pairs': the average over subsets is not that of the function: model"
    with pytest.raises(InputError, match=message):
        toyiwae.exact(random_problem(1), K=3, estimators="pairs")
    with pytest.raises(InputError, match="subsets is 3: "):
        estimator(target=both(lambda K, M: Bound.iwae(3)), subsets=3, min_particles=2)(pairs.function)


@pytest.mark.usefixtures("_registry")
def test_what_a_function_raises_in_python_is_its_own():
    @estimator(target=Target(None, None), form=Form({1: 1}), value=lambda K, M: Bound.elbo())
    def raises(log_w):
        """Raises."""
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        toyiwae.exact(random_problem(1), K=3, estimators=raises)
    with pytest.raises(KeyError, match="mine"):
        raises(np.zeros((2, 3)))


@pytest.mark.parametrize("made", [e for e in estimators.all() if e.form is not None], ids=lambda e: e.name)
def test_the_comparison_passes_every_registered_form_and_no_other(made):
    """A millionth more of any one factor of the Form is seen."""
    users.compare(made)
    for part in ("model", "path", "score"):
        for power, factor in getattr(made.form, part).items():
            wrong = {**getattr(made.form, part), power: factor * (1 + 1e-6)}
            with pytest.raises(InputError, match=f"{part} is"):
                users.compare(replace(made, form=replace(made.form, **{part: wrong})))


def test_the_documented_file_has_exact_answers_that_sampling_agrees_with() -> None:
    root = Path(__file__).resolve().parents[1]
    problem, name = toyiwae.load(root / "docs/problem.toml"), f"{root / 'docs/my_estimator.py'}:halfway"
    found = toyiwae.estimate(problem, K=8, M=2, estimators=name, replicates=20_000, seed=1)
    own = found.cell(8, 2).gradients[name]["proposal_mean"]
    assert own.truth_mean is not None
    assert own.truth_var is not None
    assert own.z_var is not None
    assert found.agreement().passed
    assert np.abs(own.z_var).max() < stats.family_threshold(own.z_var.size, 1e-6)
