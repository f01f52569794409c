"""The training loop: resume, step, log, evaluate, save; stop cleanly on a signal, stop loudly on divergence."""

import signal
import sys
import time
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
from tqdm import tqdm

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.hardware import memory_in_use, peak
from diffusion.train.mesh import batch_sharding, check_batch, put_batch, put_key, replicated
from diffusion.train.state import TrainState, abstract_state, init_state
from diffusion.train.step import Objective, make_step, non_finite
from diffusion.train.writers import Writer
from diffusion.types import Metrics, Params


@dataclass(frozen=True)
class Settings:
    """How long, how large and how often."""

    steps: int
    batch: int
    accumulate: int = 1
    ema: float = 0.9999
    log_every: int = 50
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2


class Diverged(RuntimeError):
    """The loss is not a number any more."""


class Interrupted(SystemExit):
    """SIGTERM or SIGINT arrived; the state was saved. The exit status is 143, as of a terminated process."""

    def __init__(self):
        super().__init__(143)


def jit_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    abstract: TrainState,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """The step as one program over the mesh; the old state's memory is given to the new one."""
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
    flops_per_step: float = 0.0,
    name: str = "train",
    config: dict | None = None,
) -> TrainState:
    """Train to `settings.steps`, from the newest readable checkpoint in `directory` when there is one.

    `stream(step)` gives this host's rows from that step on; `start` replaces the initial weights; `evaluate(ema)`
    is the validation loss by which the best checkpoint is kept.

    Raises:
      ValueError: when the batch does not divide over the mesh, or a checkpoint holds another model.
      Diverged: when loss or gradient stop being finite; the last good checkpoint stays.
      Interrupted: after saving, on SIGTERM or SIGINT.
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
    loss = None

    def save(step: int) -> None:
        if step not in checkpoints.steps():
            checkpoints.save(step, state, loss)

    # However the loop ends, what was saved before is on disk and the metrics are closed.
    with (
        jax.set_mesh(mesh),
        graceful_stop() as stopping,
        closing(checkpoints),
        closing(meter),
        closing(writer) if writer else nullcontext(),
    ):
        pending = None
        for step, rows in zip(range(first, settings.steps), stream(first), strict=False):
            batch = put_batch(rows, mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step_function(state, batch, root)
            # The metrics of the step before are fetched while this step runs.
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
                    loss = evaluate(state.ema)
                if writer:
                    writer.write(done, validation_loss=loss)
            stop = stop_requested(stopping, done)
            if stop or done % settings.checkpoint_every == 0 or done == settings.steps:
                check_finite(metrics, done, directory, state.params)
                save(done)
            if stop:
                checkpoints.wait()
                meter.close()
                print(f"stopped at step {done}; the same command goes on from there", file=sys.stderr)
                raise Interrupted
    return state


def check_finite(metrics: Metrics, step: int, directory: Path, params: Params) -> dict[str, float]:
    """Means of the metrics; raises Diverged with a diagnosis when one of them is not finite."""
    values = {key: float(total) / max(float(count), 1.0) for key, (total, count) in jax.device_get(metrics).items()}
    if not all(np.isfinite(value) for value in values.values()):
        bad = ", ".join(f"{key} = {value:g}" for key, value in values.items() if not np.isfinite(value))
        raise Diverged(
            f"training diverged at step {step}: {bad}; {non_finite(params)} are not finite; lower "
            f"optimizer.learning_rate or optimizer.clip, or raise "
            f"optimizer.warmup; the last good checkpoint is in {directory / 'checkpoints'}"
        )
    return values


@contextmanager
def graceful_stop() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list instead of dying of them; a second one kills as usual."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_requested(received: list[int], step: int) -> bool:
    """Whether to stop at this step; on several hosts all of them agree on the step."""
    if jax.process_count() == 1:
        return bool(received)
    return multihost_utils.reached_preemption_sync_point(step)


class Meter:
    """The progress line, with throughput, utilization and time left, without the time that evaluation takes."""

    def __init__(self, name: str, start: int, steps: int, tokens: int, flops: float, show: bool):
        self.tokens, self.flops = tokens, flops
        interactive = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            disable=not show,
            mininterval=0.5 if interactive else 15,
            dynamic_ncols=interactive,
            ncols=None if interactive else 140,
        )
        self.step, self.clock, self.idle = start, time.perf_counter(), 0.0
        device = jax.devices()[0]
        self.peak = peak(device.device_kind)
        self.devices = jax.device_count()

    def update(self, step: int, loss: float) -> dict[str, float]:
        """Advance to `step`; returns tokens/s, seconds a step, memory and, where the peak is known, MFU."""
        now = time.perf_counter()
        seconds = max(now - self.clock - self.idle, 1e-9) / max(step - self.step, 1)
        values = {"tokens_per_second": self.tokens / seconds, "seconds_per_step": seconds}
        if self.peak and self.flops:
            values["mfu"] = self.flops / seconds / (self.peak.flops * self.devices)
        memory = memory_in_use()
        if memory:
            values["memory_bytes"] = memory
        shown = {"loss": f"{loss:.4f}", "tok/s": f"{values['tokens_per_second']:,.0f}"}
        if "mfu" in values:
            shown["MFU"] = f"{values['mfu']:.1%}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(step - self.bar.n)
        self.step, self.clock, self.idle = step, now, 0.0
        return values

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not training time."""
        begin = time.perf_counter()
        yield
        self.idle += time.perf_counter() - begin

    def close(self) -> None:
        """Leave the finished line on the screen."""
        self.bar.close()
