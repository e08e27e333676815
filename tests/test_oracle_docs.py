"""Every example of docs/oracle.md gives what the page shows."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/oracle.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```pycon\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_every_page_is_in_the_index():
    """Or reached from one that is."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")} - {"index"}
    listed = {line.strip() for line in index.splitlines()}
    assert not pages - listed, f"add to a toctree of docs/index.md: {sorted(pages - listed)}"


def test_the_examples_give_what_the_page_shows(monkeypatch):
    monkeypatch.chdir(ROOT)
    examples = doctest.DocTestParser().get_doctest("\n".join(BLOCKS), {}, "docs/oracle.md", None, 0)
    assert len(examples.examples) > 20
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(examples, out=report.append)
    if report:
        pytest.fail("".join(report))
