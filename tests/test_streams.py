"""The kernels' generator: known words, a twin in plain Python, the normal law, and functions of known accuracy."""

import math
import os
import subprocess
import sys
import time
import types
from importlib import import_module

import numpy as np
import pytest

from toyiwae import stats

numba = pytest.importorskip("numba")
simd, streams = (import_module(f"toyiwae.montecarlo.kernels.{name}") for name in ("lanes.simd", "streams"))
judge_noise = import_module("tests.judge_noise")

MASK = 0xFFFFFFFF


def test_streams_start_at_the_words_of_philox():
    """The first known answer of Random123's authors, for a counter and a key of zeros; other lanes have other words."""
    words = streams.philox_words(np.zeros(2, np.uint32), 0, 0)
    assert [f"{word:08x}" for word in words[:, 0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    keys = [streams.key_of(3, *stream) for stream in ((1, 2, 0), (2, 1, 0), (1, 2, 1))]
    where = [(key, block, row) for key in keys for block in (0, 1, 2**32) for row in (0, 1)]
    states = np.concatenate([streams.philox_words(*place).T for place in where])
    assert len(np.unique(states, axis=0)) == len(states) == streams.LANES * len(where)


def rotated(x, bits):
    return (x << bits | x >> 32 - bits) & MASK


def xoshiro(state):
    """Words of xoshiro128++ as its authors write it."""
    s = [int(word) for word in state]
    while True:
        yield (rotated((s[0] + s[3]) & MASK, 7) + s[0]) & MASK
        t = s[1] << 9 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotated(s[3], 11)


def box_muller(a, b):
    """Two normals of a radius from a and b's last six bits, and an angle from b's other bits."""
    u = (64 * a + (b & 63) + 0.5) * 2.0**-38
    inside = ((b << 2 & MASK) >> 8) - (1 << 24 if b & 1 << 29 else 0)
    angle = (inside + 0.5) * math.pi / 2 * 2.0**-24
    radius = math.sqrt(-2.0 * math.log(u)) * (-1.0 if b >> 31 else 1.0)
    turned = (math.sin(angle), math.cos(angle)) if b >> 30 & 1 else (math.cos(angle), math.sin(angle))
    return radius * turned[0], radius * turned[1]


def test_normals_are_those_of_plain_python():
    """Lane by lane, number by number, within single precision: of the numbers, and of u where it is close to 1."""
    key, dim, half = streams.key_of(5, 6), 3, streams.LANES
    noise = np.empty((dim, 3 * streams.GRANULE), np.float32)
    streams.normals(key, 7, 8, noise)
    states = streams.philox_words(key, 7, 8)
    for lane in (0, 1, half - 1):
        words = xoshiro(states[:, lane])
        for granule in range(3):
            for i in range(dim):
                pair = box_muller(next(words), next(words))
                at = granule * streams.GRANULE + lane
                found = noise[i, at], noise[i, at + half]
                np.testing.assert_allclose(found, pair, rtol=0, atol=4e-7 + 2.0**-23 / math.hypot(*pair))


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_short_judgement(precision):
    """Of 2·10⁷ numbers; `python -m tests.judge_noise` draws 10¹⁰. Moments from 9 on are not normal with so few."""
    judge = judge_noise.Judge(1, precision)
    for block in range(0, 300, 2):
        judge.take_in(block)
    scores = {
        name: z for name, z in judge.scores().items() if name not in {f"moment {k}" for k in range(9, 13)}
    }
    assert len(scores) > 25
    assert max(map(abs, scores.values())) < stats.family_threshold(len(scores), 1e-6), scores


def flawed(noise):
    """What the judgement has to see: numbers that are too rarely large, lanes that resemble each other."""
    cut = np.clip(noise, -4.0, 4.0)
    alike = noise.copy()
    alike[:, 1:] += 0.01 * noise[:, :-1]
    return {"tail 4.0": cut, "lane: product": alike}


@pytest.mark.parametrize("flaw", ["tail 4.0", "lane: product"])
def test_the_judgement_sees_flaws(flaw, monkeypatch):
    normals = streams.normals

    def worse(key, block, row, noise):
        normals(key, block, row, noise)
        noise[:] = flawed(noise)[flaw]

    monkeypatch.setattr(streams, "normals", worse)
    judge = judge_noise.Judge(1)
    for block in range(0, 60, 2):
        judge.take_in(block)
    assert abs(judge.scores()[flaw]) > stats.family_threshold(40, 1e-6)


def test_the_largest_and_smallest_numbers():
    """Words of zeros give the largest normal, |z| = 7.3; words of ones the smallest, without a NaN."""
    pair = numba.njit(lambda a, b: simd.pair32(a, b))  # which only compiled code calls
    first, other = pair(np.uint32(0), np.uint32(0))
    assert math.hypot(first, other) == pytest.approx(math.sqrt(-2.0 * math.log(2.0**-39)), rel=1e-6)
    assert all(map(math.isfinite, pair(np.uint32(MASK), np.uint32(MASK))))
    assert math.hypot(*pair(np.uint32(MASK), np.uint32(MASK))) < 1e-3


def test_the_exponential_is_right_to_fourteen_digits():
    x = np.concatenate([np.linspace(-699.9, 5.0, 20_001), -np.logspace(-18, 2, 2001), [0.0]])
    exponential = numba.njit(lambda value: simd.exponential(value))  # which only compiled code calls
    found = np.array([exponential(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x), rtol=2e-14)
    assert exponential(-1e9) < 1e-300


CACHED = """
import time, numba, toyiwae
from toyiwae.montecarlo.kernels import moments
from toyiwae.montecarlo import replicates
from tests.problems import random_problem
list(replicates(random_problem(1), "iwae", K=3, replicates=5, seed=1, engine="numba"))
print(sum(moments.moments.stats.cache_hits.values()), sum(moments.moments.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_kernels_are_compiled_once(tmp_path):
    """In a folder of their own, which a second process finds."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    answers = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", CACHED], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        answers.append(run.stdout.split())
    assert answers == [["0", "1"], ["1", "0"]]
    assert list(tmp_path.glob("toyiwae/kernels/*/**/*.nbc"))


def test_without_a_folder_to_write_there_is_no_cache(tmp_path, monkeypatch):
    cache = import_module("toyiwae.montecarlo.kernels.lanes.cache")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    cache.folder.cache_clear()
    config = types.SimpleNamespace(CACHE_DIR="")
    try:
        with cache.kernel_cache(config) as there_is:
            assert not there_is
        config.CACHE_DIR = "of the user"
        with cache.kernel_cache(config) as there_is:
            assert there_is
            assert config.CACHE_DIR == "of the user"
    finally:
        cache.folder.cache_clear()


def test_a_new_cache_removes_those_that_nobody_has_asked_for_in_a_month(tmp_path, monkeypatch):
    cache = import_module("toyiwae.montecarlo.kernels.lanes.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels, now = tmp_path / "toyiwae" / "kernels", time.time()
    for name, days in (("gone", 31), ("recent", 29)):
        (kernels / name / "index").mkdir(parents=True)
        os.utime(kernels / name, (now, now - 86_400 * days))
    found = cache.folder.__wrapped__()
    assert {other.name for other in kernels.iterdir()} == {"recent", os.path.basename(found)}
    os.utime(found, (now, now - 86_400 * 31))
    assert cache.folder.__wrapped__() == found
    assert os.stat(found).st_mtime > now - 60
