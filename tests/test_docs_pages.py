"""Every block and every command of the documentation is run, by this file or by the one that is named here."""

import doctest
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.shown import differences, masked
from toyiwae.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
ELSEWHERE = {
    "README.md": "test_readme",
    "cli.md": "test_cli_docs",
    "conformance.md": "test_conformance",
    "networks.md": "test_networks_step",
    "oracle.md": "test_oracle_docs",
}
NOT_RUN = {
    "contributing.md": "make targets, and the registry's own DReG",
    "mnist.md": "hours, and the data",
    "sweeps.md": "test_sweep_cli runs its commands on smaller grids; a scheduler and Slurm",
}
BLOCK = re.compile(r"^```(console|pycon|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """(language, text) of a page, in order."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


LONG = {"tutorial.md"}  # it runs the conformance suite

HERE = sorted(
    page.name for page in DOCS.glob("*.md") if blocks(page.name) and page.name not in {*ELSEWHERE, *NOT_RUN}
)


def printed(command, capsys):
    """What `toyiwae …`, perhaps with ` | head -N` or ` | tail -N`, prints."""
    command, _, cut = command.partition(" | ")
    program, *argv = shlex.split(command)
    assert program == "toyiwae"
    main.main(argv)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    if cut:
        program, number = cut.split(" -")
        lines = lines[: int(number)] if program == "head" else lines[-int(number) :]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in HERE]
)
def test_a_page_shows_what_happens(page, capsys, monkeypatch):
    monkeypatch.chdir(DOCS)
    monkeypatch.delenv("COLUMNS", raising=False)
    names: dict[str, object] = {}
    for number, (language, text) in enumerate(blocks(page)):
        if language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "pycon":
            example = doctest.DocTestParser().get_doctest(text, names, page, page, 0)
            report: list[str] = []
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(example, out=report.append, clear_globs=False)
            names |= example.globs
            assert not report, "".join(report)
        else:
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                found = printed(command, capsys)
                assert masked(found) == masked(shown), f"block {number} of {page}"
                assert not differences(command, shown, found), f"block {number} of {page}"


def test_every_page_is_run_once():
    named = {*ELSEWHERE, *NOT_RUN}
    there = {page.name for page in DOCS.glob("*.md")} | {"README.md"}
    assert named <= there
    assert HERE
    for page, module in ELSEWHERE.items():
        text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert page in text, f"{module} does not read {page}"


COMMANDS = [
    pytest.param(line.strip(), id=f"{page.name}: {line.strip()}")
    for page in sorted(DOCS.glob("*.md"))
    for line in re.findall(
        r"^    ((?:toyiwae|python -m analysis) .*)$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_only_shown_exists_with_its_options(line):
    """Those need files, data, a scheduler or hours: their names and options are held to the programs'."""
    words = shlex.split(line)
    program = words[0] if words[0] == "toyiwae" else "analysis"
    module = importlib.import_module("toyiwae.cli.main" if program == "toyiwae" else "analysis.__main__")
    command: Any = typer.main.get_command(module.app)
    rest = words[1:] if program == "toyiwae" else words[3:]
    while hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if re.match(r"--?[A-Za-z]", word)}
    assert given <= options, f"no option {sorted(given - options)}"


def test_a_wrong_number_on_a_page_is_seen():
    assert differences("toyiwae exact a", "gap 1.127 ± 2e-16", "gap 1.127 ± 9e-16") == []
    assert differences("toyiwae exact a", "gap 1.127 ± 2e-16", "gap 1.131 ± 2e-16") == [(1.127, 1.131)]
