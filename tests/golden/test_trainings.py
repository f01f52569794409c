"""Two optimizer steps of every distinct training at debug scale, on random batches and with random weights.

`loss` and `gradient` (its norm) are those of the first step. `update` is the norm of the change by two steps: the
length of the first step of Adam does not depend on the gradient, that of the second step does. The warm-up of the debug
scale starts above 0. The epsilon of Adam is `EPSILON`: with the usual one, gradients that are 0 up to rounding (that of
a bias under the ranking loss) change weights as much as other gradients.
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
from experiments.identity import digest, to_json, train_identity, training_fields
from experiments.plan import resolve
from tests.golden.programs import computed
from tests.test_configs import TABLES
from tests.weights import randomized

EPSILON = 1e-5


def trainings():
    """Return the config of every distinct training, by its first row in the order of tables."""
    by_identity = {}
    for table in TABLES:
        module = importlib.import_module(f"configs.{table}")
        config = module.get_config("debug")
        for row in module.rows(config):
            resolved = resolve(config, row["overrides"], 0)
            if families.family_of(resolved).TRAINED:
                by_identity.setdefault(digest(train_identity(resolved)), (f"{table}: {row['name']}", resolved))
                resolved.optimizer.epsilon = EPSILON
    return dict(by_identity.values())


TRAININGS = trainings()


def random_batch(config, size):
    """Return a batch with the fields of all objectives, and padding at the ends of sequences."""
    rng, data = np.random.default_rng(0), config.data
    vocabulary = data.vocab_size

    def sequences(length):
        tokens = rng.integers(0, vocabulary, (size, length)).astype(np.int32)
        loss_mask = np.arange(length)[None] < rng.integers(length - length // 3, length + 1, (size, 1))
        return tokens, loss_mask.astype(np.float32)

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
    """Return the hash of what determines the numbers of a training; steps count only if the learning rate decays."""
    parts = training_fields(to_json(config))
    if config.optimizer.decay != "cosine":
        del parts["train"]["steps"]
    return digest(parts)


@functools.cache
def numbers(program):
    """Return loss, gradient norm and update norm of a program, which is compiled once for all its trainings."""
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
    values = computed(two_steps, *inputs)
    return {name: float(value) for name, value in values.items()}


def lane(name):
    """Return the name, marked as slow where the training of text with the same change to its base is compared."""
    domain, _, row = name.partition(": ")
    changed = domain in ("scmdm_images", "scmdm_genomes", "scmdm_molecules")
    changed = changed and row in ("MDLM, same FLOPs", "SCMDM, lambda 0.5", "SCMDM, lambda 0.9")
    return pytest.param(name, marks=pytest.mark.slow) if changed else name


@pytest.mark.parametrize("name", [lane(name) for name in TRAININGS])
def test_steps_of_training(golden, name):
    golden(name, numbers(program_of(TRAININGS[name])))


def test_every_record_is_a_training(golden):
    golden.complete(list(TRAININGS))
