"""Twenty of the random problems of the certification: no number is further from the truth than it says."""

import pytest

from tests import certify

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
