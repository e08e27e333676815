"""What a training needs is near what it takes, and what does not fit is refused in one line, with what would fit."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests import crashes
from tests.short_runs import IMAGES, short
from toyiwae import InputError
from toyiwae.cli import main
from toyiwae.networks.runs import memory
from toyiwae.networks.runs.ranks import shares
from toyiwae.networks.runs.settings import read

CPU = torch.device("cpu")
VAE = {"kind": "bernoulli_vae", "latents": 50, "hidden": [200, 200]}
TAKEN = """
import json, sys
import numpy as np
import torch
import toyiwae
from tests.memory import peak_gib, resident_gib
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.runs import memory
from toyiwae.networks.runs.ranks import shares
from toyiwae.networks.runs.settings import read

torch.set_num_threads(1)
settings, (count, pixels), out = json.loads(sys.argv[1])
none = np.zeros((3, 5), np.float32)
tiny = {"model": {"kind": "bernoulli_vae", "latents": 2}, "members": [{"estimator": "iwae", "K": 2}]}
toyiwae.train(tiny | {"training": {"epochs": 1, "batch": 3}}, images=of_arrays("none", none, none))
images = of_arrays("random", np.random.default_rng(0).random((count, pixels), np.float32), np.zeros((2, pixels)))
own = read(settings)
sizes = memory.sizes_of(own, images, shares(1, len(own.stack()))[0], torch.device("cpu"), writes=out is not None)
before = resident_gib()
toyiwae.train(settings, out, images=images)
print(json.dumps([sizes.total() / 2**30, peak_gib() - before]))
"""


def sizes(*assignments, processes=1, split="members", writes=False):
    """Of the run of `tests.crashes`."""
    settings = read(crashes.SETTINGS, assignments)
    share = shares(processes, len(settings.stack()), split)[0]
    return memory.sizes_of(settings, IMAGES, share, CPU, writes=writes)


def tables(E=1, K=64, batch=20, **model):
    """Settings of one step."""
    return {
        "model": VAE | model,
        "members": [{"estimator": "iwae", "K": K}],
        "training": {"epochs": 1, "batch": batch, "seeds": list(range(E))},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "images", "writes"),
    [
        (tables(hidden=[3000, 3000]), (20, 784), False),
        (tables(E=10, hidden=[1000, 1000]), (20, 784), True),
        (tables(batch=12_000, K=1), (12_000, 784), False),
        (tables(E=10, batch=2000, K=1), (2000, 784), False),
        (tables(batch=4, K=30_000), (4, 784), False),
        (tables(batch=2, K=2_000_000, hidden=[20], latents=5), (2, 16), False),
    ],
    ids=["parameters", "checkpoint", "batch", "members", "chunks", "particles"],
)
def test_what_is_needed_is_what_a_process_takes(settings, images, writes, tmp_path):
    """Within a factor of two of 0.1 to 1.6 GiB."""
    out = str(tmp_path / "run") if writes else None
    command = [sys.executable, "-c", TAKEN, json.dumps([settings, images, out])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    needed, taken = json.loads(done.stdout)
    assert taken > 0.1
    assert 0.5 < needed / taken < 2.0, (needed, taken)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["model.hidden=[1000000, 1000000]"], "most of it for parameters, .* expected a smaller model"),
        (
            ["members=[{estimator='iwae', K=1000000000000}]"],
            r"particles' log-weights, .*: M·K = \d+ would fit$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(assignments, words, tmp_path, capsys):
    options = [word for assignment in assignments for word in ("--set", assignment)]
    assert main.main(["train", "docs/train.toml", "--out", str(tmp_path / "run"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: this training needs about \S+ GiB of memory on cpu, .*\n", err)
    assert re.search(words, err.strip())
    assert not (tmp_path / "run").exists()


def test_layers_that_cannot_be_counted_are_refused():
    with pytest.raises(InputError, match="model: a layer has more weights than can be counted"):
        short(None, "model.hidden=[1000000000000, 1000000000000]")


def test_the_limit_is_what_is_free_and_what_would_fit_does(monkeypatch):
    whole = sizes()
    total = whole.total()
    monkeypatch.setattr(memory, "free_bytes", lambda device: total)
    short(None, "training.epochs=1")
    monkeypatch.setattr(memory, "free_bytes", lambda device: total - 1)
    with pytest.raises(InputError, match=r"training\.batch = 7 or 3 of 4 members or M·K = 5 would fit$"):
        short(None)
    for free in (total // 2, total - 1):
        found = whole.fitting(free)
        for text, field in zip(found, ("batch", "members", "particles"), strict=True):
            count = int(re.findall(r"\d+", text)[0])
            assert replace(whole, **{field: count}).total() <= free
            assert replace(whole, **{field: count + 1}).total() > free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * total - 1)
    with pytest.raises(InputError, match="would fit"):
        short(None)


def test_processes_divide_what_is_needed():
    one = sizes()
    members, images = sizes(processes=2), sizes(processes=2, split="images")
    assert (members.members, members.parts, images.members, images.parts) == (2, 1, 4, 2)
    assert members.needed()["batches"] < one.needed()["batches"]
    assert images.needed()["particles' log-weights"] < one.needed()["particles' log-weights"]
    assert sizes(writes=True).total() > one.total()


def written(root, **files):
    """A file system with some files."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_free_memory_is_the_least_of_machine_and_control_groups(tmp_path):
    """Version 1 and 2, a group of one's own or one above it, cache that can be had back, none at all."""
    machine = {"proc__meminfo": "MemTotal: 900 kB\nMemAvailable:    800 kB\n"}
    assert memory.free_bytes(CPU, tmp_path) is None
    assert memory.free_bytes(CPU, written(tmp_path / "machine", **machine)) == 800 * 1024
    two = machine | {"proc__self__cgroup": "0::/a/b\n", "sys__fs__cgroup__a__b__memory.max": "max\n"}
    two |= {"sys__fs__cgroup__a__memory.max": "5000\n", "sys__fs__cgroup__a__memory.current": "3000\n"}
    assert memory.free_bytes(CPU, written(tmp_path / "two", **two)) == 2000
    two |= {"sys__fs__cgroup__a__memory.stat": "anon 1\ninactive_file 700\n"}
    assert memory.free_bytes(CPU, written(tmp_path / "cache", **two)) == 2700
    one = machine | {"proc__self__cgroup": "4:memory:/elsewhere\n1:cpu:/\n"}
    one |= {"sys__fs__cgroup__memory__memory.limit_in_bytes": "5000\n"}
    one |= {"sys__fs__cgroup__memory__memory.usage_in_bytes": "6000\n"}
    assert memory.free_bytes(CPU, written(tmp_path / "one", **one)) == 0


def test_this_machine_says_what_is_free():
    free = memory.free_bytes(CPU)
    if free is None:
        pytest.skip("this system does not say")
    assert 2**20 < free < 2**50


def test_what_torch_holds_unused_on_a_gpu_is_free(monkeypatch):
    """Of 100 bytes others have 40 and this process 30, of which torch uses 10."""
    for name, found in (("mem_get_info", (30, 100)), ("memory_reserved", 30), ("memory_allocated", 10)):
        monkeypatch.setattr(torch.cuda, name, lambda device, found=found: found)
    assert memory.free_bytes(torch.device("cuda:0")) == 50
