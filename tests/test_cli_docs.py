"""The commands in docs/cli.md print what the page says, numbers to a thousandth."""

import re
import shlex
from pathlib import Path

import pytest

from tests.shown import differences, masked
from toyiwae.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def examples():
    """Every command of the page with what the page shows below it."""
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = example.partition("\n")
            yield pytest.param(command, shown, id=command)


@pytest.mark.parametrize(("command", "shown"), list(examples()))
def test_the_page_shows_what_the_command_prints(command, shown, capsys, monkeypatch):
    monkeypatch.chdir(PAGE.parent)
    monkeypatch.delenv("COLUMNS", raising=False)
    command, _, filtered = command.partition(" | head -")
    program, *argv = shlex.split(command)
    assert program == "toyiwae"
    main.main(argv)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    printed = "\n".join(lines[: int(filtered)] if filtered else lines)
    assert masked(printed) == masked(shown)
    assert not differences(command, shown, printed)
