"""The corrector of MDM-Prime's image sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.subtokens import rate_corrector
from diffusion.schedules.masking import Polynomial
from tests.checks import refused, within
from tests.weights import keys_of

M = 3
CUBIC = Polynomial(3.0)  # alpha = tau^3
TIMES = np.linspace(1, 0, 6)
ROWS = grid(CUBIC, 5, 8, end=0.0)
SIZE, LENGTH = 400, 300
TRIALS = SIZE * LENGTH // 3
# A mask, and the tokens 1 and 2, where 2 is proposed.
STATE, PROPOSAL = jnp.tile(jnp.array([[M, 1, 2]]), (SIZE, LENGTH // 3)), jnp.full((SIZE, LENGTH), 2)


def jumps(index, scale, power, times=TIMES):
    """Return the frequencies of (proposal, mask) after the corrector, for masked, different and equal positions."""
    correct = rate_corrector(CUBIC, times, scale, power, M)
    row = jax.tree.map(lambda column: column[index], ROWS)
    after = np.asarray(jax.jit(correct)(keys_of(SIZE), STATE, PROPOSAL, row))
    return [((kind == 2).mean(), (kind == M).mean()) for kind in (after[:, start::3] for start in range(3))]


@pytest.mark.parametrize("index", [0, 4])
def test_corrector_does_not_act_in_the_first_and_the_last_step(index):
    assert jumps(index, 50.0, 0.0) == [(0, 1), (0, 0), (1, 0)]


@pytest.mark.parametrize(("index", "scale", "power"), [(1, 4.0, 1.0), (2, 4.0, 0.5), (3, 0.0, 1.0)])
def test_jumps_of_the_corrector_have_the_published_rates(index, scale, power):
    """u = alpha'/(1 - alpha) d + kappa alpha'/(alpha (1 - alpha)) [(1 - alpha) m + alpha d], alpha = tau^3."""
    tau, width = index / 5, 1 / 5
    kappa, slope = scale * tau**power * (1 - tau) ** power, 3 * tau**2
    forward = width * (slope / (1 - tau**3) + kappa * slope / (1 - tau**3))
    backward = width * kappa * slope / tau**3
    stay, share = np.exp(-forward - backward), forward / (forward + backward)
    expected = (
        (1 - np.exp(-forward), np.exp(-forward)),
        ((1 - stay) * share, (1 - stay) * (1 - share)),
        (np.exp(-backward), 1 - np.exp(-backward)),
    )
    for measured, probabilities in zip(jumps(index, scale, power), expected, strict=True):
        assert all(within(one, other, TRIALS, 4.5) for one, other in zip(measured, probabilities, strict=True))


def test_the_corrector_follows_warped_times():
    """Rates are those at the beginning of a step, times its width."""
    (proposed, _), *_ = jumps(1, 0.0, 1.0, np.array([1.0, 0.5, 0.4, 0.3, 0.2, 0.0]))
    assert within(proposed, 1 - np.exp(-0.1 * 3 * 0.5**2 / (1 - 0.5**3)), TRIALS)


@pytest.mark.parametrize("options", [(-1.0, 1.0), (1.0, -0.5)])
def test_bad_correctors_name_their_field(options):
    with refused(r"sample\.corrector: scale and power must not be negative"):
        rate_corrector(CUBIC, TIMES, *options, M)
