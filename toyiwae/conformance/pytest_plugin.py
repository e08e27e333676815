"""The pytest plugin: the checks of one estimator as pytest items.

    pytest --toyiwae-estimator my_estimators.py:dreg --toyiwae-target dreg

pytest loads this module in every session of an environment that has toyiwae; so it imports nothing but Python's
own, and everything else when `--toyiwae-estimator` is given.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

_ITEMS = "toyiwae.conformance.pytest_items"


def pytest_addoption(parser: Any) -> None:
    """The options, all with the prefix --toyiwae."""
    group = parser.getgroup("toyiwae", "conformance of a gradient estimator")
    group.addoption("--toyiwae-estimator", metavar="FILE:NAME", help="the estimator to check")
    group.addoption("--toyiwae-target", metavar="T", help="what it claims to be; its NAME if not given")
    group.addoption("--toyiwae-form", default="replicates", help="replicates, coefficients or surrogate")
    group.addoption("--toyiwae-vary-seed", action="store_true", help="another seed in every run")
    group.addoption(
        "--toyiwae-expected-failures", metavar="FILE", help="ids of checks that must fail, one in a line"
    )


def pytest_configure(config: Any) -> None:
    """Draws the seed, where it is to vary."""
    if config.getoption("--toyiwae-vary-seed", default=False):
        config.toyiwae_seed = int.from_bytes(os.urandom(4), "big")


def pytest_collection_modifyitems(session: Any, config: Any, items: list[Any]) -> None:
    """Adds the checks."""
    if config.getoption("--toyiwae-estimator", default=None):
        items.extend(importlib.import_module(_ITEMS).collect(session, config))


def pytest_report_header(config: Any) -> list[str]:
    """Family-wise error rate and minimum detectable effect."""
    if not config.getoption("--toyiwae-estimator", default=None):
        return []
    return importlib.import_module(_ITEMS).header(config)
