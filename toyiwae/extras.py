"""Optional dependencies: imported where they are needed, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from toyiwae.errors import MissingExtraError


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports an optional dependency.

    Args:
        module: what to import, e.g. ``"torch"``.
        extra: the extra of toyiwae that installs it.
        purpose: what needs it, e.g. ``"toyiwae estimate"``.

    Raises:
        MissingExtraError: if the module is not installed; one that is there but broken raises as it does.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'toyiwae[{extra}]'"
        ) from None
