"""The rules of the house: which module may import which, what an import costs, what stands where.

Imports point down: between the rooms of the package, between the rooms of the oracle, and between the files of a room.
An import for type checkers only counts as any other.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

import toyiwae

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "toyiwae"

FLOORS = {
    0: "arguments checks errors extras files forms locks memory records signals stats weights",
    1: "estimators problems",
    2: "oracle",
    3: "montecarlo surrogate truth plot",
    4: "conformance networks",
    5: "cli __main__",
}
FLOOR = {unit: floor for floor, units in FLOORS.items() for unit in units.split()}
ORACLE = {0: "laws closed_form", 1: "whitened finite_k", 2: "enclosure", 3: "series"}
ORACLE_FLOOR = {room: floor for floor, rooms in ORACLE.items() for room in rooms.split()}
MOST_FLOORS = 8  # that a reader climbs through inside one room, at most
TORCH = {"montecarlo", "surrogate", "networks", "cli"}  # these may import it; cli to say it is missing
TORCH_FILES = {"toyiwae.conformance.calling.torch_surrogate"}
LATE = {"scipy", "sympy", "rich", "importlib"}  # always there, but slow to import
TOP_LEVEL = set(
    """
    toyiwae analysis tests docs .ci pyproject.toml constraints.txt Makefile README.md CHANGELOG.md
    CITATION.cff LICENSE .gitignore .gitattributes .editorconfig .pre-commit-config.yaml
    """.split()
)


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every module of the package."""
    files = [file.relative_to(ROOT) for file in sorted(PACKAGE.rglob("*.py"))]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): ROOT / file for file in files}


def unit(module: str) -> str:
    """The module or sub-package directly below toyiwae that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, names: set[str], package: str) -> Iterator[tuple[str, bool]]:
    """Every import in a source: the module imported, and whether that happens inside a function.

    `from toyiwae import forms` counts as toyiwae.forms, so does a relative import, and
    `import_extra("torch")` as torch, and what stands under `if TYPE_CHECKING:`.
    """
    tree = ast.parse(source)
    functions = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inside = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in names else base), node in inside
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_extra"):
            yield ast.literal_eval(node.args[0]), node in inside


@cache
def imported_by(module: str) -> list[tuple[str, bool]]:
    """What a module of the package imports, and whether inside a function."""
    file = modules()[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return list(imports(file.read_text(encoding="utf-8"), set(modules()), package))


def optional_packages() -> set[str]:
    """Import names of what the extras install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [item for items in project["optional-dependencies"].values() for item in items]
    names = {re.split(r"[\[<>=~! ]", item)[0].replace("-", "_") for item in wanted}
    return names | {"sklearn", "pyro", "jax"}


def test_every_module_stands_on_a_floor():
    homeless = {unit(module) for module in modules() if module != "toyiwae"} - set(FLOOR)
    assert not homeless, f"give these a floor in FLOORS: {sorted(homeless)}"


def test_every_folder_of_modules_is_a_package():
    assert not {file.parent for file in PACKAGE.rglob("*.py") if not (file.parent / "__init__.py").is_file()}


def offenders(found: Callable[[str], Collection[str]]) -> dict[str, Collection[str]]:
    """Module -> what is found in it, of all modules below toyiwae where that is something."""
    return {module: wrong for module in sorted(set(modules()) - {"toyiwae"}) if (wrong := found(module))}


def test_imports_point_down():
    def from_above(module: str) -> set[str]:
        targets = {target for target, _ in imported_by(module) if target.startswith("toyiwae.")}
        upward = {target for target in targets if FLOOR[unit(target)] > FLOOR[unit(module)]}
        return upward | (targets & {"toyiwae.cli.main"} if not module.endswith("__main__") else set())

    assert offenders(from_above) == {}


@cache
def module_graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports; a package's own `__init__` counts only if named."""
    return {m: {t for t, _ in imported_by(m) if t in modules() and t != m} for m in modules()}


def floors(graph: dict[str, set[str]]) -> list[set[str]]:
    """The nodes of a graph by floor, each importing from floors below alone; AssertionError if it has a circle."""
    found: list[set[str]] = []
    while graph:
        leaves = {node for node, targets in graph.items() if not targets}
        assert leaves, f"these import each other: {sorted(graph)}"
        found.append(leaves)
        graph = {node: targets - leaves for node, targets in graph.items() if node not in leaves}
    return found


def test_no_import_cycle():
    floors(module_graph())


