"""The plans of `python -m analysis mnist`: which a device chooses, and what each trains."""

import dataclasses

import pytest

pytest.importorskip("torch")

from analysis.mnist import plans, published, results
from toyiwae import InputError
from toyiwae.networks.runs.settings import read


def test_two_hours_of_a_cpu_are_what_they_were():
    """Runs of these settings lie in folders of users, which other settings would refuse."""
    tables = plans.FULL.settings("deep")
    assert [(m["M"], m["K"]) for m in tables.pop("members")] == [(64, 1), (1, 64), (8, 8), (1, 64), (8, 8)]
    assert tables == {
        "data": {"name": "mnist", "binarisation": "dynamic"},
        "model": {"kind": "bernoulli_vae", "products": "bfloat16"},
        "training": {"epochs": 20, "batch": 20, "seeds": [1]},
        "output": {"metrics_every": 100, "checkpoint_every": 500, "keep": 0},
    }
    assert plans.FULL.home == ""


@pytest.mark.parametrize(
    ("wish", "has_cuda", "name", "device"),
    [
        ({}, False, "quick", "cpu"),
        ({}, True, "quick", "cpu"),
        ({"device": "cuda"}, True, "quick", "cuda"),
        ({"quick": False}, False, "full", "cpu"),
        ({"quick": False}, True, "table", "cuda"),
        ({"quick": False, "device": "cpu"}, True, "full", "cpu"),
        ({"quick": False, "device": "cuda:1"}, True, "table", "cuda:1"),
    ],
)
def test_the_device_chooses_the_plan(wish, has_cuda, name, device):
    plan = plans.chosen(plans.Wish(**wish), has_cuda)
    assert (plan.name, plan.device) == (name, device)
    table = plan.settings(next(iter(plan.stacks)))["training"]
    assert table.get("device", "cpu") == device


def test_a_plan_has_the_minutes_and_stacks_that_are_asked_for():
    full = plans.Wish(quick=False)
    assert plans.chosen(full, False).minutes == 110
    assert plans.chosen(full, True).minutes is None
    assert plans.chosen(dataclasses.replace(full, minutes=0.0), False).minutes == 0
    some = plans.chosen(dataclasses.replace(full, stacks=("ends", "methods")), True)
    assert list(some.stacks) == ["methods", "ends"]
    with pytest.raises(InputError, match="--stack is 'end': did you mean ends"):
        plans.chosen(dataclasses.replace(full, stacks=("end",)), True)


@pytest.mark.parametrize("plan", [plans.QUICK, plans.FULL, plans.TABLE], ids=lambda plan: plan.name)
def test_the_methods_are_those_of_the_papers_table(plan):
    members = [m for stack in plan.stacks for m in read(plan.settings(stack) | {}).stack()]
    assert {member.particles for member in members} == {64}
    assert len(set(members)) == len(members)
    methods = {results.method_of(member) for member in members}
    theirs = {(m, groups, count) for m, groups, count in published.published()[published.METHOD].values}
    assert len(theirs) == 6
    if plan.name != "full":
        assert theirs < methods
    else:
        assert methods < theirs
        assert len(methods) == 5


def test_the_papers_scale_is_burdas_schedule_on_four_seeds_in_stacks_of_twenty():
    for stack in plans.TABLE.stacks:
        settings = read(plans.TABLE.settings(stack))
        assert settings.training.schedule == "stages"
        assert settings.training.epochs == plans.TABLE.milestones[-1] == 3280
        assert len(settings.training.seeds) == 4
        assert len(settings.stack()) <= 20
    assert len(read(plans.TABLE.settings("methods")).stack()) == 20


def test_splits_and_betas_run_from_iwae_to_the_elbo():
    names = [results.method_of(m) for m in read(plans.TABLE.settings("splits")).stack()]
    names += [results.method_of(m) for m in read(plans.TABLE.settings("methods")).stack()]
    found = results.splits_of(list(dict.fromkeys(names)))
    assert len(found) == 2
    assert all([method[1] for method in methods] == [1, 4, 8, 16, 64] for methods in found.values())
    betas = {results.beta_of(method) for method in names}
    assert betas == {None, 0.0, 0.05, 0.5, 1.0}
