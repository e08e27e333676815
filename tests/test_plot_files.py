"""Figures of exact results and of comparisons, and the files they are written to."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text

import toyiwae
from toyiwae import InputError, plot
from toyiwae.cli.main import main
from toyiwae.errors import MissingExtraError
from toyiwae.plot.comparison_figure import comparison_figure
from toyiwae.truth.comparison import Entry, Ranking

FILE = str(Path(__file__).resolve().parents[1] / "docs" / "problem.toml")
NAMES = ("iwae", "ciwae:0.2", "ciwae:0.8", "jackknife")


@pytest.fixture(scope="module")
def result():
    return toyiwae.exact(toyiwae.load(FILE), K=[2, 4], M=[1, 3], estimators=NAMES, parameters="proposal_mean")


@pytest.fixture(scope="module")
def single():
    return toyiwae.exact(
        toyiwae.load(FILE), K=4, estimators="iwae,dreg,jackknife", parameters="proposal_mean"
    )


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_figure_has_a_curve_for_every_known_ratio_and_says_what_is_not_known(result):
    figure = result.plot()
    gap, ess, snr = figure.axes
    assert gap.get_lines()[0].get_ydata() == pytest.approx([result.cell(k).gap for k in (2, 4)])
    assert ess.get_lines()[0].get_ydata() == pytest.approx([result.cell(k).ess for k in (2, 4)])
    curves = {line.get_label(): line for line in snr.get_lines()}
    assert set(curves) == {
        "IWAE, $M=1$", "MIWAE, $M=3$", "CIWAE 0.2, $M=1$", "CIWAE 0.2, $M=3$", "CIWAE 0.8, $M=1$", "CIWAE 0.8, $M=3$",
    }  # fmt: skip
    assert (
        len({(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in curves.values()})
        == 6
    )
    assert curves["IWAE, $M=1$"].get_color() == plot.look("iwae")["color"]
    shown = texts(figure)
    assert "not known, or 0: Jackknife, $M=1$, Jackknife, $M=3$" in shown
    assert set(curves) <= set(shown)  # at the ends of the curves
    assert {axes.get_xlabel() for axes in figure.axes} == {"particles $K$"}


def test_a_single_k_has_points_in_order_or_nothing_to_draw(single):
    figure = single.plot()
    (axes,) = figure.axes
    values = [line.get_xdata()[0] for line in axes.get_lines()]
    assert values == sorted(values)
    assert len(values) == 2
    cell = single.cell(4)
    assert f"$K=4$: gap {cell.gap:.4g} nats, ESS {cell.ess:.4g}" in texts(figure)
    with pytest.raises(InputError, match=r"nothing to draw at K = 4: expected several K"):
        toyiwae.exact(toyiwae.load(FILE), K=4, parameters="none").plot()


def test_a_comparison_is_drawn_with_equal_curves_together(tmp_path, capsys):
    file = tmp_path / "figure.svg"
    words = ["compare", FILE, "--budget", "4", "-e", "iwae,dreg", "-p", "prior_mean", "--plot", str(file)]
    assert main(words) == 0
    assert "1   iwae, dreg   4   1" in capsys.readouterr().out
    drawn = file.read_text(encoding="utf-8")  # an SVG keeps its text
    assert drawn.startswith("<?xml")
    assert drawn.count(">IWAE, DReG<") == 2
    assert "gradient by prior mean" in drawn
    with pytest.raises(InputError, match="budget of 1"):
        toyiwae.compare(toyiwae.load(FILE), budget=1, estimators="elbo", parameters="prior_mean").plot()


def test_a_comparison_has_whole_numbers_below_and_names_what_is_not_known():
    """Entries as `compare` makes them, without its minute of integrals."""
    entries = [
        Entry("iwae", 1 << power, 1 << 20 - power, rmse_evidence=1.0 / 2**power, snr=2.0)
        for power in range(21)
    ]
    entries += [Entry("jackknife", 1 << power, 1 << 20 - power, reason="r") for power in range(21)]
    ranking = Ranking(("prior_mean",), "rmse_evidence", tuple(entries))
    figure = comparison_figure(SimpleNamespace(budget=1 << 20, parts={"model": ranking}))
    for axes in figure.axes:
        ticks = axes.get_xticklabels()
        assert [text.get_text() for text in ticks] == ["1", "64", "4,096", "262,144"]
        boxes = [text.get_window_extent() for text in ticks]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
        assert "not known, 0 or infinite: Jackknife" in [text.get_text() for text in axes.texts]
        assert "1{,}048{,}576" in axes.get_xlabel()


@pytest.mark.parametrize(("kind", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_files_are_whole_and_the_same_for_the_same_figure(single, kind, start, tmp_path):
    plot.save(single.plot(), tmp_path / f"first{kind}")
    plot.save(single.plot(), tmp_path / f"second{kind}")
    first, second = (tmp_path / f"{name}{kind}" for name in ("first", "second"))
    assert first.read_bytes().startswith(start)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("figure.jpeg", "'figure.jpeg' is no name of a figure: expected one that ends in .png, .pdf or .svg"),
        ("figure", "is no name of a figure"),
        ("nowhere/figure.png", "'nowhere/figure.png': there is no folder 'nowhere'"),
        ("folder.png", "'folder.png' is a directory"),
        ("n" * 300 + ".png", "cannot use"),
    ],
)
@pytest.mark.parametrize(
    "command", [["exact", "-K", "1,2", "-p", "none"], ["compare", "--budget", "2", "-e", "elbo"]]
)
def test_bad_files_are_refused_in_one_line_and_nothing_is_written(
    command, file, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert main([command[0], FILE, *command[1:], "--plot", file]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_without_matplotlib_a_line_names_the_extra(tmp_path, monkeypatch, capsys, single):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    file = tmp_path / "figure.png"
    assert main(["exact", FILE, "-K", "1,2", "--plot", str(file)]) == 2
    assert "needs matplotlib, which is not installed: pip install 'toyiwae[plot]'" in capsys.readouterr().err
    assert not file.exists()
    with pytest.raises(MissingExtraError, match=r"toyiwae\[plot\]"):
        single.plot()


def test_the_figure_of_exact_stands_beside_its_answer(tmp_path, capsys):
    file = tmp_path / "figure.svg"
    assert main(["exact", FILE, "-K", "1,2", "-p", "none", "--plot", str(file), "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert "effective sample size" in file.read_text(encoding="utf-8")


def at_the_posterior():
    """The problem with q the posterior: all weights are equal, and an SNR of the proposal's gradient is 0 or 0/0."""
    problem = toyiwae.load(FILE)
    posterior = toyiwae.exact(problem, K=1, parameters="none").posterior
    document = problem.to_dict()
    document["proposal"] = {
        "mean": np.ravel(posterior["mean"]).tolist(),
        "cov": np.asarray(posterior["cov"]).tolist(),
    }
    return toyiwae.Problem.from_dict(document)


