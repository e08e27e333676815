"""The interactive page in headless Chromium: its numbers over the sliders' range, and what a reader can do with it."""

import itertools
import json
import re

import numpy as np
import pytest

from analysis.explorer import accuracy, gradients
from analysis.explorer.command import PAGE
from analysis.explorer.settings import DEFAULT, DRAWN, PRESETS, VALUES, Setting, exact_numbers
from tests import browser
from toyiwae import plot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.found() is None, reason="no Chromium (apt-get install chromium)"),
]

NAMES = list(VALUES)
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SETTLED = """new Promise(done => {
  const waiting = () => [...document.querySelectorAll('data')].some(d => d.textContent === '…');
  const look = () => (waiting() ? setTimeout(look, 20) : done());
  look();
})"""
SHOWN = "Object.fromEntries([...document.querySelectorAll('data')].map(d => [d.id.slice(0, -6), d.value]))"
STATE = """({
  texts: Object.fromEntries([...document.querySelectorAll('data, dd.aside, #summary, svg desc, output, #code')]
    .map(e => [e.id, e.textContent])),
  paths: Object.fromEntries([...document.querySelectorAll('svg path[id]')].map(e => [e.id, e.getAttribute('d')])),
  places: Object.fromEntries([...document.querySelectorAll('.label, .now')].map(e => [e.id,
    ['x', 'y', 'x1'].map(name => Number(e.getAttribute(name)))])),
  moved: Object.fromEntries([...document.querySelectorAll('svg [id][transform]')].map(e => [e.id,
    [e.getAttribute('transform'), e.textContent]])),
  pressed: [...document.querySelectorAll('[aria-pressed=true]')].map(e => e.textContent),
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser for all tests of this module."""
    with browser.chromium(tmp_path_factory.mktemp("profile")) as driven:
        yield driven


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The page's address, with nothing beside it."""
    file = tmp_path_factory.mktemp("page") / "explorer.html"
    file.write_bytes(PAGE.read_bytes())
    return file.as_uri()


def move(page, setting):
    """Moves all sliders to a setting, as a hand would, and returns the numbers then shown."""
    steps = {name: VALUES[name].index(getattr(setting, name)) for name in NAMES}
    page.run(
        f"for (const [name, step] of Object.entries({json.dumps(steps)})) {{"
        "const slider = document.getElementById(name); slider.value = step;"
        "slider.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    page.run(FRAMES)
    page.run(SETTLED)
    return {name: float(text) for name, text in page.run(SHOWN).items()}


def settings():
    """All corners of the sliders' range, and random positions."""

    def at(K, M, D, shift, width):
        return Setting(int(K), int(M), int(D), shift, width)

    for position in itertools.product(*[(values[0], values[-1]) for values in VALUES.values()]):
        yield at(*position)
    random = np.random.default_rng(11)
    for _ in range(60):
        yield at(*(random.choice(values).item() for values in VALUES.values()))


def test_the_numbers_are_the_oracles_over_the_whole_range(page, url):
    page.open(url)
    worst = {}
    for setting in settings():
        shown, truth = move(page, setting), exact_numbers(setting, [setting.K])[0]
        for name, value in truth.items():
            worst[name] = max(
                worst.get(name, (0.0, "")), (accuracy.deviation(shown[name], value), str(setting))
            )
    assert set(worst) == set(exact_numbers(DEFAULT, [1])[0])
    assert all(off <= accuracy.read()["stated"] for off, _ in worst.values()), worst
    assert page.problems() == []


def test_the_script_finds_what_the_generator_wrote(page, url):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(url)
        before = page.run(STATE)
        assert page.run("document.getElementById('sliders').disabled")
        assert "need JavaScript" in page.run("document.querySelector('.notice').textContent")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    page.open(url)
    after = page.run(STATE)
    assert not page.run("document.getElementById('sliders').disabled")
    assert after["texts"] == before["texts"]
    assert after["pressed"] == before["pressed"] == ["paper, K = 64"]
    for kind in ("paths", "places", "moved"):
        assert set(before[kind]) == set(after[kind])
        for name, value in before[kind].items():
            one, other = (re.findall(r"[-\d.]+", json.dumps(each)) for each in (value, after[kind][name]))
            assert len(one) == len(other) > 0
            assert np.abs(np.array(one, float) - np.array(other, float)).max() <= 0.11, name


def test_nothing_is_requested_and_nothing_is_reported(page, url):
    page.open(url)
    for setting in PRESETS.values():
        move(page, setting)
    assert page.requests() == [url]
    assert page.problems() == []


def test_keys_move_a_slider(page, url):
    page.open(url)
    page.run("document.getElementById('shift').focus()")
    for key, code, steps in (
        ("ArrowRight", 39, 1),
        ("End", 35, 90),
        ("Home", 36, -100),
        ("ArrowRight", 39, 1),
    ):
        before = page.run("document.getElementById('shift').valueAsNumber")
        page.press(key, code)
        page.run(FRAMES)
        assert page.run("document.getElementById('shift').valueAsNumber") - before == steps
    assert page.run("document.getElementById('shift-value').textContent") == "0.05"
    spoken = page.run("document.getElementById('shift').getAttribute('aria-valuetext')")
    assert spoken == "0.05 posterior standard deviations"
    assert page.run("location.hash") == "#K=64&M=1&D=20&shift=0.05&width=1.15"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_all_sliders_the_address_and_the_summary(page, url, name):
    page.open(url)
    page.run(f"[...document.querySelectorAll('button')].find(b => b.textContent === {name!r}).click()")
    page.run(FRAMES)
    page.run("new Promise(done => setTimeout(done, 600))")
    setting, state = PRESETS[name], page.run(STATE)
    assert state["pressed"] == [name]
    for slider in NAMES:
        assert float(state["texts"][f"{slider}-value"]) == getattr(setting, slider)
        assert f"{slider}={getattr(setting, slider):g}" in page.run("location.hash")
    assert state["texts"]["summary"].startswith(f"With K = {setting.K} the bound lies")
    assert page.run("document.getElementById('summary').getAttribute('aria-live')") == "polite"


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("#K=1000000&M=1000&D=50&shift=5&width=2", Setting(10**6, 1000, 50, 5.0, 2.0)),
        ("#shift=0", Setting(shift=0.0)),
        ("#K=65&width=1.154", Setting(K=64, width=1.15)),
        ("#K=1e99&D=-3&M=x&width=&shift=NaN&other=3&__proto__=1", Setting(K=10**6)),
        ("#D=<script>alert(1)</script>&&==%", Setting()),
    ],
)
def test_the_address_holds_the_setting_and_nonsense_in_it_does_no_harm(page, url, fragment, expected):
    page.open(url + fragment)
    texts = page.run(STATE)["texts"]
    assert {name: float(texts[f"{name}-value"]) for name in NAMES} == {n: getattr(expected, n) for n in NAMES}
    page.run("location.hash = '#K=2&D=3'")
    page.run(FRAMES)
    assert page.run("document.getElementById('D-value').textContent") == "3"
    assert page.problems() == []


