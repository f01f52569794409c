"""Large vocabularies: memory and time of a training step whose logits are computed in pieces (`objective.pieces`).

    python -m experiments.benchmarks.vocabulary --vocabulary=150000 --row=AR --repeats=0

The steps of a row of configs/mdlm_owt.py take turns on one device; ratios are to the first number of pieces, paired by
repeat. Memory is that of the temporary arrays of the compiled step, and needs no run (`--repeats=0`).
"""

from collections.abc import Callable
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict
from tabulate import tabulate

from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.shared import paired, pin, processor, timed, with_range

FLAGS = flags.FLAGS
flags.DEFINE_integer("vocabulary", 50257, "number of tokens", lower_bound=2)
flags.DEFINE_list("pieces", ["0", "4", "16"], "values of objective.pieces")
flags.DEFINE_string("row", "MDLM", "row of configs/mdlm_owt.py")
flags.DEFINE_string("variant", "local", "its variant")
flags.DEFINE_integer("batch", 0, "sequences of a step; 0: those of the variant", lower_bound=0)
flags.DEFINE_integer("cores", 1, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("repeats", 5, "timings of each step; 0: memory alone", lower_bound=0)


def training(config: ConfigDict) -> tuple[int, Callable[[], Any]]:
    """Bytes of the temporary arrays of a training step, and a function that takes one step at each call."""
    import jax
    import numpy as np

    from diffusion.train.mesh import make_mesh, put_batch, replicated
    from diffusion.train.state import init_state
    from experiments import families
    from experiments.aot.programs import training_step

    system, mesh = families.system(config, config.data.vocab_size), make_mesh(devices=jax.devices()[:1])
    compiled = training_step(config, system, mesh).compiled
    memory = compiled.memory_analysis()
    assert memory is not None
    carry: dict[str, Any] = {}

    def start() -> dict[str, Any]:
        shape = config.train.batch, config.data.length
        tokens = np.random.default_rng(0).integers(0, config.data.vocab_size, shape, np.int32)
        return {
            "state": init_state(system.init, families.optimizer(config), mesh, jax.random.key(0)),
            "data": put_batch({"tokens": tokens, "weights": np.ones(shape, np.float32)}, mesh),
            "root": jax.device_put(jax.random.key(1), replicated(mesh)),
        }

    def step() -> Any:
        if not carry:
            carry.update(start())
        carry["state"], metrics = compiled(carry["state"], carry["data"], carry["root"])
        return carry["state"], metrics

    return memory.temp_size_in_bytes, step


def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cores = pin(FLAGS.cores)
    from configs import mdlm_owt
    from experiments.plan import find_row, resolve

    table = mdlm_owt.get_config(FLAGS.variant)
    overrides = find_row(list(mdlm_owt.rows(table)), FLAGS.row)["overrides"]
    memory, steps = {}, {}
    for pieces in FLAGS.pieces:
        changes = {"data.vocab_size": FLAGS.vocabulary, "objective.pieces": int(pieces)}
        changes |= {"train.batch": FLAGS.batch} if FLAGS.batch else {}
        config = resolve(table, overrides | changes, 0)
        memory[pieces], steps[pieces] = training(config)
    print(f"{FLAGS.row}, {config.train.batch} x {config.data.length} tokens; {cores} cores of {processor()}")
    seconds = timed(steps, FLAGS.repeats) if FLAGS.repeats else {}
    lines = []
    for pieces, used in memory.items():
        line = [pieces, f"{used / 2**30:.2f}"]
        if each := seconds.get(pieces):
            line += [with_range([1e3 * value for value in each], 0), paired(each, seconds[FLAGS.pieces[0]])]
        lines.append(line)
    print(tabulate(lines, headers=["pieces", "temporaries, GiB", "ms per step", "ratio"], tablefmt="github"))


if __name__ == "__main__":
    app.run(main)
