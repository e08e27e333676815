"""Conformance: checks of anyone's gradient estimator against exact answers.

`toyiwae.check` judges one estimator; `parametrize_with_checks` makes its checks the tests of one's own test file.
Names load when first used, so that a pytest session that only has the plugin installed pays nothing.
"""

import importlib

_HOME = {
    "check": "api",
    "parametrize_with_checks": "pytest_parametrize",
    "Check": "report",
    "CheckReport": "report",
}
__all__ = ["Check", "CheckReport", "check", "parametrize_with_checks"]  # pyright: ignore


def __getattr__(name: str) -> object:
    """Import a name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
