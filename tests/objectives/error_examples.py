"""Error predictors and denoisers whose draws are known, so that labels can be computed by hand."""

from functools import partial

import jax
import jax.numpy as jnp

from diffusion.categorical import exclude
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.error_prediction import ErrorPrediction
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import draws
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import SubtokenDraw
from diffusion.schedules import masking as schedules

VOCAB, LENGTH, BATCH = 9, 12, 4
PROCESS = MaskedDiffusion(VOCAB, schedules.LogLinear())
PRIME = PartialMaskedDiffusion(SubtokenCodec(VOCAB, 2), schedules.LogLinear())
TOKENS = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, VOCAB)
WEIGHTS = jnp.ones((BATCH, LENGTH)).at[1, 9:].set(0).at[3, 4:].set(0)
BATCHES = {"tokens": TOKENS, "weights": WEIGHTS}
NOISE = draws(jax.random.key(5), "test", 0, BATCH)
PARAMS = {"denoiser": {"embedding": jax.random.normal(jax.random.key(4), (VOCAB + 1, 6))}, "errors": {}}


def point(tokens, classes=VOCAB + 1):
    """Logits of a nearly certain prediction."""
    return 60.0 * jax.nn.one_hot(tokens, classes)


def always(token, classes=VOCAB + 1):
    """A denoiser that always predicts one token."""

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        assert keys is None, "labels are computed without dropout"
        return point(jnp.full((len(noisy), LENGTH), token), classes)

    return denoiser


def undecided(denoiser, params, state, label=None, *, keys=None):
    return jnp.zeros((len(state), LENGTH))


class Sure(Draw):
    """Draws the most probable token, for certain predictions at a tenth of the compile time of `Draw`."""

    def tokens(self, keys, logits, temperature, nucleus):
        logits = exclude(logits, self.vocabulary)
        return jnp.argmax(logits, axis=-1), logits, jnp.zeros(logits.shape[:2])


TWO = always(2)


def objective(denoiser=TWO, errors=undecided, process=PROCESS, draw=Sure, **fields):
    draw = draw(process.vocabulary)
    draw = SubtokenDraw(process, draw) if process.subtokens > 1 else draw
    return ErrorPrediction(denoiser, errors, process, draw, **fields)


def at_time(time, noise=NOISE):
    """The randomness with one time for all examples."""
    return noise._replace(uniform=jnp.full(len(noise.keys), (time - 1e-3) / (1 - 1e-3)))


@partial(jax.jit, static_argnums=0)
def examples(task, params, batch, noise):
    return task.examples(params, batch, noise)
