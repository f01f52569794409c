"""The ancestral sampler of uniform and of masked noise under exact denoisers: distributions, prompts and batches."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import draw_two_stage
from diffusion.oracles.uniform import uniform_posterior
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.uniform import UniformDiffusion
from diffusion.sampling.ancestral import AncestralSampler, equal_steps
from diffusion.schedules.masking import Linear
from tests.checks import optimized, refused
from tests.languages import denoiser_of, distance, marginals, product_of_marginals
from tests.sampling.masked.exact import FLOOR, LANGUAGE, SIZE, STEPS, VOCABULARY, blank, given, preceded
from tests.weights import keys_of

UNIFORM, MASKED = UniformDiffusion(VOCABULARY, Linear()), MaskedDiffusion(VOCABULARY, Linear())
DENOISERS = {
    "uniform": (UNIFORM, uniform_posterior(LANGUAGE, UNIFORM)),
    "uniform, full posterior": (UNIFORM, uniform_posterior(LANGUAGE, UNIFORM, leave_one_out=False)),
    "masked": (MASKED, LANGUAGE.denoise),
}


@cache
def compiled(name, final="draw"):
    process, denoise = DENOISERS[name]
    return optimized(partial(AncestralSampler(denoiser_of(denoise), process, final), None))


def tokens_of(name, steps, prompt=None, **options):
    rows = preceded(equal_steps(Linear(), steps, **options), STEPS + 1)
    return compiled(name)(keys_of(SIZE), blank() if prompt is None else prompt, rows).tokens


def variation(*options, **fields):
    return LANGUAGE.total_variation(tokens_of(*options, **fields))


@pytest.mark.parametrize("name", ["uniform", "masked"])
def test_total_variation_falls_to_the_floor_with_steps(name):
    """One step draws the product of marginals; the error is of order 1 / steps."""
    variations = [variation(name, steps) for steps in (1, 4, 64)]
    assert variations[0] == pytest.approx(distance(LANGUAGE, product_of_marginals(LANGUAGE)), abs=2 * FLOOR)
    assert variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[2] < 1.6 * FLOOR


def test_the_full_posterior_is_no_prediction_of_this_sampler():
    """It counts the evidence of a position twice, and stays wrong with any number of steps."""
    assert variation("uniform, full posterior", 64) > 5 * FLOOR


def test_the_last_step_may_begin_above_time_0():
    """Its draw is from p(x | z_t), which knows the position's own token."""
    assert variation("uniform", 64, end=1e-3) < 1.6 * FLOOR
    # A draw of the prediction itself would forget that token: it is the leave-one-out posterior.
    predict = optimized(lambda keys, state: draw_two_stage(keys, DENOISERS["uniform"][1](state, jnp.full(SIZE, 1e-3))))
    assert LANGUAGE.total_variation(predict(keys_of(SIZE), tokens_of("uniform", 64))) > 8 * FLOOR
    rows = equal_steps(Linear(), 4, end=0.1)
    assert len(rows.index) == 5 and rows.level[-1] == pytest.approx(0.1) and rows.next_level[-1] == 0


def test_prompts_never_change_and_condition_the_rest():
    """The known token is read as a noisy one, so that the rest is near the conditional, not equal to it."""
    tokens = np.asarray(tokens_of("uniform", 64, blank().at[:, 1].set(2)))
    assert (tokens[:, 1] == 2).all()
    rest, ends = given({1: 2})
    assert rest.total_variation(tokens[:, [0, 2, 3]]) < distance(ends, rest)


def test_an_example_does_not_depend_on_its_batch_and_nothing_moves_between_host_and_device():
    rows, run = equal_steps(Linear(), 4), compiled("uniform")
    inputs = keys_of(64), blank(64), rows
    whole = run(*inputs)
    with jax.transfer_guard("disallow"):
        again = run(*inputs).tokens
    np.testing.assert_array_equal(again, whole.tokens)
    np.testing.assert_array_equal(run(keys_of(7), blank(7), rows).tokens, whole.tokens[:7])
    assert (whole.evaluations == 4).all() and (whole.idle <= 4).all() and not whole.invalid.any()


def test_argmax_ends_in_the_likeliest_tokens():
    """With one step from pure noise that is the likeliest token of each position."""
    tokens = compiled("uniform", "argmax")(keys_of(16), blank(16), equal_steps(Linear(), 1)).tokens
    best = [marginal.argmax() for marginal in marginals(LANGUAGE)]
    np.testing.assert_array_equal(tokens, np.broadcast_to(best, tokens.shape))


def test_bad_grids_are_refused():
    for steps, end, temperature, field in ((0, 0, 1, "steps"), (2, 1, 1, "end"), (2, 0, 0, "temperature")):
        with refused(rf"sample\.{field}"):
            equal_steps(Linear(), steps, end=float(end), temperature=float(temperature))
