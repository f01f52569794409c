"""Remasking rules: worked examples, marginals, and distributions with exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.masked import public_grids, remasking
from diffusion.sampling.masked.grid import Window, grid
from diffusion.sampling.masked.policies import StepInputs, ancestral_step
from diffusion.sampling.masked.remasking import StepAlphas
from diffusion.schedules.masking import Cosine, Linear, LogLinear, Loop
from tests.sampling.masked.exact import FLOOR, LANGUAGE, SIZE, blank, drawn, run
from tests.weights import keys_of

RULES = {
    "none": remasking.none,
    "cap": remasking.cap(0.1),
    "rescale": remasking.rescale(0.3),
    "star": remasking.star,
    "forward_backward": remasking.forward_backward,
}


def at(alpha, next_alpha, window=True):
    return StepAlphas(*(np.atleast_1d(value) for value in (alpha, next_alpha, window)))


@pytest.mark.parametrize(("sigma", "unmask"), [(0.0, 0.2), (0.1, 0.3), (0.4, 0.6), (0.8, 1.0)])
def test_the_posterior_by_hand(sigma, unmask):
    """From alpha 0.5 to 0.6: a_t (1 - sigma) + (1 - a_t) unmask = a_s for every sigma."""
    rates = remasking.remdm(at(0.5, 0.6), np.array([sigma]))
    assert 1 - rates.keep_mask_prob[0] == pytest.approx(unmask) and rates.remask_prob[0] == sigma


@pytest.mark.parametrize(
    ("rule", "alpha", "next_alpha", "sigma"),
    [
        (remasking.cap(0.008), 0.9, 0.91, 0.008),
        (remasking.cap(0.008), 0.995, 0.9961, 0.0039196),
        (remasking.rescale(0.015), 0.5, 0.6, 0.012),
        (remasking.cap(0.02), 0.0, 0.1, 0.02),
        # The plateau of the loop, where 0.9 x 0.02 of the positions are masked and 0.1 x 0.18 revealed.
        (remasking.cap(0.02), 0.9, 0.9, 0.02),
        (remasking.rescale(0.015), 0.0, 0.1, 0.015),
        (remasking.star, 0.5, 0.6, 0.4),
        (remasking.forward_backward, 0.5, 0.6, 0.2),
        # The probability (1 - 0.98) / 0.9 preserves the masked fraction.
        (remasking.forward_backward, 0.9, 0.98, 0.0222222),
    ],
)
def test_rules_by_hand(rule, alpha, next_alpha, sigma):
    assert rule(at(alpha, next_alpha)).remask_prob[0] == pytest.approx(sigma, abs=1e-7)
    assert rule(at(alpha, next_alpha, window=False)).remask_prob[0] == 0


def test_the_corrector_of_discrete_flow_by_hand():
    """At t = 0.5 with a step of 0.01: A = 10 sqrt(0.5) + 1 = 8.0711, unmask 2 A h, remask 2 (A - 1) h."""
    rates = remasking.discrete_flow(at([0.0, 0.5], [0.5, 0.51], [True, True]))
    assert 1 - rates.keep_mask_prob[1] == pytest.approx(0.1614214) and rates.remask_prob[1] == pytest.approx(0.1414214)
    assert (rates.keep_mask_prob[0], rates.remask_prob[0]) == (0.5, 0), "the first step is MDLM's"
    late = remasking.discrete_flow(at([0.5, 0.5], [0.5, 1.0], [True, True]))
    total = 1 - late.keep_mask_prob[1] + late.remask_prob[1]
    assert total == pytest.approx(1), "a long step is cut off where the rates sum to 1"


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(), Cosine(), Loop()], ids=repr)
@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_keeps_the_masked_fraction(name, schedule):
    """Law 2: alpha_t (1 - remask_prob) + (1 - alpha_t)(1 - keep_mask_prob) = alpha_s in every step."""
    rows = grid(schedule, 16, 8, end=1e-3, rule=RULES[name])
    alpha = 1 - np.asarray(schedule.masked(np.linspace(1, 1e-3, 17)))
    keep, remask = np.asarray(rows.keep_mask_prob), np.asarray(rows.remask_prob)
    np.testing.assert_allclose(alpha[:-1] * (1 - remask) + (1 - alpha[:-1]) * (1 - keep), alpha[1:], atol=1e-6)
    assert np.all((0 <= keep) & (keep <= 1) & (0 <= remask) & (remask <= 1))


def test_remasking_is_limited_to_the_window():
    """`off` <= t <= `on` for the time t at which a step begins, which is slightly above its rounded value."""
    rows = grid(LogLinear(), 10, 10, window=Window(0.0, 0.3), rule=remasking.cap(0.05))
    np.testing.assert_array_equal(np.flatnonzero(rows.guided), [8, 9])
    np.testing.assert_array_equal(np.flatnonzero(rows.remask_prob), [8, 9])


def test_network_time_of_a_loop_is_that_of_its_level():
    rows = grid(Loop(), 20, 20, process=Cosine())
    levels = Loop().masked(np.linspace(1, 1e-5, 21))
    for times, expected in ((rows.time, levels[:-1]), (rows.next_time, levels[1:])):
        np.testing.assert_allclose(Cosine().masked(np.asarray(times, np.float64)), expected, atol=1e-4)


def public(steps, rule, **options):
    rows = grid(LogLinear(), steps, 8, rule=rule, **({"levels": public_grids.raw_levels} | options))
    return np.asarray(rows.keep_mask_prob), np.asarray(rows.remask_prob), rows


def test_public_forward_backward():
    """sigma = 1 at t = 1 and in the next step, then 1 / 2, 1 / 3, ...; the last one is larger than sigma_max."""
    keep, remask, _ = public(4, public_grids.forward_backward)
    np.testing.assert_allclose(remask, [1, 1, 1 / 2, 1 / 3], atol=1e-4)
    np.testing.assert_allclose(keep, [3 / 4, 1 / 3, 0, 0], atol=1e-4)
    exact = np.asarray(grid(LogLinear(), 4, 8, rule=remasking.forward_backward).remask_prob)
    np.testing.assert_allclose(exact, [1, 0.996, 0.4995, 4e-5], atol=1e-3)


def test_public_loop_continues_the_phase_in_which_a_step_begins():
    """Of 128 steps, the one onto the plateau ends at a level of 0.0938 for 0.1, and the one that leaves it at 0.1."""
    loop = Loop()
    keep, remask, rows = public(
        128, remasking.cap(0.02), levels=public_grids.loop_levels(loop), window=Window(0.05, 0.55)
    )
    entry, out = np.flatnonzero(remask)[0] - 1, np.flatnonzero(remask)[-1]
    begin, end = public_grids.loop_levels(loop)(np.linspace(1, 1e-5, 129))
    assert end[entry] == pytest.approx(0.0938, abs=1e-4) and (begin[out], end[out]) == pytest.approx((0.1, 0.1))
    assert keep[entry] == pytest.approx(end[entry] / begin[entry], rel=1e-5)
    np.testing.assert_allclose((keep[out], remask[out]), (0.82, 0.02), rtol=1e-5)
    assert begin[out + 1] == pytest.approx(2 * 6 / 128, abs=1e-4), "the step after it takes its level from the time"
    np.testing.assert_allclose(rows.time, np.linspace(1, 1e-5, 129)[:-1], atol=1e-6)


@pytest.mark.parametrize(("steps", "count"), [(16, 38), (64, 72), (128, 133), (512, 514)])
def test_public_corrector_of_discrete_flow_takes_more_steps(steps, count):
    """Its steps are shortened where their two probabilities would sum to more than 1."""
    times = public_grids.discrete_flow_times(steps, 1e-5)
    keep, remask, rows = public(steps, remasking.discrete_flow, times=times)
    assert len(rows.index) == count == len(times) - 1 and times[-1] <= 1 / steps < times[-2]
    assert np.all(1 - keep + remask < 1 + 1e-5) and (keep[0], remask[0]) == pytest.approx((1 - 1 / steps, 0))
    shortened = -np.diff(times) < 1 / steps - 1e-9
    np.testing.assert_allclose((1 - keep + remask)[shortened], 1, rtol=1e-4)


@pytest.mark.parametrize("name", ["cap", "rescale", "forward_backward"])
def test_total_variation_falls_with_steps(name):
    """Law 3; the error is of order 1 / steps, since an exact denoiser leaves no errors to correct."""
    distances = [LANGUAGE.total_variation(drawn("ancestral", steps, rule=RULES[name])) for steps in (4, 16)]
    assert distances[0] > 1.8 * distances[1] > 1.8 * FLOOR


def test_sigma_0_is_mdlm_draw_for_draw():
    plain = drawn("ancestral", 4)
    np.testing.assert_array_equal(drawn("ancestral", 4, rule=remasking.cap(0.0)), plain)
    np.testing.assert_array_equal(drawn("ancestral", 4, rule=remasking.star, window=Window(0.0, 0.0)), plain)
    assert (drawn("ancestral", 4, rule=remasking.star) != plain).any()


def test_prompts_are_not_masked_again():
    tokens = run("ancestral", keys_of(SIZE), blank().at[:, 1].set(2), 4, rule=remasking.star)
    assert (tokens[:, 1] == 2).all()


def test_a_star_step_masks_a_binomial_number():
    """From any state, the number of masks has mean u L and variance u (1 - u) L."""
    rows = grid(Linear(), 2, 64, end=0.3, rule=remasking.star)
    row = jax.tree.map(lambda column: column[-1], rows)
    for masked in (0, 20, 64):
        before = np.broadcast_to(np.arange(64) < masked, (4000, 64))
        inputs = StepInputs(jnp.asarray(before), *(None,) * 5)
        counts = np.asarray(ancestral_step(keys_of(4000, seed=masked), inputs, row, ())[0]).sum(axis=1)
        assert counts.mean() == pytest.approx(0.3 * 64, abs=4 * (0.21 * 64 / 4000) ** 0.5)
        assert counts.var() == pytest.approx(0.21 * 64, rel=0.1)
