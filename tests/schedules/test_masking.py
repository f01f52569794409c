"""Masking schedules: end points, exact rates, inverses, and the values of the loop schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.schedules import masking as schedules

PROPER = [schedules.LogLinear(), schedules.Linear(), schedules.Cosine(), schedules.Polynomial(3.0)]
ALL = [*PROPER, schedules.Geometric(), schedules.Loop()]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_levels_sum_to_one_and_are_exact_in_float32_where_they_are_small(schedule):
    everywhere = np.linspace(0, 1, 101)
    alpha = schedule.alpha(everywhere)
    assert np.all(np.diff(alpha) <= 1e-12)
    np.testing.assert_allclose(alpha + schedule.masked(everywhere), 1, atol=1e-12)
    small = np.float32(2.0) ** -np.arange(1, 24, dtype=np.float32)
    levels = jax.jit(lambda low, high: (schedule.masked(low), schedule.alpha(high)))(small, 1 - small)
    for level, function, times in zip(levels, (schedule.masked, schedule.alpha), (small, 1 - small), strict=True):
        np.testing.assert_allclose(level, function(times.astype(np.float64)), rtol=3e-6)


@pytest.mark.parametrize("schedule", ALL[:-1], ids=repr)
def test_end_points_rates_and_inverses(schedule):
    """The rate is that of finite differences; the geometric schedule does not reach the end points."""
    if schedule in PROPER:
        np.testing.assert_allclose(schedule.alpha(np.array([0.0, 1.0])), [1.0, 0.0], atol=1.1e-3)
    time, step = np.array([0.1, 0.4, 0.8]), 1e-6
    slope = (schedule.alpha(time + step) - schedule.alpha(time - step)) / (2 * step)

    @jax.jit
    def found(time):
        return schedules.rate(schedule, time), schedules.inverse(schedule, schedule.alpha(time))

    rate, inverse = found(jnp.asarray(time, jnp.float32))
    np.testing.assert_allclose(rate, -slope / (1 - schedule.alpha(time)), rtol=1e-4)
    np.testing.assert_allclose(inverse, time, atol=1e-5)


def test_log_linear_rate_is_one_over_t_for_every_epsilon():
    time = jnp.array([1e-3, 0.25, 1.0])
    np.testing.assert_allclose(schedules.rate(schedules.LogLinear(1e-3), time), 1 / time, rtol=1e-6)
    with jax.enable_x64(True):
        time = jnp.asarray(np.linspace(1e-3, 1, 50))
        for epsilon in (1e-6, 0.2):
            weight = schedules.rate(schedules.LogLinear(epsilon), time)
            assert weight.dtype == jnp.float64
            np.testing.assert_allclose(weight * time, 1, atol=1e-12)


def test_values_of_the_loop_schedule():
    masked = 1 - schedules.Loop().alpha(np.array([0.025, 0.05, 0.3, 0.5499, 0.775, 1.0]))
    np.testing.assert_allclose(masked, [0.05, 0.1, 0.1, 0.1, 0.55, 1 - 1e-6], atol=1e-12)


def test_sigma_is_finite_at_the_end():
    assert np.isfinite(jax.jit(lambda t: schedules.sigma(schedules.Linear(), t))(jnp.ones(1))).all()
