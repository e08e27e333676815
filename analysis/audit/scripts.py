"""A script for each failure: what of the adapter's file the function needs, the check, and what it prints.

It needs toyiwae and the library, and for a divergence a clone. The audit runs it and shows what it printed.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from analysis.audit.judge import RAISES, Result
from analysis.audit.subjects import DIVERGENCE

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 540.0  # seconds
PRINTS = """    for check in report.failures[:8]:
        where = f"{check.parameter or 'call'} on {check.problem!r}, K={check.K}, M={check.M}"
        if check.shift_in_sd is None:
            print(check.name, where, check.reason or f"{check.estimate} instead of {check.truth}", sep="; ")
        else:
            print(
                f"{check.name} of {where}, coordinate {check.index}: {check.estimate:.6g}, exact {check.truth:.6g}"
                f" ({check.shift_in_sd:+.2g} standard deviations, {check.n} replicates)"
            )
"""


@dataclass(frozen=True)
class Script:
    """A script and what came of running it.

    Attributes:
        text: the script.
        printed: its standard output.
        error: the last line of standard error where it ended otherwise than it should.
        shows: whether it ended with exit code 1: the failure is there.
    """

    text: str
    printed: str
    error: str
    shows: bool


def script(result: Result) -> str:
    """The script for a result that fails."""
    subject = result.subject
    source = subject.library.file.read_text(encoding="utf-8")
    options = _options(result)
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    if subject.target.startswith(DIVERGENCE):
        call = (
            f"divergences.judge({subject.function}, {subject.target.removeprefix(DIVERGENCE)!r}, {arguments})"
        )
        imported = "from analysis.audit import divergences"
    else:
        call, imported = (
            f"toyiwae.check({subject.function}, {subject.target!r}, {arguments})",
            "import toyiwae",
        )
    end = f"    report = {call}\n    print(report.verdict)\n{PRINTS}    raise SystemExit(report.exit_code)\n"
    return f'{needed(source, subject.function)}\n\nif __name__ == "__main__":\n    {imported}\n\n{end}'


def _options(result: Result) -> dict[str, object]:
    """The light settings, at the K and M of the worst failure."""
    options = dict(result.subject.options(light=True))
    failed = [cell.worst for cell in result.cells.values() if cell.passed is False and cell.worst]
    means = [check for check in failed if check.tier == 2 and check.K]
    if means and result.verdict != RAISES:
        worst = max(means, key=lambda check: abs(check.shift_in_sd or 0.0))
        options |= {"K": worst.K, "M": worst.M}
    return options


def needed(source: str, function: str) -> str:
    """The statements of a file that a function needs, in their order, comments and spacing kept."""
    tree = ast.parse(source)
    lines = source.splitlines()
    statements = [node for node in tree.body if not isinstance(node, ast.If)]
    defined = {name: node for node in statements for name in _defines(node)}
    wanted: set[ast.stmt] = set()
    waiting = [defined[function]]
    while waiting:
        node = waiting.pop()
        if node in wanted:
            continue
        wanted.add(node)
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        waiting += [defined[name] for name in sorted(names & set(defined))]
    effects = {
        node for node in statements if isinstance(node, ast.Expr)
    }  # the docstring, settings of a library
    kept, text = [node for node in statements if node in wanted | effects], ""
    for before, node in zip([None, *kept], kept, strict=False):
        text += _space(before, node) + _text(lines, node)
    return text.rstrip("\n") + "\n"


def _text(lines: list[str], node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(lines[first - 1 : node.end_lineno]) + "\n"


def _space(before: ast.stmt | None, node: ast.stmt) -> str:
    """Blank lines between two statements."""
    if before is None:
        return ""
    kinds = [isinstance(n, ast.FunctionDef | ast.ClassDef) for n in (before, node)]
    imports = [isinstance(n, ast.Import | ast.ImportFrom) for n in (before, node)]
    return "\n\n" if any(kinds) else "" if imports[0] == imports[1] and all(imports) else "\n"


def _defines(node: ast.stmt) -> list[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return []


def run(text: str, file: Path) -> Script:
    """Runs a script from its file with this Python; it must end with exit code 1."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [sys.executable, str(file)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Script(text, "", f"it did not end within {LIMIT:g} s", shows=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return Script(text, done.stdout.strip(), last if not done.stdout else "", done.returncode == 1)
