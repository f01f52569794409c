"""Cost of the gradient of a convolution with respect to its image inside a loop: ours and JAX's, in one run.

    python -m experiments.benchmarks.convolution --size=16 --channels=24

Both are timed alternately; the ratio is the median over the repeats of JAX's time over ours, with its quartiles.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from diffusion.nets.sd.layers import convolve

FLAGS = flags.FLAGS
flags.DEFINE_integer("size", 16, "pixels per side", lower_bound=1)
flags.DEFINE_integer("channels", 24, "input and output channels", lower_bound=1)
flags.DEFINE_integer("batch", 48, "images", lower_bound=1)
flags.DEFINE_integer("repeats", 8, "timings of each, taken alternately", lower_bound=2)
ITERATIONS = 3  # of the loop


def main(arguments: list[str]) -> None:
    """Print milliseconds per iteration and their ratio."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (FLAGS.batch, FLAGS.size, FLAGS.size, FLAGS.channels))
    kernel = jax.random.normal(keys[1], (3, 3, FLAGS.channels, FLAGS.channels)) / FLAGS.channels

    def looped(convolution):
        def iteration(x, _):
            return jax.grad(lambda x: jnp.sum(convolution(x, kernel) ** 2))(x), None

        return jax.jit(lambda x: jax.lax.scan(iteration, x, None, length=ITERATIONS)[0]).lower(x).compile()

    # The function without its custom rule has the gradient of JAX.
    programs = {"ours": looped(convolve), "JAX's": looped(convolve.fun)}  # pyright: ignore[reportAttributeAccessIssue]
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program(x))
    for _ in range(FLAGS.repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(x))
            seconds[name].append((time.perf_counter() - start) / ITERATIONS)
    for name, values in seconds.items():
        print(f"{name}: {1e3 * np.median(values):.2f} ms per iteration")
    low, ratio, high = np.percentile(np.divide(seconds["JAX's"], seconds["ours"]), [25, 50, 75])
    print(f"JAX's over ours: {ratio:.1f} [{low:.1f}, {high:.1f}] on {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    app.run(main)
