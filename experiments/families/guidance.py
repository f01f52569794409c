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
from diffusion.schedules.gaussian import Betas
from diffusion.types import Params
from experiments.families.base import pick
from experiments.families.masked import System
from experiments.families.text_to_image import exact_pictures

METHODS = ("plain", "best_of", "gradient", "condition", "steering", "lidar", "lidar_steering")
SOLVERS: dict[str, Callable[[float], solvers.Solver]] = {
    "ddim": solvers.ddim,
    "ddpm": lambda eta: solvers.ddim(1.0),
    "euler": lambda eta: solvers.ddim(0.0),
    "dpm_solver": lambda eta: solvers.dpm_solver,
    "consistency": lambda eta: solvers.consistency,
}
# What prompts are to a model, [P, ...]: ids of words, or the pictures that an exact model consists of.
Told = Any
Slots = Key[Array, "P N"]  # one key for each sample of each prompt
# reward(parameters, clean data [P N, ...], told): one number a sample; consecutive samples are of one prompt.
Reward = Callable[[Params, Array, Told], Float[Array, " B"]]


class Cost(NamedTuple):
    """What one prompt's samples take: evaluations of the network, backward passes through it, rewards."""

    evaluations: int
    backward: int
    rewards: int


class Method(NamedTuple):
    """`draw(params, reward_params, keys, told, ahead, forces)` gives the kept samples [P, images, ...] of P prompts.

    `keys` are [P, draws]. `look(params, keys, told)` gives cheap samples [P, particles, ...] for `ahead`; None for a
    method that does not look ahead. `forces` are numbers that the program takes as inputs, so that a sweep over them
    compiles it once.
    """

    draw: Callable[..., Array]
    forces: dict[str, float]
    draws: int
    look: Callable[..., Array] | None
    particles: int
    cost: Cost


def bound(config: ConfigDict, system: System, params: Params, told: Told, count: int) -> tuple[Predict, Any]:
    """The prediction for P prompts with `count` samples each, under classifier-free guidance, and its carry."""
    if config.model.net == "picture_oracle":
        return exact_pictures(told[0], config.sample.gaussian.deviation), None
    net, scale = system.net, config.sample.gaussian.guidance
    context: Any = net.apply({"params": params}, told, method="embed")
    nothing: Any = net.apply({"params": params}, jnp.full_like(told[:1], net.nothing), method="embed")
    predict = network(system.denoiser, system.diffusing, params)
    if scale != 1:
        # Only where the condition is differentiated is the call for nothing worth being apart, for it has no gradient.
        predict = guides.classifier_free(nothing[0], scale, apart=config.sample.gaussian.method == "condition")(predict)
    return predict, jnp.repeat(context, count, axis=0)


def calls(config: ConfigDict) -> int:
    """Evaluations of the network for one prediction."""
    return 1 if config.model.net == "picture_oracle" or config.sample.gaussian.guidance == 1 else 2


def check_guided(config: ConfigDict) -> None:
    """Raise ValueError for a count, a strength or a name that no method can work with."""
    options = config.sample.gaussian
    pick(dict.fromkeys(METHODS), options.method, "sample.gaussian.method")
    counts = {"images": options.images, "per_task": options.per_task, "best_of": options.best_of}
    counts |= {"condition.period": options.condition.period, "gradient.period": options.gradient.period}
    counts |= {"lookahead.particles": options.lookahead.particles, "lookahead.steps": options.lookahead.steps}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"sample.gaussian.{name}: must be at least 1, not {value}")
    if not 0 <= options.lookahead.stop <= 1:
        raise ValueError(f"sample.gaussian.lookahead.stop: must lie in [0, 1], not {options.lookahead.stop}")
    if config.model.net == "picture_oracle" and options.method in ("gradient", "condition"):
        raise ValueError(
            f"sample.gaussian.method: {options.method} needs a reward with a gradient, and a network; the picture "
            "oracle has the rules themselves"
        )
    # It checks its own fields when it is made, and `draw` makes it too late: while it is traced.
    Steering(
        lambda clean, carry: jnp.zeros(len(clean)),
        options.images,
        options.steering.strength,
        options.steering.potential,
    )


def path_of(config: ConfigDict, system: System, name: str, steps: int) -> solvers.TimeGrid:
    """The points in time of a sampler; raises ValueError for a path that the schedule does not have."""
    schedule = system.diffusing.schedule
    make = pick(solvers.PATHS, name, "sample.gaussian.path")
    if name != "uniform" and not isinstance(schedule, Betas):
        raise ValueError(f"sample.gaussian.path: {name} is for schedules that are chains; set it to uniform")
    return make(schedule, steps)


