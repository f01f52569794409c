"""Every config file, in every variant: its rows resolve, plan, and build under eval_shape (law 9)."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.families.text_to_image import EXACT
from ml_collections import ConfigDict

from configs import prime_toy
from diffusion.data.synthetic import density_table
from diffusion.glyphs.prompts import PROMPT_LENGTH
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.families.guidance import method
from experiments.families.seq2seq import NET as PAIR_NET
from experiments.families.seq2seq import has_sources
from experiments.families.translation import longest, translator
from experiments.plan import digest, plan, resolve, train_identity

FILES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py"))
TABLES = [name for name in FILES if name not in ("__init__", "base", "sampling")]
VARIANTS = ("paper", "gpu", "local", "debug")
BUILT, SAMPLED = set(), set()  # digests of the trainings, and of the samplers, whose shapes are known to fit
# How many of equal blocks follow each other.
DEPTHS = {
    "model": ("blocks",),
    "unet": ("res_blocks", "middle_layers"),
    "encoder_decoder": ("encoder_blocks", "decoder_blocks"),
    "captioned_unet": ("layers",),
    "reward": ("blocks",),
}


@pytest.fixture(params=TABLES)
def table(request):
    return importlib.import_module(f"configs.{request.param}")


def shallow(config):
    """The config with two of the transformer's blocks and one of each other kind, of which all have equal shapes."""
    config = config.copy_and_resolve_references()
    for network, names in DEPTHS.items():
        for name in names:
            if name in config[network]:
                config[network][name] = min(config[network][name], 2 if network == "model" else 1)
    return config


def sampler_identity(config, depth):
    """What decides the shapes of a sampler. Of shallow networks one samples; whole ones do by every policy."""
    options, parts = config.sample, shape_identity(config)
    told = options.translation
    network = {name: parts[name] for name in parts if name not in ("objective", "optimizer", "train", "embedding")}
    policy = [options.policy, options.gaussian.method, told.memory, told.seeds, told.path] if depth == "whole" else []
    return digest([network, policy])


def shape_identity(config):
    """What decides the shapes of a training: its identity without its duration and the source of its data."""
    parts = train_identity(config)
    parts["train"] = {key: value for key, value in parts["train"].items() if key != "steps"}
    parts["data"] = {key: parts["data"][key] for key in ("length", "vocab_size", "packing")}
    if config.model.net == PAIR_NET:
        parts["data"]["source_length"] = config.data.source_length
        parts["process"]["factor"] = 1.0
        if "embedding" in parts and config.variant != "debug":
            # Which gap and which map is traced whole at the smallest size.
            parts["embedding"]["scp"], parts["embedding"]["mans"] = None, config.embedding.mans.map != "off"
    if 0 < config.memory.rate < 1 and "memory" in parts:
        parts["memory"]["rate"] = 0.5
    if "predictor" in parts and config.variant != "debug":
        # How it learns changes no shape, and is traced whole at the smallest size.
        parts["predictor"] = parts["predictor"]["kind"]
    return parts


def abstract_step(config):
    """Shapes of one training step's results; raises when anything in the config does not fit."""
    system = families.system(config, config.data.vocab_size)
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    settings = families.settings(config)
    step = make_step(objective, optimizer, decay=settings.ema, accumulate=settings.accumulate)
    shape = (settings.batch, config.data.length)
    batch = {
        name: jax.ShapeDtypeStruct(shape, kind) for name, kind in (("tokens", jnp.int32), ("weights", jnp.float32))
    }
    batch["label"] = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    batch["prompt"] = jax.ShapeDtypeStruct((shape[0], PROMPT_LENGTH), jnp.int32)
    batch["score"] = jax.ShapeDtypeStruct(shape[:1], jnp.float32)
    if config.model.net == PAIR_NET:
        told = (shape[0], config.data.source_length)
        batch["source"] = jax.ShapeDtypeStruct(told, jnp.int32)
        batch["source_weights"] = jax.ShapeDtypeStruct(told, jnp.float32)
    state = jax.eval_shape(lambda key: new_state(system.init(key), optimizer), jax.random.key(0))
    return system, state, jax.eval_shape(step, state, batch, jax.random.key(0))


def abstract_sampler(config, system):
    """The sampler of a config, as a function from parameters to the shapes of one batch of samples."""
    size, length = config.sample.batch, config.sample.length or config.data.length
    if config.model.net == "captioned_unet":
        return abstract_pictures(config, system)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    if config.model.net == PAIR_NET and has_sources(config):
        return abstract_translations(config, system, keys)
    prompt = jax.ShapeDtypeStruct((size, length), jnp.int32)
    sampler = families.sampler(config, system)

    def draw(params):
        assert jax.eval_shape(sampler, params, keys, prompt).tokens.shape == (size, length)

    return draw


