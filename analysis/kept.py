"""Outcomes of studies on disk, so that a report that was stopped goes on, and a second one starts at once.

An outcome is taken again only where settings, the files they name, venue, code, bibliography, Python and installed
versions are those it was made with.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from analysis.runner import Outcome, check_texts
from analysis.settings import Settings
from analysis.sources import BIBLIOGRAPHY
from analysis.study import Claim, Study
from toyiwae.files import write_atomic

ROOT = Path(__file__).parents[1]
_NUMBERS = ("number", "low", "high", "expected")


@dataclass(frozen=True)
class Kept:
    """A folder of outcomes, a file for each study, written whole or not at all.

    Attributes:
        folder: made when the first outcome is kept.
        venue: whose style the figures have; None where only claims are wanted, which are the same in all.
    """

    folder: Path
    venue: str | None = "jmlr"

    def load(self, study: Study, settings: Settings) -> Outcome | None:
        """The outcome of an earlier run, exactly; None if there is none that is still right, or none that is whole.

        Whole is what can be shown and written: sources that exist, formulas that are read, file names without a folder.
        """
        try:
            found = json.loads((self.folder / f"{study.name}.json").read_bytes())
            wanted = self._key(settings)
            if found["key"] != wanted | ({} if self.venue else {"venue": found["key"]["venue"]}):
                return None
            files = {name: base64.b64decode(text) for name, text in found["files"].items()}
            if not all(_plain(name) for name in files):
                return None
            claims = tuple(_claim(values) for values in found["claims"])
            check_texts([found["caption"]], claims)
            return Outcome(study, settings, found["seconds"], claims, found["caption"], files)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # of another version, or no such file
            return None

    def save(self, outcome: Outcome) -> None:
        """Keeps an outcome, unless the study broke down.

        Raises:
            OSError: the folder cannot be written.
        """
        if outcome.error:
            return
        claims = [dataclasses.asdict(claim) for claim in outcome.claims]
        document = {
            "key": self._key(outcome.settings),
            "seconds": outcome.seconds,
            "caption": outcome.caption,
            "claims": [values | {name: _text(values[name]) for name in _NUMBERS} for values in claims],
            "files": {name: base64.b64encode(data).decode() for name, data in outcome.files.items()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / f"{outcome.study.name}.json", json.dumps(document).encode())

    def emptied(self) -> Kept:
        """The folder without outcomes."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        return self

    def _key(self, settings: Settings) -> dict[str, str]:
        read = "".join(map(_content, settings.reads()))
        return {
            "settings": settings.model_dump_json(),
            "venue": self.venue or "jmlr",
            "code": code(),
            "read": read,
        }


@cache
def code() -> str:
    """A digest of the sources of analysis and toyiwae, the bibliography, and the versions of Python and packages."""
    digest = hashlib.sha256(sys.version.encode() + BIBLIOGRAPHY.read_bytes())
    for package in ("analysis", "toyiwae"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    installed = {f"{one.metadata['Name']} {one.version}" for one in metadata.distributions()}
    digest.update("\n".join(sorted(installed)).encode())
    return digest.hexdigest()


def _content(path: Path) -> str:
    """A digest of a file, or of the names and contents of a folder's own files; of nothing where there is none."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _plain(name: str) -> bool:
    """Whether a name stays in the folder it is written to."""
    return Path(name).name == name and name not in ("", "..")


def _text(value: float | None) -> str | None:
    """A number with all its bits, infinities and NaN too."""
    return None if value is None else float(value).hex()


def _claim(values: dict[str, Any]) -> Claim:
    numbers = {name: None if values[name] is None else float.fromhex(values[name]) for name in _NUMBERS}
    return Claim(**values | numbers)
