"""Masking schedules: end points, exact rates, inverses, and the values of the loop schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.schedules import masking as schedules

PROPER = [schedules.LogLinear(), schedules.Linear(), schedules.Cosine(), schedules.Polynomial(3.0)]
ALL = [*PROPER, schedules.Geometric(), schedules.Loop()]


@pytest.mark.parametrize("schedule", PROPER, ids=repr)
def test_proper_schedules_run_from_clean_to_masked(schedule):
    ends = schedule.alpha(np.array([0.0, 1.0]))
    np.testing.assert_allclose(ends, [1.0, 0.0], atol=1.1e-3)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_alpha_is_non_increasing_and_host_float64_agrees_with_device_float32(schedule):
    times = np.linspace(0, 1, 101)
    alpha = np.asarray(schedule.alpha(times))
    assert alpha.dtype == np.float64
    assert np.all(np.diff(alpha) <= 1e-12)
    np.testing.assert_allclose(schedule.alpha(jnp.asarray(times, jnp.float32)), alpha, atol=2e-6)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_both_levels_are_exact_to_float32_where_they_are_small(schedule):
    times = np.float32(2.0) ** -np.arange(1, 24, dtype=np.float32)
    for level, near in ((schedule.masked, times), (schedule.alpha, 1 - times)):
        exact = level(near.astype(np.float64))
        np.testing.assert_allclose(level(jnp.asarray(near)), exact, rtol=3e-6)
    everywhere = np.linspace(0, 1, 101)
    np.testing.assert_allclose(schedule.alpha(everywhere) + schedule.masked(everywhere), 1, atol=1e-12)


@pytest.mark.parametrize("schedule", [*PROPER, schedules.Geometric()], ids=repr)
def test_rate_agrees_with_finite_differences(schedule):
    time, step = np.array([0.2, 0.5, 0.8]), 1e-6
    slope = (schedule.alpha(time + step) - schedule.alpha(time - step)) / (2 * step)
    expected = -slope / (1 - schedule.alpha(time))
    np.testing.assert_allclose(schedules.rate(schedule, jnp.asarray(time, jnp.float32)), expected, rtol=1e-4)


def test_log_linear_rate_is_one_over_t_for_every_epsilon():
    time = jnp.array([1e-3, 0.25, 1.0])
    np.testing.assert_allclose(schedules.rate(schedules.LogLinear(1e-3), time), 1 / time, rtol=1e-6)
    with jax.enable_x64(True):
        time = jnp.asarray(np.linspace(1e-3, 1, 50))
        for epsilon in (1e-3, 1e-6, 0.2):
            weight = schedules.rate(schedules.LogLinear(epsilon), time)
            assert weight.dtype == jnp.float64
            np.testing.assert_allclose(weight * time, 1, atol=1e-12)


@pytest.mark.parametrize("schedule", [*PROPER, schedules.Geometric()], ids=repr)
def test_inverse_recovers_the_time(schedule):
    time = jnp.array([0.1, 0.4, 0.9])
    np.testing.assert_allclose(schedules.inverse(schedule, schedule.alpha(time)), time, atol=1e-5)


def test_values_of_the_loop_schedule():
    masked = 1 - schedules.Loop().alpha(np.array([0.025, 0.05, 0.3, 0.5499, 0.775, 1.0]))
    np.testing.assert_allclose(masked, [0.05, 0.1, 0.1, 0.1, 0.55, 1 - 1e-6], atol=1e-12)


def test_sigma_is_finite_at_the_end():
    assert np.isfinite(jax.jit(lambda t: schedules.sigma(schedules.Linear(), t))(jnp.ones(1))).all()
