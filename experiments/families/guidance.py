"""Sampling from prompts under a reward: the methods of a config, and what each of them costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from diffusion.sampling.gaussian import guides, solvers
from diffusion.sampling.gaussian.lidar import Lookahead, lookahead_guide
from diffusion.sampling.gaussian.sampler import Guide, Predict, guided, network, sample_gaussian
from diffusion.sampling.gaussian.steering import Steering, best
from diffusion.schedules.gaussian import BetaChain
from diffusion.types import Params
from experiments.families.base import Call, System, keys_like, lookup, rows_like
from experiments.families.exact_models import ExactModel, exact_images

METHODS = ("plain", "best_of", "gradient", "condition", "steering", "lidar", "lidar_steering")
SOLVERS: dict[str, Callable[[float], solvers.Solver]] = {
    "ddim": solvers.ddim,
    "ddpm": lambda eta: solvers.ddim(1.0),
    "euler": lambda eta: solvers.ddim(0.0),
    "dpm_solver": lambda eta: solvers.dpm_solver,
    "consistency": lambda eta: solvers.consistency,
}
# What a model reads of P prompts, [P, ...]: ids of words, or the images of which an exact model consists.
Conditioning = Any
Slots = Key[Array, "P N"]  # one key for each sample of each prompt
# reward(parameters, clean data [P N, ...], conditioning): one number per sample; consecutive samples share a prompt.
Reward = Callable[[Params, Array, Conditioning], Float[Array, " B"]]


class Cost(NamedTuple):
    """What one prompt's samples take: evaluations of the network, backward passes through it, rewards."""

    evaluations: int
    backward: int
    rewards: int


class GuidedSampler(NamedTuple):
    """A sampler of P prompts with `images` samples each, [P, images, ...].

    `draw(params, reward_params, keys, conditioning, ahead, strengths)` reads keys [P, draws], lookahead samples (None
    without), and the strengths of its guides, which are inputs so that a sweep over them compiles the program once.
    `lookahead(params, keys, conditioning)` gives cheap samples [P, particles, ...] for `ahead`; None for other methods.
    In the share `taken` of the steps a gradient guides or particles are resampled.
    """

    draw: Callable[..., Any]
    strengths: dict[str, float]
    draws: int
    lookahead: Callable[..., Array] | None
    particles: int
    cost: Cost
    taken: float


def conditional_prediction(
    config: ConfigDict, system: System, params: Params, conditioning: Conditioning, count: int
) -> tuple[Predict, Any]:
    """The prediction for P prompts with `count` samples each, under classifier-free guidance, and its carry."""
    if isinstance(system.net, ExactModel):
        return exact_images(conditioning[0], config.sample.gaussian.deviation), None
    net, scale = system.net, config.sample.gaussian.guidance
    context: Any = net.apply({"params": params}, conditioning, method="embed")
    null: Any = net.apply({"params": params}, jnp.full_like(conditioning[:1], net.null_id), method="embed")
    predict = network(system.denoiser, system.diffusing, params)
    if scale != 1:
        # A separate call for the null conditioning pays only where the conditional one alone has a gradient.
        predict = guides.classifier_free(null[0], scale, apart=config.sample.gaussian.method == "condition")(predict)
    return predict, jnp.repeat(context, count, axis=0)


def evaluations_per_prediction(config: ConfigDict, system: System) -> int:
    """Evaluations of the network for one prediction: two under classifier-free guidance."""
    return 1 if isinstance(system.net, ExactModel) or config.sample.gaussian.guidance == 1 else 2


def check_guided(config: ConfigDict, system: System) -> None:
    """Raise ValueError for an unknown method, or one that the model cannot have."""
    options = config.sample.gaussian
    lookup(dict.fromkeys(METHODS), options.method, "sample.gaussian.method")
    if isinstance(system.net, ExactModel) and options.method in ("gradient", "condition"):
        raise ValueError(
            f"sample.gaussian.method: {options.method} needs a reward with a gradient, and a network; the image "
            "oracle has the rules themselves"
        )


def time_grid_of(config: ConfigDict, system: System, name: str, steps: int) -> solvers.TimeGrid:
    """The points in time of a sampler; raises ValueError for a grid that the schedule does not have."""
    schedule = system.diffusing.schedule
    make = lookup(solvers.TIME_GRIDS, name, "sample.gaussian.path")
    if name != "uniform" and not isinstance(schedule, BetaChain):
        raise ValueError(f"sample.gaussian.path: {name} is for schedules that are chains; set it to uniform")
    return make(schedule, steps)


def active_steps(config: ConfigDict, times: solvers.TimeGrid) -> tuple[np.ndarray, np.ndarray]:
    """Steps in which guides act, and steps after which particles are resampled."""
    options, steps = config.sample.gaussian, len(times.time) - 1
    acting = {
        "gradient": lambda: solvers.every(steps, options.gradient.period),
        "condition": lambda: solvers.every(steps, options.condition.period),
    }.get(options.method, lambda: solvers.mask_until(times, options.lookahead.stop + 1 / 1000))()
    weighed = solvers.steering_mask(steps) if "steering" in options.method else np.zeros(steps, bool)
    return acting, weighed


