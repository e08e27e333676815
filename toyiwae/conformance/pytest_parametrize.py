"""`parametrize_with_checks`: the suite inside one's own test file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest

from toyiwae.conformance.api import check
from toyiwae.conformance.pytest_items import describe
from toyiwae.conformance.report import Check, CheckReport


class Judged:
    """What the decorated test calls: it raises AssertionError where the check failed, skips where it was refused."""

    def __init__(self, run: Callable[[], CheckReport], tier: int):
        """Takes the run of the suite, which happens at the first call, and the tier."""
        self._run, self._tier = run, tier

    @property
    def checks(self) -> list[Check]:
        """The checks of the tier."""
        return [found for found in self._run().checks if found.tier == self._tier]

    def __call__(self) -> None:
        """Judges the tier.

        Raises:
            AssertionError: naming the first failure.
        """
        failed = [found for found in self.checks if found.passed is False]
        assert not failed, f"{len(failed)} checks failed, the first:\n{describe(failed[0])}"
        if not any(found.passed for found in self.checks):
            pytest.skip(
                next((found.reason for found in self.checks if found.reason), "nothing to judge") or ""
            )


def parametrize_with_checks(estimators: Iterable[tuple[Callable[..., Any], str]], **options: Any) -> Any:
    """Decorates a test `def test_conforms(check): check()`; it runs once for each estimator and tier.

    Args:
        estimators: pairs of a function and its target, e.g. `[(my_dreg, "dreg")]`.
        options: of `toyiwae.check`.
    """
    cases = []
    for function, target in estimators:
        run = cache(lambda function=function, target=target: check(function, target, **options))
        name = getattr(function, "__name__", target)
        cases += [pytest.param(Judged(run, tier), id=f"{name}-tier{tier}") for tier in range(5)]
    return pytest.mark.parametrize("check", cases)
