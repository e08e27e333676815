"""The studies' framework: discovery, settings, verdicts, files and report, on a study made for the test."""

import io
import json
import math
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from analysis import mathml, output, runner
from analysis.settings import read_assignments, read_toml
from analysis.study import Claim, discover, settings_of, track, watched_by
from analysis.style import VENUES, house_style
from tests.made_study import (
    Small,
    breaking,
    compute,
    failing,
    invoke,
    make,
    only_these,
    written,
)
from toyiwae.errors import InputError


@pytest.fixture
def only(monkeypatch):
    """Makes the command line see the given studies and no others."""
    return only_these(monkeypatch)


@pytest.mark.parametrize(
    ("number", "low", "high", "passed"),
    [
        (1.0, 0.0, 1.0, True),
        (1.1, 0.0, 1.0, False),
        (math.nan, -math.inf, math.inf, False),
        (-2.0, -math.inf, 0, True),
    ],
)
def test_a_claim_passes_within_its_range_and_never_without_a_number(number, low, high, passed):
    assert Claim("t", "x", number, low, high).passed is passed


def test_discovery_finds_every_file_in_declared_order():
    studies = discover()
    assert [study.order for study in studies] == sorted({study.order for study in studies})
    for study in studies:
        for formula in re.findall(r"\$(.*?)\$", study.question + study.method):
            ElementTree.fromstring(mathml.to_mathml(formula))
        assert settings_of(study, quick=True) == settings_of(study, {study.name: dict(study.quick)})


@pytest.mark.parametrize(
    ("second", "message"),
    [("STUDY = 3", "defines no STUDY"), ("from .one import STUDY", "the same name: 'small'")],
)
def test_discovery_refuses_what_is_no_study(tmp_path, monkeypatch, second, message):
    name = f"studies_{tmp_path.name}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text(
        "from analysis.settings import Settings\n"
        "from analysis.study import Study\n"
        "STUDY = Study('small', 1, 't', 'q', Settings, dict, dict, dict, str)\n"
    )
    (package / "two.py").write_text(second)
    (package / "_part.py").write_text("part = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        discover(name)


def test_settings_come_from_defaults_quick_file_and_command_line(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("[small]\nslope = -1\ncounts = [2, 4]\n[other]\nx = 1\n")
    given = read_assignments(["points=7", "small.deep = true"], "small")
    settings = settings_of(make(), read_toml(path), given, quick=True)
    assert settings == Small(points=7, slope=-1.0, counts=(2, 4), deep=True)
    assert settings_of(make(), quick=True) == Small(points=3)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pints=3", "no setting pints; did you mean points?"),
        ("points=3.5", "points = 3.5"),
        ("points='3'", "points = '3'"),
        ("points=true", "points = True"),
        ("slope=nan", "slope = nan"),
        ("slope=inf", "slope = inf"),
        ("counts=[1, 2.5]", r"counts\.1 = 2.5"),
        ("deep=1", "deep = 1"),
        ("points", "expected key=value"),
        ("points=1979-05-27", "a value is a date"),
    ],
)
def test_bad_settings_are_refused_in_one_line(assignment, message):
    with pytest.raises(InputError, match=message) as refused:
        settings_of(make(), read_assignments([assignment], "small"))
    assert "\n" not in str(refused.value)


def test_track_reports_every_cell_and_only_to_who_watches():
    seen = []
    with watched_by(lambda total: seen.append(total) or seen.append):
        assert list(track([3, 4], lambda cell: f"K = {cell}")) == [3, 4]
    assert list(track([5])) == [5]
    assert seen == [2, "K = 3", "K = 4"]


def test_a_run_gives_figure_data_and_verdict_twice_the_same():
    outcomes = [runner.run(make(), Small()) for _ in range(2)]
    first = outcomes[0]
    assert first.passed
    assert set(first.files) == {"small.png", "small.pdf", "small-curve.csv", "small.txt"}
    assert first.files == outcomes[1].files
    read = pd.read_csv(io.BytesIO(first.files["small-curve.csv"]))
    pd.testing.assert_frame_equal(read, compute(Small())["curve"], check_exact=True)


