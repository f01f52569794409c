"""Cost of methods: training steps and samplers of each paper relative to MDLM, for one network size, in one run.

    python -m experiments.benchmarks.methods --repeats=8
    python -m experiments.benchmarks.methods --blocks=12 --predictors=block --digits= --rates=

Programs are timed alternately, so that slow periods of the machine affect all of them. Ratios are medians over the
repeats of the time over MDLM's time in the same repeat. Programs are built from configs as the verbs build them.
"""

import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import ConfigDict
from tabulate import tabulate

from configs.base import defaults
from configs.recipes.small import small
from diffusion.rng import example_keys
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.shared import paired, timed
from experiments.plan import resolve

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "local", ["local", "small"], "local: 128 wide, 128 tokens of 4,096; small: the paper's")
flags.DEFINE_integer("blocks", 0, "blocks of the network; 0: local has 4, small 12", lower_bound=0)
flags.DEFINE_integer("batch", 16, "examples per step", lower_bound=1)
flags.DEFINE_integer("repeats", 8, "timings of each program, taken alternately", lower_bound=2)
flags.DEFINE_list("digits", ["2", "4", "8"], "Prime: sub-tokens per token; empty: no Prime")
flags.DEFINE_list("rates", ["0.5", "1"], "SCMDM: rates of the first pass; empty: no SCMDM")
flags.DEFINE_list("predictors", ["head", "block"], "G-Star: error predictors; empty: no G-Star")
flags.DEFINE_integer("steps", 8, "evaluations per sampler call", lower_bound=1)


MDLM = "MDLM"


def methods() -> dict[str, dict]:
    """Overrides of the training step of each method."""
    overrides: dict[str, dict] = {MDLM: {}}
    for number in map(int, FLAGS.digits):
        for target in ("joint", "marginal"):
            overrides[f"Prime, {number} digits, {target}"] = {"codec.digits": number, "objective.target": target}
    for rate in map(float, FLAGS.rates):
        overrides[f"SCMDM, lambda {rate:g}"] = {"memory.adapter": "linear", "memory.rate": rate}
    return overrides | {f"G-Star's predictor, {kind}": predictor(kind) for kind in FLAGS.predictors}


def predictor(kind: str) -> dict:
    """Overrides of the training of an error predictor."""
    return {"predictor.kind": kind, "objective.name": "errors"}


def samplers() -> dict[str, dict]:
    """Overrides of the sampler of each method; targets and rates do not change it."""
    overrides: dict[str, dict] = {MDLM: {}}
    overrides |= {f"Prime, {number} digits": {"codec.digits": int(number)} for number in FLAGS.digits}
    overrides |= {"SCMDM": {"memory.adapter": "linear"}} if FLAGS.rates else {}
    # Guidance acts at every step here; in tables it acts at a third or half of the steps.
    return overrides | {f"G-Star, {kind}": {"sample.policy": "gstar"} | predictor(kind) for kind in FLAGS.predictors}


def config(overrides: dict) -> ConfigDict:
    """Config of one program."""
    base = defaults("step_cost", "local")
    if FLAGS.size == "local":
        small(base)
    else:
        base.data.update(vocab_size=50257, length=1024)
        base.model.dtype = "bfloat16"
    if FLAGS.blocks:
        base.model.blocks = FLAGS.blocks
        # All blocks are unrolled if the size unrolls them.
        base.model.unroll = FLAGS.blocks if base.model.unroll > 1 else 1
    base.train.batch = base.sample.batch = FLAGS.batch
    base.sample.update(steps=FLAGS.steps, end=0.0, final="none")
    return resolve(base, overrides, seed=0)


def training(options: ConfigDict) -> Callable[[], None]:
    """Compiled training step, which runs once per call."""
    system = families.system(options, options.data.vocab_size)
    optimizer = families.optimizer(options)
    carry = {"state": jax.jit(lambda key: new_state(system.init(key), optimizer))(jax.random.key(0))}
    shape = (options.train.batch, options.data.length)
    tokens = jax.random.randint(jax.random.key(1), shape, 0, options.data.vocab_size)
    data, root = {"tokens": tokens, "weights": jnp.ones(shape)}, jax.random.key(2)
    step = make_step(families.objective(options, system), optimizer)
    compiled = jax.jit(step, donate_argnums=0).lower(carry["state"], data, root).compile()

    def run() -> None:
        carry["state"], metrics = compiled(carry["state"], data, root)
        jax.block_until_ready((carry["state"], metrics))

    return run


def sampling(options: ConfigDict) -> Callable[[], None]:
    """Compiled sampler, which runs once per call."""
    system = families.system(options, options.data.vocab_size)
    params = jax.jit(system.init)(jax.random.key(0))
    size = options.sample.batch
    keys = example_keys(jax.random.key(3), jnp.arange(size))
    prompt = jnp.full((size, options.data.length), options.data.vocab_size, jnp.int32)
    compiled = jax.jit(families.sampler(options, system)).lower(params, keys, prompt).compile()
    return lambda: jax.block_until_ready(compiled(params, keys, prompt))


def main(arguments: list[str]) -> None:
    """Time each program and print the ratios."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    keep_freed_memory()
    programs = {("training", name): training(config(overrides)) for name, overrides in methods().items()}
    programs |= {("sampling", name): sampling(config(overrides)) for name, overrides in samplers().items()}
    seconds, lines = timed(programs, FLAGS.repeats), []
    for (kind, name), times in seconds.items():
        milliseconds = 1e3 * statistics.median(times) / (1 if kind == "training" else FLAGS.steps)
        lines.append([kind, name, f"{milliseconds:.1f}", paired(times, seconds[kind, MDLM])])
    device = jax.devices()[0].device_kind
    size = f"{FLAGS.size}, {config({}).model.blocks} blocks, batch {FLAGS.batch}"
    print(f"{size}, {jax.device_count()} x {device}, {FLAGS.repeats} repeats\n")
    print(tabulate(lines, ["", "program", "ms per step (evaluation)", "ratio to MDLM"], disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
