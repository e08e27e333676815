"""Certification: on random problems, no value of the oracle is further from the truth than it says.

    python -m tests.certify [NUMBER [FIRST_SEED]]

draws problems by seed, computes bounds, sample sizes and gradient moments in double precision, and encloses the same
to 30 digits on an independent path (`toyiwae.oracle.enclosure`), and compares each error with the stated one; on every
tenth problem also, after these, what `tests.certify_joint` has. Every line of the output can be reproduced from its
seed. What is done stands in results/certification.jsonl, a line for each part of a problem, so that a second call goes
on where the first one ended, and makes up for a part that is new; their tally and the table by quantity are written to
docs/certification.json and docs/certification.txt, and a machine that has only these goes on from them. The exit
status is 1 if a single value is worse than it says, or if more than one problem in a hundred is refused. Values that
float64 does not know to 1e-8 are counted, not failed: `exact` recomputes or masks them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from flint import arb, ctx

from analysis.sweep import origin
from tests import certify_joint, certify_table
from tests.isolated import isolated
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth import averages

DIGITS = 30
LOG_DIGITS = 15
JOINT_EVERY = 10  # of so many problems one has the dearer quantities certified, too
CHEAP = ("bounds", "gradients")  # parts that every problem has; they come first
_PARTICLES = (2, 3, 10, 100, 1000, 10**4, 10**6, 10**9, 10**12)
KINDS = ("narrow", "wide", "mixed", "near", "equal", "heavy")


@dataclass(frozen=True)
class Case:
    """A random problem and what is asked of it."""

    seed: int
    kind: str
    problem: Problem
    particles: tuple[int, ...]
    exponent: float
    jobs: dict[str, tuple[Form, str, tuple[tuple[int, ...], ...]]]

    @property
    def forms(self) -> dict[str, Form]:
        """The two whose covariances and fourth moments are certified."""
        iwae = Form({1: 1.0}, {1: 1.0}, {1: -1.0}, exponent=self.exponent)
        return {"total": iwae, "squared": Form({1: 1.0}, {2: 1.0}, exponent=self.exponent)}

    def __str__(self) -> str:
        """The case in one line."""
        size = f"D_z={self.problem.dim_z} D_x={self.problem.dim_x}"
        beta = Whitened(self.problem).beta
        return f"seed {self.seed} ({self.kind}, {size}, β {beta.min():.3g}…{beta.max():.3g}, e={self.exponent:g})"


@dataclass(frozen=True)
class Comparison:
    """One value: what the oracle said, the error that it stated, and the error that it made."""

    name: str
    value: float
    stated: float
    true: float

    @property
    def honest(self) -> bool:
        """Whether the error made is within the stated one."""
        return self.true <= self.stated

    @property
    def relative(self) -> float:
        """The error made, relative to the value."""
        return self.true / abs(self.value) if self.value else float(self.true > 0)


# random problems ------------------------------------------------------------------------------------------------------


def case(seed: int) -> Case:
    """The random problem of a seed."""
    rng = np.random.default_rng(seed)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    dim = 20 if rng.random() < 0.05 else int(rng.integers(1, 9))
    problem = _problem(rng, kind, dim)
    particles = (1, *sorted(int(k) for k in rng.choice(_PARTICLES, 4, replace=False)))
    exponent = 1.0 if rng.random() < 0.6 else float(rng.choice([0.1, 0.5, 0.9, 1.02]))
    return Case(seed, kind, problem, particles, exponent, _jobs(rng, problem, exponent))


def _problem(rng: np.random.Generator, kind: str, dim: int) -> Problem:
    dim_x = int(rng.integers(1, dim + 4))
    worst = 10.0 ** float(rng.choice([1, 2, 4, 7, 10], p=[0.4, 0.3, 0.1, 0.1, 0.1]))
    prior = _spd(rng, dim, worst)
    noise = _spd(rng, dim_x, float(rng.choice([10.0, worst])))
    loading = rng.normal(size=(dim_x, dim)) * 10.0 ** rng.uniform(-1, 0.5)
    model = Model(rng.normal(size=dim), prior, loading, rng.normal(size=dim_x), noise)
    x = rng.normal(size=dim_x) * 2.0
    precision = np.linalg.inv(prior) + loading.T @ np.linalg.solve(noise, loading)
    cov = np.linalg.inv(precision)
    cov = 0.5 * (cov + cov.T)
    mean = cov @ (
        np.linalg.solve(prior, model.prior_mean) + loading.T @ np.linalg.solve(noise, x - model.offset)
    )
    root = np.linalg.cholesky(cov)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    axes = root @ turn
    proposal_cov = (axes * (1.0 + _spectrum(rng, kind, dim))) @ axes.T
    direction = rng.normal(size=dim)
    shift = axes @ direction * _distance(rng, kind) / np.linalg.norm(direction)
    return Problem(model, Proposal(0.5 * (proposal_cov + proposal_cov.T), mean=mean + shift), Data(x))


def _spd(rng: np.random.Generator, dim: int, condition: float) -> np.ndarray:
    values = 10.0 ** rng.uniform(-np.log10(condition), 0, dim)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    matrix = (turn * values * 10.0 ** rng.uniform(-0.5, 0.5)) @ turn.T
    return 0.5 * (matrix + matrix.T)


def _spectrum(rng: np.random.Generator, kind: str, dim: int) -> np.ndarray:
    """Eigenvalues β."""
    if kind == "narrow":
        return rng.uniform(-0.7, 0.0, dim)
    if kind == "heavy":
        return np.r_[-rng.uniform(0.5, 0.95), rng.uniform(-0.4, 0.5, dim - 1)]
    if kind == "wide":
        return 10.0 ** rng.uniform(-2, rng.uniform(-1, 1.2), dim)
    if kind == "mixed":
        return np.where(rng.random(dim) < 0.5, rng.uniform(-0.6, 0, dim), 10.0 ** rng.uniform(-1, 0.7, dim))
    if kind == "near":
        return rng.normal(size=dim) * 10.0 ** rng.uniform(-12, -1.3)
    return np.zeros(dim)


def _distance(rng: np.random.Generator, kind: str) -> float:
    """Shift of the proposal's mean in posterior standard deviations."""
    if kind == "near":
        return 10.0 ** rng.uniform(-12, -1)
    if rng.random() < 0.15:
        return float(rng.uniform(3, 24))
    return float(rng.choice([0.0, 10.0 ** rng.uniform(-4, 0), rng.uniform(0, 3)], p=[0.1, 0.4, 0.5]))


