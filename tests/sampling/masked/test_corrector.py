"""The corrector of MDM-Prime's image sampler, and its tables of warped times and temperatures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import subtoken_denoiser
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import exact_masks, grid
from diffusion.sampling.masked.policies import Policy, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.sampling.masked.subtokens import SubtokenDraw, rate_corrector, sample_tokens
from diffusion.schedules.masking import Linear, LogLinear, Polynomial
from tests.checks import refused, within
from tests.languages import denoiser_of
from tests.weights import keys_of

M = 3
CUBIC = Polynomial(3.0)  # alpha = tau^3
TIMES = np.linspace(1, 0, 6)


def row_at(index):
    return jax.tree.map(lambda column: column[index], grid(CUBIC, 5, 8, end=0.0))


def jumps(index, scale, power, times=TIMES, size=400, length=300):
    """Return the frequencies of (proposal, mask) after the corrector, for masked, different and equal positions."""
    correct = rate_corrector(CUBIC, times, scale, power, M)
    state = jnp.broadcast_to(jnp.arange(length)[None] % 3, (size, length))
    state = jnp.where(state == 0, M, state)
    after = np.asarray(jax.jit(correct)(keys_of(size), state, jnp.full((size, length), 2), row_at(index)))
    kinds = [after[:, start::3] for start in range(3)]  # M, 1 and 2 where 2 is proposed
    return {
        name: ((kind == 2).mean(), (kind == M).mean())
        for name, kind in zip(("masked", "other", "same"), kinds, strict=True)
    }


@pytest.mark.parametrize("index", [0, 4])
def test_corrector_does_not_act_in_the_first_and_the_last_step(index):
    frequencies = jumps(index, 50.0, 0.0)
    assert frequencies == {"masked": (0, 1), "other": (0, 0), "same": (1, 0)}


@pytest.mark.parametrize(("index", "scale", "power"), [(1, 4.0, 1.0), (2, 4.0, 0.5), (3, 1.0, 0.0), (3, 0.0, 1.0)])
def test_jumps_of_the_corrector_have_the_published_rates(index, scale, power):
    """u = alpha'/(1 - alpha) d + kappa alpha'/(alpha (1 - alpha)) [(1 - alpha) m + alpha d], alpha = tau^3."""
    tau, width, trials = index / 5, 1 / 5, 40_000
    kappa, slope = scale * tau**power * (1 - tau) ** power, 3 * tau**2
    forward = width * (slope / (1 - tau**3) + kappa * slope / (1 - tau**3))
    backward = width * kappa * slope / tau**3
    frequencies = jumps(index, scale, power)
    stay = np.exp(-forward - backward)
    share = forward / (forward + backward)
    for name, (proposed, masked) in {
        "masked": (1 - np.exp(-forward), np.exp(-forward)),
        "other": ((1 - stay) * share, (1 - stay) * (1 - share)),
        "same": (np.exp(-backward), 1 - np.exp(-backward)),
    }.items():
        for measured, expected in zip(frequencies[name], (proposed, masked), strict=True):
            assert within(measured, expected, trials, 4.5), name


def test_the_corrector_follows_warped_times():
    """Rates are those at the beginning of a step, times its width."""
    times = np.array([1.0, 0.5, 0.4, 0.3, 0.2, 0.0])
    frequencies = jumps(1, 0.0, 1.0, times)
    expected = 1 - np.exp(-0.1 * 3 * 0.5**2 / (1 - 0.5**3))
    assert within(frequencies["masked"][0], expected, 40_000)


def test_bad_correctors_name_their_field():
    for options in ((-1.0, 1.0), (1.0, -0.5)):
        with refused(r"sample\.corrector: scale and power must not be negative"):
            rate_corrector(CUBIC, TIMES, *options, M)


def test_corrector_preserves_the_distribution():
    """With the exact posterior the corrector changes only the number of changes."""
    language, process = random_language(0, 3, 3), PartialMaskedDiffusion(SubtokenCodec(3, 2), Linear())
    size, steps = 8192, 64
    exact = denoiser_of(subtoken_denoiser(language, process.codec))
    correct = rate_corrector(process.schedule, np.linspace(1, 0, steps + 1), 4.0, 1.0, process.mask_id)
    policy = Policy(ancestral_step, correct=correct)
    sampler = MaskedSampler(exact, process, policy, SubtokenDraw(process, Draw(3)), "none")
    run = partial(sample_tokens, jax.jit(sampler), process, None)
    samples = run(keys_of(size), jnp.full((size, 3), 3), grid=grid(Linear(), steps, 6, end=0.0))
    assert not samples.invalid.any()
    floor = language.total_variation_floor(size)
    assert 0.6 * floor < language.total_variation(samples.tokens) < 1.4 * floor
    # Without the corrector a fraction (1 - 1/T)^(L l) of the steps is idle.
    assert samples.idle.mean() < steps * (1 - 1 / steps) ** 6 - 2


# Time and temperature


def test_temperature_ramps_with_the_data_time():
    rows = grid(LogLinear(), 4, 8, end=0.0, temperature=1.0, ramp=(-0.4, 2.0))
    np.testing.assert_allclose(rows.temperature, [1, 1 - 0.4 / 16, 0.9, 1 - 0.4 * 9 / 16], rtol=1e-6)
    np.testing.assert_allclose(grid(LogLinear(), 4, 8, temperature=0.7).temperature, 0.7, rtol=1e-6)


def test_warps_apply_to_all_columns_that_depend_on_time():
    """tau -> 1 - (1 - tau)^2 is t -> t^2, and the temperature ramp reads the warped time."""
    rows = grid(CUBIC, 4, 8, end=0.0, ramp=(1.0, 1.0), warp=(1.0, 2.0, 0.0))
    times = np.array([1, 9 / 16, 1 / 4, 1 / 16, 0])
    np.testing.assert_allclose(rows.time, times[:-1], atol=1e-7)
    np.testing.assert_allclose(rows.next_time, times[1:], atol=1e-7)
    levels = 1 - (1 - times) ** 3
    np.testing.assert_allclose(rows.keep_mask_prob, levels[1:] / levels[:-1], atol=1e-6)
    np.testing.assert_allclose(rows.temperature, 2 - times[:-1], rtol=1e-6)
    np.testing.assert_array_equal(rows.masks, exact_masks(1 - (1 - times[1:]) ** 3, 8))
    scaled = grid(CUBIC, 4, 8, end=0.2, warp=(0.9, 1.0, 0.1))
    np.testing.assert_allclose(scaled.time, 0.9 * np.linspace(1, 0.2, 5)[:-1] - 0.1, rtol=1e-6)
    for one, other in zip(grid(CUBIC, 4, 8, warp=(1.0, 1.0, 0.0)), grid(CUBIC, 4, 8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warp": (1.0, 2.0)}, r"sample\.warp: must be empty or \(a, p, c\)"),
        ({"warp": (1.0, 0.0, 0.0)}, r"sample\.warp: .* must make times fall"),  # "off" in the public code
        ({"warp": (-1.0, 1.0, -1.0)}, r"sample\.warp: .* must make times fall"),
        ({"warp": (1.2, 1.0, 0.0)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"warp": (1.0, 1.0, 0.1)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"ramp": (-1.5, 1.0)}, r"sample\.temperature_ramp: \(-1\.5, 1\.0\)"),
        ({"ramp": (0.5, -1.0)}, r"sample\.temperature_ramp: \(0\.5, -1\.0\)"),
    ],
)
def test_bad_tables_name_their_field(options, message):
    with refused(message):
        grid(LogLinear(), 8, 8, end=0.0, **options)
