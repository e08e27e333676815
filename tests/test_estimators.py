"""Every registered estimator against the exact gradient of its target, and against its other claims.

Nothing here lists estimators: tests run over the registry, each family at several values of its parameter.
"""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tests import quadrature
from tests.members import MEMBERS, PARTS, assert_same, every_family, every_member, sample_log_weights
from tests.quadrature import MODEL, PROPOSAL, Toy
from toyiwae.errors import InputError
from toyiwae.estimators import get
from toyiwae.forms import Bound
from toyiwae.weights import normalise

EXACT, MARGIN = 1e-9, 1e-3
"""What the mean of an unbiased estimator may differ by, and what that of a biased one must."""

CELLS = [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
every_member_and_cell = pytest.mark.parametrize(
    ("member", "groups", "particles"),
    [
        pytest.param(member, *cell, id=f"{member.name}-M{cell[0]}-K{cell[1]}")
        for member, cell in itertools.product(MEMBERS, CELLS)
        if cell[1] >= member.min_particles
    ],
)
every_toy = pytest.mark.parametrize("toy", [Toy(), Toy.wide()], ids=["narrow", "wide"])


@functools.cache
def bound_gradient(toy: Toy, bound: Bound) -> dict[str, float]:
    """The derivatives of a bound, each computed once."""
    return quadrature.bound_gradient(toy, bound)


def worst(mean, truth, names):
    """Largest difference over some parameters, relative to entries above 1."""
    return max(abs(mean[name] - truth[name]) / max(1.0, abs(truth[name])) for name in names)


# what it is unbiased for ------------------------------------------------------------------------------------


@every_toy
@every_member_and_cell
def test_mean_is_the_gradient_of_the_target(member, toy, groups, particles):
    mean = quadrature.mean_gradient(toy, member, groups, particles)
    for target, names in ((member.target.model, MODEL), (member.target.proposal, PROPOSAL)):
        if target is not None:
            truth = bound_gradient(toy, target(particles, groups))
            assert worst(mean, truth, names) < EXACT


@every_family
def test_mean_is_the_gradient_of_the_target_with_several_groups_of_several_particles(member):
    mean = quadrature.mean_gradient(Toy(), member, 2, 2)
    for target, names in ((member.target.model, MODEL), (member.target.proposal, PROPOSAL)):
        if target is not None:
            assert worst(mean, bound_gradient(Toy(), target(2, 2)), names) < EXACT


@every_toy
@every_member
def test_what_has_no_target_is_biased(member, toy):
    """Unbiased for neither its own value, nor the ELBO, nor the IWAE bounds of up to 3 particles."""
    for target, names in ((member.target.model, MODEL), (member.target.proposal, PROPOSAL)):
        if target is None:
            mean = quadrature.mean_gradient(toy, member, 1, 3)
            for bound in {member.value(3, 1), *map(Bound.iwae, (1, 2, 3))}:
                assert worst(mean, bound_gradient(toy, bound), names) > MARGIN


@every_family
def test_networks_of_different_targets_are_told_apart(member):
    """Where model and proposal climb different bounds, a swap of the two would be seen."""
    particles, (model, proposal) = member.min_particles, (member.target.model, member.target.proposal)
    groups = 3 if particles == 1 else 1
    if None in (model, proposal) or model(particles, groups) == proposal(particles, groups):
        pytest.skip("one bound for both")
    mean = quadrature.mean_gradient(Toy(), member, groups, particles)
    assert worst(mean, bound_gradient(Toy(), proposal(particles, groups)), MODEL) > MARGIN
    assert worst(mean, bound_gradient(Toy(), model(particles, groups)), PROPOSAL) > MARGIN


@every_toy
@every_member_and_cell
def test_value_is_unbiased_for_its_bound(member, toy, groups, particles):
    _, log_w, weights = quadrature.log_weights(toy, groups, particles)
    truth = quadrature.bound_value(toy, member.value(particles, groups)).real
    assert abs(np.dot(weights, member.value_of(log_w)) - truth) < EXACT


@every_member
def test_the_value_is_a_bound_whose_gradient_is_used(member):
    """What is reported is what the model or the proposal climbs, at any K and M."""
    for particles, groups in ((5, 1), (5, 3), (9, 2)):
        targets = [target for target in (member.target.model, member.target.proposal) if target is not None]
        climbed = {target(particles, groups) for target in targets}
        assert member.value(particles, groups) in climbed


def test_the_quadrature_has_converged(monkeypatch):
    """Its own error, by comparison with a finer rule, is far below what the tests above allow."""
    coarse = [bound_gradient(toy, Bound.iwae(3)) for toy in (Toy(), Toy.wide())]
    monkeypatch.setitem(quadrature.STEPS, 3, 0.24)
    for cached in (quadrature.nodes, quadrature.term):
        cached.cache_clear()
    fine = [quadrature.bound_gradient(toy, Bound.iwae(3)) for toy in (Toy(), Toy.wide())]
    for cached in (quadrature.nodes, quadrature.term):
        cached.cache_clear()
    assert max(worst(a, b, a) for a, b in zip(coarse, fine, strict=True)) < EXACT / 10


# identities between estimators ------------------------------------------------------------------------------


def mean(name, particles=3, toy=None, groups=1):
    return quadrature.mean_gradient(toy or Toy(), get(name), groups, particles)


def test_sticking_the_landing_adds_the_mean_of_wake_phi():
    truth, wake = bound_gradient(Toy(), Bound.iwae(3)), mean("rws_wake_phi")
    expected = {parameter: truth[parameter] + wake[parameter] for parameter in PROPOSAL}
    assert worst(mean("iwae_stl"), expected, PROPOSAL) < EXACT
    assert worst(mean("ovis:1"), expected, PROPOSAL) < EXACT


@every_toy
def test_both_forms_of_wake_phi_agree_in_mean(toy):
    assert worst(mean("rws_wake_phi", toy=toy), mean("rws_wake_phi_dreg", toy=toy), PROPOSAL) < EXACT


def test_one_particle_leaves_no_weights():
    log_w = sample_log_weights(3, 1)
    assert_same(get("dreg")(log_w), get("elbo_stl")(log_w))
    assert_same(get("iwae")(log_w), get("elbo")(log_w))


def test_both_baselines_of_vimco_coincide_for_two_particles():
    log_w = sample_log_weights(3, 2)
    assert_same(get("vimco_arithmetic")(log_w), get("vimco_geometric")(log_w))


def test_order_alpha_at_its_ends():
    log_w = sample_log_weights(3, 5)
    assert_same(get("vr_iwae:0")(log_w), get("iwae")(log_w))
    assert_same(get("vr_iwae:1")(log_w), get("elbo")(log_w))


def test_order_alpha_doubly_reparameterised_at_its_ends():
    log_w = sample_log_weights(3, 5)
    assert_same(get("vr_iwae_dreg:0")(log_w), get("dreg")(log_w))
    assert_same(get("vr_iwae_dreg:1")(log_w), get("elbo_stl")(log_w))


def test_nothing_added_to_iwae_leaves_iwae():
    log_w = sample_log_weights(3, 5)
    assert_same(get("jackknife:0")(log_w), get("iwae")(log_w))
    assert_same(get("ciwae:0")(log_w), get("iwae")(log_w))


@pytest.mark.parametrize("alpha", [-1000.0, 1000.0])
def test_order_alpha_takes_the_largest_or_smallest_weight_at_the_ends_of_its_range(alpha):
    log_w = sample_log_weights(2, 5)
    pick = log_w.argmax(-1) if alpha < 0 else log_w.argmin(-1)
    expected = np.eye(5)[pick] / 2
    np.testing.assert_allclose(get(f"vr_iwae:{alpha}")(log_w).model, expected, atol=1e-6)
    np.testing.assert_allclose(get(f"vr_iwae_dreg:{alpha}")(log_w).path, expected, atol=1e-3)


def test_order_alpha_is_continuous_at_both_ends():
    log_w = sample_log_weights(2, 4)
    assert_same(get("vr_iwae:1e-9")(log_w), get("vr_iwae:0")(log_w), 1e-6)
    assert_same(get("vr_iwae:0.999999999")(log_w), get("vr_iwae:1")(log_w), 1e-6)


def test_optimal_baseline_at_gamma_zero_is_vimco_less_a_constant():
    log_w = sample_log_weights(3, 4)
    first, second = get("ovis:0")(log_w), get("vimco_arithmetic")(log_w)
    np.testing.assert_allclose(first.score, second.score - math.log1p(-1 / 4) / 3, rtol=0, atol=1e-14)


def test_vimco_star_of_order_zero_is_ovis_of_order_zero():
    log_w = sample_log_weights(3, 4)
    assert_same(get("vimco_star:0")(log_w), get("ovis:0")(log_w))
    assert get("vimco_star:0").form == get("ovis:0").form


def test_vimco_star_keeps_its_digits_where_one_weight_dominates():
    """The others hold e^(-400/2) of the sum: c = -log(1-ṽ)/(1-α) - ṽ is 2·200 less a logarithm for the largest."""
    made = get("vimco_star:0.5")(np.array([[0.0, -400.0, -402.0]])).score[0]
    np.testing.assert_allclose(made[0], 400.0 - 2.0 * np.log1p(np.exp(-1.0)) - 1.0, rtol=1e-15)
    np.testing.assert_allclose(made[1:], np.exp([-200.0, -201.0]), rtol=1e-13)


def test_vargrad_is_the_gradient_of_the_log_variance_loss():
    """Minus half that of the sample variance of ℓ, by autograd with the particles held fixed; it leaves no constant."""
    torch = pytest.importorskip("torch")
    z = torch.tensor(np.random.default_rng(5).normal(size=(2, 5)))
    mean = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    log_q = -((z - mean) ** 2) / 2
    log_w = torch.sin(z) - z**2 / 3 - log_q
    (expected,) = torch.autograd.grad(-log_w.var(dim=-1).mean() / 2, mean)
    made = get("elbo_vargrad")(log_w.detach()).score
    assert float((made * (z - mean)).sum().detach()) == pytest.approx(float(expected), rel=1e-14)
    np.testing.assert_allclose(made.sum(-1), 0.0, atol=1e-15)


@every_toy
@pytest.mark.parametrize("name", ["elbo", "elbo_stl"])
def test_the_reparameterised_elbo_is_that_of_closed_form_entropy_and_sticking_the_landing_is_not(name, toy):
    """`∇φ [log p(x, z(ε)) + log σ]`: along the path of a Gaussian proposal log q is constant but for -log σ."""
    noise, tiny = np.random.default_rng(7).normal(size=(4, 2, 3)), 1e-40
    made, factors = get(name)(toy.log_weight(toy.mean + toy.std * noise)), toy.gradients(noise)
    same = []
    for parameter in PROPOSAL:
        moved = replace(toy, **{parameter: getattr(toy, parameter) + 1j * tiny})
        z = moved.mean + moved.std * noise
        value = moved.log_weight(z) + moved.log_proposal(z) + np.log(moved.std)
        drawn = (made.path * factors[parameter][0] + made.score * factors[parameter][1]).sum((-2, -1))
        same.append(np.allclose(drawn, value.imag.mean((-2, -1)) / tiny, rtol=1e-13))
    assert all(same) if name == "elbo" else not any(same)


# claims -----------------------------------------------------------------------------------------------------


@every_member
def test_vanishes_at_the_posterior_as_claimed_and_only_so(member):
    toy, particles = Toy.at_posterior(), 3
    noise = np.random.default_rng(1).normal(size=(20, 2, particles))
    made = member(toy.log_weight(toy.mean + toy.std * noise))
    factors = toy.gradients(noise)
    gradient = [(made.path * factors[p][0] + made.score * factors[p][1]).sum((-2, -1)) for p in PROPOSAL]
    assert (np.max(np.abs(gradient)) < 1e-12) == member.vanishes_at_posterior
    assert member.vanishes_at_posterior or np.min(np.abs(gradient)) > 1e-6


@every_member
def test_shift_invariance_as_claimed_and_only_so(member):
    log_w = np.round(sample_log_weights(3, 4) * 2**20) / 2**20  # so that the shift itself does not round
    for shift in (-8192.0, 8192.0):
        if member.shift_invariant:
            assert_same(member(log_w + shift), member(log_w), 1e-12)
        else:
            assert np.abs(member(log_w + shift).score - member(log_w).score).max() > 1.0


@every_member
def test_averages_over_subsets_as_claimed_and_only_so(member):
    """Subset by subset, of every size between one particle (the ELBO's) and all of them (IWAE's)."""
    log_w, matching = sample_log_weights(2, 6), []
    for size in range(1, 7):
        expected = np.zeros_like(log_w)
        for subset in itertools.combinations(range(6), size):
            expected[..., subset] += normalise(log_w[..., subset]) / (2 * math.comb(6, size))
        made = member(log_w)
        if all(
            np.allclose(x, s * expected, rtol=1e-12)
            for x, s in ((made.model, 1), (made.path, 1), (made.score, -1))
        ):
            matching.append(size)
    assert matching == [member.subsets] if member.subsets else set(matching) <= {1, 6}


@every_member
def test_too_few_particles_are_refused(member):
    with pytest.raises(InputError, match=f"K is {member.min_particles - 1}|M and K ≥ 1"):
        member(np.zeros((2, member.min_particles - 1)))
    assert all(
        np.isfinite(getattr(member(np.zeros((2, member.min_particles))), part)).all() for part in PARTS
    )
