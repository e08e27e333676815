"""What all tests share: the annotations of the package are checked at run time (beartype)."""

import os
import pathlib
import sys
import typing
from collections.abc import Iterator

import hypothesis
import pytest

from tests import checked_imports
from tests.remembered import Remembered

# Before a test imports toyiwae, and under pytest only: such checks and `torch.compile` do not go together.
checked_imports.install("toyiwae")

# The same examples on every run, and no deadline on a busy machine.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def _registry_is_left_as_it_was() -> Iterator[None]:
    """An estimator that a test leaves behind changes tables and figures of whatever test comes after it."""
    registry = sys.modules.get("toyiwae.estimators.registry")
    before = registry.names() if registry else ()
    yield
    if registry:
        assert registry.names() == before, (
            "a test's estimator stays in the registry: let monkeypatch take it out"
        )


@pytest.fixture(scope="session")
def _answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[typing.Any, str, Remembered]]:
    """Functions behind the truths of conformance, remembered in a folder that all workers of a run share."""
    from toyiwae.conformance.truths import linear_gaussian, values
    from toyiwae.truth import fourth_moments

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "answers"
    folder.mkdir(exist_ok=True)

    def of_exact(problem, *, K, M, estimators, parameters):
        return problem.content_hash, K, M, [(e.name, e.form) for e in estimators], parameters

    def of_gradients(whitened, form, names, particles):
        score = (
            form.score,
            form.log_evidence,
            form.leave_one_out,
            form.leave_one_out_geometric,
            form.constant,
        )
        part = (form.path, score) if names[0].startswith("proposal") else form.model
        return whitened.problem.content_hash, form.exponent, part, names, particles

    def of_value(whitened, bound, K, M):
        return whitened.problem.content_hash, bound, K, M

    return [
        (module, name, Remembered(getattr(module, name), key_of, folder))
        for module, name, key_of in (
            (linear_gaussian, "exact", of_exact),
            (fourth_moments, "gradients", of_gradients),
            (values, "fourth_moments_of", of_value),
        )
    ]


@pytest.fixture
def remembered_truths(_answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that judge many estimators on the same problems: each exact answer is computed once in a run."""
    for module, name, remembered in _answers:
        monkeypatch.setattr(module, name, remembered)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of an uninterrupted training."""
    from tests.short_runs import short

    folder = tmp_path_factory.mktemp("runs") / "whole"
    short(folder)
    return folder


@pytest.fixture
def broken_off(whole: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it that ended in the middle of an epoch."""
    from tests import short_runs

    return short_runs.broken_off(whole, tmp_path / "run")
