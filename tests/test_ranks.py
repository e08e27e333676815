"""Several processes on one run: the same numbers as one's, who writes, and what is left when one is lost."""

import datetime
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests import several
from tests.test_networks_step import KINDS, images, made, rules_for
from toyiwae import InputError, weights
from toyiwae.networks import kernels
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs import checkpoints, ranks
from toyiwae.networks.runs.ranks import shares
from toyiwae.networks.runs.spread import take_device
from toyiwae.networks.step import Plan, step

pytest.importorskip("safetensors")
if not torch.distributed.is_available() or not hasattr(os, "fork"):
    pytest.skip("needs torch.distributed and fork", allow_module_level=True)

ROUNDING = 1e-12
"""Of numbers near one in float64 after 21 steps; they differ by 1e-15."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `tests.several` finds."""
    done = run([sys.executable, "-m", "tests.several", str(tmp_path_factory.mktemp("several"))])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(command, **arguments):
    """A command with one thread for each process, as torchrun has it, and no traces of a torchrun above."""
    own = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    own |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False} | arguments
    return subprocess.run(command, env=own, **options)


@pytest.mark.parametrize("split", ["members", "images"])
def test_every_members_images_are_taken_once(split):
    for processes, members in itertools.product(range(1, 9), range(1, 6)):
        plan = shares(processes, members, split)
        assert len(plan) == processes
        for batch in (1, 2, 7, 20):
            taken = torch.zeros(members, batch)
            for share in plan:
                taken[share.members, share.images(batch)] += 1
            assert (taken == 1).all()
        for share in plan:
            assert plan[share.leader].place == 0
            assert plan[share.leader].members == share.members
        if split == "members" and processes <= members:
            assert all(share.parts == 1 for share in plan)
    sizes = [len(range(4)[share.members]) for share in shares(3, 4)]
    assert max(sizes) - min(sizes) == 1


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_add_up_to_its_gradient(kind, chunk, monkeypatch):
    """Of 4 images one process takes 1 and another 3, at their places in the batch's noise, 3 particles a block."""
    monkeypatch.setattr("toyiwae.networks.noise.UNIT", 3 * 4 * 5)
    stack = [member for member in rules_for(kind) if member.particles == 12][:3]
    model, _ = made(kind, stack)
    noise, x = Noise(tuple(m.seed for m in stack), 3, dtype=torch.float64), images(len(stack))
    whole = step(model, stack, x, noise)
    parts = [step(model, stack, x, noise, chunk=chunk, own=own) for own in (slice(0, 1), slice(1, 4))]
    for name, slope in whole.gradients.items():
        torch.testing.assert_close(sum(p.gradients[name] for p in parts), slope, rtol=1e-10, atol=1e-12)
    for key in ("bound", "ess"):
        first, second = (getattr(part, key) for part in parts)
        torch.testing.assert_close((first + 3 * second) / 4, getattr(whole, key), rtol=1e-12, atol=0)


def test_parts_of_a_batch_add_up_where_coefficients_come_in_one_launch(monkeypatch):
    """As on a GPU; in the kernel's place stand the rules, with what it is told to multiply by."""

    def evaluate(rule, other, groups, log_w, members, parts, metrics, scale):
        own = log_w[members].mT.unflatten(-1, (groups, -1))
        arrays = rule(own).model, other(own).path, other(own).score
        parts[:, members] = scale * torch.stack([array.flatten(-2).mT for array in arrays])
        metrics[0, members], metrics[1, members] = rule.value_of(own), weights.ess(own).mean(-1)
        called.append(log_w.shape[2])

    stack, called = [Member("iwae", "dreg", 2, 6, 1), Member("jackknife", "jackknife", 3, 4, 2)], []
    model, _ = made("full", stack)
    noise, x = Noise((1, 2), 3, dtype=torch.float64), images(2)
    whole = step(model, stack, x, noise)
    forms = SimpleNamespace(fusible=lambda rule, *_: rule.name == "iwae", evaluate=evaluate)
    monkeypatch.setattr(kernels, "load", lambda name: forms)
    monkeypatch.setattr(Plan, "fuses", lambda self, log_w: True)
    parts = [step(model, stack, x, noise, own=own, together=True) for own in (slice(0, 1), slice(1, 4))]
    assert called == [1, 3]
    for name, slope in whole.gradients.items():
        torch.testing.assert_close(sum(p.gradients[name] for p in parts), slope, rtol=1e-10, atol=1e-12)
    for key in ("bound", "ess"):
        first, second = (getattr(part, key) for part in parts)
        torch.testing.assert_close((first + 3 * second) / 4, getattr(whole, key), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("gpus", "place", "here", "taken"),
    [(1, "3", "4", 0), (4, "3", "4", 3), (1, "0", "1", 0), (2, "1", "4", None), (4, "5", "4", None)],
)
def test_each_process_takes_a_gpu(gpus, place, here, taken, monkeypatch):
    """Also where a launcher shows each process its own alone."""
    chosen = []
    fakes = {"is_available": lambda: True, "device_count": lambda: gpus, "set_device": chosen.append}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setenv("LOCAL_RANK", place)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    if taken is None:
        with pytest.raises(InputError, match=f"4 processes on this machine, which has {gpus} GPUs"):
            take_device(ranks.Ranks(3, 4), "cuda")
    else:
        take_device(ranks.Ranks(3, 4), "cuda")
        assert chosen == [taken]


