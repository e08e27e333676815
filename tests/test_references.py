"""What docstrings and estimators cite stands in docs/references.bib."""

import ast
import re

import toyiwae
from tests.test_house import ROOT, docstrings, modules


def bibliography() -> set[str]:
    """Keys of docs/references.bib."""
    text = (ROOT / "docs/references.bib").read_text(encoding="utf-8")
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))


def test_references_in_docstrings_exist():
    """A reference key is a surname, the year and a word of the title, such as burda2016iwae."""
    known = bibliography()

    def unknown(module: str) -> set[str]:
        text = "\n".join(docstrings(ast.parse(modules()[module].read_text(encoding="utf-8"))))
        return set(re.findall(r"\b[a-z]{3,}(?:19|20)\d\d[a-z]*\b", text)) - known

    assert {m: keys for m in modules() if (keys := unknown(m))} == {}, "add these to docs/references.bib"


def test_what_the_estimators_cite_exists():
    cited = {key for estimator in toyiwae.estimators.all() for key in estimator.cite}
    assert cited
    assert cited <= bibliography(), f"add to docs/references.bib: {sorted(cited - bibliography())}"