def _jobs(rng: np.random.Generator, problem: Problem, exponent: float) -> dict[str, Any]:
    """Four forms at two coordinates of a parameter each."""
    beta = float(rng.uniform(0.1, 0.9))
    forms = {
        "iwae": Form({1: 1.0}, {1: 1.0}, {1: -1.0}, exponent=exponent),
        "stl": Form({1: 1.0}, {1: 1.0}, exponent=exponent),
        "dreg": Form({1: 1.0}, {1: 1.0 - exponent, 2: exponent}, exponent=exponent),
        "wake": Form({1: 1.0}, {}, {1: 1.0}, exponent=exponent),
        "wake_dreg": Form({1: 1.0}, {1: 1.0, 2: -1.0}, exponent=exponent),
        "ciwae": Form(
            {0: beta, 1: 1 - beta}, {0: beta, 1: 1 - beta}, {0: -beta, 1: beta - 1}, exponent=exponent
        ),
    }
    names = ["dreg", *rng.choice([name for name in forms if name != "dreg"], 3, replace=False)]
    jobs = {}
    for name in names:
        parameters = ["proposal_mean", "proposal_chol"]
        if name in ("iwae", "ciwae"):
            parameters += ["prior_mean", "loading", "offset"]
        parameter = str(rng.choice(parameters))
        every = problem.parameters.record(parameter).indices()
        chosen = rng.choice(len(every), min(2, len(every)), replace=False)
        jobs[f"{name}/{parameter}"] = (forms[name], parameter, tuple(every[int(i)] for i in chosen))
    return jobs


def compare(one: Case, digits: int = DIGITS) -> list[Comparison]:
    """All values of a case, in double precision against `digits` digits."""
    return [value for part in parts(one, digits).values() for value in part()]


def parts(one: Case, digits: int = DIGITS) -> dict[str, Callable[[], Iterator[Comparison]]]:
    """What is certified of a case, by name."""
    whitened = Whitened(one.problem)
    found: dict[str, Callable[[], Iterator[Comparison]]] = {
        "bounds": partial(_bounds, one, whitened, digits),
        "gradients": partial(_gradients, one, whitened, digits),
    }
    if one.seed % JOINT_EVERY:
        return found
    rng, problem = np.random.default_rng(one.seed), one.problem
    line, pair = _problem(rng, one.kind, 1), (1, *one.particles[1:3])
    parameter = str(rng.choice(["proposal_mean", "proposal_chol"]))
    dearer: dict[str, Callable[[], Iterator[certify_joint.Value]]] = {}
    for name, form in one.forms.items():
        job, every = (problem, form, "proposal_mean"), one.particles
        dearer[f"cov {name}"] = partial(certify_joint.covariances, *job, every, digits)
        dearer[f"own {name}"] = partial(certify_joint.own, problem, form, pair, digits)
        if one.kind != "equal":
            dearer[f"fourth {name}"] = partial(certify_joint.fourth, *job, [(0,)], every, digits)
    for name, form in certify_joint.LOGS.items():
        if form.exponent == 0:
            continue  # closed form, without an enclosure; finite states check it
        job = (problem, name, parameter, pair[1:], LOG_DIGITS)
        dearer[f"log {name}"] = partial(certify_joint.logarithms, *job)
    if problem.dim_z > 1:
        dearer["optimum"] = partial(certify_joint.optimum, problem, pair[1:], LOG_DIGITS)
    dearer["quadrature"] = partial(certify_joint.quadrature, line, pair, digits)
    dearer["states"] = partial(certify_joint.states, one.seed, (2, 3))
    return found | {key: partial(_named, key, part) for key, part in dearer.items()}


