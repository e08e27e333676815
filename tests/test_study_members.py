"""The members that studies of training compare: which they are, and where they are found and drawn."""

import contextlib
from types import SimpleNamespace

import pandas as pd
from matplotlib.figure import Figure

from analysis import gradients
from analysis.studies import _trained, encoder_snr, training
from toyiwae import estimators
from toyiwae.networks.members import Member


def test_the_methods_are_those_of_the_papers_table_whatever_the_registry_cites(monkeypatch):
    before = _trained.methods()
    assert [(one["M"], one["K"]) for one in before] == [(64, 1), (1, 64), (8, 8), (1, 64), (8, 8)]
    monkeypatch.setattr(estimators, "all", tuple)
    assert _trained.methods() == before


def test_every_method_is_drawn_within_its_panel():
    places = [("iwae", 1, K) for K in range(1, 8)]
    results = pd.DataFrame(places, columns=training.METHOD)
    for name in ("log_p", "bound_64", "minus_kl"):
        results[name], results[f"{name}_se"] = -1.0, 0.1
    panels = Figure().subplots(1, 3)
    table = {"results": results, "runs": results, "facts": pd.DataFrame([{"largest_k": 500}])}
    training._points(panels, table)
    for axes in panels:
        low, high = axes.get_xlim()
        assert low < 0
        assert len(places) - 0.9 < high < len(places)


def test_estimators_are_compared_at_the_parameters_of_iwae_wherever_it_stands(monkeypatch):
    stack = encoder_snr.STACK[::-1]
    members = [Member(name, name, M, K, 2) for name, M, K in stack]
    run, asked = SimpleNamespace(members=members), []

    def found(run, place, rules, **options):
        asked.append((place, len(rules)))
        numbers = [1.0] * len(rules)
        return SimpleNamespace(snr=numbers, log_snr=numbers, log_snr_se=numbers)

    @contextlib.contextmanager
    def kept(tables, every):
        assert [one["estimator"] for one in tables["members"]] == [name for name, *_ in stack]
        yield SimpleNamespace(steps=[0, 15], at=lambda step: run)

    monkeypatch.setattr(encoder_snr, "STACK", stack)
    monkeypatch.setattr(gradients, "encoder_snr", found)
    monkeypatch.setattr(_trained, "kept", kept)
    encoder_snr.compute(encoder_snr.EncoderSnrSettings(checkpoints=2))
    assert {place for place, count in asked if count == 2} == {stack.index(encoder_snr.COMPARED_AT)}
