"""The registry is the only list of estimators: four of its names in one place elsewhere are a second one.

"One place" is, in Python, a statement (a literal, a call, a comma-separated string), statements of the same
shape side by side (`table["a"] = 1` four times, members of an Enum), or a chain of comparisons; in text and
docstrings, a paragraph, a table, a list, or the headings. Single mentions are nobody's list. Data files of
numbers (JSON, CSV) are not looked at, nor pages that a command writes of what it ran: nobody asks them which estimators
there are.
"""

import ast
import copy
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import toyiwae

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple(toyiwae.estimators.names())
MANY = 4
NAME = rf"(?:{'|'.join(map(re.escape, NAMES))})"
TOKEN = re.compile(rf"(?<![\w./-]){NAME}(?![\w/-]|\.\w)")
SPECS = re.compile(rf"{NAME}(?::\S+)?(?:(?:, *| ){NAME}(?::\S+)?)*")
TEXT = set(".md .rst .toml .html .j2 .jinja .js .txt .yaml .yml .cff".split())
WRITTEN = re.compile(r"^(<!-- )?[Ww]ritten by:? python -m ", re.MULTILINE)  # a command's page of what it ran
FIELDS = ("id", "attr", "arg", "name", "value")  # where a node keeps an identifier or a constant


def names_in(node: ast.AST) -> set[str]:
    """Estimators named below a node: by identifiers, by strings of nothing else, or by one long string."""
    texts = [getattr(n, field, None) for n in ast.walk(node) for field in FIELDS]
    strings = [text for text in texts if isinstance(text, str)]
    named = [(set(TOKEN.findall(text)), SPECS.fullmatch(text)) for text in strings]
    return {name for names, alone in named if alone or len(names) >= MANY for name in names}


def shape(node: ast.AST) -> str:
    """A node without constants, names of constants, and identifiers that are spelled like an estimator."""
    node = copy.deepcopy(node)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        node.targets = []
    for n in ast.walk(node):
        for field in FIELDS:
            text = getattr(n, field, None)
            if isinstance(n, ast.Constant) or (isinstance(text, str) and text.lower() in NAMES):
                setattr(n, field, None)
    return ast.dump(node)


def head(statement: ast.stmt) -> ast.AST:
    """A statement without the statements inside it: its conditions, arguments, decorators."""
    if isinstance(statement, ast.If):
        tests = []
        while isinstance(statement, ast.If):
            tests.append(statement.test)
            statement = statement.orelse[0] if len(statement.orelse) == 1 else ast.Pass()
        return ast.List(tests)
    if isinstance(statement, ast.Match):
        return ast.List([case.pattern for case in statement.cases])  # pyright: ignore[reportArgumentType]
    if hasattr(statement, "body"):
        parts = [n for n in ast.iter_child_nodes(statement) if not isinstance(n, ast.stmt)]
        return ast.Tuple(parts)  # pyright: ignore[reportArgumentType]
    return statement


def docstring(node: ast.AST) -> ast.stmt | None:
    """The statement that is the docstring of a module, class or function."""
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return node.body[0] if documented and ast.get_docstring(node, clean=False) else None


def lists_in_python(source: str) -> Iterator[set[str]]:
    """Every place in a Python source that names many estimators."""
    for node in ast.walk(ast.parse(source)):
        if (text := docstring(node)) is not None:
            yield from lists_in_text(ast.literal_eval(text.value))  # pyright: ignore[reportAttributeAccessIssue]
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                yield from lists_in_block([head(s) for s in statements if s is not text])


def lists_in_block(statements: list[ast.AST]) -> Iterator[set[str]]:
    """Every statement that names many estimators, and all of many statements of one shape."""
    alike: dict[str, list[set[str]]] = defaultdict(list)
    for statement in statements:
        if names := names_in(statement):
            alike[shape(statement)].append(names)
    for found in alike.values():
        together = set().union(*found) if len(found) >= MANY else set()
        yield from (names for names in [together, *found] if len(names) >= MANY)


def lists_in_text(text: str) -> Iterator[set[str]]:
    """Every paragraph, table or list that names many estimators, and the headings together."""
    headings = "\n".join(re.findall(r"^#+ .*$", text, re.MULTILINE))
    paragraphs = re.split(r"\n\s*\n(?!\s*(?:[-*+|]|\d+[.)]))", text)
    for block in [headings, *paragraphs]:
        if len(found := set(TOKEN.findall(block))) >= MANY:
            yield found


