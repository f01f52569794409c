"""Sampling from prompts under a reward: the sampler of a config, and the cheap sampler that looks ahead."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from diffusion.sampling.gaussian import guides, solvers
from diffusion.sampling.gaussian.lidar import Lookahead, lookahead_guide
from diffusion.sampling.gaussian.negatives import safe_denoiser, sparse_repellency, worst
from diffusion.sampling.gaussian.sampler import Guide, Predict, guided, network, sample_gaussian
from diffusion.sampling.gaussian.steering import Steering, best
from diffusion.schedules.gaussian import BetaChain
from diffusion.types import Params
from experiments.families.base import Call, System, keys_like, lookup, rows_like
from experiments.families.exact_models import ExactModel, exact_images
from experiments.families.guided_methods import Cost, active_steps, cost, draws_of, method_of

SOLVERS: dict[str, Callable[[float], solvers.Solver]] = {
    "ddim": solvers.ddim,
    "ddpm": lambda eta: solvers.ddim(1.0),
    "euler": lambda eta: solvers.ddim(0.0),
    "dpm_solver": lambda eta: solvers.dpm_solver,
    "consistency": lambda eta: solvers.consistency,
}
# What a model reads of P prompts, [P, ...]: ids of words, embeddings, or the images of which an exact model consists.
Conditioning = Any
Slots = Key[Array, "P N"]  # one key for each sample of each prompt
# reward(parameters, clean data [P N, ...], conditioning): one number per sample; consecutive samples share a prompt.
Reward = Callable[[Params, Array, Conditioning], Float[Array, " B"]]


class GuidedSampler(NamedTuple):
    """A sampler of P prompts with `images` samples each, [P, images, ...].

    `draw(params, reward_params, keys, conditioning, ahead, strengths)` reads keys [P, draws], lookahead samples (None
    without), and the strengths of its guides, which are inputs so that a sweep over them compiles the program once.
    `lookahead(params, keys, conditioning)` gives cheap samples [P, particles, ...] for `ahead`, of a model that may
    have parameters of its own; None for other methods. In the share `taken` of the steps a gradient guides or particles
    are resampled.
    """

    draw: Callable[..., Any]
    strengths: dict[str, float]
    draws: int
    lookahead: Callable[..., Array] | None
    particles: int
    cost: Cost
    taken: float


def conditional_prediction(
    config: ConfigDict, system: System, params: Params, conditioning: Conditioning, count: int, scale: float
) -> tuple[Predict, Any]:
    """The prediction for P prompts with `count` samples each, under classifier-free guidance, and its carry."""
    if isinstance(system.net, ExactModel):
        return exact_images(conditioning[0], config.sample.gaussian.deviation), None
    assert system.condition is not None
    text, null = system.condition(params, conditioning)
    predict = network(system.denoiser, system.diffusing, params)
    if scale != 1:
        # A separate call for the null conditioning pays only where the conditional one alone has a gradient.
        apart = config.sample.gaussian.method == "condition"
        predict = guides.classifier_free(null, scale, apart=apart)(predict)
    return predict, jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), text)


def lookahead_scale(config: ConfigDict) -> float:
    """The scale of classifier-free guidance of lookahead samples."""
    options = config.sample.gaussian
    return options.guidance if options.lookahead.guidance < 0 else options.lookahead.guidance


def evaluations_per_prediction(system: System, scale: float) -> int:
    """Evaluations of the network for one prediction: two under classifier-free guidance."""
    return 1 if isinstance(system.net, ExactModel) or scale == 1 else 2


def check_guided(config: ConfigDict, system: System) -> None:
    """Raise ValueError for an unknown method, or one that the model cannot have."""
    method = method_of(config)
    if isinstance(system.net, ExactModel) and method.gradient:
        raise ValueError(
            f"sample.gaussian.method: {config.sample.gaussian.method} needs a reward with a gradient, and a network; "
            "the image oracle has the rules themselves"
        )


def time_grid_of(system: System, name: str, steps: int, at: tuple[int, ...] = ()) -> solvers.TimeGrid:
    """The points in time of a sampler; raises ValueError for a grid that the schedule does not have.

    `at` are the indices of a chain that the grid "indices" consists of.
    """
    schedule = system.diffusing.schedule
    if name != "uniform" and not isinstance(schedule, BetaChain):
        raise ValueError(f"sample.gaussian.path: {name} is for schedules that are chains; set it to uniform")
    if name == "indices":
        return solvers.indices(schedule, steps, at)  # pyright: ignore[reportArgumentType]
    return lookup(solvers.TIME_GRIDS, name, "sample.gaussian.path")(schedule, steps)


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
    options, method = config.sample.gaussian, method_of(config)
    solver = lookup(SOLVERS, options.solver, "sample.gaussian.solver")(options.eta)
    times = time_grid_of(system, options.path, config.sample.steps)
    acting, weighed = active_steps(config, times)
    grid = solvers.gaussian_grid(times, solver, acting, weighed)
    shape, draws = system.shape, draws_of(config)
    # Particles of one prompt are resampled together.
    chunk = 0 if method.steered or summary else options.chunk

    def draw(
        params: Params,
        reward_params: Params,
        keys: Slots,
        conditioning: Conditioning,
        ahead: Lookahead | None,
        strengths: dict[str, Array],
    ) -> Any:
        def value(clean: Array, carry: Any = None) -> Array:
            return reward(reward_params, clean, conditioning)

        def draw_some(keys: Slots) -> Any:
            count, steering, resample = keys.shape[1], options.steering, None
            predict, carry = conditional_prediction(config, system, params, conditioning, count, options.guidance)
            if method.steered:
                resample = Steering(value, count, strengths["steering"], steering.potential, steering.adaptive)
            predict = guided(predict, chain(config, value, ahead, strengths))
            x, shown = sample_gaussian(predict, keys.reshape(-1), shape, grid, carry, resample, summary, times.start)
            return (x, shown) if summary else x.reshape(*keys.shape, *shape)

        if summary:
            last, shown = draw_some(keys)
            return images_of(last, value, len(keys)), (last, shown)
        return images_of(in_chunks(draw_some, keys, chunk).reshape(-1, *shape), value, len(keys))

    def images_of(x: Array, value: Callable[[Array], Array], prompts: int) -> Array:
        if method.chosen:
            x = best(x, value(x), prompts, options.images)
        return x.reshape(prompts, -1, *shape)

    ahead_sampler = lookahead_sampler(config, system) if method.ahead else None
    strengths = {
        "gradient": options.gradient.scale,
        "rate": options.condition.rate,
        "steering": options.steering.strength,
        "strength": options.lookahead.strength,
        "scale": options.lookahead.scale,
    }
    if options.method in ("safe_denoiser", "repellency"):
        strengths |= {"negative": options.negatives.scale, "reach": options.negatives.reach}
    per = evaluations_per_prediction(system, options.guidance)
    spent = cost(config, grid, per, evaluations_per_prediction(system, lookahead_scale(config)))
    particles = options.lookahead.particles if method.ahead else 0
    taken = float(np.mean(weighed if method.steered else acting))
    return GuidedSampler(draw, strengths, draws, ahead_sampler, particles, spent, taken)


def in_chunks(function: Callable[[Slots], Array], keys: Slots, size: int) -> Array:
    """Apply `function` to at most `size` keys of each prompt at a time, one chunk after another; 0 for all at once.

    The last chunk is filled up with keys of the first, whose results are dropped.
    """
    count = keys.shape[1]
    if not size or size >= count:
        return function(keys)
    chunks = -(-count // size)
    size = -(-count // chunks)
    columns = jnp.asarray(np.arange(chunks * size) % count).reshape(chunks, size)
    results = jax.lax.map(lambda columns: function(keys[:, columns]), columns)
    return jnp.moveaxis(results, 0, 1).reshape(len(keys), -1, *results.shape[3:])[:, :count]


def chain(
    config: ConfigDict, value: Callable[[Array], Array], ahead: Lookahead | None, strengths: dict[str, Array]
) -> tuple[Guide, ...]:
    """The guides of a method, in x_0-space, after classifier-free guidance."""
    name = method_of(config).guide
    if name == "gradient":
        return (guides.reward_gradient(value, strengths["gradient"]),)
    if name == "condition":
        return (guides.condition_ascent(value, strengths["rate"]),)
    if ahead is None:
        return ()
    if name == "lidar":
        return (lookahead_guide(ahead, strengths["strength"], strengths["scale"]),)
    negatives = worst(ahead, config.sample.gaussian.negatives.count)
    make = {"safe_denoiser": safe_denoiser, "repellency": sparse_repellency}[name]
    return (make(negatives, strengths["negative"], strengths["reach"]),)


def lookahead_sampler(config: ConfigDict, system: System) -> Callable[..., Array]:
    """The cheap sampler of LiDAR's first phase (arXiv 2602.03211, Algorithm 1), with its own grid and guidance."""
    options = config.sample.gaussian.lookahead
    times = time_grid_of(system, options.path, options.steps, tuple(options.indices))
    grid = solvers.gaussian_grid(times, lookup(SOLVERS, options.solver, "sample.gaussian.lookahead.solver")(0.0))

    def draw(params: Params, keys: Slots, conditioning: Conditioning) -> Array:
        def draw_some(keys: Slots) -> Array:
            scale = lookahead_scale(config)
            predict, carry = conditional_prediction(config, system, params, conditioning, keys.shape[1], scale)
            x, _ = sample_gaussian(predict, keys.reshape(-1), system.shape, grid, carry, scale=times.start)
            return x.reshape(*keys.shape, *system.shape)

        return in_chunks(draw_some, keys, config.sample.gaussian.chunk)

    return draw


def calls(
    config: ConfigDict, sampler: GuidedSampler, system: System, reward_init: Any, conditioning: Any
) -> list[Call]:
    """The sampler of a batch of prompts by shapes, and before it the lookahead sampler where the method has one."""
    size, length, options = config.sample.batch, int(np.prod(system.shape)), config.sample.gaussian
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
            params=(system.init,),
            rows=(keys_like(size, sampler.particles), conditioning),
            turns=options.lookahead.steps,
            rows_out=True,
        )
        programs.append(ahead_call)
    strengths = {name: jnp.float32(value) for name, value in sampler.strengths.items()}
    call = Call(
        name=f"sampler by {options.method}, {config.sample.steps} steps",
        function=sampler.draw,
        params=(system.init, reward_init),
        rows=(keys_like(size, sampler.draws), conditioning, ahead),
        scalars=(strengths,),
        turns=config.sample.steps,
        taken=sampler.taken,
        rows_out=True,
    )
    return [*programs, call]
