"""One optimizer step of every distinct training at debug scale, on random batches and away from the start of training.

`loss` and `gradient` (its norm) are those of the first step. `update` is the norm of what two steps change: the first
step of Adam has the length of the learning rate whatever the gradient is, the second one depends on everything. The
warm-up of the debug scale begins above 0. Adam's epsilon is `EPSILON`: with the usual one, gradients that are 0 but for
rounding (that of a bias under the ranking loss) move weights as far as others do.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.data.arrays import LABELS
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.plan import digest, resolve, train_identity
from tests.golden.programs import unoptimized
from tests.test_configs import TABLES
from tests.weights import randomized

EPSILON = 1e-5


def trainings():
    """The config of every distinct training by the first row, in the order of tables, that asks for it."""
    found = {}
    for table in TABLES:
        module = importlib.import_module(f"configs.{table}")
        config = module.get_config("debug")
        for row in module.rows(config):
            resolved = resolve(config, row["overrides"], 0)
            if families.family_of(resolved).TRAINED:
                found.setdefault(digest(train_identity(resolved)), (f"{table}: {row['name']}", resolved))
                resolved.optimizer.epsilon = EPSILON
    return dict(found.values())


TRAININGS = trainings()


def random_batch(config, size):
    """All that any objective reads, the ends of sequences padded."""
    rng, data = np.random.default_rng(0), config.data
    vocabulary = data.vocab_size

    def sequences(length):
        tokens = rng.integers(0, vocabulary, (size, length)).astype(np.int32)
        real = np.arange(length)[None] < rng.integers(length - length // 3, length + 1, (size, 1))
        return tokens, real.astype(np.float32)

    (tokens, weights), (source, source_weights) = sequences(data.length), sequences(data.source_length)
    return {
        "tokens": tokens,
        "weights": weights,
        "source": source,
        "source_weights": source_weights,
        "label": rng.integers(0, LABELS.get(data.source, 1), size).astype(np.int32),
        "prompt": rng.integers(0, len(WORDS), (size, PROMPT_LENGTH)).astype(np.int32),
        "score": rng.uniform(0, 1, size).astype(np.float32),
    }


def program_of(config):
    """What decides the numbers of a training: all of it but a number of steps that its learning rate does not read."""
    parts = train_identity(config)
    if config.optimizer.decay != "cosine":
        del parts["train"]["steps"]
    return digest(parts)


@functools.cache
def numbers(program):
    """Loss, gradient norm and update norm, of a program that is compiled once for all trainings that share it."""
    config = next(each for each in TRAININGS.values() if program_of(each) == program)
    system, settings = families.system(config, config.data.vocab_size), families.settings(config)
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    step = make_step(objective, optimizer, decay=settings.ema, accumulate=settings.accumulate)

    def two_steps(params, batch, root):
        state = new_state(params, optimizer)
        after, metrics = jax.lax.scan(lambda state, _: step(state, batch, root), state, length=2)
        total, count = metrics["loss"]
        update = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, params))
        return {"loss": total[0] / count[0], "gradient": metrics["gradient_norm"][0][0], "update": update}

    inputs = randomized(system.init), random_batch(config, settings.batch), jax.random.key(0)
    found = unoptimized(two_steps, *inputs)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("name", TRAININGS)
def test_steps_of_training(golden, name):
    golden(name, numbers(program_of(TRAININGS[name])))


def test_every_record_is_a_training(golden):
    golden.complete(list(TRAININGS))