def second_lists(root: Path) -> dict[str, list[set[str]]]:
    """File -> places that name many estimators, for the files of a project."""
    result = {}
    folders = [root / name for name in ("toyiwae", "analysis", "tests", "docs")]
    for file in sorted([*root.glob("*.*"), *(file for folder in folders for file in folder.rglob("*"))]):
        inside = file.relative_to(root)
        if not file.is_file() or inside.parts[:2] in {("docs", "_build"), ("docs", "api")}:
            continue
        if file.suffix in {".py", ".pyi"}:
            source = file.read_text(encoding="utf-8")
            few = sum(name in source for name in NAMES) < MANY  # most files: they are not parsed
            found = [] if few else list(lists_in_python(source))
        elif file.suffix in TEXT:
            text = file.read_text(encoding="utf-8")
            found = [] if WRITTEN.search(text) else list(lists_in_text(text))
        else:
            continue
        if found:
            result[str(inside)] = found
    return result


def test_there_is_one_list_of_estimators():
    assert len(NAMES) > MANY
    assert second_lists(ROOT) == {}


PLANTED = {  # file -> a second list of four estimators, written @1 to @4
    "toyiwae/literal.py": "CURVES = ['@1', '@2', '@3', '@4']",
    "toyiwae/nested.py": "def f():\n    return {'curves': [('@1', 1), ('@2', 2), ('@3', 3), ('@4', 4)]}",
    "toyiwae/keys.py": "COLOURS = dict(@1='r', @2='g', @3='b', @4='k')",
    "toyiwae/string.py": "DEFAULT = '@1,@2:0.5,@3,@4'.split(',')",
    "toyiwae/message.py": "raise InputError('unknown: choose @1, @2, @3 or @4')",
    "toyiwae/functions.py": "ALL = (f.@1, f.@2, f.@3, f.@4)",
    "toyiwae/imports.py": "from toyiwae.estimators import @1, @2, @3, @4",
    "toyiwae/loop.py": "for name in ('@1', '@2', '@3', '@4'):\n    print(name)",
    "toyiwae/members.py": "class E(Enum):\n    A = '@1'\n    B = '@2'\n    C = '@3'\n    D = '@4'",
    "toyiwae/assigned.py": "T['@1'] = 1\nT['@2'] = 5\nT['@3'] = 0\nT['@4'] = 7",
    "toyiwae/called.py": "def f():\n    g('@1', 1)\n    g('@2', 2)\n    g('@3', 3)\n    g('@4', 4)",
    "toyiwae/chain.py": "if n == '@1':\n    f()\nelif n == '@2':\n    g()\nelif n in ('@3', '@4'):\n    h()",
    "toyiwae/returns.py": "".join(f"if n == '@{i}':\n    f({i})\n" for i in (1, 2, 3, 4)),
    "toyiwae/cases.py": "match n:\n" + "".join(f"    case '@{i}':\n        f({i})\n" for i in (1, 2, 3, 4)),
    "tests/test_planted.py": "@parametrize('name', ['@1', '@2', '@3', '@4'])\ndef test_f(name):\n    ...",
    "analysis/studies/planted.py": "def compute():\n    'Question.\\n\\n    Takes @1, @2, @3 and @4.'",
    "docs/planted.md": "Some text.\n\n| name |\n|---|\n| `@1` |\n| `@2` |\n| `@3` |\n| `@4` |\n",
    "docs/loose.md": "Some text.\n\n- `@1`: one\n\n- `@2`: two\n\n- `@3`: three\n\n- `@4`: four\n",
    "docs/headings.md": "## @1\n\nText.\n\n## @2\n\nText.\n\n## @3\n\nText.\n\n## @4\n\nText.\n",
    "README.md": "It has @1, @2, @3 and\n@4.",
    "analysis/settings.toml": "estimators = ['@1', '@2', '@3', '@4']",
}
HARMLESS = {
    "toyiwae/three.py": "X = ['@1', '@2', '@3']\nY = '@4'\nZ = f('@1', '@4')",
    "toyiwae/apart.py": "def f():\n    assert m('@1') == m('@2')\n\ndef g():\n    assert m('@3') == m('@4')",
    "tests/test_same.py": "def f():\n    same(m('@1'), m('@2'))\n    same(m('@3'), m('@4'))",
    "tests/test_errors.py": "X = [('@1:x', 'bad @1'), ('@2:', 'use @3'), ('@4', 'not @5'), ('@3,,@4', '')]",
    "toyiwae/words.py": "X = ['@1_like', 'my-@2', '@3.py', 'x.@4', '/@1']",
    "docs/paragraphs.md": "About `@1`.\n\nAbout `@2` and `@3`.\n\nAbout `@4`.",
    "docs/_build/page.md": "@1 @2 @3 @4",
    "docs/results.md": "# Results\n\n<!-- written by: python -m analysis audit -->\n\n@1 @2 @3 @4",
    "tests/truth.json": "['@1', '@2', '@3', '@4']",
}


@pytest.mark.parametrize("file", [*PLANTED, *HARMLESS])
def test_planted_lists_are_found_and_mentions_let_be(file, tmp_path):
    text = re.sub(r"@(\d)", lambda match: NAMES[int(match[1])], {**PLANTED, **HARMLESS}[file])
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert list(second_lists(tmp_path)) == ([file] if file in PLANTED else [])
