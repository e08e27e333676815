"""Studies that a worker can be sent, for the tests of running many: quick, slow, and deadly ones.

As a program: the command line of the studies, with those of `report()` and no others.
"""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import __main__ as cli
from analysis.settings import Settings
from analysis.study import Claim, Study
from analysis.style import panels
from toyiwae.errors import InputError


class Own(Settings):
    """How much is computed, and how long it takes."""

    points: int = 4
    seconds: float = 0.0
    gate: str = ""


def compute(settings):
    """A curve; where there is a gate, not before its file exists."""
    time.sleep(settings.seconds)
    while settings.gate and not Path(settings.gate).exists():
        time.sleep(0.01)
    x = np.linspace(0.1, 1.0, settings.points)
    return {"curve": pd.DataFrame({"x": x, "y": np.exp(-x) / 3})}


def dies(settings):
    """Takes its process with it."""
    os._exit(3)


def breaks(settings):
    """Finds something wrong."""
    raise InputError("nothing to study")


def draw(table):
    """The curve."""
    figure, axes = panels(1, 1)
    axes.plot(table["curve"].x, table["curve"].y)
    return figure


def verdicts(table):
    """A claim with limits of every kind."""
    return [
        Claim("It falls.", "y'<0", float(np.diff(table["curve"].y).max()), high=0.0),
        Claim.near(
            "It starts there.", "y", table["curve"].y[0], expected=0.3, within=0.1, source="slide: SNR"
        ),
    ]


def caption(table):
    """What the figure shows."""
    return f"{len(table['curve'])} points."


def study(name, order, **changes):
    """A study that is right, with changes."""
    fields = {"settings": Own, "compute": compute, "draw": draw, "verdicts": verdicts, "caption": caption}
    return Study(name=name, order=order, title=name.title(), question="?", **fields | changes)


def report():
    """Five studies, the last of which costs most."""
    names = ("one", "two", "three", "four", "five")
    studies = [study(name, order) for order, name in enumerate(names, start=1)]
    return (*studies[:-1], dataclasses.replace(studies[-1], cost=50.0))


if __name__ == "__main__":
    from tests import report_studies  # by this name workers find what they are sent

    cli.discover = report_studies.report
    cli.main()
