"""The engine of the CPU's vector units against its slow twin on the same noise; threads, blocks, passes, limits."""

import itertools
import math
import os
import signal
import threading
from importlib import import_module

import numpy as np
import pytest
import torch

import toyiwae
from tests.problems import random_problem
from tests.test_montecarlo import assert_equal
from toyiwae.errors import InputError
from toyiwae.estimators import both, iwae_bound
from toyiwae.estimators.record import family
from toyiwae.forms import Coefficients, Form
from toyiwae.montecarlo import Chunk, replicates, streamed
from toyiwae.montecarlo.engines import Settings, sampler_for

pytest.importorskip("numba")
blockwise, numba_sampler, streams, tiles = (
    import_module(f"toyiwae.montecarlo.kernels.{name}")
    for name in ("blockwise", "numba_sampler", "streams", "tiles")
)

ONE_ROW = random_problem(1, 5, 3)
AMORTISED = random_problem(2, 3, 2, rows=9, amortised=True)
ALL = toyiwae.estimators.all()


def own_covariances(rows=3, dim=2):
    """A problem whose observations have a covariance each, as a trained encoder gives them."""
    base, rng = random_problem(7, dim, 3, rows=rows), np.random.default_rng(8)
    roots = np.eye(dim) + 0.2 * rng.normal(size=(rows, dim, dim))
    mean = np.asarray(base.proposal.mean) + 0.1 * rng.normal(size=(rows, dim))
    cov = roots @ base.proposal.cov @ roots.transpose(0, 2, 1)
    proposal = toyiwae.Proposal((cov + cov.transpose(0, 2, 1)) / 2, mean=mean)
    return toyiwae.Problem(base.model, proposal, base.data)


PROBLEMS = {"one row": ONE_ROW, "amortised": AMORTISED, "own covariances": own_covariances()}


def drawn(problem, estimators, K, M, count, **options):
    """All replicates of the engine."""
    options = {"seed": 6, "parameters": "all", "engine": "numba", "threads": 1} | options
    return Chunk.join(list(replicates(problem, estimators, K=K, M=M, replicates=count, **options)))


def noise_of(problem, K, M, count, precision):
    """The noise η that the engine draws: `[R, N, M, K, D]`."""
    sampler = sampler_for(problem, (), (), Settings(engine="numba", precision=precision))
    key = streams.key_of(6, K, M, 0)
    each = numba_sampler.Cell(sampler, K, M, key).each
    noise = np.empty((count, problem.n_rows, M, K, problem.dim_z))
    for row, (block, first) in itertools.product(range(problem.n_rows), enumerate(range(0, count, each))):
        here = min(each, count - first)
        tile = np.empty((problem.dim_z, streams.padded(here * M * K)), precision)
        streams.normals(key, block, row, tile)
        part = tile[:, : here * M * K].reshape(problem.dim_z, here, M, K)
        noise[first : first + here, row] = np.moveaxis(part, 0, -1)
    return noise


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("K", "M", "count"), [(2, 3, 700), (70, 2, 130), (1500, 1, 12)], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_kernels_give_what_torch_gives_for_the_same_noise(problem, K, M, count, precision):
    """Every estimator and parameter; noise of either precision is taken as it is, all else is float64."""
    found = drawn(problem, ALL, K, M, count, precision=precision)
    slow = sampler_for(problem, ALL, tuple(problem.parameters), Settings(engine="torch"))
    noise = torch.from_numpy(noise_of(problem, K, M, count, precision))
    assert_equal(slow.one_pass(noise, slice(None)), found, tolerance=3e-11)


def test_a_form_of_any_powers_and_terms_is_summed_as_its_coefficients():
    """What no registered estimator has: high and pooled powers, two exponents, `log Ẑ` beside baselines."""
    forms = [
        Form({0: 0.3, 3: -1.5}, {1: 0.5, 4: 2.0}, {2: 1.0}, exponent=-0.4, pooled=("model", "path")),
        Form({1: 1.0}, {2: 0.25}, {0: -0.5, 1: 0.1}, exponent=0.6, log_evidence=0.7, constant=0.4),
        Form({1: 1.0}, {}, {1: -1.0}, log_evidence=0.5, leave_one_out=-0.25, leave_one_out_geometric=-0.25),
        Form({0: 1.0}, {}, {}, exponent=0.0, log_evidence=1.0, leave_one_out=-1.0),
    ]
    made = [form_estimator(f"form_{index}", form) for index, form in enumerate(forms)]
    found = drawn(AMORTISED, made, 6, 2, 50)
    slow = sampler_for(AMORTISED, made, tuple(AMORTISED.parameters), Settings(engine="torch"))
    noise = torch.from_numpy(noise_of(AMORTISED, 6, 2, 50, "float32"))
    assert_equal(slow.one_pass(noise, slice(None)), found, tolerance=3e-11)


def form_estimator(name, form):
    """An estimator whose function evaluates a Form."""
    from toyiwae.estimators.evaluate import coefficients

    def function(log_w):
        """Of a Form."""
        return coefficients(form, log_w)

    function.__name__ = name
    return user_estimator(function, form=form, min_particles=2)


def user_estimator(function, form=None, min_particles=1):
    claims = {
        "target": both(iwae_bound),
        "form": form,
        "value": None,
        "vanishes_at_posterior": False,
        "subsets": None,
    }
    shared = {"shift_invariant": True, "cite": (), "between": (-math.inf, math.inf)}
    return family(function, claims | {"min_particles": min_particles, "subsets": None}, shared)


def by_numpy(log_w):
    """IWAE by NumPy's own functions."""
    shares = np.exp(log_w - log_w.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True) * log_w.shape[-2]
    return Coefficients(shares, shares, -shares)


