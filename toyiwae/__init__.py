"""Importance-weighted bounds and their gradient estimators, confronted with exact answers.

The public names and the modules they live in stand in the stub beside this file, `__init__.pyi`, which is the
only list of them: type checkers read it, and so does this module, which imports a name when it is first used
(PEP 562). So `import toyiwae` loads neither NumPy nor SciPy, and torch only when something samples.
"""

import ast
import importlib
import sys
from pathlib import Path

__version__ = "0.1.0"


def _public_names() -> dict[str, tuple[str, str]]:
    """Public name -> module that defines it and its name there, read from the stub."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {a.asname or a.name: (str(node.module), a.name) for node in imports for a in node.names}


_HOME = _public_names()
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'toyiwae' has no attribute {name!r}")
    module, there = _HOME[name]
    home = importlib.import_module(module)
    own = there in vars(home) and home is not sys.modules[__name__]
    value = globals()[name] = getattr(home, there) if own else importlib.import_module(f"{module}.{there}")
    return value


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