@pytest.mark.parametrize(("agents", "expected"), [("1", "2"), ("2", "0")])
def test_several_machines_meet_though_each_counts_its_own_restarts(agents, expected, monkeypatch):
    prefixes = []
    monkeypatch.setattr(ranks, "rendezvous", lambda *_, **__: iter([(None, 0, 4)]))
    monkeypatch.setattr(torch.distributed, "PrefixStore", lambda prefix, own: prefixes.append(prefix))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", agents)
    ranks._meeting(datetime.timedelta(seconds=9))
    assert prefixes == [f"toyiwae {expected}"]


def test_several_processes_make_the_numbers_of_one(found):
    """Members among 2, members and images among 5, images among 3: of a last batch of 2 one of them takes none."""
    for name in ("2 members", "5 members", "3 images"):
        difference, answers = found["same"][name]
        assert difference < ROUNDING, name
        assert all(answer == answers[0] for answer in answers)
        assert answers[0][:3] == [21, 4, 7]
        assert len(answers) == int(name[0])


def test_steps_that_stay_on_the_device_are_shared_too(found):
    """With random numbers from counters."""
    assert found["same"]["counted"] < ROUNDING


def test_a_run_is_resumed_by_another_number_of_processes(found):
    for processes in (2, 3):
        difference, notes = found["same"][f"resumed by {processes}"]
        assert difference < ROUNDING
        assert notes == [["goes on after step 8 of 21"]] + [[]] * (processes - 1)  # only the first tells


def test_a_users_module_is_trained_by_several(found):
    assert found["module"] < ROUNDING


@pytest.mark.parametrize("what", ["killed members", "killed images", "stopped images"])
def test_a_process_that_is_lost_ends_the_others_in_one_line(found, what):
    """Each is lost after step 10; what is resumed from step 8 by one process is the uninterrupted run."""
    (survivor, lost), left, difference = found["lost"][what]
    assert re.fullmatch(
        r"ToyiwaeError: another process of this run has ended, or does not answer \(.*\); start the run again with "
        r"--resume to go on from its last checkpoint",
        survivor,
    )
    assert lost == 9
    assert left == 8
    assert difference < ROUNDING


def test_an_error_of_one_process_is_told_by_it_and_ends_all(found):
    (first, second), left, difference = found["lost"]["full members"]
    message = "cannot write '.*step-0000000012.safetensors': .*"
    assert re.fullmatch(f"ToyiwaeError: {message}", first)
    assert re.fullmatch(f"ToldElsewhereError: process 0 of 2: {message}", second)
    assert left == 8
    assert difference < ROUNDING
    refused = found["refused"]
    assert refused["settings"][0] == "InputError: training.batch is 0: expected greater than or equal to 1"
    assert refused["settings"][1].startswith("ToldElsewhereError: process 0 of 2: training.batch is 0")
    assert "holds something already" in refused["folder"][0]
    assert refused["folder"][1].startswith("ToldElsewhereError")
    assert refused["other"][0].startswith(
        "ToldElsewhereError: process 1 of 2: this process has other settings"
    )
    assert refused["other"][1].startswith("InputError: this process has other settings, code or images")
    assert refused["written"] == []


def test_an_evaluation_by_several_is_that_of_one(found):
    """Of 2 members by 2 processes; by 5, which share the images of a member's bounds."""
    assert found["evaluated"] == {"2": [True] * 2, "5": [True] * 5}


def test_only_torchruns_variables_make_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers do
    assert not ranks.started()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert ranks.started()
    assert not ranks.is_first()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not ranks.started()
    monkeypatch.setenv("TOYIWAE_TIMEOUT", "soon")
    with pytest.raises(InputError, match="TOYIWAE_TIMEOUT is 'soon': expected seconds, greater than 0"):
        ranks.timeout_seconds()


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_torchrun_restarts_a_run_from_its_last_checkpoint(tmp_path):
    several.train(tmp_path / "whole", spread=False)
    command = [
        *TORCHRUN,
        "--max-restarts",
        "1",
        "-m",
        "tests.several",
        "train",
        str(tmp_path / "run"),
        "killed",
    ]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run killed").exists()
    assert several.difference(tmp_path / "whole", tmp_path / "run") < ROUNDING


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_a_checkpoint(tmp_path):
    done = run([*TORCHRUN, "-m", "tests.several", "train", str(tmp_path / "run"), "ended"])
    assert done.returncode != 0
    step = checkpoints.step_of(checkpoints.found(tmp_path / "run" / "checkpoints")[-1])
    assert several.AT <= step < 10_000
    notes = []
    several.train(tmp_path / "run", "training.epochs=10000", resume=True, minutes=1e-9, note=notes.append)
    assert notes[0] == f"goes on after step {step} of 70000"


@pytest.mark.slow
def test_the_command_line_answers_once(tmp_path):
    settings = Path(__file__).resolve().parents[1] / "docs" / "train.toml"
    command = [*TORCHRUN, "-m", "toyiwae", "train", str(settings), "--out"]
    done = run([*command, str(tmp_path / "run"), "--set", "training.epochs=1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("after step 30") == 1
    assert len(re.findall(r"^iwae .*", done.stdout, re.MULTILINE)) == 4
    done = run([*command, str(tmp_path / "no"), "--set", "training.batch=0"])
    assert done.returncode != 0
    assert re.findall(r"^error: .*", done.stderr, re.MULTILINE) == [
        "error: training.batch is 0: expected greater than or equal to 1"
    ]
    assert not (tmp_path / "no").exists()