def test_the_oracle_has_rooms_on_floors():
    inside = {module for module in modules() if module.startswith("toyiwae.oracle.")}
    assert {module.split(".")[2] for module in inside} == set(ORACLE_FLOOR)
    assert len(ORACLE_FLOOR) <= 6
    assert len(ORACLE) <= 5
    for module in sorted(inside):
        room = module.split(".")[2]
        targets = {target.split(".")[2] for target, _ in imported_by(module) if target in inside}
        upward = {other for other in targets - {room} if ORACLE_FLOOR[other] >= ORACLE_FLOOR[room]}
        assert not upward, f"{module} imports from {sorted(upward)}, which do not stand below {room}"


def test_a_room_has_few_floors():
    """How many files a reader climbs through, at most, inside one folder."""
    high = {}
    for room in sorted({m.rpartition(".")[0] for m in modules() if m.count(".") > 1}):
        inside = {module for module in modules() if module.rpartition(".")[0] == room}
        graph = {module: targets & inside for module, targets in module_graph().items() if module in inside}
        if (count := len(floors(graph))) > MOST_FLOORS:
            high[room] = count
    assert high == {}


def test_circles_are_seen():
    with pytest.raises(AssertionError, match="import each other"):
        floors({"a": {"b"}, "b": {"a"}, "c": set()})
    assert floors({"a": {"b"}, "b": set()}) == [{"b"}, {"a"}]


def test_no_file_is_long():
    lines = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in modules().items()}
    assert {module: count for module, count in lines.items() if count > 300} == {}


def test_torch_stays_where_it_belongs():
    def of_torch(module: str) -> set[str]:
        allowed = unit(module) in TORCH or module in TORCH_FILES
        return set() if allowed else {t for t, _ in imported_by(module) if t.split(".")[0] == "torch"}

    assert offenders(of_torch) == {}


def test_the_oracle_knows_no_estimator():
    def of_estimators(module: str) -> set[str]:
        return {t for t, _ in imported_by(module) if unit(module) == "oracle" and unit(t) == "estimators"}

    assert offenders(of_estimators) == {}


def test_imports_inside_functions_are_of_optional_or_slow_packages():
    slow = optional_packages() | LATE

    def needless(module: str) -> set[str]:
        allowed = slow | ({"toyiwae"} if unit(module) == "cli" else set())
        return {t for t, inside in imported_by(module) if inside and t.split(".")[0] not in allowed}

    assert offenders(needless) == {}


def test_the_import_reader_sees_every_spelling():
    source = """
import toyiwae.forms
from toyiwae import truth
from . import laws
from .. import montecarlo
from ..estimators import registry
def f():
    import torch.nn as nn
    pandas = import_extra("pandas", extra="analysis")
if TYPE_CHECKING:
    import xarray
"""
    names = {"toyiwae.truth", "toyiwae.oracle.laws", "toyiwae.montecarlo", "toyiwae.estimators.registry"}
    assert set(imports(source, names, "toyiwae.oracle")) == {
        ("toyiwae.forms", False),
        *((name, False) for name in names),
        ("torch.nn", True),
        ("pandas", True),
        ("xarray", False),
    }


def loaded_by(code: str) -> set[str]:
    """Root packages, and modules of toyiwae, that a fresh interpreter has loaded after running some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return {name if name.startswith("toyiwae") else name.split(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize("code", ["import toyiwae", "import toyiwae; dir(toyiwae); toyiwae.ToyiwaeError"])
def test_import_is_light(code):
    assert not loaded_by(code) & {
        "numpy",
        "scipy",
        "torch",
        "numba",
        "sympy",
        "matplotlib",
        "pandas",
        "typer",
        "rich",
    }


def test_the_oracle_loads_neither_torch_nor_estimators():
    oracle = [module for module in modules() if unit(module) == "oracle"]
    loaded = loaded_by("\n".join(f"import {module}" for module in oracle))
    assert set(oracle) <= loaded
    assert "torch" not in loaded
    assert not {module for module in loaded if unit(module) == "estimators"}


def test_exact_answers_need_no_torch():
    code = "import toyiwae; toyiwae.exact, toyiwae.load, toyiwae.estimators.names()"
    assert not loaded_by(code) & {"torch", "numba", "matplotlib", "pandas", "sympy"}


@pytest.mark.parametrize("name", toyiwae.__all__)
def test_public_names_exist_and_are_documented(name):
    documentation = getattr(toyiwae, name).__doc__
    assert documentation
    assert documentation.strip()
    assert name in dir(toyiwae)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'exactly'"):
        toyiwae.exactly  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def docstrings(tree: ast.AST) -> Iterator[str]:
    """All docstrings of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def test_the_top_level_holds_only_what_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone")
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL
