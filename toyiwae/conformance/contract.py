"""Calling what the user wrote: arrays of any library come in, and whatever goes wrong comes out as a finding.

    values, gradients = estimator(problem, K=K, M=M, replicates=R, seed=seed)

`values` is `[R]` (or None: not judged), `gradients` maps parameter names to `[R, *shape]`; what is left out is
not judged.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toyiwae.checks import nearest
from toyiwae.conformance import particles
from toyiwae.errors import InputError
from toyiwae.forms import Coefficients
from toyiwae.problem import Problem

Replicates = Callable[..., Any]


class Finding(Exception):
    """What a call did wrong: `kind` is the name of the check that fails."""

    def __init__(self, kind: str, message: str):
        """Takes both; whoever knows it adds the seed that reproduces the call."""
        super().__init__(message)
        self.kind, self.message = kind, message
        self.seed: int | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Replicates as float64 arrays: "value" `[R]` and parameters `[R, *shape]`; `digits` are the dtype's."""

    arrays: dict[str, np.ndarray]
    digits: int


def as_array(value: Any) -> tuple[np.ndarray, int]:
    """An array of any library as float64 on the CPU, and the decimal digits that its dtype carried."""
    if hasattr(value, "detach"):
        value = value.detach()
    kind = str(getattr(value, "dtype", "float64"))
    if "bfloat16" in kind and hasattr(value, "float"):
        value = value.float()
    if hasattr(value, "cpu") and callable(value.cpu):
        value = value.cpu()
    digits = 2 if "bfloat16" in kind else 3 if "16" in kind else 6 if "32" in kind else 15
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.from_dlpack(value)
    if array.dtype.kind not in "iufV" and "float" not in str(array.dtype):
        raise TypeError(f"an array of dtype {array.dtype}, not of real numbers")
    return array.astype(np.float64), digits


def call(estimator: Replicates, problem: Problem, K: int, M: int, replicates: int, seed: int) -> Sample:
    """One call of the user's estimator, checked.

    Raises:
        Finding: an exception, a wrong shape or name, a number that is not finite.
    """
    before = problem.content_hash
    try:
        with contextlib.redirect_stdout(sys.stderr), np.errstate(all="ignore"):
            answer = estimator(problem, K=K, M=M, replicates=replicates, seed=seed)
    except KeyboardInterrupt:
        raise
    except Finding:
        raise
    except BaseException as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise Finding("no exception", f"it raised {message[:300]}") from error
    if problem.content_hash != before:
        raise Finding("inputs untouched", "it changed the problem's arrays")
    return _checked(answer, problem, replicates)


def _checked(answer: Any, problem: Problem, replicates: int) -> Sample:
    """The answer as arrays of the right shapes."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        kind = type(answer).__name__
        raise Finding("shapes", f"it returned a {kind}: expected (values [R], {{parameter: [R, ...]}})")
    values, gradients = answer
    unknown = [name for name in gradients if name not in problem.parameters]
    if unknown:
        raise Finding("shapes", f"gradient of {unknown[0]!r}: {nearest(str(unknown[0]), problem.parameters)}")
    wanted = {name: problem.parameters[name] for name in problem.parameters if name in gradients}
    given = {name: (gradients[name], shape) for name, shape in wanted.items()}
    if values is not None:
        given = {"value": (values, ()), **given}
    if not given:
        raise Finding("shapes", "it returned neither values nor gradients: nothing can be judged")
    arrays, digits = {}, 15
    for name, (raw, shape) in given.items():
        try:
            arrays[name], carried = as_array(raw)
        except Exception as error:
            raise Finding("shapes", f"{name} is not an array of real numbers: {error}") from error
        digits = min(digits, carried)
        if arrays[name].shape != (replicates, *shape):
            expected = (replicates, *shape)
            raise Finding("shapes", f"{name} has shape {arrays[name].shape}: expected {expected}")
    for name, array in arrays.items():
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise Finding("finite", f"{name}: {bad} of {array.size} numbers are not finite")
    return Sample(arrays, digits)


def from_coefficients(function: Callable[[Any], Any]) -> Replicates:
    """Replicates of a formula `log_w [..., M, K] -> (model, path, score)`, by the suite's own sampler."""

    def estimator(problem: Problem, *, K: int, M: int, replicates: int, seed: int):
        drawn = particles.draw(problem, K, M, replicates, seed)
        return None, drawn.gradients(evaluated(function, drawn.log_w))

    return estimator


def evaluated(function: Callable[[Any], Any], log_w: np.ndarray) -> Coefficients:
    """The formula's answer as coefficients of the right shape.

    Raises:
        Finding: another shape or kind.
    """
    answer = function(log_w)
    parts = (answer.model, answer.path, answer.score) if hasattr(answer, "score") else answer
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        raise Finding("shapes", "expected three arrays (model, path, score), each shaped like log_w")
    made = []
    for name, part in zip(("model", "path", "score"), parts, strict=True):
        array = as_array(part)[0]
        if array.shape not in ((), log_w.shape):
            raise Finding("shapes", f"{name} has shape {array.shape}: expected {log_w.shape}")
        made.append(np.broadcast_to(array, log_w.shape))
    return Coefficients(*made)


def load(spec: str) -> Callable[..., Any]:
    """The function that `FILE:NAME` names; the file is run.

    Raises:
        InputError: no such file or name, or an error while the file is run.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path)
    if not path or not file.is_file():
        raise InputError(f"estimator {spec!r}: expected FILE:NAME, and there is no file {path!r}")
    key = f"toyiwae_checked_{file.stem}"
    source = importlib.util.spec_from_file_location(key, file)
    if source is None or source.loader is None:
        raise InputError(f"estimator {spec!r}: {path!r} is not a Python file")
    module = sys.modules[key] = importlib.util.module_from_spec(source)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            source.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"estimator {spec!r}: running {path!r} failed: {message}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"estimator {spec!r}: {path!r} defines no function {name!r}: {nearest(name, known)}")
    return found


def seed_of(seed: int, *key: object) -> int:
    """A seed below 2³¹ for one call, from the seed of the run and what the call is for."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def global_state() -> tuple[Any, ...]:
    """The state of the global random generators of NumPy and (if it is loaded) torch.

    Python's own is left out: run-time type checkers draw from it.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002 - to see that nobody moved it
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state().numpy().tobytes() if torch is not None else b""
    return numpy_state[1].tobytes(), numpy_state[2], torch_state  # pyright: ignore