def guided_sampler(
    config: ConfigDict, system: System, reward: Reward, summary: Callable[..., Any] | None = None
) -> GuidedSampler:
    """The sampler of a config for a batch of prompts.

    With `summary`, see `sample_gaussian`, `draw` also returns the last states, of which the best of several samples are
    chosen, with the summaries of all steps.

    Raises:
      ValueError: see `check_guided`.
    """
    check_guided(config, system)
    options, ahead_options = config.sample.gaussian, config.sample.gaussian.lookahead
    solver = lookup(SOLVERS, options.solver, "sample.gaussian.solver")(options.eta)
    times = time_grid_of(config, system, options.path, config.sample.steps)
    acting, weighed = active_steps(config, times)
    grid = solvers.gaussian_grid(times, solver, acting, weighed)
    draws = options.images * (options.best_of if options.method == "best_of" else 1)
    uses_lookahead = options.method.startswith("lidar")
    shape = system.pixels.image
    assert shape is not None

    def draw(
        params: Params,
        reward_params: Params,
        keys: Slots,
        conditioning: Conditioning,
        ahead: Lookahead | None,
        strengths: dict[str, Array],
    ) -> Any:
        count = keys.shape[1]
        predict, carry = conditional_prediction(config, system, params, conditioning, count)

        def value(clean: Array, carry: Any = None) -> Array:
            return reward(reward_params, clean, conditioning)

        steering = options.steering
        resample = None
        if "steering" in options.method:
            resample = Steering(value, count, strengths["steering"], steering.potential, steering.adaptive)
        predict = guided(predict, chain(options.method, value, ahead, strengths))
        x, shown = sample_gaussian(predict, keys.reshape(-1), shape, grid, carry, resample, summary)
        last = x
        if options.method == "best_of":
            x = best(x, value(x), len(keys), options.images)
        images = x.reshape(len(keys), -1, *shape)
        return (images, (last, shown)) if summary else images

    ahead_sampler = lookahead_sampler(config, system, shape) if uses_lookahead else None
    strengths = {
        "gradient": options.gradient.scale,
        "rate": options.condition.rate,
        "steering": options.steering.strength,
        "strength": ahead_options.strength,
        "scale": ahead_options.scale,
    }
    per = evaluations_per_prediction(config, system)
    particles = ahead_options.particles if uses_lookahead else 0
    taken = float(np.mean(weighed if "steering" in options.method else acting))
    return GuidedSampler(draw, strengths, draws, ahead_sampler, particles, cost(config, grid, per), taken)


def chain(
    name: str, value: Callable[[Array], Array], ahead: Lookahead | None, strengths: dict[str, Array]
) -> tuple[Guide, ...]:
    """The guides of a method, in x_0-space, after classifier-free guidance."""
    if name == "gradient":
        return (guides.reward_gradient(value, strengths["gradient"]),)
    if name == "condition":
        return (guides.condition_ascent(value, strengths["rate"]),)
    if ahead is not None:
        return (lookahead_guide(ahead, strengths["strength"], strengths["scale"]),)
    return ()


def lookahead_sampler(config: ConfigDict, system: System, shape: tuple[int, ...]) -> Callable[..., Array]:
    """The cheap sampler of LiDAR's first phase (specification of LiDAR, section 3)."""
    options = config.sample.gaussian.lookahead
    times = time_grid_of(config, system, options.path, options.steps)
    grid = solvers.gaussian_grid(times, lookup(SOLVERS, options.solver, "sample.gaussian.lookahead.solver")(0.0))

    def draw(params: Params, keys: Slots, conditioning: Conditioning) -> Array:
        predict, carry = conditional_prediction(config, system, params, conditioning, keys.shape[1])
        x, _ = sample_gaussian(predict, keys.reshape(-1), shape, grid, carry)
        return x.reshape(*keys.shape, *shape)

    return draw


def cost(config: ConfigDict, grid: solvers.GaussianGrid, per: int) -> Cost:
    """Evaluations, backward passes and rewards of one prompt, with `per` evaluations per prediction.

    The gradient by the conditioning, in contrast to that by the state, has one backward pass. Rewards that rank samples
    (best of several, lookahead samples) count; those that measure them do not.
    """
    options = config.sample.gaussian
    steps, images = len(grid.index), options.images
    plain = steps * per * images
    if options.method == "best_of":
        return Cost(plain * options.best_of, 0, images * options.best_of)
    acting, weighed = int(grid.guided.sum()), int(grid.resampled.sum())
    if options.method == "gradient":
        return Cost(plain, acting * per * images, acting * images)
    if options.method == "condition":
        return Cost(plain + acting * per * images, acting * images, acting * images)
    rewards = weighed * images
    if options.method.startswith("lidar"):
        ahead = options.lookahead
        return Cost(plain + ahead.particles * ahead.steps * per, 0, ahead.particles + rewards)
    return Cost(plain, 0, rewards)


def calls(config: ConfigDict, sampler: GuidedSampler, init: Any, reward_init: Any, conditioning: Any) -> list[Call]:
    """The sampler of a batch of prompts by shapes, and before it the lookahead sampler where the method has one."""
    size, length, options = config.sample.batch, config.data.length, config.sample.gaussian
    programs, ahead = [], None
    if sampler.lookahead:
        ahead = Lookahead._make(
            [
                rows_like(size, sampler.particles, length, dtype=jnp.float32),
                rows_like(size, sampler.particles, dtype=jnp.float32),
            ]
        )
        ahead_call = Call(
            name=f"lookahead, {sampler.particles} x {options.lookahead.steps} steps",
            function=sampler.lookahead,
            params=(init,),
            rows=(keys_like(size, sampler.particles), conditioning),
            turns=options.lookahead.steps,
            rows_out=True,
        )
        programs.append(ahead_call)
    strengths = {name: jnp.float32(value) for name, value in sampler.strengths.items()}
    call = Call(
        name=f"sampler by {options.method}, {config.sample.steps} steps",
        function=sampler.draw,
        params=(init, reward_init),
        rows=(keys_like(size, sampler.draws), conditioning, ahead),
        scalars=(strengths,),
        turns=config.sample.steps,
        taken=sampler.taken,
        rows_out=True,
    )
    return [*programs, call]
