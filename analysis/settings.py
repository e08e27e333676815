"""Settings of studies and cells: their base, a TOML file, `--set`, and how they are checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from toyiwae import files
from toyiwae.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of a study's settings: strict, closed, finite and frozen."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    def reads(self) -> tuple[Path, ...]:
        """Files and folders that these settings name; an outcome is taken again only while they hold the same."""
        return ()


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """Reads overrides from a file: one table per study, `[gap]`, `replicates = 1000`.

    Raises:
        InputError: if it cannot be read, is not TOML, or holds something other than tables.
    """
    found = files.read_toml(path)
    for name, table in found.items():
        if not isinstance(table, dict):
            raise InputError(
                f"{path.name}: {name} = {table!r} stands outside a table: expected it under [STUDY]"
            )
    return found


def read_assignments(
    assignments: Iterable[str], default_study: str | None = None
) -> dict[str, dict[str, Any]]:
    """Reads `--set` options: `STUDY.key=value`, or `key=value` where only one study runs.

    A value is TOML (`[1, 8, 64]`, `0.5`, `true`); what is not is taken as text.

    Raises:
        InputError: if there is no `=`, or no study is named and none is implied.
    """
    found: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        study, dot, key = name.strip().rpartition(".")
        study = study if dot else (default_study or "")
        if not equals or not key or not study:
            expected = "STUDY.key=value" if default_study is None else "key=value"
            raise InputError(f"--set {assignment}: expected {expected}")
        found.setdefault(study, {})[key] = files.toml_value(text.strip())
    return found


def validated(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """A record of settings, checked.

    Args:
        model: what they must be.
        values: what was given.
        where: how messages call them.

    Raises:
        InputError: one line that names the key, the value and what would be right.
    """

    def refuse(value: object) -> object:
        kind = type(value).__name__
        raise InputError(f"{where}: a value is a {kind}: expected numbers, texts, lists and booleans")

    try:  # as JSON, where a list may stand for a tuple and nothing else is converted
        return model.model_validate_json(json.dumps(values, default=refuse))
    except ValidationError as error:
        raise InputError(_explain(model, error, where)) from None


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> str:
    found = error.errors(include_url=False)
    first = next(
        (one for one in found if one["type"] == "extra_forbidden"), found[0]
    )  # it explains what is missing
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = list(model.model_fields)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return f"{where}: no setting {key}; {hint}"
    if first["type"] == "missing":
        return f"{where}: {key} is not given"
    return f"{where}: {key} = {first['input']!r}: {first['msg']}"
