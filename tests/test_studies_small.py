"""Studies too long for the fast tests, at the smallest settings that exercise every claim.

Where a study compares estimators, two that are dropped in for the test take part in tables, figure and claims.
"""

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.study import discover, settings_of
from analysis.style import house_style
from toyiwae import estimators, plot
from toyiwae.estimators import registry
from toyiwae.forms import Coefficients
from toyiwae.weights import Array

STUDIES = {study.name: study for study in discover()}
SMALL = {
    "alpha": {"rows": 1, "k": [2, 8, 32_768, 1_000_000], "points": 9, "sampled_k": [2], "replicates": 200},
    "budget": {
        "rows": 1, "budget": 32, "betas": [0.0, 0.1, 0.5, 1.0], "sizes": [1, 2, 32], "sampled_k": 4,
        "replicates": 100,
    },
    "collapse": {},
    "discrete": {
        "rows": 1, "enumerated_k": [2, 3, 64, 128], "sampled_k": [4], "replicates": 200, "betas": [-0.35, 0.2],
    },
    "ess": {
        "dimensions": [1, 5], "per_decade": 1, "fixed_k": [64, 1000], "betas": [-0.3, -0.75], "images": 6,
        "latents": 2, "image_k": [8, 64], "sampled_dimensions": [5], "sampled_k": [4], "replicates": 200,
    },
    "expansion": {"largest_k": 10**4},
    "gallery": {"largest_k": 32, "per_decade": 2, "replicates": 500},
    "ratios": {"largest_k": 10**4, "per_decade": 1},
}  # fmt: skip
"""Study -> settings over its quick ones."""

FAST = {"budget", "discrete", "ess"}
"""Those that the fast tests run."""

TWINS = {"twin_path": "dreg", "twin_score": "score_function"}
"""Whom each study that compares estimators must show: a path derivative and a score function, with true claims."""
SHOWN = {
    "budget": ["twin_path"], "collapse": ["twin_path"], "discrete": ["twin_score"],
    "expansion": ["twin_path", "twin_score"], "ratios": ["twin_path", "twin_score"],
}  # fmt: skip


@pytest.fixture
def dropped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers twins of two estimators as files in estimators/ would."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def register(name: str, original: str) -> None:
        known = estimators.get(original)

        def function(log_w: Array) -> Coefficients:
            return known(log_w)

        function.__name__, function.__doc__ = name, f"{name.capitalize().replace('_', ' ')}: for the test."
        made = registry.estimator(target=known.target, form=known.form, min_particles=known.min_particles)
        made(function)

    for name, original in TWINS.items():
        register(name, original)


def words(figure: Figure) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.usefixtures("dropped_in")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in SMALL]
)
def test_a_whole_study_holds_its_claims_and_shows_whoever_is_registered(name):
    study = STUDIES[name]
    table = study.compute(settings_of(study, {name: SMALL[name]}, quick=True))
    assert [claim for claim in study.verdicts(table) if not claim.passed] == []
    with house_style():
        figure = study.draw(table)
    assert study.caption(table)
    for twin in SHOWN.get(name, ()):
        assert any(twin in set(frame["estimator"]) for frame in table.values() if "estimator" in frame)
        assert plot.short(twin) in words(figure)
