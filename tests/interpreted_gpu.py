"""The Triton kernels in Triton's interpreter: run by tests/test_gpu_compiled.py in a process of its own.

TRITON_INTERPRET=1 must be set before the kernels are defined.
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIndexIssue=false

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import toyiwae
from analysis.benchmarks import gpu_noise
from tests import philox
from tests.problems import random_problem
from toyiwae import stats
from toyiwae.estimators import select
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.kernels.gpu import TritonSampler, combine, device, kernels, launch
from toyiwae.montecarlo.kernels.gpu.cells import CalledCell
from toyiwae.montecarlo.sampler import Gradients
from toyiwae.problems.linear_gaussian import Problem, Proposal

CPU = torch.device("cpu")
ONE_ROW, FIVE_LATENTS = random_problem(1), random_problem(5, 5, 2)
AMORTISED = random_problem(2, 3, 2, rows=4, amortised=True)
SUMMED = [e for e in toyiwae.estimators.all() if combine.fusible(e.form)] + list(
    select("vr_iwae:1.5,vr_iwae_dreg:0.3")
)
OTHERS = [e for e in toyiwae.estimators.all() if not combine.fusible(e.form)]


@pytest.fixture(autouse=True)
def _large_programs(monkeypatch):
    """What the interpreter costs is programs and steps, not lanes."""
    monkeypatch.setattr(launch, "BLOCK", 2**14)
    monkeypatch.setattr(launch, "SEGMENT", 16)


def own_covariances(problem):
    """The problem with a covariance for each row."""
    factors = np.linspace(0.9, 1.2, problem.n_rows)[:, None, None]
    mean = problem.data.x @ problem.proposal.weight.T + problem.proposal.offset
    return Problem(problem.model, Proposal(problem.proposal.cov * factors, mean=mean), problem.data)


def triton_sampler(problem, estimators, parameters=None, **options):
    names = problem.mean_parameters if parameters is None else tuple(problem.parameters)
    return TritonSampler(problem, estimators, names, CPU, **options)


def key_of(seed, particles, groups):
    return int(np.random.SeedSequence([seed, particles, groups, 0]).generate_state(1, np.uint64)[0])


def drawn(engine, K, M, R, seed=4):
    return Chunk.join(list(engine.chunks(K, M, R, seed)))


def twin(engine, K, M, R, seed=4):
    """The same replicates by NumPy, from its own Philox."""
    noise = philox.noise(key_of(seed, K, M), 0, (R, engine.n_rows, M, K, engine.dim))
    return Gradients(engine.problem, engine.estimators, engine.parameters).one_pass(noise, slice(None))


def flat(chunk):
    parts = {"values": chunk.values, "ess": chunk.ess}
    for name, gradients in chunk.gradients.items():
        parts |= {f"{name} {parameter}": value for parameter, value in gradients.items()}
    return parts


def assert_near(left, right, tolerance):
    """Largest difference over largest size."""
    assert flat(left).keys() == flat(right).keys()
    for name, value in flat(left).items():
        other = flat(right)[name]
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, other, rtol=0, atol=tolerance * np.abs(other).max(), err_msg=name)


# The generator ----------------------------------------------------------------------------------------------


@triton.jit
def write_words(out, theirs, counters, ROUNDS: tl.constexpr):
    lane = tl.arange(0, 4)
    words = (tl.load(counters + 6 * lane + i).to(tl.uint32) for i in (0, 1, 2, 3, 4, 5))
    c0, c1, c2, c3, k0, k1 = words
    own = device.philox(c0, c1, c2, c3, k0, k1, ROUNDS)
    other = tl.random.philox_impl(c0, c1, c2, c3, k0, k1, ROUNDS)
    for i in tl.static_range(4):
        tl.store(out + 4 * lane + i, own[i].to(tl.int64))
        tl.store(theirs + 4 * lane + i, other[i].to(tl.int64))


COUNTERS = [
    [0] * 6,
    [2**32 - 1] * 6,
    [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
    [7, 1, 123_456_789, 3, 2_000_000_011, 5],
]
KNOWN = [  # of the authors' library
    [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
]


@pytest.mark.parametrize("rounds", [7, 10])
def test_random_words_are_those_of_philox(rounds):
    out, theirs = torch.zeros(4, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64)
    write_words[(1,)](out, theirs, torch.tensor(COUNTERS), rounds)
    assert torch.equal(out, theirs)
    for counter, words in zip(COUNTERS, out.tolist(), strict=True):
        assert [int(w) for w in philox.philox(counter[:4], (counter[4], counter[5]), rounds)] == words
    if rounds == 10:
        assert out[:3].tolist() == KNOWN


@triton.jit
def write_normals(out, words):
    lane = tl.arange(0, 8)
    a, b = tl.load(words + 2 * lane), tl.load(words + 2 * lane + 1)
    x, y = device.box_muller(a.to(tl.uint32), b.to(tl.uint32))
    tl.store(out + 2 * lane, x)
    tl.store(out + 2 * lane + 1, y)


def test_all_bits_count_and_tails_reach_far():
    """The smallest word gives the largest radius, √(2·33·log 2); the largest give 0 and nothing undefined."""
    words = [
        (0, 0),
        (0, 2**31),
        (1, 2**30),
        (2**32 - 1, 5),
        (2**32 - 2**7, 2**32 - 1),
        (1000, 77),
        (2**31, 1),
        (255, 3),
    ]
    out = torch.zeros(8, 2)
    write_normals[(1,)](out, torch.tensor(words))
    a, b = np.array(words, dtype=np.uint32).T
    expected = np.stack(philox.box_muller(a, b.copy()), axis=1)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=4e-6)
    assert float(out[0, 0]) == pytest.approx(math.sqrt(66 * math.log(2)), rel=1e-6)
    assert float(out[1, 0]) == pytest.approx(-math.sqrt(66 * math.log(2)), rel=1e-6)


@pytest.mark.parametrize("unit", [5, 2**32 - 1, 2**40 + 3])
def test_noise_is_keyed_by_its_position_alone(unit):
    """Any stretch of the noise, also where a unit's number needs more than 32 bits."""
    start = launch.start_of(3, (7, 2, 0), CPU)
    out = torch.empty(14, 5, dtype=torch.float64)
    start[1] = unit * 7 + 4
    kernels.standard_normals[(1,)](start, out, 14, 7, D=5, ROUNDS=10, BLOCK=16)
    key = int(np.uint64(np.int64(start[0])))
    expected = philox.noise(key, unit, (4, 1, 1, 7, 5)).reshape(-1, 5)[4:18]
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=2e-6)


