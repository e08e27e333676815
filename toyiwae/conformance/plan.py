"""The checks of one estimator, tier by tier: which calls are made, and what of them is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from toyiwae import stats
from toyiwae.conformance.bank.bank import Entry
from toyiwae.conformance.bank.nonlinear import NonlinearProblem
from toyiwae.conformance.calling import call
from toyiwae.conformance.calling.call import Sample, Violation
from toyiwae.conformance.calling.subprocess_runner import Runner
from toyiwae.conformance.checks import dependence, deterministic, mean_variance, sequential
from toyiwae.conformance.checks.mean_variance import POWER, Level
from toyiwae.conformance.report import Check
from toyiwae.conformance.truths import linear_gaussian, nonlinear
from toyiwae.conformance.truths.targets import Target, Truth
from toyiwae.errors import MissingMomentError, PrecisionError

_NUMBERS = 1_500_000  # of noise in one call
_LARGEST_CALL = 6000
_FATAL = {"no hang", "no crash", "inputs untouched"}  # after these nothing is worth another call
_ONE_NOISE, _COPIES = "other seed, other numbers", "replicates differ"


@dataclass
class Plan:
    """All checks of one estimator; `tests` and `reason` are known once they have run.

    Attributes:
        target: what is claimed.
        entries: the problems with the cells to run.
        particles, groups: the K and M asked for, to which every call keeps; None for those of the bank.
        wanted: the parameters to judge; None for all that are returned.
        rate: the family-wise error rate.
        shift: the bias, in standard deviations of one replicate, that must not be missed.
        seed: of the run.
        tests: number of tests that share the rate.
        reason: why nothing could be judged.
    """

    target: Target
    entries: Sequence[Entry]
    particles: tuple[int, ...] | None
    groups: tuple[int, ...] | None
    wanted: tuple[str, ...] | None
    rate: float
    shift: float
    seed: int
    tests: int = 1
    reason: str | None = None

    def checks(self, runner: Runner, *, stop_early: bool = False) -> Iterator[Check]:
        """Tiers 0 and 1, then what can be judged all the same: a cell where a call fails is left out.

        Without other numbers for another seed one call of each cell is all that there is; replicates that are copies
        of one another are judged only where they never vary.

        Args:
            runner: of the estimator.
            stop_early: by an e-process over all problems at once.
        """
        first = list(self._deterministic(runner))
        yield from first
        failed = {check.name for check in first if check.tier == 0 and check.passed is False}
        if failed & _FATAL or (stop_early and failed & {_ONE_NOISE, _COPIES}):
            return
        names: dict[str, list[str]] = {}
        entries, known = [], {(check.problem, check.name) for check in first if check.passed is False}
        for entry in self.entries:
            cells, names[entry.name], violations = self._callable(runner, entry)
            entries += [replace(entry, cells=cells)] if cells else []
            yield from (check for check in violations if (check.problem, check.name) not in known)
        if not any(names.values()):
            self.reason = "none of the parameters asked for is returned"
        elif stop_early:
            yield from self._sequential(runner, entries, names)
        else:
            self.tests = max(1, sum(self._count(entry, names[entry.name]) for entry in entries))
            for entry in entries:
                yield from self._sampled(runner, entry, failed)

    def _deterministic(self, runner: Runner) -> Iterator[Check]:
        """Tiers 0 and 1, at the K and M asked for, or at sizes that careless code takes for granted."""
        seed, least = call.seed_of(self.seed, "contract"), self.target.claimed.min_particles
        particles, groups = self.particles or (), self.groups or ()
        small = [(min(particles, default=least), m) for m in groups or (1, 3)]
        cells = dict.fromkeys([self.entries[0].cells[0], *small])
        yield from deterministic.contract_checks(runner.sample, self.entries[0], cells, seed)
        K, M = max(particles, default=max(4, least)), max(groups, default=3)
        yield from deterministic.posterior_checks(runner.sample, self.target, K, M, seed)
        if runner.formula is not None:
            K, M = max(particles, default=max(5, least + 1)), max(groups, default=2)
            ones = least == 1 and 1 in (particles or (1,)), 1 in (groups or (1,))
            yield from deterministic.formula_checks(runner.formula, self.target, K, M, ones, seed)
        if runner.mixed is not None:
            yield from deterministic.surrogate_checks(runner.sample, runner.mixed, self.entries[0], seed)

    def _callable(
        self, runner: Runner, entry: Entry
    ) -> tuple[tuple[tuple[int, int], ...], list[str], list[Check]]:
        """The cells from the first at which a call succeeds, what it returns, and one violation of each kind before."""
        violations: dict[str, Check] = {}
        for number, (K, M) in enumerate(entry.cells):
            seed = call.seed_of(self.seed, "names")
            try:
                sample = runner.sample(entry.problem, K, M, 2, seed)
            except Violation as found:
                where = {"problem": entry.name, "K": K, "M": M, "n": 2, "seed": seed}
                violations.setdefault(found.kind, found.check(where))
                if found.kind in _FATAL:
                    break
            else:
                return entry.cells[number:], list(self._select(sample.arrays)), list(violations.values())
        return (), [], list(violations.values())

    def _select(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is asked for; the value always is."""
        return {n: a for n, a in arrays.items() if self.wanted is None or n == "value" or n in self.wanted}

    def _count(self, entry: Entry, names: list[str]) -> int:
        """Tests on one problem: a mean and a variance per coordinate, three correlations per name, the groups."""
        shapes = {"value": (), **entry.problem.parameters}
        free = sum(int(mean_variance.judged(n, shapes[n]).sum()) for n in names)
        return (2 * free + 3 * len(names) + 1) * len(entry.cells)

    def _truths(self, entry: Entry) -> dict[tuple[int, int], dict[str, Truth]] | str:
        """The exact answers, or why there are none."""
        kind = nonlinear if isinstance(entry.problem, NonlinearProblem) else linear_gaussian
        try:
            return kind.truths(self.target, entry)
        except (MissingMomentError, PrecisionError) as error:
            return str(error)

    def _sampled(self, runner: Runner, entry: Entry, failed: set[str]) -> Iterator[Check]:
        truths = self._truths(entry)
        if isinstance(truths, str):
            yield Check("mean", 2, entry.name, reason=truths)
            return
        level = Level(self.rate, self.tests)
        n = stats.required_replicates(self.shift, tests=self.tests, rate=self.rate, power=POWER)
        ones: dict[int, dict[str, np.ndarray]] = {}
        for K, M in sorted(entry.cells, key=lambda cell: cell[1]):
            where = {"problem": entry.name, "K": K, "M": M}
            chunks: list[Sample] = []
            try:
                if _COPIES in failed:  # two calls show what varies between calls
                    chunks += [
                        *self._chunks(runner, entry, K, M, 2),
                        *self._chunks(runner, entry, K, M, 2, 1),
                    ]
                else:
                    size = self._size(entry, K, M, n)
                    chunks += self._chunks(runner, entry, K, M, size if _ONE_NOISE in failed else n)
            except Violation as found:
                yield found.check(where)
                continue
            parts = [self._select(chunk.arrays) for chunk in chunks]
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if _COPIES in failed:
                for name in [name for name, array in arrays.items() if np.ptp(array, axis=0).any()]:
                    reason = "its replicates are copies of one another"
                    yield Check("mean", 2, **where, parameter=name, n=len(arrays.pop(name)), reason=reason)
            digits = min(chunk.digits for chunk in chunks)
            yield from mean_variance.mean_checks(arrays, truths[K, M], where, level, digits)
            if _COPIES in failed:
                continue
            yield from mean_variance.variance_checks(arrays, truths[K, M], where, level, digits)
            noise = K * M * entry.problem.dim_z * entry.problem.n_rows
            yield from dependence.dependence_checks(parts, where, level, digits=digits, noise=noise)
            if M == 1:
                ones[K] = arrays
            elif K in ones:
                yield dependence.group_check(ones[K], arrays, M, where, level)

    def _chunks(
        self, runner: Runner, entry: Entry, K: int, M: int, n: int, start: int = 0
    ) -> Iterator[Sample]:
        """Calls that give at least n replicates, keyed by seed, problem, K, M and their number.

        Raises:
            Violation: what a call did wrong; its `seed` reproduces it.
        """
        problem, size = entry.problem, self._size(entry, K, M, n)
        for chunk in range(start, start + -(-n // size)):
            seed = call.seed_of(self.seed, problem.content_hash, K, M, chunk)
            try:
                yield runner.sample(problem, K, M, size, seed)
            except Violation as found:
                found.seed = seed
                raise

    @staticmethod
    def _size(entry: Entry, K: int, M: int, n: int) -> int:
        """Replicates of one call, all calls being alike.

        It is even, where it is not 1: who uses noise twice uses it on the two halves of a batch, and the halves of an
        odd one do not face each other.
        """
        most = max(1, min(_LARGEST_CALL, _NUMBERS // (K * M * entry.problem.dim_z * entry.problem.n_rows)))
        size = -(-n // -(-n // most))
        return size + size % 2 if size > 1 else size

    def _sequential(
        self, runner: Runner, entries: Sequence[Entry], names: Mapping[str, list[str]]
    ) -> Iterator[Check]:
        """The e-processes of all cells."""
        by_name, known = {entry.name: entry for entry in entries}, {}
        for entry in entries:
            truths = self._truths(entry)
            if isinstance(truths, str):
                yield Check("mean", 2, entry.name, reason=truths)
                continue
            for K, M in entry.cells:
                known[entry.name, K, M] = {name: truths[K, M][name] for name in names[entry.name]}
        running, refused = sequential.processes(known)
        yield from refused
        self.tests = sequential.count(running)

        def draw(name: str, K: int, M: int, n: int, number: int) -> Sample:
            (sample,) = self._chunks(runner, by_name[name], K, M, n, start=1000 + number)
            return sample

        yield from sequential.checks(running, self.rate, draw)
