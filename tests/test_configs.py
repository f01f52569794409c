"""Every config file in every variant: its rows are resolved, planned, and built under eval_shape."""

import importlib
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import prime_toy
from diffusion.data.synthetic import density_table
from diffusion.rng import draws
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.compile import helper_config
from experiments.families import seq2seq
from experiments.flops import training_flops
from experiments.identity import digest, to_json, training_fields
from experiments.plan import plan, resolve

FILES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py"))
TABLES = [name for name in FILES if name not in ("__init__", "base", "data", "sampling", "schema")]
VARIANTS = ("paper", "gpu", "local", "debug")
BUILT = set()  # hashes of the trainings, and of the samplers, whose shapes were checked
# Fields with the number of equal blocks.
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
    """Return the config with two blocks of the transformer and one block of each other kind."""
    config = config.copy_and_resolve_references()
    for network, names in DEPTHS.items():
        for name in names:
            if name in config[network]:
                config[network][name] = min(config[network][name], 2 if network == "model" else 1)
    return config


def sampler_identity(config):
    """Return the hash of what determines the shapes of a sampler."""
    options, translation, parts = config.sample, config.sample.translation, shape_identity(config)
    network = {name: parts[name] for name in parts if name not in ("objective", "optimizer", "train", "embedding")}
    policy = [options.policy, options.gaussian.method, options.uniform.method]
    policy += [translation.memory, translation.seeds, translation.path]
    if config.model.net == "text_to_image":
        # Networks take long to trace, and tests/experiments/test_text_to_image.py runs every method in the slow lane.
        network, policy = config.text_to_image.backbone, []
    return digest([network, policy])


def shape_identity(config):
    """Return what determines the shapes of a training: its fields without its duration and the source of its data."""
    parts = training_fields(to_json(config))
    parts["train"] = {key: value for key, value in parts["train"].items() if key != "steps"}
    parts["data"] = {key: parts["data"][key] for key in ("length", "vocab_size", "packing")}
    if families.family_of(config) is seq2seq:
        parts["data"]["source_length"] = config.data.source_length
        parts["process"]["factor"] = 1.0
        if "embedding" in parts and config.variant != "debug":
            # Gaps and maps are traced at debug scale.
            parts["embedding"]["scp"], parts["embedding"]["mans"] = None, config.embedding.mans.map != "off"
    if 0 < config.memory.rate < 1 and "memory" in parts:
        parts["memory"]["rate"] = 0.5
    if "codec" in parts and config.variant != "debug":
        # The filter changes no shapes, and causal networks of any number of sub-tokens read one a position.
        parts["codec"]["carry_over"] = None
        if config.model.causal:
            parts["codec"], parts["train"]["accumulate"] = "causal", None
    if "predictor" in parts and config.variant != "debug":
        # Its training does not change shapes, and is traced at debug scale.
        parts["predictor"] = parts["predictor"]["kind"]
    return parts


def abstract_step(config):
    """Return the shapes of the state before and after a training step, and of its metrics."""
    system = families.system(config, config.data.vocab_size)
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    settings = families.settings(config)
    step = make_step(objective, optimizer, decay=settings.ema, accumulate=settings.accumulate)
    batch = families.family_of(config).batch(config)
    state = jax.eval_shape(lambda key: new_state(system.init(key), optimizer), jax.random.key(0))
    return state, jax.eval_shape(step, state, batch, jax.random.key(0))


def abstract_loss(config):
    """Return the shapes of the loss and the metrics of a batch."""
    system = families.system(config, config.data.vocab_size)
    objective, batch = families.objective(config, system), families.family_of(config).batch(config)
    noise = jax.eval_shape(lambda key: draws(key, "train", 0, len(batch["tokens"])), jax.random.key(0))
    return jax.eval_shape(objective, jax.eval_shape(system.init, jax.random.key(0)), batch, noise)


def abstract_samples(config, rows, table):
    """Yield the calls of the sampler of a config, as functions that return the shapes of their results."""
    system, helper = families.system(config, config.data.vocab_size), helper_config(rows, table, config)
    beside = families.system(helper, config.data.vocab_size) if helper else None
    for call in families.family_of(config).calls(config, system, beside):
        params = [jax.eval_shape(init, jax.random.key(0)) for init in call.params]
        yield partial(jax.eval_shape, call.function, *params, *call.rows, *call.scalars)


