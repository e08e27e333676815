"""Exact answers with proven digits; with `--old PATH`, in turns with another checkout of this repository.

    python -m analysis.benchmarks.digits --old ../before --pairs 3 --digits 30 50

Every measurement is a process of its own; the CPU time is that of the call of `exact` alone, after a call with few
digits that is not counted. Processes of the two checkouts take turns, so that a busy machine slows both. Random
problems are those that certification draws (`tests/certify.py`), by seed, with four K besides 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from analysis.benchmarks.oracle import random_problem
from analysis.benchmarks.timing import Timing

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "docs" / "problem.toml"
Question = dict[str, Any]
"""Arguments of `exact`; the problem as a dictionary, or as the path of a file."""

_CALL = """
import json, sys, time
import toyiwae
question = json.load(open(sys.argv[1]))
given = question.pop("problem")
problem = toyiwae.load(given) if isinstance(given, str) else toyiwae.Problem.from_dict(given)
toyiwae.exact(problem, **{**question, "digits": 3, "K": 1})
started = time.process_time()
found = toyiwae.exact(problem, **question)
seconds = time.process_time() - started
def count(x, inside=False):
    if isinstance(x, dict):
        return sum(count(value, inside or key == "decimals") for key, value in x.items())
    return sum(count(value, inside) for value in x) if isinstance(x, list) else inside * isinstance(x, str)
print(json.dumps({"seconds": seconds, "numbers": count(json.loads(json.dumps(found.to_dict())))}))
"""
_DRAW = """
import json, sys
from tests.certify import case
one = case(int(sys.argv[1]))
e = one.exponent
name = "iwae" if e == 1.0 else f"vr_iwae:{1 - e:.3g}"
question = {"problem": one.problem.to_dict(), "K": list(one.particles), "estimators": name}
print(json.dumps(question | {"parameters": ["proposal_mean"]}))
"""


def run() -> Iterator[Timing]:
    """README's problem and fifty dimensions with 30 and 50 digits, and 100 digits of L_K at K = 10⁹."""
    for name, question in _questions(0).items():
        for digits in (30, 50):
            found = _measured(ROOT, question | {"digits": digits})
            yield Timing(f"{name}, {digits} digits", 1000 * found["seconds"], "ms of CPU")
    large = {"problem": random_problem(50, 40).to_dict(), "K": 10**9, "estimators": "iwae", "parameters": []}
    found = _measured(ROOT, large | {"digits": 100})
    yield Timing("D = 50, K = 10⁹, 100 digits", 1000 * found["seconds"], "ms of CPU")


def _questions(seeds: int) -> dict[str, Question]:
    """Name -> question, without the number of digits."""
    given: dict[str, Question] = {
        "README": {"problem": str(README), "K": [1, 64, 10**6], "estimators": ["iwae", "dreg"]},
        "D = 50": {
            "problem": random_problem(50, 40).to_dict(),
            "K": [1, 64, 10**6],
            "estimators": "iwae",
            "parameters": ["proposal_mean"],
        },
    }
    return given | {f"seed {seed}": json.loads(_output(ROOT, _DRAW, str(seed))) for seed in range(seeds)}


def _output(checkout: Path, code: str, *arguments: str) -> str:
    """What a process prints that imports the package from a checkout.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    more = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=checkout, env=os.environ | more, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _measured(checkout: Path, question: Question) -> dict[str, Any]:
    """Seconds of CPU, and how many numbers have decimals."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(question, file)
        file.flush()
        return json.loads(_output(checkout, _CALL, file.name))


def compare(old: Path, pairs: int, seeds: int, digits: Sequence[int]) -> bool:
    """Prints CPU seconds of both checkouts; whether 30 digits are never slower and 50 always at least twice as fast."""
    good, problems = True, _questions(seeds)
    for count in digits:
        ratios: dict[str, float] = {}
        for name, question in problems.items():
            taken: dict[Path, list[float]] = {ROOT: [], old: []}
            numbers: dict[Path, int] = {}
            for i in range(pairs):
                for checkout in (ROOT, old) if i % 2 else (old, ROOT):
                    found = _measured(checkout, question | {"digits": count})
                    taken[checkout].append(found["seconds"])
                    numbers[checkout] = found["numbers"]
            here, before = (statistics.median(taken[checkout]) for checkout in (ROOT, old))
            ratios[name] = before / here
            print(
                f"{count} digits, {name:8}  here {here:8.2f} s ({numbers[ROOT]} numbers)   before {before:8.2f} s"
                f" ({numbers[old]})   before / here {ratios[name]:6.2f}",
                flush=True,
            )
        drawn = [math.log(ratio) for name, ratio in ratios.items() if name.startswith("seed")]
        if drawn:
            print(
                f"{count} digits, {len(drawn)} random problems: geometric mean {math.exp(statistics.fmean(drawn)):.2f},"
                f" least {math.exp(min(drawn)):.2f}",
                flush=True,
            )
        good = good and min(ratios.values()) >= (1.0 if count <= 30 else 2.0)
    return good


def main() -> int:
    """The comparison, from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--pairs", type=int, default=3, help="measurements of each question in each checkout")
    parser.add_argument("--seeds", type=int, default=20, help="random problems: seeds 0 up to this number")
    parser.add_argument("--digits", type=int, nargs="+", default=[30, 50], help="significant decimal digits")
    given = parser.parse_args()
    return 0 if compare(given.old.resolve(), given.pairs, given.seeds, given.digits) else 1


if __name__ == "__main__":
    sys.exit(main())
