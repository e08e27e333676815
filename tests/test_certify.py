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


def test_the_table_counts_what_is_beyond_and_refused() -> None:
    lines = [
        {"seed": 0, "values": {"gap": [[1.0, 1e-10, 1e-12], [1.0, 1e-12, 1e-7]]}, "refused": {}},
        {"seed": 1, "values": {}, "refused": {"bounds": "too long"}},
    ]
    text, beyond, share = certify_table.table(lines)
    row = next(line.split() for line in text.splitlines() if line.startswith("gap"))
    assert row[1:6] == ["1", "2", "1", "0", "1"]
    assert beyond == 1
    assert share == 0.5
