"""Samples of Gaussian diffusion with every solver, path and method: their mean and norm.

Solvers and particle methods run on exact models of finite sets of images, which compile fast; predictions and guides
with gradients run on the smallest U-Net and reward, with random weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import lidar_mixture, lidar_shapes
from configs.recipes.glyphs import REWARD
from diffusion.data import Dataset
from diffusion.data.tokenizers import bytes_tokenizer
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.processes.gaussian import PREDICTIONS
from diffusion.rng import example_keys
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.sampling.gaussian.solvers import TIME_GRIDS
from diffusion.sampling.gaussian.steering import POTENTIALS
from diffusion.train.mesh import make_mesh
from experiments import families
from experiments.families.guidance import SOLVERS, guided_sampler
from experiments.families.guided_methods import METHODS
from experiments.families.prompted_diffusion import SCHEDULES
from experiments.families.scorer import reward as learned_reward
from experiments.identity import to_json
from experiments.plan import Job
from experiments.run_context import Run
from experiments.tasks import mixture
from tests.golden.programs import computed, debug, keys, summary
from tests.weights import randomized

PROMPTS, POOL, STEPS = 2, 16, 5
EXACT, CLEAN = {"model.net": "picture_oracle"}, {"process.prediction": "clean"}


def options(name, **fields):
    """Return overrides of `sample.gaussian`; a__b is field b of section a."""
    overrides = {f"sample.gaussian.{key.replace('__', '.')}": value for key, value in fields.items()}
    return {"sample.gaussian.method": name} | overrides


SAMPLERS = {
    "U-Net": options("plain"),
    "U-Net, no guidance": options("plain", guidance=1.0),
    "U-Net, velocity": {"process.prediction": "velocity"},
    "U-Net, flow": {"process.prediction": "flow", "process.schedule": "sigma_is_time"}
    | options("plain", solver="euler", path="uniform"),
    # With a prediction of the clean data, the changes by guides have the scale of the data.
    "U-Net, clean": CLEAN,
    "gradient, every 2": CLEAN | options("gradient", gradient__period=2, gradient__scale=3.0),
    "DATE": CLEAN | options("condition"),
    "LiDAR": CLEAN | options("lidar", lookahead__strength=100.0),
    **{f"exact, {solver}": EXACT | options("plain", solver=solver) for solver in SOLVERS},
    **{f"exact, ddim of eta {eta:g}": EXACT | options("plain", eta=eta) for eta in (0.0, 0.5)},
    **{
        f"exact, {path}": EXACT | options("plain", solver="dpm_solver", path=path)
        for path in TIME_GRIDS
        if path != "leading"
    },
    **{
        f"exact, {schedule}": EXACT | {"process.schedule": schedule} | options("plain", path="uniform")
        for schedule in SCHEDULES
    },
    "exact, best of 3": EXACT | options("best_of", best_of=3),
    **{
        f"exact, FK {potential}": EXACT | options("steering", steering__potential=potential, steering__strength=1.0)
        for potential in POTENTIALS
    },
    "exact, FK adaptive": EXACT | options("steering", steering__adaptive=True),
    "exact, LiDAR": EXACT | options("lidar", lookahead__strength=3.0),
    "exact, LiDAR to the end": EXACT | options("lidar", lookahead__strength=3.0, lookahead__stop=0.0),
    "exact, LiDAR and FK": EXACT | options("lidar_steering", lookahead__scale=1.0),
    "exact, FK, best of 2": EXACT | options("steering_best_of", best_of=2, steering__strength=1.0),
    "exact, LiDAR, best of 2": EXACT | options("lidar_best_of", best_of=2, lookahead__strength=3.0),
    "exact, LiDAR and FK, best of 2": EXACT | options("lidar_steering_best_of", best_of=2, lookahead__scale=1.0),
    "exact, safe denoiser": EXACT | options("safe_denoiser", negatives__count=3, negatives__reach=0.5),
    "exact, repellency": EXACT | options("repellency", negatives__count=3, negatives__reach=20.0),
}
MIXTURE = {f"mixture, {name}": name for name in mixture.METHODS}


def config_of(name):
    return debug(lidar_shapes, {"sample.steps": STEPS, "sample.gaussian.images": 4} | SAMPLERS[name])


def exact_model():
    """Return sets of random images, and a reward that grows with brightness and is negative for dark images."""
    pools = np.clip(np.random.default_rng(0).normal(0, 1, (PROMPTS, POOL, 768)), -1, 1).astype(np.float32)
    return {}, {}, (pools,), lambda params, clean, conditioning: jnp.sum(clean, axis=(1, 2, 3)) / 10 - 2


def trained_model(system):
    """Return a network and a reward with random weights, and prompts."""
    judged = debug(lidar_shapes, {}, REWARD)
    judge = families.system(judged, judged.data.vocab_size)
    conditioning = np.random.default_rng(0).integers(1, len(WORDS), (PROMPTS, PROMPT_LENGTH)).astype(np.int32)
    return randomized(system.init), randomized(judge.init, seed=1), conditioning, learned_reward(judge)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_images(golden, name):
    config = config_of(name)
    system = families.system(config, config.data.vocab_size)
    exact = config.model.net == "picture_oracle"
    params, reward_params, conditioning, reward = exact_model() if exact else trained_model(system)
    sampler = guided_sampler(config, system, reward)

    def sample(params, reward_params, conditioning, root):
        def many(count):
            return jax.vmap(lambda key: example_keys(key, jnp.arange(count)))(root)

        lookahead = None
        if sampler.lookahead:
            samples = sampler.lookahead(params, many(sampler.particles), conditioning)
            rewards = reward(reward_params, samples.reshape(-1, *system.codec.image), conditioning)
            lookahead = Lookahead(samples.reshape(PROMPTS, sampler.particles, -1), rewards.reshape(PROMPTS, -1))
        strengths = {name: jnp.float32(value) for name, value in sampler.strengths.items()}
        return sampler.draw(params, reward_params, many(sampler.draws), conditioning, lookahead, strengths)

    images = computed(sample, params, reward_params, conditioning, keys(PROMPTS))
    assert images.shape == (PROMPTS, 4, *system.codec.image)
    golden(name, summary(images) | {"cost": list(sampler.cost)})


@pytest.mark.parametrize("name", MIXTURE)
def test_samples_of_the_mixture(golden, name, tmp_path):
    config = debug(lidar_mixture, {"sample.count": 64, "sample.repeats": 2} | options(MIXTURE[name]))
    # Exact models are compared with their distribution, and no example is read.
    data = Dataset({}, bytes_tokenizer(), 1, False, "", {}, "gaussian_mixture", "test", domain="mixture")
    system, mesh = families.system(config, config.data.vocab_size), make_mesh(devices=jax.devices()[:1])
    job = Job("sample", "sample", name, 0, {}, to_json(config))
    golden(name, mixture.sample(Run(job, config, tmp_path, data, system, mesh))["metrics"])


def test_every_solver_path_and_method_is_recorded(golden):
    golden.complete([*SAMPLERS, *MIXTURE])
    configs = [config_of(name) for name in SAMPLERS]
    assert {config.sample.gaussian.method for config in configs} == set(METHODS)
    assert {config.sample.gaussian.solver for config in configs} == set(SOLVERS)
    assert {config.sample.gaussian.path for config in configs} == set(TIME_GRIDS)
    assert {config.sample.gaussian.steering.potential for config in configs} == set(POTENTIALS)
    assert {config.process.schedule for config in configs} == set(SCHEDULES)
    assert {config.process.prediction for config in configs} == set(PREDICTIONS)
