"""Claims of the studies of expansions, optima and divergences fail where the numbers are others."""

from tests.test_studies import STUDIES, quick_table


def holding(study, frame, **columns):
    """Whether each claim holds when columns of one data frame of the quick table are others."""
    table = quick_table(study)
    changed = {**table, frame: table[frame].assign(**columns)}
    return [claim.passed for claim in STUDIES[study].verdicts(changed)]


def test_a_term_that_is_another_fails_the_claims_of_the_expansion():
    left, ending = (quick_table("expansion")[name] for name in ("remainders", "ending"))
    assert holding("expansion", "remainders", remainder=left.remainder + 1e-6)[:2] == [False, False]
    assert holding("expansion", "remainders", beyond=1.02 * left.beyond)[2] is False
    assert holding("expansion", "ending", order=ending.order + 1)[4] is False
    steeper = ending.remainder / ending.K**0.1
    assert holding("expansion", "ending", remainder=steeper)[5:] == [False, False]
