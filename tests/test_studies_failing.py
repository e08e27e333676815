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
    assert holding("expansion", "ending", remainder=steeper)[5:7] == [False, False]
    every = quick_table("expansion")["estimators"]
    assert holding("expansion", "estimators", first=1.01 * every["first"])[7] is False
    assert holding("expansion", "estimators", left=every.left + 1e-6)[8] is False


def test_a_boundary_elsewhere_and_gradients_that_do_not_change_fail_the_claims_of_the_collapse():
    boundary, check, snr = (quick_table("collapse")[name] for name in ("boundary", "check", "snr"))
    assert holding("collapse", "check", excess=check.excess * (1 + 1e-9))[2] is False
    moved = holding("collapse", "boundary", ratio=boundary.root_ratio, root_ratio=boundary.ratio)
    assert moved[3:5] == [False, False]
    assert holding("collapse", "boundary", divergence=0.99 * boundary.divergence)[5] is False
    assert holding("collapse", "snr", snr=1 / snr.snr)[6:8] == [False, False]
    samples = quick_table("collapse")["samples"]
    assert holding("collapse", "samples", z=samples.z + 10)[8] is False


def test_optima_that_are_others_fail_the_claims_of_the_optimum():
    path = quick_table("optimum")["path"]
    assert holding("optimum", "path", variance_1=path.variance_1 * (1 + 1e-4))[:4] == [
        False,
        False,
        True,
        False,
    ]
    assert holding("optimum", "path", variance_1=1 / path.variance_1)[2] is False
    assert holding("optimum", "path", kl=-path.kl)[4] is False
    assert holding("optimum", "threshold", correlation=0.501)[5] is False
    assert holding("optimum", "path", first_gap=path.gap)[6] is False


def test_divergences_that_are_others_fail_the_claims_of_the_sweep():
    table = quick_table("divergences")
    value, ends, pair = table["conventions"].value, table["ends"], table["pair"]
    assert holding("divergences", "conventions", value=value * (1 + 1e-11))[:2] == [False, False]
    assert holding("divergences", "limits", value=table["limits"].value * (1 + 1e-11))[2:4] == [False, False]
    assert holding("divergences", "ends", other_std=ends.other_std + 1e-5)[4:6] == [False, False]
    assert holding("divergences", "sweep", std=-table["sweep"]["std"])[8] is False
    assert holding("divergences", "sweep", std=table["sweep"].alpha)[7] is False
    assert holding("divergences", "pair", minimum=pair.minimum + 1e-5)[9] is False
