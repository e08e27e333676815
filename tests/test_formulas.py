"""The page that says where each formula is computed: names exist, docstrings hold the keys, no key is lost."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/formulas.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z-]+)` \| .+ \| `([\w.]+)` \|$", PAGE, re.MULTILINE)


def found(name: str) -> object:
    """What a dotted name below `toyiwae` stands for."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            here = importlib.import_module(".".join(["toyiwae", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            here = getattr(here, part)
        return here
    raise ModuleNotFoundError(name)


def test_the_page_has_one_row_for_each_key():
    keys = [key for key, _ in ROWS]
    assert len(keys) > 30
    assert len(keys) == len(set(keys)) == len(re.findall(r"^\| `", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("key", "name"), ROWS)
def test_the_formula_is_where_the_page_says(key, name):
    documentation = getattr(found(name), "__doc__", None) or ""
    assert f"Formula: {key}." in documentation


def test_the_page_has_all_formulas_of_the_code():
    source = "\n".join(f.read_text(encoding="utf-8") for f in sorted((ROOT / "toyiwae").rglob("*.py")))
    assert set(re.findall(r"Formula: ([a-z-]+)\.", source)) == {key for key, _ in ROWS}