EVERYONE = ",".join(one.name for one in gradients.computed())


def test_a_box_draws_an_estimators_curves_and_the_address_holds_the_choice(page, url):
    """By the keyboard: what is drawn, spoken and in the code, and what the address brings back."""
    page.open(url)
    added, dropped = "iwae_stl", DRAWN[0]
    chosen = [one.name for one in gradients.computed() if one.name in {added, *DRAWN[1:]}]
    page.run(f"document.getElementById('draw-{added}').focus()")
    for key, code in ((" ", 32), (" ", 32), (" ", 32)):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key, windowsVirtualKeyCode=code)
        page.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
    page.run(f"document.getElementById('draw-{dropped}').click()")
    page.run(FRAMES)
    page.run("new Promise(done => setTimeout(done, 600))")
    shown = "[...document.querySelectorAll('#proposal-curves g:not([visibility]) .curve[d]')].map(e => e.id)"
    assert set(page.run(shown)) == {f"{name}-proposal-curve" for name in chosen}
    assert page.run("location.hash").endswith("&draw=" + ",".join(chosen))
    assert plot.short(added) in page.run("document.getElementById('summary').textContent")
    code = page.run("document.getElementById('code-names').textContent")
    assert code == ", ".join(f'"{name}"' for name in chosen)
    page.open(url + "#draw=vr_iwae,nobody,__proto__")
    assert page.run("[...document.querySelectorAll('[data-draw]:checked')].map(e => e.dataset.draw)") == [
        "vr_iwae"
    ]
    assert page.run("document.getElementById('vr_iwae-model-label').textContent") == "VR-IWAE"
    page.open(f"{url}#draw={EVERYONE}")
    assert len(page.run(shown)) == len(gradients.computed())
    assert page.problems() == []


def test_special_cases_are_said_in_words(page, url):
    for fragment, words, texts in (
        ("#shift=0&width=1", "0/0", {"gap-value": "0", "ess-value": "64", "dreg-proposal-value": "0/0"}),
        ("#shift=0", "by symmetry", {"iwae-proposal-value": "0", "dreg-proposal-value": "0"}),
        ("#K=1&width=1&shift=1", "no noise", {"dreg-proposal-value": "∞", "gap-value": "0.5"}),
        ("#width=0.7", "infinite variance", {"gap-aside": "no first-order law: Var[w] is infinite"}),
        ("#shift=5&D=50", "times too large", {}),
    ):
        page.open(url + fragment)
        found = page.run(STATE)["texts"]
        assert words in found["summary"]
        assert {name: found[name] for name in texts} == texts
    assert "not on this axis: exact 0" in page.run(
        "location.hash = '#shift=0&width=1', new Promise(done => setTimeout("
        "() => done(document.getElementById('gap-missing').textContent), 300))"
    )


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_no_width_scrolls_sideways(page, url, width):
    page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
    )
    try:
        page.open(url)
        assert page.run("document.documentElement.scrollWidth") <= width
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_dark_reduced_motion_and_print(page, url):
    page.open(url)
    look = "getComputedStyle(document.body).backgroundColor"
    light = page.run(look)
    try:
        for feature, value in (("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")):
            page.call("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])
            if value == "dark":
                assert page.run(look) != light
            else:
                assert (
                    page.run("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
                )
        page.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert page.run("getComputedStyle(document.querySelector('#K')).display") == "none"
        assert page.run("getComputedStyle(document.querySelector('#K-value')).display") != "none"
    finally:
        page.call("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page, url, scheme):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        page.open(f"{url}#draw={EVERYONE}")
        found = page.run(
            "[...document.querySelectorAll('p, dt, dd, th, td, label, output, button, figcaption, svg text, .unit,"
            " svg .curve')].map(e => {"
            "const s = getComputedStyle(e); let b = e, c = 'rgba(0, 0, 0, 0)';"
            "while (b && (c = getComputedStyle(b).backgroundColor) === 'rgba(0, 0, 0, 0)') b = b.parentElement;"
            "return [e.matches('.curve') ? s.stroke : e.ownerSVGElement ? s.fill : s.color, c]; })"
        )
    finally:
        page.call("Emulation.setEmulatedMedia", features=[])
    assert len(found) > 50
    assert min(contrast(*pair) for pair in found) >= 4.5


def contrast(one, other):
    """The contrast ratio of two CSS colours, as WCAG 2 has it."""

    def luminance(color):
        channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
