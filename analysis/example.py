"""The problem of the documentation, on which several studies meet: two latents, one observation, all moments finite."""

from pathlib import Path

import toyiwae
from toyiwae import Problem

FILE = Path(__file__).resolve().parents[1] / "docs" / "problem.toml"


def problem() -> Problem:
    """What `docs/problem.toml` says."""
    found = toyiwae.load(FILE)
    assert isinstance(found, Problem)
    return found
