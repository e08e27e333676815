"""How estimators look: every family of the registry apart from the others, groups apart from one group."""

from toyiwae import estimators, plot


def test_no_two_families_look_alike_and_members_share_a_color():
    looks = {one.name: plot.look(one.name) for one in estimators.all()}
    shown = [(look["color"], look["linestyle"], look["marker"]) for look in looks.values()]
    assert len(set(map(str, shown))) == len(shown)
    assert plot.look("ciwae:0.1") == plot.look("ciwae:0.9")
    grouped = plot.look("iwae", 8)
    assert grouped["color"] == looks["iwae"]["color"]
    assert grouped["markerfacecolor"] == "white"
    assert plot.look("elbo", 64) == looks["elbo"]
    assert plot.label("vr_iwae:0.3", 1, 4).endswith("(4, α = 0.3)")
