"""Properties of every estimator's coefficients: form and function, chunks, permutations, extremes, libraries."""

import functools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.members import (
    MEMBERS,
    PARTS,
    arrays,
    assert_same,
    enough,
    every_family,
    every_member,
    join,
    sample_log_weights,
)
from toyiwae.errors import InputError
from toyiwae.estimators import get
from toyiwae.estimators.evaluate import Summary, coefficients
from toyiwae.forms import Coefficients
from toyiwae.weights import normalise

WITH_FORM = [member for member in MEMBERS if member.form is not None]
every_form = pytest.mark.parametrize("member", WITH_FORM, ids=lambda member: member.name)

# form and function ------------------------------------------------------------------------------------------


@every_form
@settings(max_examples=25, deadline=None)
@given(log_w=arrays())
def test_form_and_function_agree(member, log_w):
    log_w = enough(log_w, member)
    assert_same(coefficients(member.form, log_w), member(log_w), 1e-12)
    assert member.form.shift_invariant == member.shift_invariant


@every_form
@settings(max_examples=15, deadline=None)
@given(log_w=arrays(), cut=st.integers(1, 6), level=st.sampled_from([0.0, 1e4, -1e4]))
def test_chunks_give_the_same_as_all_at_once(member, log_w, cut, level):
    """Particles in two chunks, groups one by one, one chunk far above the other."""
    log_w = enough(log_w, member)
    cut = min(cut, log_w.shape[-1])
    log_w[..., cut:] += level
    whole, exponents = coefficients(member.form, log_w), (member.form.exponent,)
    parts = [part for part in (log_w[..., :cut], log_w[..., cut:]) if part.shape[-1]]
    summary = functools.reduce(Summary.merge, [Summary.of(part, exponents) for part in parts])
    made = [coefficients(member.form, part, summary) for part in parts]
    assert_same(join(made, axis=-1), whole, 1e-11)
    pooled = summary.sums[member.form.exponent].pool()
    rows = []
    for row in np.split(log_w, log_w.shape[-2], axis=-2):
        own = Summary.of(row, exponents)
        rows.append(coefficients(member.form, row, own, pooled=pooled, groups=log_w.shape[-2]))
    assert_same(join(rows, axis=-2), whole, 1e-11)


def test_summary_carries_the_evidence_and_the_sample_size():
    log_w = sample_log_weights(3, 10)
    summary = Summary.of(log_w[..., :4], (2.0,)).merge(Summary.of(log_w[..., 4:], (2.0,)))
    shares = normalise(log_w)
    np.testing.assert_allclose(summary.log_evidence, np.log(np.exp(log_w).mean(-1)), rtol=1e-13)
    np.testing.assert_allclose(summary.ess, 1 / (shares**2).sum(-1), rtol=1e-13)


# properties -------------------------------------------------------------------------------------------------


@every_family
@settings(max_examples=20, deadline=None)
@given(log_w=arrays(), seed=st.integers(0, 99))
def test_permuting_particles_or_groups_permutes_coefficients(member, log_w, seed):
    log_w = enough(log_w, member)
    rng = np.random.default_rng(seed)
    order, groups = rng.permutation(log_w.shape[-1]), rng.permutation(log_w.shape[-2])
    moved, made = member(log_w[..., groups, :][..., order]), member(log_w)
    for part in PARTS:
        np.testing.assert_allclose(
            getattr(moved, part), getattr(made, part)[..., groups, :][..., order], rtol=1e-9, atol=1e-13
        )


@every_family
@settings(max_examples=20, deadline=None)
@given(log_w=arrays(-1e4, 1e4))
def test_any_finite_log_weights_give_finite_coefficients(member, log_w):
    log_w = enough(log_w, member)
    made = member(log_w)
    for part in PARTS:
        value = getattr(made, part)
        assert value.shape == log_w.shape
        assert value.dtype == log_w.dtype
        assert np.isfinite(value).all()
    assert np.isfinite(member.value_of(log_w)).all()


@every_family
def test_zero_weights_are_the_limit_of_small_ones(member):
    log_w = sample_log_weights(4, 6)
    small, zero = log_w.copy(), log_w.copy()
    small[:, 1:, 2], zero[:, 1:, 2] = -1e4, -math.inf
    small[:, 2, 4], zero[:, 2, 4] = -1e4, -math.inf
    form = member.form
    if form is not None and form.has_log_terms and form.exponent == 0.0:  # the mean of log 0 has no limit
        with np.errstate(invalid="ignore"):
            found, expected = member(zero), member(small)
        whole = (zero > -math.inf).all(-1)
        np.testing.assert_array_equal(np.isfinite(found.score).any(-1), whole)
        np.testing.assert_allclose(found.score[whole], expected.score[whole], rtol=1e-11)
        np.testing.assert_array_equal(found.model, expected.model)
        np.testing.assert_array_equal(found.path, expected.path)
        return
    assert_same(member(zero), member(small), 1e-11)


@every_family
def test_a_row_of_nan_spoils_no_other_row(member):
    log_w = sample_log_weights(2, 4)
    spoiled = log_w.copy()
    spoiled[0, 1, 2] = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        made = member(spoiled)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(made, part)[1:], getattr(member(log_w), part)[1:])


@every_family
def test_batches_are_computed_row_by_row(member):
    log_w = np.stack([sample_log_weights(3, 4), sample_log_weights(3, 4, seed=1)])
    made = member(log_w)
    for index in np.ndindex(log_w.shape[:-2]):
        single = member(log_w[index])
        for part in PARTS:
            np.testing.assert_allclose(getattr(made, part)[index], getattr(single, part), rtol=1e-13)


# arrays of other libraries and precisions -------------------------------------------------------------------


@every_member
@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_other_array_libraries_give_the_same(member, library):
    xp = pytest.importorskip(library)
    log_w = sample_log_weights(3, 4).astype(np.float32)
    made, expected = member(xp.asarray(log_w)), member(log_w)
    value, expected_value = member.value_of(xp.asarray(log_w)), member.value_of(log_w)
    assert type(made.score) is type(xp.asarray(log_w))
    assert_same(Coefficients(*(np.asarray(getattr(made, part)) for part in PARTS)), expected, 1e-5)
    # Relative to the largest: a value near 0 is a difference of larger numbers, in a jackknife above all.
    np.testing.assert_allclose(
        np.asarray(value), expected_value, rtol=0, atol=2e-6 * np.abs(expected_value).max()
    )
    for form in filter(None, [member.form]):
        found = coefficients(form, xp.asarray(log_w))
        assert_same(Coefficients(*(np.asarray(getattr(found, part)) for part in PARTS)), expected, 1e-5)


@every_family
def test_half_precision_is_promoted(member):
    log_w = sample_log_weights(3, 4).astype(np.float16)
    assert member(log_w).model.dtype == np.float32
    assert_same(member(log_w), member(log_w.astype(np.float32)), 0.0)
    torch = pytest.importorskip("torch")
    assert member(torch.zeros(2, 3, dtype=torch.bfloat16)).model.dtype == torch.float32


@pytest.mark.parametrize(
    ("log_w", "message"),
    [([[0.0]], "list"), (np.zeros((2, 2), int), "int64"), (np.zeros(3), "M, K"), (np.zeros((0, 3)), "M, K")],
)
def test_what_is_no_array_of_log_weights_is_refused(log_w, message):
    with pytest.raises(InputError, match=message):
        get("elbo")(log_w)
