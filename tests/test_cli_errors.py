"""Whatever is wrong: one line on standard error that says what, exit code 2, nothing on standard output."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toyiwae import estimators
from toyiwae.cli import main

PROBLEM = """\
[model]
prior_mean = [0.3, -0.2]
prior_cov = [[1.2, 0.1], [0.1, 0.8]]
loading = [[1.0, 0.2], [0.1, 0.9], [0.4, -0.3]]
offset = [0.1, 0.0, -0.2]
noise_cov = [[0.5, 0.0, 0.0], [0.0, 0.7, 0.1], [0.0, 0.1, 0.9]]
[proposal]
mean = [0.2, 0.1]
cov = [[0.6, 0.1], [0.1, 0.7]]
[data]
x = [0.4, -1.0, 0.3]
"""


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "problem.toml"
    path.write_text(PROBLEM, encoding="utf-8")
    return str(path)


@pytest.fixture
def refused(capsys):
    """Runs a command line that must be refused; returns the one line without its `error: `."""

    def runner(*argv):
        code = main.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert "Traceback" not in captured.err
        assert captured.err.startswith("error: ")
        return captured.err.removeprefix("error: ").strip()

    return runner


FILES = {  # what is replaced in the file, by what, and what the line must say
    "not positive definite": (
        "cov = [[0.6, 0.1], [0.1, 0.7]]",
        "cov = [[0.6, 0.9], [0.9, 0.7]]",
        r"^proposal\.cov is not positive definite: smallest eigenvalue -0\.25\d*; all must be > 0$",
    ),
    "not symmetric": (
        "prior_cov = [[1.2, 0.1]",
        "prior_cov = [[1.2, 0.3]",
        r"^model\.prior_cov is not symmetric: \[0, 1\] is 0\.3 but \[1, 0\] is 0\.1, .* give \(C",
    ),
    "not square": ("cov = [[0.6, 0.1], [0.1, 0.7]]", "cov = [[0.6, 0.1]]", r"^proposal\.cov has shape 1×2"),
    "dimensions": (
        "x = [0.4, -1.0, 0.3]",
        "x = [0.4, -1.0]",
        r"^data\.x has 2 entries .*expected 3 entries$",
    ),
    "NaN": ("mean = [0.2, 0.1]", "mean = [0.2, nan]", r"^proposal\.mean\[1\] is nan: .*finite"),
    "infinity": ("offset = [0.1,", "offset = [-inf,", r"^model\.offset\[0\] is -inf: .*finite"),
    "text": ("offset = [0.1,", "offset = ['0.1',", r"^model\.offset\[0\] is '0\.1': expected a number"),
    "ragged": ("[0.1, 0.9], [0.4", "[0.1], [0.4", r"^model\.loading is ragged"),
    "unknown key": (
        "noise_cov",
        "noise_std",
        r"^\[model\] has the unknown key 'noise_std': did you mean noise_cov",
    ),
    "missing key": ("x = [0.4, -1.0, 0.3]", "", r"^\[data\] lacks x: it needs x$"),
    "missing section": ("[data]\nx = [0.4, -1.0, 0.3]", "", r"^problem\.toml lacks data: it needs"),
    "neither mean nor weight": (
        "mean = [0.2, 0.1]\n",
        "",
        r"^proposal has .*: expected either mean, or weight",
    ),
    "broken": ("[proposal]", "[proposal", r"problem\.toml' is not valid TOML: .*line 7"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_bad_file(refused, problem, fault):
    old, new, message = FILES[fault]
    assert PROBLEM.count(old) >= 1
    Path(problem).write_text(PROBLEM.replace(old, new), encoding="utf-8")
    assert re.search(message, refused("exact", problem, "-K", "2"))


def test_no_file(refused, problem, tmp_path):
    missing = tmp_path / "missing.toml"
    assert refused("exact", missing, "-K", "2") == f"no such file: {str(missing)!r}"
    assert refused("exact", tmp_path, "-K", "2").endswith("is a directory: expected a TOML file")
    assert refused("exact", f"{problem}/x", "-K", "2").startswith("cannot read ")
    Path(problem).write_bytes(b"")
    assert re.search(r"is empty: expected the sections \[model\]", refused("exact", problem, "-K", "2"))
    Path(problem).write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in refused("exact", problem, "-K", "2")
    newline = refused("exact", "a\nb", "-K", "2")
    assert newline == r"no such file: 'a\nb'"


@pytest.mark.parametrize("option", ["-K", "-M"])
@pytest.mark.parametrize(
    "value", ["1.5", "abc", "", "0", "-3", "1,,2", "nan", "1e-3", "2,0", "1e99", "--", "1 2"]
)
def test_a_count_that_is_not_whole_and_positive(refused, problem, option, value):
    counts = {"-K": "2", "-M": "1"} | {option: value}
    for command in (["exact"], ["estimate", "--replicates", "9", "--seed", "0"]):
        options = [text for pair in counts.items() for text in pair]
        message = refused(command[0], problem, *options, *command[1:])
        culprit = "0" if value == "2,0" else value
        assert message.startswith(f"{option[1]} is {culprit!r}: expected ")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--replicates", "1", "replicates is '1': expected a whole number of at least 2"),
        ("--replicates", "2.5", "replicates is '2.5': expected a whole number of at least 2"),
        ("--replicates", "", "replicates is '': expected a whole number of at least 2"),
        ("--seed", "-1", "seed is '-1': expected a whole number of at least 0"),
        ("--seed", "x", "seed is 'x': expected a whole number of at least 0"),
        ("--device", "abacus", "device is 'abacus': expected cpu"),
        ("--device", "cuda:999", "device is 'cuda:999': "),
        ("-p", "prior_men", "'prior_men'.* did you mean prior_mean"),
        ("-p", "", "parameters is ''"),
    ],
)
def test_estimate_settings(refused, problem, option, value, message):
    options = {"-K": "2", "--replicates": "9", "--seed": "0"} | {option: value}
    assert re.search(
        message, refused("estimate", problem, *(text for pair in options.items() for text in pair))
    )


def test_a_gpu_that_is_not_there(refused, problem):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    options = ["-K", "2", "--replicates", "9", "--seed", "0", "--device", "cuda"]
    assert re.search("device is 'cuda': .*use cpu", refused("estimate", problem, *options))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("iwea", "unknown estimator 'iwea': did you mean iwae"),
        ("xyzzy", "unknown estimator 'xyzzy': known are elbo, "),
        ("miwae", "'miwae' is iwae with M > 1"),
        ("ciwae:2", r"'ciwae:2': beta is 2: expected .* at most 1"),
        ("ciwae:", "beta is ''"),
        ("ciwae:x", "beta is 'x'"),
        ("iwae:1", "iwae takes no parameter"),
        ("jackknife:0.5", "order is 0.5: expected a whole number"),
        ("", "estimators is ''"),
        ("iwae,,dreg", "expected a name between the commas"),
        ("nowhere.py:f", "no file 'nowhere.py'"),
    ],
)
def test_an_estimator_that_does_not_exist(refused, problem, spec, message):
    assert re.search(message, refused("exact", problem, "-K", "9", "-e", spec))


def test_a_user_file_that_fails(refused, problem, tmp_path):
    for source, message in [
        ("1/0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("", "defines no estimator 'f'"),
    ]:
        (tmp_path / "mine.py").write_text(source)
        assert message in refused("exact", problem, "-K", "9", "-e", f"{tmp_path}/mine.py:f")


NEEDY = [made for made in estimators.all() if made.min_particles > 1]


@pytest.mark.parametrize("made", NEEDY, ids=lambda made: made.name)
def test_fewer_particles_than_an_estimator_needs(refused, problem, made):
    message = refused("exact", problem, "-K", f"50,{made.min_particles - 1}", "-e", f"iwae,{made.name}")
    assert re.search(rf"\bK\b.*\b{made.name}\b.*at least {made.min_particles}", message)


USAGE = [
    ([], "Missing command", "toyiwae --help"),
    (["exat"], "'exat'", "toyiwae --help"),
    (["--foo"], "--foo", "toyiwae --help"),
    (["exact"], "PROBLEM.toml", "toyiwae exact --help"),
    (["exact", "p.toml"], "'-K'", "toyiwae exact --help"),
    (["exact", "p.toml", "-K"], "'-K' requires an argument", ""),
    (["exact", "p.toml", "-K", "1", "--jsn"], "--json", "toyiwae exact --help"),
    (["exact", "p.toml", "-K", "1", "more"], "more", "toyiwae exact --help"),
    (["exact", "p.toml", "-K", "1", "--json=3"], "--json", ""),
    (["estimate", "p.toml", "-K", "1", "--seed", "1"], "--replicates", "toyiwae estimate --help"),
    (["estimate", "p.toml", "-K", "1", "--replicates", "9"], "--seed", "toyiwae estimate --help"),
    (["list", "more"], "more", "toyiwae list --help"),
    (["train"], "SETTINGS.toml", "toyiwae train --help"),
    (["train", "s.toml"], "--out", "toyiwae train --help"),
    (["train", "s.toml", "--out", "r", "--sett", "a.b=1"], "--sett", "toyiwae train --help"),
    (["data"], "Missing command", "toyiwae data --help"),
    (["data", "fetch"], "NAME", "toyiwae data fetch --help"),
]


@pytest.mark.parametrize(
    ("argv", "culprit", "pointer"),
    USAGE,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(refused, argv, culprit, pointer):
    message = refused(*argv)
    assert culprit in message
    assert pointer in message


def test_a_library_error_in_the_middle_leaves_nothing(refused, problem, monkeypatch):
    from toyiwae.errors import PrecisionError

    def fail(**_):
        raise PrecisionError("the gap at K = 7:\nno digits left")

    monkeypatch.setattr("toyiwae.exact", fail, raising=False)
    assert refused("exact", problem, "-K", "7") == "the gap at K = 7: no digits left"


def test_errors_of_the_installed_command(problem):
    for argv in (["exact", problem, "-K", "0"], ["exact", problem], ["exact", "/"]):
        command = [sys.executable, "-m", "toyiwae", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_a_reader_that_goes_away_and_ctrl_c_are_silent(problem):
    for argv in (["list"], ["--help"], ["exact", problem, "-K", "1", "-p", "none", "--json"]):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "toyiwae", *argv]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b"")
    code = (
        "import os, signal, toyiwae.cli.main as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background has it ignored
        "c.toyiwae.exact = lambda **_: os.kill(os.getpid(), signal.SIGINT)\n"
        f"raise SystemExit(c.main(['exact', {problem!r}, '-K', '1']))"
    )
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (128 + signal.SIGINT, b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_and_a_closed_output_are_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "toyiwae", "list"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*No space left on device\n", done.stderr)
    closed = subprocess.run(
        ["sh", "-c", '"$0" -m toyiwae list >&-', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert closed.returncode == 2
    assert re.fullmatch("error: standard output is closed.*\n", closed.stderr)
