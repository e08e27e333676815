"""How estimators look: every family of the registry apart from the others, groups apart from one group."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from toyiwae import estimators, plot
from toyiwae.estimators import registry

DEFICIENT = {  # Machado, Oliveira and Fernandes (2009), severity 1: what is left of linear RGB
    "none": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}  # fmt: skip


def lab(linear):
    """CIE L*a*b* of linear sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0.0, 1.0) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("deficiency", DEFICIENT)
def test_colors_are_told_apart_by_readers_with_color_vision_deficiencies(deficiency):
    rgb = np.array([to_rgb(color) for color in plot.COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [lab(np.asarray(DEFICIENT[deficiency]) @ color) for color in linear]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15.0
    assert max(color[0] for color in seen) < 75.0  # dark enough for a thin line on white


def apart(looks, *keys):
    """Whether no two looks agree in all of these."""
    return len({str([look[key] for key in keys]) for look in looks}) == len(looks)


def test_no_two_families_look_alike():
    looks = [plot.look(one) for one in estimators.all()]
    assert apart(looks, "color", "linestyle", "marker")
    assert apart(looks, "color", "marker")  # markers may stand alone


def test_families_are_told_apart_where_a_kind_has_more_of_them_than_there_are_colors(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    iwae = estimators.get("iwae")
    for count in range(2 * len(plot.COLORS)):
        name = f"newcomer_{count}"
        registry._REGISTRY[name] = dataclasses.replace(
            iwae, name=name, family=name, summary=f"Other {count}: x."
        )
    own = [plot.look(one) for one in estimators.all() if plot.kind(one) == plot.kind(iwae)]
    assert len(own) > 2 * len(plot.COLORS)
    assert apart(own, "color", "marker")
    assert len({look["color"] for look in own}) == len(plot.COLORS)
    assert apart([plot.look(one) for one in estimators.all()], "color", "linestyle", "marker")


def test_a_dollar_sign_in_a_summary_is_no_formula(monkeypatch):
    r"""Between two of them stands `\nothing`, which mathtext refuses."""
    cheap = dataclasses.replace(
        estimators.get("iwae"), name="cheap", family="cheap", summary=r"Costs $\nothing$: x."
    )
    monkeypatch.setattr(registry, "_REGISTRY", registry._REGISTRY | {"cheap": cheap})
    figure = Figure()
    for label in (plot.short("cheap"), plot.label("cheap", 1, 8), f"{plot.short('cheap')}, $M=3$"):
        figure.text(0.5, 0.5, label)
        figure.draw_without_rendering()
        assert label.count("$") - label.count(r"\$") == 2 * label.endswith("$M=3$")


def test_groups_and_members_of_a_family_are_told_apart():
    assert plot.look("ciwae:0.1") == plot.look("ciwae:0.9")
    grouped = plot.look("iwae", 8)
    assert grouped["color"] == plot.look("iwae")["color"]
    assert grouped["linestyle"] == plot.DOTTED
    assert plot.DOTTED not in [plot.look(one)["linestyle"] for one in estimators.all()]
    assert grouped["markerfacecolor"] == "white"
    assert plot.look("elbo", 64) == plot.look("elbo")
    three = plot.looks(["iwae", "vr_iwae:0.1", "vr_iwae:0.5", "vr_iwae:0.9"])
    assert three[:2] == [plot.look("iwae"), plot.look("vr_iwae")]
    assert len({look["color"] for look in three}) == len({look["marker"] for look in three[1:]}) + 1 == 4
    assert plot.looks(["iwae"], 8) == [grouped]


def test_labels_are_told_apart_and_name_particles_and_parameter():
    shorts = [plot.short(one) for one in estimators.all()]
    assert len(set(shorts)) == len(shorts)
    assert max(map(len, shorts)) < 20
    assert plot.label("vr_iwae:0.3", 1, 4).endswith("(4, α = 0.3)")
    assert plot.label("vimco_arithmetic", 2, 4) == "VIMCO arithmetic(2, 4)"


def test_labels_stand_at_the_ends_of_their_curves_without_overlap():
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for height, name in enumerate(("first", "second", "_hidden", "third", "far")):
        axes.plot([1, 2, 3], [1, 2, 3 + 0.001 * height * (1000 if name == "far" else 1)], label=name)
    axes.plot([1, 2], [np.nan, np.nan], label="nothing to see")
    axes.set_yscale("log")
    found = plot.label_ends(axes)
    assert [text.get_text() for text in found] == ["first", "second", "third", "far"]
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in found), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert axes.get_window_extent().x1 < min(box.x0 for box in boxes)
    assert max(box.x1 for box in boxes) <= 400
    assert [to_rgb(text.get_color()) for text in found] == [to_rgb(f"C{i}") for i in (0, 1, 3, 4)]
