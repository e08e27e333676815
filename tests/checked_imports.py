"""Imports of a package with the annotations of its functions, methods and dataclasses checked at run time."""

import ast
import importlib._bootstrap_external as machinery  # pyright: ignore[reportMissingImports]
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, get_type_hints
from unittest import mock

import beartype
import numpy as np
from beartype.roar import BeartypeDecorHintPep673Exception

NUMBERS = {int: int | np.integer, float: float | int | np.floating | np.integer}
CHECKED = beartype.BeartypeConf(hint_overrides=beartype.FrozenDict(NUMBERS))
TAG = "checked2"  # of the byte code in __pycache__; another one wherever what is decorated changes


def checked(what: Any) -> Any:
    """`beartype` for a function, or for the constructor of a dataclass, whose annotations can be resolved.

    Names that are imported for type checkers only cannot be, nor can a class within itself, nor `Self`; those stay as
    they are, and pyright alone looks at them.
    """
    if isinstance(what, type):
        if is_dataclass(what) and "__init__" in vars(what):
            what.__init__ = checked(what.__init__)
        return what
    try:
        get_type_hints(what)
        return beartype.beartype(conf=CHECKED)(what)
    except (NameError, BeartypeDecorHintPep673Exception):
        return what


class _Decorated(ast.NodeTransformer):
    """Puts `checked` below all decorators of a function, and above those of a class.

    Closures stay as they are, and so do functions that a compiler reads (`triton.jit`, `numba.njit`).
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if not any("jit" in ast.unparse(decorator) for decorator in node.decorator_list):
            node.decorator_list.append(ast.Name("__checked__", ast.Load()))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list.insert(0, ast.Name("__checked__", ast.Load()))
        return self.generic_visit(node)


class _Loader(SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # pyright: ignore
        tree = ast.fix_missing_locations(_Decorated().visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> Any:
        plain = machinery.cache_from_source
        with mock.patch.object(machinery, "cache_from_source", lambda path: plain(path, optimization=TAG)):
            return super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__checked__"] = checked
        super().exec_module(module)


class _Finder(PathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(  # pyright: ignore
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str) -> None:
    """From now on imports of the package and of all in it are checked."""
    sys.meta_path.insert(0, _Finder(package))