def abstract_pictures(config, system):
    """Pictures from prompts."""
    size, options = config.sample.batch, config.sample.gaussian
    made = method(config, system, lambda reward_params, clean, told: jnp.sum(clean, axis=(1, 2, 3)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (size, made.draws)))
    told = jax.ShapeDtypeStruct((size, PROMPT_LENGTH), jnp.int32)

    def draw(params):
        ahead = None
        if made.look:
            looked = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (size, made.particles)))
            samples = jax.eval_shape(made.look, params, looked, told)
            flat = (*samples.shape[:2], config.data.length)
            ahead = Lookahead(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (flat, flat[:2])))
        pictures = jax.eval_shape(made.draw, params, {}, keys, told, ahead, made.forces)
        assert pictures.shape == (size, options.images, *system.codec.image)

    return draw


def abstract_translations(config, system, keys):
    """Candidates of one batch of sources."""
    told = (config.sample.batch, config.data.source_length)
    source, mask = jax.ShapeDtypeStruct(told, jnp.int32), jax.ShapeDtypeStruct(told, jnp.bool_)
    known = jax.ShapeDtypeStruct(told[:1], jnp.int32)
    made = translator(config, system)

    def draw(params):
        found = jax.eval_shape(made.translate, params, keys, source, mask, known)
        assert found.tokens.shape == found.target.shape == (told[0], made.candidates, longest(config))

    return draw


# The published widths and the smallest scale always; whole depths, and the scales between, take minutes to trace.
@pytest.mark.parametrize(
    ("variant", "depth"),
    [
        ("debug", "whole"),
        ("paper", "shallow"),
        *(pytest.param(name, "whole", marks=pytest.mark.slow) for name in ("paper", "gpu", "local")),
    ],
)
def test_every_row_builds(table, variant, depth):
    config = table.get_config(variant)
    assert (config.table, config.variant) == (table.__name__.rpartition(".")[2], variant)
    for row in table.rows(config):
        resolved = resolve(config, row["overrides"], 0)
        if depth == "shallow":
            resolved = shallow(resolved)
        # Rows and tables that share a training or a sampler build it once.
        training = digest(shape_identity(resolved))
        if resolved.model.net in EXACT:
            continue
        # At debug scale every distinct training takes a step in tests/golden.
        if training not in BUILT and variant != "debug":
            system, state, (after, metrics) = abstract_step(resolved)
            assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
                lambda leaf: (leaf.shape, leaf.dtype), state
            )
            assert metrics["loss"][0].shape == ()
            BUILT.add(training)
        if resolved.sample.policy != "data" and resolved.model.net not in ("classifier", "reward"):
            system = families.system(resolved, resolved.data.vocab_size)
            draw, sampler = abstract_sampler(resolved, system), sampler_identity(resolved, depth)
            if sampler not in SAMPLED:
                SAMPLED.add(sampler)
                draw(jax.eval_shape(system.init, jax.random.key(0)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_is_planned_after_what_it_needs(table, variant):
    config = table.get_config(variant)
    jobs = plan(list(table.rows(config)), config)
    seen = set()
    for job in jobs:
        assert set(job.needs) <= seen
        seen.add(job.id)
        assert ConfigDict(job.config).seed in config.seeds
    assert {job.row for job in jobs} <= {row["name"] for row in table.rows(config)}


def test_published_figures_belong_to_rows_and_columns(table):
    config = table.get_config("paper")
    names, keys = {row["name"] for row in table.rows(config)}, {column[0] for column in table.TABLE["columns"]}
    for name, values in table.TABLE["published"].items():
        assert name in names
        assert set(values) <= keys
    assert set(table.TABLE.get("tolerance", ())) <= keys
    for _, cells in table.TABLE.get("figures", ()):
        assert cells.keys() <= names and all(isinstance(text, str) for text in cells.values())


def test_plots_name_rows_and_columns_that_are_there(table):
    """A misspelled row would be an empty place in a plot, and nothing else would tell."""
    names = set()
    for variant in VARIANTS:
        config = table.get_config(variant)
        # Some rows are there once their data's folder is.
        for config.data.path in ("", "folder"):
            names |= {row["name"] for row in table.rows(config)}
    for plot in table.TABLE.get("plots", ()):
        assert set(plot.get("course", {}).values()) <= names
        for _, _, places in plot.get("series", ()):
            assert {name for name, _ in places} <= names
        assert {name for _, _, name in plot.get("references", ())} <= names


def test_unknown_variant_is_refused_with_the_known_ones(table):
    with pytest.raises(ValueError, match="paper, gpu, local, debug"):
        table.get_config("huge")


def test_a_tables_steps_scale_down():
    """The variants differ in work by orders of magnitude, in the order that their names promise."""
    for name in TABLES:
        module = importlib.import_module(f"configs.{name}")
        work = []
        for variant in VARIANTS:
            config = module.get_config(variant)
            system = families.system(config, config.data.vocab_size)
            work.append(families.training_flops(config, system) * config.train.steps)
        assert work == sorted(work, reverse=True), name
        # Two CPU cores make about 1e11 FLOP/s, and a local base may take an hour.
        assert work[2] < 3600 * 1e11, name
        # One accelerator, 20 minutes, at 2e14 FLOP/s.
        assert work[1] < 1200 * 2e14, name


def test_the_toys_entropy_is_that_of_its_density():
    table = density_table(prime_toy.get_config("paper").data.vocab_size)
    assert -np.sum(table * np.log(table)) / 2 == pytest.approx(prime_toy.ENTROPY, abs=1e-6)
