"""A study made for tests of the framework, and the command line that runs it."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import __main__ as cli
from analysis.settings import Settings
from analysis.study import Claim, Study, track
from analysis.style import panels
from toyiwae.errors import InputError


class Small(Settings):
    """Settings of the study made for the test."""

    points: int = 5
    slope: float = -0.5
    counts: tuple[int, ...] = (1, 8)
    deep: bool = False


def compute(settings):
    x = np.array([float(cell) for cell in track(range(1, settings.points + 1), lambda n: f"x = {n}")])
    return {"curve": pd.DataFrame({"x": x, "y": np.exp(settings.slope * x) / 3})}


def draw(table):
    figure, axes = panels(1, 1)
    axes.plot(table["curve"].x, table["curve"].y)
    axes.set(xlabel="x (nats)", ylabel="y (nats)")
    return figure


def verdicts(table):
    slope = float(np.diff(np.log(table["curve"].y)).mean())
    return [
        Claim.near(
            "$y$ falls & <b>fast</b>",
            r"\frac{d}{dx}\log y=-\frac{1}{2}",
            slope,
            expected=-0.5,
            within=1e-9,
            source="slide: SNR; lievin2020ovis",
            condition="$x>0$ & <i>whole</i>",
        )
    ]


def caption(table):
    return f"{len(table['curve'])} points of $y$ <over> $x$."


def make(**changes):
    fields = {
        "name": "small", "order": 1, "title": "A <small> study", "question": "Does $y$ fall & how?",
        "settings": Small, "compute": compute, "draw": draw, "verdicts": verdicts,
        "caption": caption, "quick": {"points": 3},
    }  # fmt: skip
    return Study(**{**fields, **changes})


def failing(table):
    return [Claim("never", "x", math.nan, high=1.0)]


def breaking(settings):
    raise InputError("model.prior_cov is <bad>")


def only_these(monkeypatch):
    """A function that makes the command line see the given studies and no others."""
    return lambda *studies: monkeypatch.setattr(cli, "discover", lambda: studies)


def written(folder):
    """Names of the files that a command has written, less the outcomes it keeps."""
    return {path.name for path in folder.iterdir()} - {".kept"}


def invoke(monkeypatch, *words):
    """Runs the command line and returns its exit code."""
    monkeypatch.setattr("sys.argv", ["analysis", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code
