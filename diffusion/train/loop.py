"""The training loop: resume, step, log, evaluate and save, with a clean stop on signals and an error on divergence."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PyTree

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.divergence import Diverged, check_state, means, not_finite
from diffusion.train.mesh import check_batch
from diffusion.train.meter import Meter
from diffusion.train.population import Member, alone, together
from diffusion.train.profiler import Profiler
from diffusion.train.state import TrainState, abstract_state, init_state
from diffusion.train.step import Objective, make_step
from diffusion.train.writers import Writer
from diffusion.types import Params


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


class Interrupted(SystemExit):
    """Training stopped on SIGTERM or SIGINT and saved its state; the exit status is 143, as after SIGTERM."""

    def __init__(self):
        super().__init__(143)


class Track:
    """What the loop keeps of a training: its checkpoints, its records, and the loss of its last evaluation."""

    def __init__(self, member: Member, keep: int):
        self.member = member
        self.checkpoints = Checkpoints(member.directory / "checkpoints", keep)
        self.writer: Writer | None = None
        self.losses: dict[int, float] = {}  # of the last evaluation, by its step

    def saved_step(self, abstract: TrainState, last: int | None = None) -> int:
        """Return the step of the most recent readable checkpoint, which is not after `last`, or 0."""
        state = self.checkpoints.restore(abstract, last)
        return 0 if state is None else int(state.step)

    def first_state(self, abstract: TrainState, init: Callable[[jax.Array], Params], mesh: Mesh) -> TrainState:
        """Return the state of the most recent readable checkpoint, or before the first step."""
        state = self.checkpoints.restore(abstract)
        if state is None:
            state = init_state(init, self.member.optimizer, mesh, self.member.root)
            if self.member.start:
                start = self.member.start()
                state = state._replace(params=start, ema=jax.tree.map(jnp.copy, start))
        return state

    def open_records(self, step: int) -> None:
        """Open the records after a step, in the first process."""
        if jax.process_index() == 0:
            self.writer = Writer(self.member.directory, self.member.name, self.member.config or {}, step)

    def write(self, step: int, **values: float) -> None:
        """Record the values of a step."""
        if self.writer:
            self.writer.write(step, **values)

    def evaluate(self, step: int, state: TrainState) -> None:
        """Compute and record the validation loss."""
        if self.member.evaluate:
            self.losses = {step: self.member.evaluate(state.ema)}
            self.write(step, validation_loss=self.losses[step])

    def save(self, step: int, state: TrainState) -> None:
        """Save the state unless it is saved already; raises Diverged if it is not finite."""
        check_state(state, self.losses.get(step), step, self.member.directory)
        if step not in self.checkpoints.steps():
            self.checkpoints.save(step, state, self.losses.get(step))
            if self.writer:
                self.writer.put()

    def close(self) -> None:
        """Wait until the checkpoints are on disk, and close the records."""
        with closing(self.checkpoints), closing(self.writer) if self.writer else nullcontext():
            pass


def train(
    objective: Objective,
    init: Callable[[jax.Array], Params],
    members: Sequence[Member],
    settings: Settings,
    mesh: Mesh,
    *,
    tokens_per_step: int = 0,
    flops_per_step: Callable[[], float] | None = None,
    profile: int = 0,
) -> list[TrainState]:
    """Train all members as one program to `settings.steps`, and return their states.

    They go on from their most recent readable checkpoints, all from the step that they have in common. Where one of
    them would thereby lose more than `settings.checkpoint_every` steps, those of equal steps are one program each, one
    after the other. `tokens_per_step` is of one member, and so is `flops_per_step()`, which is called where the peak of
    the device is known. The profiler traces `profile` steps, and writes to the directory of the first member.

    Raises:
      ValueError: if the batch does not divide over the mesh, or if a checkpoint belongs to another model.
      Diverged: if the loss or the gradient of a member is not finite; the others are saved, and previous checkpoints
        remain.
      Interrupted: after all states are saved, on SIGTERM or SIGINT.
    """
    check_batch(settings.batch, mesh, settings.accumulate)
    abstract = abstract_state(init, members[0].optimizer, mesh)
    tracks, states = [Track(member, settings.keep) for member in members], {}
    with ExitStack() as stack:
        for track in tracks:
            stack.enter_context(closing(track))
        for group in groups(tracks, abstract, settings.checkpoint_every):
            meter = partial(Meter, members=len(group), tokens=tokens_per_step, flops=flops_per_step)
            trained = train_group(objective, init, group, settings, mesh, abstract, meter, profile)
            states |= dict(zip(group, trained, strict=True))
    return [states[track] for track in tracks]


def groups(tracks: Sequence[Track], abstract: TrainState, every: int) -> list[Sequence[Track]]:
    """Return the members that begin together, without checkpoints after the step at which they begin.

    These are all of them, unless one would lose more than `every` steps; otherwise those of equal steps.
    """
    if len(tracks) == 1:
        return [tracks]
    steps = newest = [track.saved_step(abstract) for track in tracks]
    while len(set(steps)) > 1:
        steps = [track.saved_step(abstract, min(steps)) for track in tracks]
    if max(newest) - steps[0] > every:
        by_track = dict(zip(tracks, newest, strict=True))
        return [[track for track in tracks if by_track[track] == step] for step in sorted(set(newest))]
    for track in tracks:
        track.checkpoints.delete_after(steps[0])
    return [tracks]


def train_group(
    objective: Objective,
    init: Callable[[jax.Array], Params],
    tracks: Sequence[Track],
    settings: Settings,
    mesh: Mesh,
    abstract: TrainState,
    new_meter: Callable[..., Meter],
    profile: int,
) -> list[TrainState]:
    """Train members that begin at the same step; see `train`."""
    members, count, main = [track.member for track in tracks], len(tracks), jax.process_index() == 0
    step_function = make_step(objective, members[0].optimizer, decay=settings.ema, accumulate=settings.accumulate)
    program = alone(step_function, abstract, mesh) if count == 1 else together(step_function, abstract, mesh, count)
    state = program.join(track.first_state(abstract, init, mesh) for track in tracks)
    roots = program.roots([member.root for member in members])
    first = int(program.part(state, 0).step)
    name = members[0].name + (f" and {count - 1} more" if count > 1 else "")
    meter = new_meter(name, first, settings.steps, show=main)
    profiler = Profiler(members[0].directory / "profile", first, profile if main else 0)

    def save(done: int, chosen: Iterable[int]) -> None:
        """Save the states of members; raises Diverged for the first that is not finite, after the others are saved."""
        errors = []
        for index in chosen:
            try:
                tracks[index].save(done, program.part(state, index))
            except Diverged as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def check(metrics: PyTree, step: int, done: int) -> list[dict[str, float]]:
        """Return the metrics of a step by member; where one diverged, the others are saved as after `done` steps."""
        values = [means(part) for part in program.split(jax.device_get(metrics))]
        bad = [index for index in range(count) if not_finite(values[index])]
        if bad:
            with suppress(Diverged):
                save(done, (index for index in range(count) if index not in bad))
            params = program.part(state, bad[0]).params
            raise Diverged(step, not_finite(values[bad[0]]), params, members[bad[0]].directory)
        return values

    # On every exit the checkpoints must be on disk and the metrics closed.
    with jax.set_mesh(mesh), graceful_stop() as stopping, ExitStack() as stack:
        for each in (meter, profiler):
            stack.enter_context(closing(each))
        for track in tracks:
            track.open_records(first)
        pending = None
        streams = zip(*(member.stream(first) for member in members), strict=False)
        for step, rows in zip(range(first, settings.steps), streams, strict=False):
            done = step + 1
            profiler.before(step, state)
            batch = program.put(rows)
            with jax.transfer_guard("disallow"):
                state, metrics = program.step(state, batch, roots)
            # The metrics of the previous step are fetched while this step runs.
            if pending is not None:
                check(pending, step, done)
            pending = metrics
            if done % settings.log_every == 0 or done == settings.steps:
                values = check(metrics, done, done)
                rates = meter.update(done, [each["loss"] for each in values])
                for track, each in zip(tracks, values, strict=True):
                    track.write(done, **each, **rates)
            if done % settings.evaluate_every == 0 or done == settings.steps:
                with meter.paused():
                    for index, track in enumerate(tracks):
                        track.evaluate(done, program.part(state, index))
            # All hosts stop at the same step.
            single = jax.process_count() == 1
            stop = bool(stopping) if single else multihost_utils.reached_preemption_sync_point(done)
            if stop or done % settings.checkpoint_every == 0 or done == settings.steps:
                check(metrics, done, done)
                save(done, range(count))
            if stop:
                for track in tracks:
                    track.checkpoints.wait()
                meter.close()
                print(f"stopped at step {done}; the same command goes on from there", file=sys.stderr)
                raise Interrupted
    return [program.part(state, index) for index in range(count)]


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
