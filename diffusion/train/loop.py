"""The training loop: resume, step, log, evaluate and save, with a clean stop on signals and an error on divergence."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.mesh import batch_sharding, check_batch, put_batch, put_key, replicated
from diffusion.train.meter import Meter
from diffusion.train.profiler import Profiler
from diffusion.train.state import TrainState, abstract_state, init_state
from diffusion.train.step import Objective, all_finite, make_step, non_finite
from diffusion.train.writers import Writer
from diffusion.types import Metrics, Params


@dataclass(frozen=True)
class Settings:
    """Settings of the training loop, in steps and in examples per batch.

    `accumulate` is the number of micro-batches per step, `ema` the decay of the moving average, and `keep` the number
    of recent checkpoints to retain.
    """

    steps: int
    batch: int
    accumulate: int = 1
    ema: float = 0.9999
    log_every: int = 50
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2


class Diverged(RuntimeError):
    """The loss or the gradient is not finite."""


class Interrupted(SystemExit):
    """Training stopped on SIGTERM or SIGINT and saved its state; the exit status is 143, as after SIGTERM."""

    def __init__(self):
        super().__init__(143)


def jit_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    abstract: TrainState,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """Return the training step as one program over the mesh, which donates the memory of the old state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        make_step(objective, optimizer, decay=settings.ema, accumulate=settings.accumulate),
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def train(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    init: Callable[[jax.Array], Params],
    stream: Callable[[int], Iterable[dict[str, np.ndarray]]],
    settings: Settings,
    mesh: Mesh,
    root: jax.Array,
    directory: Path,
    *,
    start: Params | None = None,
    evaluate: Callable[[Params], float] | None = None,
    tokens_per_step: int = 0,
    flops_per_step: Callable[[], float] | None = None,
    name: str = "train",
    config: dict | None = None,
    profile: int = 0,
) -> TrainState:
    """Train to `settings.steps`, from the most recent readable checkpoint in `directory` if there is one.

    `stream(step)` yields the rows of this host from that step on. `start` replaces the initial parameters.
    `evaluate(ema)` returns the validation loss, by which the best checkpoint is retained. `flops_per_step()` is called
    where the peak of the device is known. The profiler traces `profile` steps, and writes to `directory`.

    Raises:
      ValueError: if the batch does not divide over the mesh, or if a checkpoint belongs to another model.
      Diverged: if the loss or the gradient is not finite; previous checkpoints remain.
      Interrupted: after the state is saved, on SIGTERM or SIGINT.
    """
    check_batch(settings.batch, mesh, settings.accumulate)
    checkpoints = Checkpoints(directory / "checkpoints", settings.keep)
    abstract = abstract_state(init, optimizer, mesh)
    state = checkpoints.restore(abstract)
    if state is None:
        state = init_state(init, optimizer, mesh, root)
        if start is not None:
            state = state._replace(params=start, ema=jax.tree.map(jnp.copy, start))
    first = int(state.step)
    step_function = jit_step(objective, optimizer, settings, abstract, mesh)
    root = put_key(root, mesh)
    main = jax.process_index() == 0
    writer = Writer(directory, name, config or {}, first) if main else None
    meter = Meter(name, first, settings.steps, tokens_per_step, flops_per_step, show=main)
    profiler = Profiler(directory / "profile", first, profile if main else 0)
    losses: dict[int, float] = {}  # of the last evaluation, by its step

    def save(step: int) -> None:
        if step not in checkpoints.steps():
            checkpoints.save(step, state, losses.get(step))
            if writer:
                writer.put()

    # On every exit the checkpoints must be on disk and the metrics closed.
    with (
        jax.set_mesh(mesh),
        graceful_stop() as stopping,
        closing(checkpoints),
        closing(meter),
        closing(profiler),
        closing(writer) if writer else nullcontext(),
    ):
        pending = None
        for step, rows in zip(range(first, settings.steps), stream(first), strict=False):
            profiler.before(step, state)
            batch = put_batch(rows, mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step_function(state, batch, root)
            # The metrics of the previous step are fetched while this step runs.
            if pending is not None:
                check_finite(pending, step, directory, state.params)
            pending = metrics
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                values = check_finite(metrics, done, directory, state.params)
                values |= meter.update(done, values["loss"])
                if writer:
                    writer.write(done, **values)
            if evaluate and (done % settings.evaluate_every == 0 or done == settings.steps):
                with meter.paused():
                    losses = {done: evaluate(state.ema)}
                if writer:
                    writer.write(done, validation_loss=losses[done])
            # All hosts stop at the same step.
            alone = jax.process_count() == 1
            stop = bool(stopping) if alone else multihost_utils.reached_preemption_sync_point(done)
            if stop or done % settings.checkpoint_every == 0 or done == settings.steps:
                check_finite(metrics, done, directory, state.params)
                check_state(state, losses.get(done), done, directory)
                save(done)
            if stop:
                checkpoints.wait()
                meter.close()
                print(f"stopped at step {done}; the same command goes on from there", file=sys.stderr)
                raise Interrupted
    return state


def check_finite(metrics: Metrics, step: int, directory: Path, params: Params) -> dict[str, float]:
    """Return the means of the metrics.

    Raises:
      Diverged: with a diagnosis, if one of them is not finite.
    """
    values = {key: float(total) / max(float(count), 1.0) for key, (total, count) in jax.device_get(metrics).items()}
    if not all(np.isfinite(value) for value in values.values()):
        bad = ", ".join(f"{key} = {value:g}" for key, value in values.items() if not np.isfinite(value))
        raise diverged(step, [bad], params, directory)
    return values


def check_state(state: TrainState, loss: float | None, step: int, directory: Path) -> None:
    """Raise Diverged unless the parameters, their average and a validation loss are finite, before they are saved."""
    bad = [] if loss is None or np.isfinite(loss) else [f"validation loss = {loss:g}"]
    if bad or not bool(all_finite((state.params, state.ema))):
        raise diverged(step, bad, state.params, directory)


def diverged(step: int, bad: list[str], params: Params, directory: Path) -> Diverged:
    """Return the error of a training, with the values that are not finite, and what to do."""
    what = "; ".join([*bad, f"{non_finite(params)} are not finite"])
    return Diverged(
        f"training diverged at step {step}: {what}; lower optimizer.learning_rate or optimizer.clip, or raise "
        f"optimizer.warmup; the last good checkpoint is in {directory / 'checkpoints'}"
    )


@contextmanager
def graceful_stop() -> Iterator[list[int]]:
    """Collect the first SIGTERM and SIGINT in a list; a second one has its usual effect.

    With several processes the list stays empty: a handler here would replace that of JAX, by which all hosts agree on
    a step to stop at (`multihost_utils.reached_preemption_sync_point`).
    """
    received: list[int] = []
    if jax.process_count() > 1:
        yield received
        return

    def note(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # only the main thread may set signal handlers
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