def test_figures_are_fine_enough_and_leave_no_trace_on_matplotlib():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    png = runner.run(make(), Small()).files["small.png"]
    width = int.from_bytes(png[16:20], "big")
    assert output.PNG_DPI >= 150
    assert width == pytest.approx(6.0 * output.PNG_DPI, abs=1)
    assert dict(mpl.rcParams) == before
    with house_style():
        assert mpl.rcParams["font.family"] == ["STIXGeneral"]


@pytest.mark.parametrize(("venue", "width"), {"jmlr": 6.0, "neurips": 5.5, "icml": 6.75}.items())
def test_a_figure_has_the_width_of_its_venue_and_the_same_bytes_for_the_same_settings(venue, width):
    first, second = (runner.run(make(), Small(), venue).files for _ in range(2))
    assert first == second
    assert int.from_bytes(first["small.png"][16:20], "big") == pytest.approx(width * output.PNG_DPI, abs=1)
    assert f"--style {venue}" in first["small.txt"].decode()


def test_every_venue_has_a_look_of_its_own():
    assert set(VENUES) == {"jmlr", "neurips", "icml", "slides"}
    shown = {
        venue: (rc["figure.figsize"], rc["font.size"], rc["font.family"]) for venue, rc in VENUES.items()
    }
    assert len(set(shown.values())) == len(shown)


def test_caption_settings_and_versions_stand_beside_the_figure(tmp_path):
    files = runner.run(make(), Small(points=4, counts=(3, 5))).files
    text = files["small.txt"].decode()
    assert text.startswith("4 points of $y$ <over> $x$.\n\n[small]\n")
    path = tmp_path / "again.toml"
    path.write_text(text.partition("\n\n")[2])
    again = settings_of(make(), read_toml(path))
    assert again == Small(points=4, counts=(3, 5))
    assert runner.run(make(), again).files == files
    assert re.search(
        r"^# toyiwae \S+, numpy \S+, scipy \S+, .*matplotlib \S+, Python \S+$", text, re.MULTILINE
    )


def test_a_formula_that_cannot_be_shown_is_the_failure_of_its_study_alone(capsys):
    outcome = runner.run(make(verdicts=lambda table: [Claim("t", r"\foo", 1.0)]), Small())
    assert not outcome.passed
    assert "foo is outside the subset" in outcome.error
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("slide: SRN", "no slide 'SRN'; did you mean SNR?"),
        (
            "rainforth2018",
            "no key of docs/references.bib 'rainforth2018'; did you mean rainforth2018tighter?",
        ),
        ("SNR", "no key of docs/references.bib 'SNR'"),
    ],
)
def test_a_source_that_does_not_exist_is_the_failure_of_its_study(source, message):
    outcome = runner.run(make(verdicts=lambda table: [Claim("t", "x", 1.0, source=source)]), Small())
    assert not outcome.passed
    assert message in outcome.error


def test_the_ledger_has_a_row_for_every_claim_and_every_breakdown(tmp_path, monkeypatch, only, capsys):
    only(make(), make(name="never", order=2, verdicts=failing), make(name="no", order=3, compute=breaking))
    assert invoke(monkeypatch, "ledger", "--jobs", "1", "--out", tmp_path) == 1
    assert "−0.5 ± 10^−9" in capsys.readouterr().out
    assert written(tmp_path) == {"ledger.csv", "ledger.json"}
    document = json.loads((tmp_path / "ledger.json").read_text(), parse_constant=pytest.fail)
    assert (document["held"], document["total"]) == (1, 3)
    first, second, third = document["claims"]
    assert first["source"] == "slide “SNR”, Liévin et al. (2020)"
    assert (first["expected"], first["verdict"]) == (-0.5, "pass")
    assert first["low"] < first["number"] < first["high"]
    assert (second["number"], second["low"], second["verdict"]) == (None, None, "fail")
    assert third["evidence"] == "InputError: model.prior_cov is <bad>"
    table = pd.read_csv(tmp_path / "ledger.csv", keep_default_na=False)
    assert list(table.claim) == [row["claim"] for row in document["claims"]]
    assert float(table.number[0]) == first["number"]
    only(make())
    assert invoke(monkeypatch, "ledger", "--jobs", "1", "--out", tmp_path) == 0


def test_a_study_without_claims_shows_nothing():
    assert not runner.run(make(verdicts=lambda table: []), Small()).passed
