"""The studies' framework: discovery, settings, verdicts, files and report, on a study made for the test."""

import io
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis import __main__ as cli
from analysis import mathml, output, report, runner
from analysis.run_all import run_all
from analysis.settings import Settings, read_assignments, read_toml
from analysis.study import Claim, Study, discover, settings_of, track, watched_by
from analysis.style import VENUES, house_style, panels
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


@pytest.fixture
def only(monkeypatch):
    """Makes the command line see the given studies and no others."""
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


class Page(HTMLParser):
    """Collects the tags of a page, what they refer to, the content of meta elements, and the text."""

    def __init__(self, html):
        """Reads the page."""
        super().__init__()
        self.references, self.text, self.meta, self.tags = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Notes a tag; nothing may carry its own style or script."""
        self.tags.append(tag)
        values = dict(attrs)
        self.references += [
            values[name] for name in ("src", "href", "srcset", "action", "data") if name in values
        ]
        assert not [name for name in values if name.startswith("on") or name == "style"]
        if tag == "meta":
            self.meta.append(values)

    def handle_data(self, data):
        """Notes a piece of text."""
        self.text.append(data)


def page_of(*outcomes):
    html = report.render(
        outcomes, {"toyiwae": "<1>", "platform": "Linux", "arguments": {}}, "python -m analysis report"
    )
    return html, Page(html)


def test_the_report_is_one_file_that_needs_no_network():
    html, page = page_of(runner.run(make(), Small()))
    outside = [r for r in page.references if not r.startswith(("#", "data:image/png;base64,"))]
    own = ["small.png", "small.pdf", "small-curve.csv", "small.txt", "small.py.txt"]
    assert outside == ["explorer.html", "ledger.csv", "ledger.json", *own]
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", html))
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    (policy,) = [meta["content"] for meta in page.meta if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_report_escapes_text_and_shows_claims_first():
    html, page = page_of(runner.run(make(), Small()))
    assert "<small>" not in html
    assert "<over>" not in html
    assert "<1>" not in html
    assert html.index("falls &amp; &lt;b&gt;fast&lt;/b&gt;") < html.index("<figure>")
    assert "1 of 1 claims hold." in "".join(page.text)
    assert "−0.5 ± 10<sup>−9</sup>" in html
    assert "If x>0 & <i>whole</i> · slide “SNR”, Liévin et al. (2020)" in "".join(page.text)
    assert "<i>" not in html


def test_the_report_tells_of_failures_and_breakdowns():
    outcomes = [
        runner.run(make(verdicts=failing), Small()),
        runner.run(make(name="broken", compute=breaking), Small()),
    ]
    html, page = page_of(*outcomes)
    text = "".join(page.text)
    assert "0 of 1 claims hold; this report fails." in text
    assert "The study broke down: InputError: model.prior_cov is <bad>" in text
    assert html.count('class="verdict fail"') == 2


def test_a_missing_value_in_the_template_is_an_error():
    environment = report.environment()
    with pytest.raises(Exception, match="'missing' is undefined"):
        environment.from_string("{{ missing }}").render()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.49871234, "0.4987"), (-1.83e-7, "−1.83×10^−7"), (1e-9, "10^−9"), (-1e-9, "−10^−9"),
        (12.0, "12"), (0.0, "0"), (123456.0, "1.235×10^5"), (12345.6, "12346"), (0.001, "0.001"),
        (math.inf, "∞"), (math.nan, "none"),
        (9.99999e-7, "10^−6"), (1000.0, "1000"),
    ],
)  # fmt: skip
def test_numbers_read_as_in_a_paper(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize(
    ("claim", "measured", "tolerance"),
    [
        (Claim("t", "x", 0.25, high=1e-8), "0.25", "≤ 10^−8"),
        (Claim("t", "x", -2e-5, low=0.0), "−2×10^−5", "≥ 0"),
        (Claim("t", "x", -0.5552, low=-1, high=0), "−0.5552", "−1 … 0"),
        (Claim.near("t", "x", -0.500007, expected=-0.5, within=0.005), "−0.50001", "−0.5 ± 0.005"),
        (Claim.near("t", "x", 1 + 2.08e-8, expected=1, within=4.153e-8), "1.0000000208", "1 ± 4.153×10^−8"),
        (Claim.near("t", "x", math.nan, expected=1, within=0.1), "none", "1 ± 0.1"),
    ],
)
def test_a_claim_shows_the_digits_that_decide_it(claim, measured, tolerance):
    assert (report.measured(claim), report.tolerance(claim)) == (measured, tolerance)


def test_the_command_line_reports_and_a_failed_claim_ends_in_1(tmp_path, monkeypatch, only, capsys):
    only(make())
    assert invoke(monkeypatch, "report", "--jobs", "1", "--quick", "--out", tmp_path) == 0
    assert written(tmp_path) == {
        "report.html", "explorer.html", "ledger.csv", "ledger.json",
        "small.png", "small.pdf", "small-curve.csv", "small.txt", "small.py.txt",
    }  # fmt: skip
    assert len(pd.read_csv(tmp_path / "small-curve.csv")) == 3
    only(make(verdicts=failing, compute=lambda settings: {"other": compute(settings)["curve"]},
              draw=lambda table: draw({"curve": table["other"]}), caption=lambda table: "c"))  # fmt: skip
    assert invoke(monkeypatch, "report", "--jobs", "1", "--again", "--out", tmp_path) == 1
    assert "this report fails" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "small-curve.csv").exists()
    assert (tmp_path / "small-other.csv").exists()
    only(make(compute=breaking))
    assert invoke(monkeypatch, "report", "--jobs", "1", "--again", "--out", tmp_path) == 1
    assert "broke down" in (tmp_path / "report.html").read_text()
    assert written(tmp_path) == {"report.html", "explorer.html", "ledger.csv", "ledger.json"}
    assert "broke down" in capsys.readouterr().out


def test_the_command_line_runs_one_study_and_lists_all(tmp_path, monkeypatch, only, capsys):
    only(make(), make(name="another", order=2))
    assert invoke(monkeypatch, "run", "small", "--set", "points=4", "--out", tmp_path) == 0
    assert len(pd.read_csv(tmp_path / "small-curve.csv")) == 4
    assert invoke(monkeypatch, "run", "small", "--set", "slope=-0.25", "--out", tmp_path) == 1
    assert (
        invoke(
            monkeypatch, "run", "small", "--figure", tmp_path / "docs" / "one.png", "--out", tmp_path / "no"
        )
        == 0
    )
    assert (tmp_path / "docs" / "one.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "no").exists()
    capsys.readouterr()
    assert invoke(monkeypatch, "list") == 0
    assert "another" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "smal"], "no study 'smal'; did you mean small?"),
        (["run", "small", "--style", "icmll"], "--style is 'icmll': did you mean icml?"),
        (["report", "--style", "paper"], "--style is 'paper': "),
        (["run", "small", "--set", "points=x"], "settings of small: points = 'x'"),
        (["report", "--set", "points=3"], "expected STUDY.key=value"),
        (["report", "--set", "tiny.points=3"], "no study 'tiny'; there are small"),
        (["report", "--settings", "absent.toml"], "no such file"),
        (["report", "--settings", "flat.toml"], "points = 3 stands outside a table"),
    ],
)
def test_bad_input_takes_one_line_and_ends_in_2(tmp_path, monkeypatch, only, capsys, words, message):
    only(make())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.toml").write_text("points = 3\n")
    assert invoke(monkeypatch, *words, "--out", "results") == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert message in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_an_interrupted_write_leaves_the_old_report(tmp_path, monkeypatch, only):
    only(make())
    (tmp_path / "report.html").write_text("old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert invoke(monkeypatch, "report", "--jobs", "1", "--out", tmp_path) == 2
    assert written(tmp_path) == {"report.html"}
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list((tmp_path / ".kept").iterdir())


def test_progress_shows_studies_and_cells(monkeypatch):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, highlight=False)
    run_all([(make(), Small())], console)
    assert "✓ A <small> study: 1 of 1 claims hold" in stream.getvalue()


def test_numbers_in_prose_are_formulas():
    assert report.in_prose(6.42e-14) == r"$6.4\times 10^{-14}$"
    assert report.in_prose(-1e-12) == "$-10^{-12}$"
    assert report.in_prose(0.25) == "$0.25$"


def test_formulas_become_mathml():
    parsed = ElementTree.fromstring(
        mathml.to_mathml(r"-\frac{\nabla_\phi\mathrm{Var}[w]}{2KZ^2} \le \sqrt{\hat{L}_K^2}")
    )
    assert "".join(parsed.itertext()) == "−∇φVar[w]2KZ2≤L^K2"
    assert [element.tag for element in parsed] == ["mo", "mfrac", "mo", "msqrt"]
    powered = ElementTree.fromstring(mathml.to_mathml(r"\left(\langle w \rangle + 1\right)^{2}"))
    assert [element.tag for element in powered] == ["msup"]
    assert "".join(powered.itertext()) == "(⟨w⟩+1)2"
    assert json.dumps(mathml.to_mathml(r"a<b")) == json.dumps(
        "<math><mi>a</mi><mo>&lt;</mo><mi>b</mi></math>"
    )


@pytest.mark.parametrize(
    "formula",
    [
        r"\foo",
        "x_",
        "{x",
        r"\frac{a}",
        "x__y",
        "a & b",
        "x^2^3",
        "}",
        r"\text x",
        r"\left(x",
        r"x\right)",
        r"\langle x",
    ],
)
def test_formulas_outside_the_subset_are_refused(formula):
    with pytest.raises(ValueError, match="formula"):
        mathml.to_mathml(formula)
