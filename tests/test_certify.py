"""Twenty of the random problems of the certification: no number is further from the truth than it says."""

import pytest

from tests import certify, certify_table

FIRST = 253  # twenty seeds with two or more problems of each kind, and among the quickest to witness


def test_the_seeds_cover_every_kind() -> None:
    kinds = [certify.case(seed).kind for seed in range(FIRST, FIRST + 20)]
    assert all(kinds.count(kind) >= 2 for kind in certify.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + 20))
def test_stated_errors_are_honest(seed: int) -> None:
    found = certify.compare(certify.case(seed))
    assert len(found) > 50
    assert not [value for value in found if not value.honest]


def test_the_dearer_quantities_of_one_problem_are_honest() -> None:
    parts = certify.parts(certify.case(0))
    found = [value for name in ("states", "quadrature", "fourth total") for value in parts[name]()]
    assert len(found) > 30
    assert not [value for value in found if not value.honest]


@pytest.mark.slow
def test_the_slopes_at_optimal_proposals_vanish() -> None:
    """Seed 30 is among the quickest, and of all seen the one whose slopes come nearest to what is stated."""
    found = list(certify.parts(certify.case(30))["optimum"]())
    assert len(found) == 10  # a gap and four slopes at two K
    assert not [value for value in found if not value.honest]


def test_a_second_call_makes_up_for_the_parts_that_are_missing(tmp_path, monkeypatch, capsys) -> None:
    for name in ("KEPT", "TABLE", "TALLY"):
        monkeypatch.setattr(certify_table, name, tmp_path / name)
    made = []

    def part(name):
        return lambda: made.append(name) or iter([certify.Comparison(f"{name} K=2", 1.0, 1e-9, 1e-12)])

    known = {"bounds": part("gap")}
    monkeypatch.setattr(certify, "parts", lambda one: known)
    monkeypatch.setattr(certify, "isolated", lambda part: list(part()))
    assert certify.main(["2", "5"]) == 0
    known["optimum"] = part("optimum")
    assert certify.main(["2", "5"]) == 0
    assert made == ["gap", "gap", "optimum", "optimum"]
    assert [(line["seed"], line["part"]) for line in certify_table.kept()] == [
        (5, "bounds"),
        (6, "bounds"),
        (5, "optimum"),
        (6, "optimum"),
    ]
    assert "Certification of 2 random problems" in capsys.readouterr().out
    (tmp_path / "KEPT").unlink()  # another machine, which has what was committed
    before = (tmp_path / "TABLE").read_text()
    assert certify.main(["3", "5"]) == 0
    assert made[4:] == ["gap", "optimum"]
    assert certify_table.total()["quantities"]["gap"]["problems"] == 3
    assert "Certification of 3" in (tmp_path / "TABLE").read_text() != before
    with (tmp_path / "KEPT").open("a") as file:
        file.write('\n{"seed": 8, "par')  # killed while it wrote
    assert certify.main(["1", "8"]) == 0
    assert made[6:] == ["gap", "optimum"]
    assert len(list(certify_table.kept())) == 4
    monkeypatch.setattr(certify_table, "VERSION", 2)
    assert not certify_table.total()["done"]


def test_the_table_counts_what_is_beyond_and_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(certify_table, "TALLY", tmp_path / "none")
    monkeypatch.setattr(certify_table, "KEPT", tmp_path / "none")
    values = {"gap": [[1.0, 1e-10, 1e-12], [1.0, 1e-12, 1e-7], [2.0, 1e-9, 1e-14], [0.0, 0.0, 0.0]]}
    tally = certify_table.total()
    for line in (
        {"seed": 0, "part": "bounds", "values": values, "refused": None},
        {"seed": 1, "part": "bounds", "values": {}, "refused": "too long"},
        {"seed": 1, "part": "own total", "values": {}, "refused": "too long"},
    ):
        certify_table.add(tally, line | {"commit": "abc", "version": 1})
    text, beyond, share = certify_table.table(tally)
    row = next(line.split() for line in text.splitlines() if line.startswith("gap"))
    assert row[1:6] == ["1", "4", "1", "0", "1"]
    assert [float(number) for number in row[6:]] == pytest.approx([1e-5, 100.0, 1e5], rel=0.13)
    assert beyond == 1
    assert share == 0.5
