"""Masked samplers under the exact denoiser of a small language; one program serves all policies, grids and prompts."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.oracles.enumerable import Enumerable, random_language
from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, confidence_step, first_hitting, random_order_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear
from tests.checks import optimized
from tests.languages import denoiser_of
from tests.weights import keys_of

VOCABULARY, LENGTH, SIZE, STEPS = 3, 4, 8192, 64
MASK = VOCABULARY
LANGUAGE = random_language(0, VOCABULARY, LENGTH)
FLOOR = LANGUAGE.total_variation_floor(SIZE)
POLICIES = {
    "ancestral": Policy(ancestral_step),
    "random_order": Policy(random_order_step),
    "confidence": Policy(confidence_step(0.0)),
    "first_hitting": first_hitting(Linear()),
}


def switched(which, policies):
    """Return the policy of this number, which may be traced, so that one program serves all policies."""
    policies = tuple(policies)

    def select(keys, inputs, row, extra):
        def branch(number):
            masks, new = policies[number].select(keys, inputs, row, extra[number])
            return masks, (*extra[:number], new, *extra[number + 1 :])

        return jax.lax.switch(which, [lambda number=number: branch(number) for number in range(len(policies))])

    def init(keys, fixed):
        return tuple(policy.init(keys, fixed) for policy in policies)

    def time(extra, row, size):
        return jnp.stack([policy.time(one, row, size) for policy, one in zip(policies, extra, strict=True)])[which]

    def correct(keys, state, *inputs):
        corrects = [policy.correct or (lambda keys, state, *rest: state) for policy in policies]
        return jax.lax.switch(which, [lambda one=one: one(keys, state, *inputs) for one in corrects])

    return Policy(select, init, time, correct)


def padded(rows, count=STEPS):
    """Repeat the last step, after which no mask is left, so that one program serves every number of steps."""
    missing = count - len(rows.index)
    return jax.tree.map(lambda column: np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1), "edge"), rows)


@cache
def compiled(language):
    """Return the program of a language, as a function of the policy's number, keys, prompt and rows."""
    process = MaskedDiffusion(language.vocabulary, Linear())

    def sample(which, keys, prompt, rows):
        policy, draw = switched(which, POLICIES.values()), Draw(language.vocabulary)
        return MaskedSampler(denoiser_of(language.denoise), process, policy, draw, "none")(None, keys, prompt, rows)

    return optimized(sample)


def run(policy, keys, prompt, steps, language=LANGUAGE, count=STEPS, **options):
    """Return samples of a language under a policy; `options` are those of the grid."""
    rows = padded(grid(Linear(), steps, language.length, end=0.0, **options), count)
    return compiled(language)(list(POLICIES).index(policy), keys, prompt, rows).tokens


def drawn(policy, steps, seed=0, **options):
    """Return SIZE samples without a prompt."""
    return run(policy, keys_of(SIZE, seed), blank(), steps, **options)


def blank(size=SIZE):
    return jnp.full((size, LENGTH), MASK, jnp.int32)


def at_the_floor(variation, floor=FLOOR):
    """Whether a total variation is that of sampling noise, neither above nor far below it."""
    return 0.65 * floor < variation < 1.35 * floor


def given(known, language=LANGUAGE):
    """Return the law of the other positions given the tokens of some, and their marginal law."""
    table = language.table.reshape((language.vocabulary,) * language.length)
    conditional = table[tuple(known.get(position, slice(None)) for position in range(language.length))]
    tables = conditional / conditional.sum(), table.sum(axis=tuple(known))
    return [Enumerable(each.ravel(), language.vocabulary, language.length - len(known)) for each in tables]


def preceded(rows, count):
    """Precede reverse steps of any process by steps at pure noise, so that one program serves every number of steps."""
    missing = count - len(rows.index)
    ahead = type(rows)(index=0, time=1, level=1, next_level=1, temperature=1, resampled=False)
    rows = jax.tree.map(lambda value, column: np.append(np.full(missing, value, column.dtype), column), ahead, rows)
    return rows._replace(index=np.arange(count))