def by_torch(log_w):
    """IWAE by torch's."""
    shares = torch.softmax(log_w, -1) / log_w.shape[-2]
    return Coefficients(shares, shares, -shares)


def test_a_users_function_is_called_as_it_is():
    """By NumPy or by torch."""
    made = [user_estimator(by_numpy), user_estimator(by_torch)]
    found = drawn(AMORTISED, [*made, "iwae"], 7, 2, 40).gradients
    for estimator in made:
        for name, expected in found["iwae"].items():
            np.testing.assert_allclose(found[estimator.name][name], expected, rtol=1e-9, atol=1e-12)


def test_what_a_users_function_raises_is_raised():
    def broken(log_w):
        """Fails."""
        raise ZeroDivisionError("of its own")

    with pytest.raises(ZeroDivisionError, match="of its own"):
        drawn(ONE_ROW, [user_estimator(broken)], 3, 1, 2)


@pytest.mark.parametrize(("K", "M", "count"), [(3, 2, 9000), (40, 1, 900), (9000, 1, 24)], ids=str)
@pytest.mark.parametrize("problem", [ONE_ROW, AMORTISED], ids=["one row", "amortised"])
def test_numbers_depend_neither_on_threads_nor_on_how_many_replicates_there_are(problem, K, M, count):
    names = ["iwae", "vimco_arithmetic"]
    once = drawn(problem, names, K, M, count)
    for threads in (2, 8):
        assert_equal(once, drawn(problem, names, K, M, count, threads=threads))
    few = drawn(problem, names, K, M, 5)
    np.testing.assert_array_equal(few.values, once.values[:5])


def test_numbers_do_not_depend_on_the_size_of_tasks(monkeypatch):
    whole = drawn(AMORTISED, ["iwae", "vimco_geometric"], 30, 2, 500)
    monkeypatch.setattr(numba_sampler, "AT_ONCE", 2**12)
    monkeypatch.setattr(numba_sampler, "_OUTPUTS", 2**9)
    small = drawn(AMORTISED, ["iwae", "vimco_geometric"], 30, 2, 500)
    assert_equal(whole, small, tolerance=1e-13)


@pytest.mark.parametrize("problem", [ONE_ROW, AMORTISED], ids=["one row", "amortised"])
def test_numbers_do_not_depend_on_how_often_a_kernel_stops(problem, monkeypatch):
    """It goes on within a group, between groups, replicates, blocks of replicates, and rows."""
    names = ["iwae", "piwae", "dreg"]
    whole = drawn(problem, names, 1500, 2, 12)
    monkeypatch.setattr(numba_sampler, "MOST_NUMBERS", 300 * problem.dim_z)
    assert_equal(whole, drawn(problem, names, 1500, 2, 12))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["iwae", "vimco_arithmetic"])
def test_one_replicate_that_takes_hours_hears_of_ctrl_c(name, threads):
    """In one pass and in two: the test ends long before its noise does."""
    drawn(
        ONE_ROW, name, 8, 1, 2, threads=threads
    )  # compiled: in a callback of its compiler Python drops the signal
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            drawn(ONE_ROW, name, 10**11, 1, 2, threads=threads)
    finally:
        signal.signal(signal.SIGINT, heard)


@pytest.mark.parametrize(("K", "M"), [(700, 40), pytest.param(30_000, 3, marks=pytest.mark.slow)], ids=str)
def test_noise_drawn_twice_gives_what_held_noise_gives(K, M, monkeypatch):
    """Functions and leave-one-out Forms; where all groups fit into a piece, and where one does not."""
    made = [user_estimator(by_numpy), *(e for e in ALL if not numba_sampler.Caller(e).linear)]
    assert len(made) > 3
    held = drawn(AMORTISED, made, K, M, 1)
    monkeypatch.setattr(blockwise, "HELD_NUMBERS", 2**10)
    monkeypatch.setattr(blockwise, "_AGAIN", 2**15)
    assert_equal(held, drawn(AMORTISED, made, K, M, 1), tolerance=3e-11)


def test_more_than_can_be_held_is_refused(monkeypatch):
    monkeypatch.setattr(streamed, "HELD", 149_999)
    monkeypatch.setattr(numba_sampler, "HELD_NUMBERS", 2**10)
    user = user_estimator(by_numpy)
    with pytest.raises(InputError, match=r"by_numpy has no Form.* 3·50000 is more than 149999"):
        drawn(ONE_ROW, [user], 50_000, 3, 1)
    with pytest.raises(
        InputError, match=r"K = 1000000000000000, M = 1 and 1000 replicates take 5e\+18 .* lower K"
    ):
        replicates(ONE_ROW, "iwae", K=10**15, replicates=1000, seed=1, engine="numba")


def test_cells_and_pilots_have_noise_of_their_own():
    first = drawn(ONE_ROW, "iwae", 5, 2, 30).values
    for other in (drawn(ONE_ROW, "iwae", 5, 2, 30, seed=7), drawn(ONE_ROW, "iwae", 2, 5, 30)):
        assert not np.isclose(first, other.values).any()
    sampler = sampler_for(ONE_ROW, (), (), Settings(engine="numba"))
    pilot = Chunk.join(list(sampler.chunks(5, 2, 30, 6, 1)))
    assert not np.isclose(first, pilot.values).any()
    assert len(set(first.tolist())) == 30


def test_the_bound_alone_needs_no_estimator():
    values = drawn(ONE_ROW, "elbo", 5, 2, 30).values
    sampler = sampler_for(ONE_ROW, (), (), Settings(engine="numba"))
    np.testing.assert_array_equal(Chunk.join(list(sampler.chunks(5, 2, 30, 6))).values, values)