# Published depths and the scales between paper and debug take minutes to trace.
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
    rows = list(table.rows(config))
    for row in rows:
        resolved = resolve(config, row["overrides"], 0)
        if depth == "shallow":
            resolved = shallow(resolved)
        if config.data.source == "gaussian_mixture":
            continue  # an exact one-dimensional model without a program
        # A training or sampler of several rows is built once.
        training = digest(shape_identity(resolved)), depth
        # At debug scale, tests/golden runs a step of every distinct training.
        if training not in BUILT and variant != "debug" and families.family_of(resolved).TRAINED:
            if depth == "shallow":  # gradients and optimizers do not depend on the scale
                loss, _ = abstract_loss(resolved)
                assert loss.shape == ()
            else:
                state, (after, metrics) = abstract_step(resolved)
                before, after = (
                    [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, after)
                )
                assert before == after
                assert metrics["loss"][0].shape == ()
            BUILT.add(training)
        sampler = sampler_identity(resolved), depth
        if resolved.sample.policy != "data" and sampler not in BUILT:
            BUILT.add(sampler)
            for call in abstract_samples(resolved, rows, config):
                if depth == "whole":  # samplers of every kind are traced at debug scale
                    assert all(leaf.shape[0] == resolved.sample.batch for leaf in jax.tree.leaves(call()) if leaf.ndim)


def test_every_job_is_planned_after_the_jobs_that_it_needs(table):
    for variant in VARIANTS:
        config = table.get_config(variant)
        jobs, seen = plan(list(table.rows(config)), config), set()
        for job in jobs:
            assert set(job.needs.values()) <= seen
            seen.add(job.id)
            assert job.config["seed"] in config.seeds
        assert {job.row for job in jobs} <= {row["name"] for row in table.rows(config)}
    with pytest.raises(ValueError, match="paper, gpu, local, debug"):
        table.get_config("huge")


def test_published_figures_and_plots_belong_to_rows_and_columns(table):
    """A misspelled row would be missing in a plot without an error."""
    by_variant = {}
    for variant in VARIANTS:
        config, by_variant[variant] = table.get_config(variant), set()
        # Some rows exist only with a folder of data.
        for path in ("folder", ""):
            config.data.path = path
            by_variant[variant] |= {row["name"] for row in table.rows(config)}
    names = set().union(*by_variant.values())
    paper, keys = by_variant["paper"], {column[0] for column in table.TABLE["columns"]}
    for name, values in table.TABLE["published"].items():
        assert name in paper and set(values) <= keys
    assert set(table.TABLE.get("tolerance", ())) <= keys
    for _, cells in table.TABLE.get("figures", ()):
        assert cells.keys() <= paper and all(isinstance(text, str) for text in cells.values())
    for plot in table.TABLE.get("plots", ()):
        assert set(plot.get("course", {}).values()) <= names
        for _, _, positions in plot.get("series", ()):
            assert {name for name, _ in positions} <= names
        assert {name for _, _, name in plot.get("references", ())} <= names


def training_work(config, counted):
    """Return the FLOPs of a training; `counted` keeps those of a step with one example, by its shapes."""
    if not families.family_of(config).TRAINED:
        return 0
    one = config.copy_and_resolve_references()
    one.train.update(batch=1, accumulate=1)
    shapes = digest(shape_identity(one))
    if shapes not in counted:
        counted[shapes] = training_flops(one, one.data.vocab_size)
    return counted[shapes] * config.train.batch * config.train.steps


@pytest.mark.slow
def test_work_of_variants_decreases():
    """The variants are in the order of their work, and local and gpu trainings have a limit."""
    counted = {}
    for name in TABLES:
        module = importlib.import_module(f"configs.{name}")
        work = []
        for variant in VARIANTS:
            work.append(training_work(module.get_config(variant), counted))
        assert work == sorted(work, reverse=True), name
        # Two CPU cores reach about 1e11 FLOP/s; the limit is one hour.
        assert work[2] < 3600 * 1e11, name
        # One accelerator reaches about 2e14 FLOP/s; the limit is 20 minutes.
        assert work[1] < 1200 * 2e14, name


def test_entropy_of_the_toy_is_that_of_its_density():
    table = density_table(prime_toy.get_config("paper").data.vocab_size)
    assert -np.sum(table * np.log(table)) / 2 == pytest.approx(prime_toy.ENTROPY, abs=1e-6)