def test_constants_are_drawn_flat_and_empty_panels_say_so():
    problem = at_the_posterior()
    figure = toyiwae.compare(problem, budget=4, estimators="iwae,dreg").plot()
    error, snr, relative, ratio = figure.axes
    for axes in (error, snr):
        (line,) = axes.get_lines()
        low, high = axes.get_ylim()
        assert low < 0.6 * np.min(line.get_ydata())
        assert high > 1.6 * np.max(line.get_ydata())
    (empty,) = toyiwae.exact(problem, K=[4, 8], estimators="iwae", parameters="proposal_mean").plot().axes[2:]
    for axes, least, most in ((relative, 1, 4), (ratio, 1, 4), (empty, 4, 8)):
        assert not axes.get_lines()
        assert axes.get_xlim() == pytest.approx((least / 1.1, most * 1.1))
        assert "nothing above 0 to draw" in [text.get_text() for text in axes.texts]


def test_few_values_of_k_are_the_ticks_and_markers_are_whole(single, result):
    assert [label.get_text() for label in result.plot().axes[2].get_xticklabels()] == ["2", "4"]
    wide = toyiwae.exact(toyiwae.load(FILE), K=[1, 1000, 10**6, 10**9], parameters="none").plot()
    assert "1,000,000" not in [label.get_text() for label in wide.axes[0].get_xticklabels()]
    (axes,) = single.plot().axes
    assert axes.get_ylim() == pytest.approx((-0.6, 1.6))


def test_an_estimator_of_a_file_is_called_by_its_name(tmp_path):
    file = tmp_path / "mine.py"
    source = """
import toyiwae
from toyiwae.estimators import both, iwae_bound

@toyiwae.estimator(target=both(iwae_bound), form=toyiwae.Form({1: 1.0}, {1: 1.0}, {}))
def mine(log_w):
    'A long sentence about what this estimator does, and for whom.'
"""
    file.write_text(source, encoding="utf-8")
    assert plot.label(f"{file}:mine", K=4) == "mine(4)"
    file.write_text(source.replace("def mine", f"def {'m' * 40}"), encoding="utf-8")
    assert plot.label(f"{file}:{'m' * 40}", K=4) == f"{'m' * 27}…(4)"
