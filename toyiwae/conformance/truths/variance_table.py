"""Variances without a closed form, from the table shipped with the package.

    python -m toyiwae.conformance.truths.variance_table        # makes what the table lacks, in some minutes

The table holds, for every registered Form whose proposal gradient has logarithms in its score, and for every
problem and K of the bank, the variance at M = 1 by Monte Carlo with its standard error. With M groups it is 1/M
of that.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.bank import Entry, bank
from toyiwae.estimators import Estimator, evaluate, registry
from toyiwae.stats import Stream

TABLE = Path(__file__).with_name("variance_table.json")
REPLICATES, CHUNK, SEED = 4_000_000, 20_000, 20_240_501
ERRORS = 4.0  # standard errors that count as the bound on a tabled variance's error


@dataclass(frozen=True)
class Tabled:
    """One replicate's variance at one group, the bound on its error, and a bound on its kurtosis."""

    var: np.ndarray
    var_error: np.ndarray
    kurtosis: np.ndarray


def lookup(entry: Entry, claimed: Estimator, K: int, parameter: str) -> Tabled | None:
    """What the table has; None if nothing.

    The standard error of a sample variance is `√((kurtosis − 1)/n)` of it, which gives the kurtosis back. As that
    of a heavy tail is underestimated, what it has above the normal's 3 counts double.
    """
    default = registry.get(claimed.family) if claimed.family in registry.names() else None
    if default is None or default.parameter != claimed.parameter or default.form != claimed.form:
        return None
    found = table().get(f"{claimed.family}/{entry.name}/{K}/{parameter}")
    if found is None or found["problem"] != entry.problem.content_hash[:16]:
        return None
    var, se = np.array(found["var"]), np.array(found["se"])
    relative = np.divide(se, var, out=np.zeros_like(var), where=var > 0)
    excess_kurtosis = np.maximum(table()["replicates"] * relative**2 - 2.0, 0.0)
    return Tabled(var, ERRORS * se, 3.0 + 2.0 * excess_kurtosis)


@cache
def table() -> dict[str, Any]:
    """The shipped table; empty if it is not there."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}


def make(replicates: int = REPLICATES) -> dict[str, Any]:
    """The table: what it has of today's problems, forms and number of replicates, and what it lacks, made anew."""
    forms = {e.name: e.form for e in registry.all() if e.form is not None and e.form.has_log_terms}
    least = {e.name: e.min_particles for e in registry.all()}
    made: dict[str, Any] = {"replicates": replicates // CHUNK * CHUNK}
    old = table() if table().get("replicates") == made["replicates"] else {}
    for entry in bank():
        for K in sorted({k for k, _ in entry.cells}):
            names = [name for name in forms if least[name] <= K]
            parameters = [name for name in entry.problem.parameters if name.startswith("proposal")]
            keys = {n: [f"{n}/{entry.name}/{K}/{parameter}" for parameter in parameters] for n in names}
            digest = entry.problem.content_hash[:16]
            lacking = [n for n in names if any(old.get(k, {}).get("problem") != digest for k in keys[n])]
            made |= {key: old[key] for n in names if n not in lacking for key in keys[n]}
            made |= _cell(entry, K, {n: forms[n] for n in lacking}, replicates) if lacking else {}
            print(f"{entry.name} K={K}: {len(lacking)} of {len(names)} forms made", file=sys.stderr)
    return made


def _cell(entry: Entry, K: int, forms: dict[str, Any], replicates: int) -> dict[str, Any]:
    problem = entry.problem
    names = [name for name in problem.parameters if name.startswith("proposal")]
    streams = {(form, name): Stream() for form in forms for name in names}
    for chunk in range(replicates // CHUNK):
        seed = [SEED, int(problem.content_hash[:8], 16), K, chunk]
        drawn = particles.draw(problem, K, 1, CHUNK, np.random.SeedSequence(seed).generate_state(1)[0].item())
        log_w = drawn.log_w
        for form in forms:
            coefficients = evaluate.coefficients(forms[form], log_w)
            for name, gradient in drawn.gradients(coefficients, names).items():
                streams[form, name].add(gradient)
    return {
        f"{form}/{entry.name}/{K}/{name}": {
            "problem": problem.content_hash[:16],
            "var": _rounded(stream.moments.var),
            "se": _rounded(stream.moments.var_se),
        }
        for (form, name), stream in streams.items()
    }


def _rounded(values: Any) -> Any:
    """Seven digits, which is more than the table knows."""
    return np.vectorize(lambda value: float(f"{value:.7g}"))(values).tolist()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES
    TABLE.write_text(json.dumps(make(count), indent=0) + "\n", encoding="utf-8")
