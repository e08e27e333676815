"""Calling what the user wrote: arrays of any library come in, and whatever goes wrong comes out as a violation.

    values, gradients = estimator(problem, K=K, M=M, replicates=R, seed=seed)

`values` is `[R]` (or None: not judged), `gradients` maps parameter names to `[R, *shape]`; what is left out is
not judged.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toyiwae.checks import nearest
from toyiwae.conformance.bank.nonlinear import NonlinearProblem
from toyiwae.conformance.report import Check
from toyiwae.errors import InputError
from toyiwae.estimators import registry, usercode
from toyiwae.estimators.usercode import UserCodeError, said
from toyiwae.problems.linear_gaussian import Problem

Replicates = Callable[..., Any]

_LARGEST = 1e75  # whose fourth power the tests can still take


class Violation(Exception):
    """What a call did wrong: `kind` is the name of the check that fails."""

    def __init__(self, kind: str, message: str):
        """Takes both; whoever knows it adds the seed that reproduces the call."""
        super().__init__(message)
        self.kind, self.message = kind, message
        self.seed: int | None = None

    def check(self, where: Mapping[str, Any]) -> Check:
        """The failed check, of tier 0 unless `where` says otherwise."""
        failed = {"name": self.kind, "passed": False, "reason": self.message}
        return Check(**{"tier": 0, "seed": self.seed, **where, **failed})


@dataclass(frozen=True, eq=False)
class Sample:
    """Replicates of one call.

    Attributes:
        arrays: float64: "value" `[R]` and parameters `[R, *shape]`.
        digits: decimal digits that the least precise dtype carries.
        global_noise: whether the call drew from a global random generator.
    """

    arrays: dict[str, np.ndarray]
    digits: int
    global_noise: bool = False


def as_array(value: Any) -> tuple[np.ndarray, int]:
    """An array of any library as float64 on the CPU, and the decimal digits that its dtype carried.

    Raises:
        TypeError: no real numbers; or whatever the array raises itself.
    """
    kind = str(getattr(value, "dtype", "float64"))
    digits = 2 if "bfloat16" in kind else 3 if "16" in kind else 6 if "32" in kind else 15
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    only_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
    array = np.from_dlpack(value) if only_dlpack else np.asarray(value)
    if array.dtype.kind not in "iufV" and "float" not in str(array.dtype):
        raise TypeError(f"an array of dtype {array.dtype}, not of real numbers")
    return array.astype(np.float64), digits


T = TypeVar("T")


def guarded(run: Callable[[], T], kind: str = "no exception", what: str = "it raised") -> T:
    """Runs what the user wrote, or what touches the user's objects; see `toyiwae.estimators.usercode.run`.

    Raises:
        Violation: for anything that was raised, `sys.exit` included.
        KeyboardInterrupt: as it is.
    """
    try:
        return usercode.run(run)
    except UserCodeError as error:
        cause = error.__cause__
        if isinstance(cause, Violation):
            raise cause from None
        raise Violation(kind, f"{what} {error}") from cause


def call(
    estimator: Replicates, problem: Problem | NonlinearProblem, K: int, M: int, replicates: int, seed: int
) -> Sample:
    """One call of the user's estimator, checked.

    Raises:
        Violation: an exception, a wrong shape or name, a number that is not finite.
    """
    before, generators = problem.content_hash, global_state()
    answer = guarded(lambda: estimator(problem, K=K, M=M, replicates=replicates, seed=seed))
    if problem.content_hash != before:
        raise Violation("inputs untouched", "it changed the problem's arrays")
    drew = global_state() != generators
    read = guarded(
        lambda: _checked(answer, problem, replicates), "shapes", "what it returned cannot be read:"
    )
    return replace(read, global_noise=drew)


def _checked(answer: Any, problem: Problem | NonlinearProblem, replicates: int) -> Sample:
    """The answer as arrays of the right shapes."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        kind = type(answer).__name__
        raise Violation("shapes", f"it returned a {kind}: expected (values [R], {{parameter: [R, ...]}})")
    values, gradients = answer
    unknown = [name for name in gradients if name not in problem.parameters]
    if unknown:
        raise Violation(
            "shapes", f"gradient of {unknown[0]!r}: {nearest(str(unknown[0]), problem.parameters)}"
        )
    wanted = {name: problem.parameters[name] for name in problem.parameters if name in gradients}
    given = {name: (gradients[name], shape) for name, shape in wanted.items()}
    if values is not None:
        given = {"value": (values, ()), **given}
    if not given:
        raise Violation("shapes", "it returned neither values nor gradients: nothing can be judged")
    arrays, digits = {}, 15
    for name, (raw, shape) in given.items():
        try:
            arrays[name], carried = as_array(raw)
        except Exception as error:
            raise Violation("shapes", f"{name} is not an array of real numbers: {said(error)}") from error
        digits = min(digits, carried)
        if arrays[name].shape != (replicates, *shape):
            expected = (replicates, *shape)
            raise Violation("shapes", f"{name} has shape {arrays[name].shape}: expected {expected}")
    for name, array in arrays.items():
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise Violation("finite", f"{name}: {bad} of {array.size} numbers are not finite")
        if (largest := np.abs(array).max(initial=0.0)) > _LARGEST:
            raise Violation(
                "finite", f"{name}: a number of size {largest:.3g}, whose fourth power is beyond float64"
            )
    return Sample(arrays, digits)


def load(spec: str) -> Callable[..., Any]:
    """The function that `FILE:NAME` names; the file is run.

    Raises:
        InputError: no such file or name, or an error while the file is run.
    """
    path, _, name = spec.rpartition(":")
    if not path:
        raise InputError(f"estimator {spec!r}: expected FILE:NAME, and there is no file {path!r}")
    module = registry.run_file(spec, Path(path))
    function = vars(module).get(name)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"estimator {spec!r}: {path!r} defines no function {name!r}: {nearest(name, known)}")
    return function


def seed_of(seed: int, *key: object) -> int:
    """A seed below 2³¹ for one call, from the seed of the run and what the call is for."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def global_state() -> tuple[Any, ...]:
    """The state of the global random generators of NumPy and (if it is loaded) torch.

    Python's own is left out: run-time type checkers draw from it.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002 - to see that nobody drew from it
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state().numpy().tobytes() if torch is not None else b""
    return numpy_state[1].tobytes(), numpy_state[2], torch_state  # pyright: ignore