def windows(config: ConfigDict, path: solvers.TimeGrid) -> tuple[np.ndarray, np.ndarray]:
    """In which steps guides act, and after which particles are weighed."""
    options, steps = config.sample.gaussian, len(path.time) - 1
    acting = {
        "gradient": lambda: solvers.every(steps, options.gradient.period),
        "condition": lambda: solvers.every(steps, options.condition.period),
    }.get(options.method, lambda: solvers.guided_until(path, options.lookahead.stop + 1 / 1000))()
    weighed = solvers.steering_steps(steps) if "steering" in options.method else np.zeros(steps, bool)
    return acting, weighed


def method(config: ConfigDict, system: System, reward: Reward) -> Method:
    """The sampler of a config for a batch of prompts.

    Raises:
      ValueError: see `check_guided`.
    """
    check_guided(config)
    options, ahead_options = config.sample.gaussian, config.sample.gaussian.lookahead
    solver = pick(SOLVERS, options.solver, "sample.gaussian.solver")(options.eta)
    path = path_of(config, system, options.path, config.sample.steps)
    acting, weighed = windows(config, path)
    grid = solvers.gaussian_grid(path, solver, acting, weighed)
    draws = options.images * (options.best_of if options.method == "best_of" else 1)
    looks = options.method.startswith("lidar")
    shape = system.levels.image
    assert shape is not None

    def draw(
        params: Params,
        reward_params: Params,
        keys: Slots,
        told: Told,
        ahead: Lookahead | None,
        forces: dict[str, Array],
    ) -> Array:
        count = keys.shape[1]
        predict, carry = bound(config, system, params, told, count)

        def value(clean: Array, carry: Any = None) -> Array:
            return reward(reward_params, clean, told)

        steering = options.steering
        resample = None
        if "steering" in options.method:
            resample = Steering(value, count, forces["steering"], steering.potential, steering.adaptive)
        predict = guided(predict, chain(options.method, value, ahead, forces))
        x, _ = sample_gaussian(predict, keys.reshape(-1), shape, grid, carry, resample)
        if options.method == "best_of":
            x = best(x, value(x), len(keys), options.images)
        return x.reshape(len(keys), -1, *shape)

    look = looking(config, system, shape) if looks else None
    forces = {
        "gradient": options.gradient.scale,
        "rate": options.condition.rate,
        "steering": options.steering.strength,
        "strength": ahead_options.strength,
        "scale": ahead_options.scale,
    }
    return Method(draw, forces, draws, look, ahead_options.particles if looks else 0, cost(config, grid))


def chain(
    name: str, value: Callable[[Array], Array], ahead: Lookahead | None, forces: dict[str, Array]
) -> tuple[Guide, ...]:
    """The guides of a method, in x_0-space, after classifier-free guidance."""
    if name == "gradient":
        return (guides.reward_gradient(value, forces["gradient"]),)
    if name == "condition":
        return (guides.condition_ascent(value, forces["rate"]),)
    if ahead is not None:
        return (lookahead_guide(ahead, forces["strength"], forces["scale"]),)
    return ()


def looking(config: ConfigDict, system: System, shape: tuple[int, ...]) -> Callable[..., Array]:
    """The cheap sampler of LiDAR's first phase."""
    options = config.sample.gaussian.lookahead
    path = path_of(config, system, options.path, options.steps)
    grid = solvers.gaussian_grid(path, pick(SOLVERS, options.solver, "sample.gaussian.lookahead.solver")(0.0))

    def look(params: Params, keys: Slots, told: Told) -> Array:
        predict, carry = bound(config, system, params, told, keys.shape[1])
        x, _ = sample_gaussian(predict, keys.reshape(-1), shape, grid, carry)
        return x.reshape(*keys.shape, *shape)

    return look


def cost(config: ConfigDict, grid: solvers.GaussianGrid) -> Cost:
    """Evaluations, backward passes and rewards of one prompt; guidance by a null prompt doubles the first two.

    (The gradient by the condition, not by the state, has one backward pass.)
    Rewards that only rank what was made (best of several, lookahead samples) count too; those that measure do not.
    """
    options, per = config.sample.gaussian, calls(config)
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
