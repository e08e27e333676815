"""Where rows come from: versions, platform and commit."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
from importlib import metadata
from pathlib import Path

from toyiwae import records


@functools.cache
def origin() -> str:
    """Where the rows come from that this process computes: versions, platform and commit, as JSON."""
    found = records.provenance()
    found.pop("arguments")
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["torch"] = metadata.version("torch")
    return json.dumps(found | {"commit": _commit()}, sort_keys=True)


def _commit() -> str | None:
    """The commit of the working copy, marked if it has changed since; None outside of one."""

    def git(*words: str) -> str:
        home = Path(__file__).parent
        done = subprocess.run(
            ["git", *words], cwd=home, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changed" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
