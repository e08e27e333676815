"""What the frozen records of input have in common: content as identity, plain data in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError


class Record:
    """Equality and hash by content; copies and pickles stay checked and read-only."""

    @property
    def content_hash(self) -> str:
        """SHA-256 (hexadecimal) over the names, shapes and values of all fields; equal for equal records."""
        digest = hashlib.sha256(type(self).__name__.encode())
        for name, value in self.given().items():
            if isinstance(value, np.ndarray):
                content = repr(value.shape).encode() + value.astype("<f8").tobytes()
            else:
                content = b"" if value is None else value.content_hash.encode()
            digest.update(f"|{name}|{len(content)}|".encode() + content)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        """Same type and same content."""
        return type(other) is type(self) and other.content_hash == self.content_hash  # pyright: ignore

    def __hash__(self) -> int:
        """Hash of the content."""
        return int(self.content_hash[:15], 16)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the call that makes the record, since NumPy does not pickle the read-only flag."""
        return type(self), tuple(self.given().values())

    def given(self) -> dict[str, Any]:
        """What makes the record: field -> value, None where it was left out."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore

    def _set(self, **arrays: np.ndarray | None) -> None:
        for name, array in arrays.items():
            object.__setattr__(self, name, array)


class Sections(Record):
    """A record of records of arrays, such as a problem: each part is a section of its file.

    A subclass lists its parts in `sections`, in the order of its fields; a part lists in `optional` those of
    its fields that may be left out.
    """

    sections: ClassVar[dict[str, type]]

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], where: str | None = None) -> Self:
        """The record from plain data: section -> key -> number, list or list of lists.

        Args:
            tables: the sections.
            where: how messages call them; by default by the record's name.

        Raises:
            InputError: for a missing or unknown section or key (with the nearest name), and as the parts do.
        """
        checks.keys(tables, where or cls.__name__, list(cls.sections))
        parts: dict[str, Any] = {}
        for name, kind in cls.sections.items():
            optional = getattr(kind, "optional", ())
            required = [field.name for field in fields(kind) if field.name not in optional]
            checks.keys(tables[name], f"[{name}]", required, optional)
            parts[name] = kind(**tables[name])
        return cls(**parts)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain nested lists; `from_dict` takes them back to an equal record, to the last bit."""
        return {
            section: {key: array.tolist() for key, array in entries.items()}
            for section, entries in self.tables().items()
        }

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """The arrays: section -> key -> array, without the keys that were left out."""
        tables: dict[str, dict[str, np.ndarray]] = {}
        for section in self.sections:
            part: Record = getattr(self, section)
            tables[section] = {key: array for key, array in part.given().items() if array is not None}
        return tables

    def _check_parts(self) -> None:
        for name, kind in self.sections.items():
            if not isinstance(getattr(self, name), kind):
                value = checks.shown(getattr(self, name))
                raise InputError(f"{name} is {value}: expected a {kind.__name__}")