def test_normals_are_normal():
    """Moments to order 12, tails to 6 standard deviations, neighbouring coordinates and particles; rate 1e-6."""
    print(gpu_noise.judged(2**22, CPU, particles=2**16))


def test_normals_that_are_not_are_found(monkeypatch):
    """A standard deviation of 1.005."""
    original = kernels.standard_normals

    class Wider:
        def __getitem__(self, grid):
            def run(start, out, *sizes, **constants):
                original[grid](start, out, *sizes, **constants)
                out *= 1.005

            return run

    monkeypatch.setattr(kernels, "standard_normals", Wider())
    with pytest.raises(RuntimeError, match="standard deviations off"):
        gpu_noise.judged(2**22, CPU, 2**16)


# The fused kernel against NumPy -----------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "M", "R"), [(1, 2, 5), (5, 3, 6), (40, 2, 2)])
@pytest.mark.parametrize(
    "problem",
    [ONE_ROW, FIVE_LATENTS, AMORTISED, own_covariances(AMORTISED)],
    ids=["one row", "five latents", "amortised", "a covariance for each row"],
)
def test_sums_of_powers_give_what_the_estimators_functions_give(problem, K, M, R):
    """Every estimator that goes through the fused kernel, in three runs that leave room in a lane's registers."""
    able = [e for e in SUMMED if e.min_particles <= K]
    for chosen in (able[:5], able[5:9], able[9:]):
        engine = triton_sampler(problem, chosen)
        assert engine.fused
        assert_near(drawn(engine, K, M, R), twin(engine, K, M, R), 3e-6)


def test_all_that_forms_allow_is_fused():
    """All Forms but those with logarithms that differ from particle to particle, or of products at exponent 0."""
    for estimator in OTHERS:
        form = estimator.form
        assert form is None or form.leave_one_out or form.leave_one_out_geometric or not form.exponent
    assert len(SUMMED) > len(OTHERS)


@pytest.mark.parametrize("problem", [FIVE_LATENTS, AMORTISED, own_covariances(AMORTISED)])
def test_other_estimators_functions_are_called_on_the_same_noise(problem, monkeypatch):
    """Estimators with leave-one-out terms or without a Form, and more Forms than a lane has registers for."""
    monkeypatch.setattr("toyiwae.montecarlo.kernels.gpu.sampler.REGISTERS", 0)
    for chosen in (OTHERS, SUMMED):
        engine = triton_sampler(problem, chosen)
        assert isinstance(engine.cell(20, 2, launch.start_of(0, (), CPU)), CalledCell)
        assert_near(drawn(engine, 20, 2, 3), twin(engine, 20, 2, 3), 3e-6)


