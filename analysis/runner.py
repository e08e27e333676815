"""Runs a study: compute, judge, draw; everything stays in memory until it is complete."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

from analysis import mathml, output, sources
from analysis.settings import Settings
from analysis.study import Claim, Study, Table
from toyiwae.errors import InputError, ToyiwaeError


@dataclass(frozen=True)
class Outcome:
    """What came of one study.

    Args:
        study: the study.
        settings: the settings it ran with.
        seconds: how long it took.
        claims: what it found, in order.
        caption: of the figure.
        files: {file name: content} of figure and data; empty if the study broke down.
        error: why it broke down, one line; empty if it did not.
    """

    study: Study
    settings: Settings
    seconds: float
    claims: tuple[Claim, ...] = ()
    caption: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    error: str = ""

    @property
    def refused(self) -> bool:
        """Whether it broke down over its settings, which is no claim that failed."""
        return self.error.startswith(f"{InputError.__name__}: ")

    @property
    def passed(self) -> bool:
        """Whether the study ran to its end and every claim holds; one without claims shows nothing."""
        return not self.error and bool(self.claims) and all(claim.passed for claim in self.claims)


def run(study: Study, settings: Settings, venue: str = "jmlr") -> Outcome:
    """Runs one study; if it breaks down, the outcome carries the error and stderr the traceback.

    Args:
        study: the study.
        settings: its settings.
        venue: whose sizes and type the figure has, see `analysis.style`.
    """
    started = time.perf_counter()
    try:
        table = study.compute(settings)
        claims = tuple(study.verdicts(table))
        files, caption = _draw(study, table, venue), study.caption(table)
        files[f"{study.name}.txt"] = output.caption_text(study, settings, caption, venue).encode("utf-8")
        check_texts([study.question, study.method, caption], claims)
    except Exception as error:
        if not isinstance(error, ToyiwaeError):
            traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(study, settings, time.perf_counter() - started, error=message)
    return Outcome(study, settings, time.perf_counter() - started, claims, caption, files)


def check_texts(texts: list[str], claims: tuple[Claim, ...]) -> None:
    """Raises ValueError for what the report could not show, formula or source, while it is this study's fault alone."""
    for claim in claims:
        mathml.to_mathml(claim.formula)
        sources.parts(claim.source)
        texts += [claim.text, claim.note, claim.condition]
    for text in texts:
        mathml.prose(text)


def _draw(study: Study, table: Table, venue: str) -> dict[str, bytes]:
    """The study's files: PNG, PDF, GIF where it has one, and the data."""
    from analysis.style import house_style  # matplotlib takes a second that `list` need not wait for

    with house_style(venue):
        figure = study.draw(table)
        images = {f"{study.name}.{kind}": output.figure_bytes(figure, kind) for kind in ("png", "pdf")}
        if study.animate is not None:
            images[f"{study.name}.gif"] = study.animate(table)
    return {**images, **output.csv_files(study.name, table)}