def _named(key: str, part: Callable[[], Iterator[certify_joint.Value]]) -> Iterator[Comparison]:
    for name, value, stated, truth in part():
        yield _comparison(f"{key} {name}", value, stated, truth)


def _bounds(one: Case, whitened: Whitened, digits: int) -> Iterator[Comparison]:
    quick = averages.bounds(whitened, one.particles, one.exponent)
    truth = enclose.bounds(one.problem, one.particles, digits=digits, exponent=one.exponent)
    for i, k in enumerate(one.particles):
        for name in ("gap", "ess"):
            found, exact = getattr(quick, name), getattr(truth, name)[0, i]
            yield _comparison(f"{name} K={k}", found.value[0, i], found.error[0, i], exact)


def _gradients(one: Case, whitened: Whitened, digits: int) -> Iterator[Comparison]:
    quick = averages.gradients(whitened, {key: job[:2] for key, job in one.jobs.items()}, one.particles)
    truth = enclose.gradients(one.problem, one.jobs, one.particles, digits=digits)
    for key, (_, _, indices) in one.jobs.items():
        mine, exact = quick[key], truth[key]
        for i, k in enumerate(one.particles):
            for f, index in enumerate(indices):
                at, name = (i, *index), f"{key}{list(index)} K={k}"
                for part in ("shift", "mean", "var"):
                    estimate, value = getattr(mine, part), getattr(exact, part)[i, f]
                    yield _comparison(f"{part} {name}", estimate.value[at], estimate.error[at], value)


def _comparison(name: str, value: Any, stated: Any, truth: arb) -> Comparison:
    """What lies in the enclosure, or within any float's use of it, is right; else the largest error that it allows."""
    with ctx.workprec(256):
        away = arb(float(value)) - truth
        within = away.abs_lower() == 0 or away.abs_upper() < 1e-150
        return Comparison(name, float(value), float(stated), 0.0 if within else float(away.abs_upper()))


# command --------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Certify, print what failed, and write the table."""
    number, first = (int(a) for a in (*arguments, *("1000", "0")[len(arguments) :]))
    certify_table.KEPT.parent.mkdir(exist_ok=True)
    tally, commit = certify_table.total(), json.loads(origin.origin())["commit"] or "no commit"
    for dearer, seed in product((False, True), range(first, first + number)):
        one, start, count = case(seed), time.perf_counter(), 0
        missing = {
            name: part
            for name, part in parts(one).items()
            if (name not in CHEAP) is dearer and not certify_table.done(tally, seed, name)
        }
        for name, part in missing.items():
            line = certify(one, name, part) | {"commit": commit[:7], "version": certify_table.VERSION}
            with certify_table.KEPT.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}")  # after whatever a killed process left
            count += sum(map(len, line["values"].values()))
        if missing:
            print(f"{one}: {count} values, {time.perf_counter() - start:.1f} s", flush=True)
    text, beyond, refused = certify_table.publish(certify_table.total())
    print(text)
    return int(beyond > 0 or refused > 0.01)


def certify(one: Case, name: str, part: Callable[[], Iterator[Comparison]]) -> dict[str, Any]:
    """One line of the file: by quantity [value, stated error, true error], and why the part was refused, if it was."""
    line: dict[str, Any] = {"seed": one.seed, "part": name, "values": {}, "refused": None}
    values = isolated(part)
    if isinstance(values, str):
        print(f"{one}: {name} refused: {values}", flush=True)
        return line | {"refused": values}
    for value in values:
        quantity = value.name.split()[0] if name in CHEAP else name
        line["values"].setdefault(quantity, []).append([value.value, value.stated, value.true])
        if not value.honest or value.relative > 1e-8:
            print(f"{one}: {'imprecise' if value.honest else 'DISHONEST'} {value}", flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