@pytest.mark.parametrize("problem", [ONE_ROW, AMORTISED], ids=["one row", "amortised"])
def test_all_else_goes_through_the_torch_engine_on_the_same_noise(problem):
    """All parameters' second-order sums, and a group that is too large to hold."""
    engine = triton_sampler(problem, select("iwae,dreg"), "all")
    assert engine.cell(5, 3, launch.start_of(0, (), CPU)) is None
    assert_near(drawn(engine, 5, 3, 6), twin(engine, 5, 3, 6), 3e-6)
    engine = triton_sampler(problem, select("vimco_arithmetic"), budget=2000)
    assert engine.cell(20, 2, launch.start_of(0, (), CPU)) is None
    assert_near(drawn(engine, 20, 2, 2), twin(engine, 20, 2, 2), 3e-6)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_log_weights_of_ten_thousand(size):
    """Far from 0, and thousands apart: from noise that is the same to the last bit."""
    R, M, K = 6, 2, 40
    engine = triton_sampler(FIVE_LATENTS, select("iwae,dreg,vr_iwae:1.5"))
    engine.whitened.base += size
    engine.whitened.slope *= 3000.0
    noise = launch.PhiloxNoise(launch.Layout.of(1, M, K, 5), 4, (K, M, 0), CPU).draw(0)[:R].numpy()
    exact = Gradients(engine.problem, engine.estimators, engine.parameters)
    exact.whitened.base += size
    exact.whitened.slope *= 3000.0
    log_w = exact.whitened.log_weights(noise, slice(None))
    assert np.ptp(log_w) > 1e4
    assert np.abs(log_w.mean()) > 5e3
    assert_near(drawn(engine, K, M, R), exact.one_pass(noise, slice(None)), 1e-6)


def test_neither_grid_nor_program_nor_budget_changes_a_bit(monkeypatch):
    chosen = select("iwae,dreg,piwae")
    whole = drawn(triton_sampler(AMORTISED, chosen), 20, 2, 6)
    monkeypatch.setattr(launch, "BLOCK", 32)
    for budget in (None, 20_000, 3_000, 1_000):  # the last ones hold some rows of a replicate, and one
        chunks = list(triton_sampler(AMORTISED, chosen, budget=budget).chunks(20, 2, 6, 4))
        assert budget is None or len(chunks) > 1
        for name, value in flat(Chunk.join(chunks)).items():
            if budget is None or budget == 20_000:
                np.testing.assert_array_equal(value, flat(whole)[name], err_msg=name)
            else:  # rows are added up in another order
                np.testing.assert_allclose(value, flat(whole)[name], rtol=1e-12, atol=1e-13, err_msg=name)
    few = drawn(triton_sampler(AMORTISED, chosen), 20, 2, 3)
    for name, value in flat(few).items():
        np.testing.assert_array_equal(value, flat(whole)[name][:3], err_msg=name)


@pytest.mark.parametrize(("estimators", "parameters"), [((), None), (select("iwae"), ())])
def test_bounds_alone(estimators, parameters):
    engine = triton_sampler(ONE_ROW, estimators)
    engine.parameters = engine.parameters if parameters is None else parameters
    assert_near(drawn(engine, 20, 2, 5), twin(engine, 20, 2, 5), 3e-6)


def test_seeds_and_cells_have_noise_of_their_own():
    engine = triton_sampler(ONE_ROW, select("iwae"))
    values = [
        drawn(engine, K, M, 50, seed).values for K, M, seed in ((5, 2, 1), (5, 2, 2), (2, 5, 1), (5, 2, 2))
    ]
    assert np.array_equal(values[1], values[3])
    for one, other in ((0, 1), (0, 2)):
        z = math.sqrt(50) * np.corrcoef(values[one], values[other])[0, 1]
        assert abs(z) < stats.family_threshold(2, 1e-6)


@pytest.mark.parametrize(
    ("problem", "R", "shift"),
    [(ONE_ROW, 65_536, 0.04), (AMORTISED, 8_192, 0.12)],
    ids=["one row", "amortised"],
)
def test_estimates_agree_with_the_truth(problem, R, shift):
    """Every fused estimator with an exact mean, family-wise at 1e-6 over both problems."""
    names = [e.name for e in SUMMED if e.form and e.form.exponent >= 0][:6]
    result = toyiwae.estimate(problem, K=8, M=3, estimators=names, replicates=R, seed=20, engine="triton")
    agreement = result.agreement(rate=0.5e-6)
    assert agreement.tests > 20
    assert agreement.passed, agreement
    assert agreement.smallest_shift < shift
    assert result.provenance["engine"] == {
        "name": "triton",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
