"""Samples of the one-dimensional mixture, with guides compared to its exact tilted distribution."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from diffusion.metrics.statistics import mean_over_sets
from diffusion.oracles import mixture as oracle
from diffusion.rng import example_keys, named
from diffusion.sampling.gaussian import guides, lidar, solvers
from diffusion.sampling.gaussian.lidar import Lookahead, lookahead_guide
from diffusion.sampling.gaussian.sampler import Predict, guided, sample_gaussian
from experiments.families.base import System, lookup
from experiments.families.exact_models import exact_prediction, reference_mixture
from experiments.families.guidance import SOLVERS, time_grid_of
from experiments.run_context import Run

REWARD = oracle.Linear(jnp.ones(1))
LINES = False
METHODS = ("plain", "exact", "gradient", "lidar")
# Points, noise level and number of lookahead sets at which errors of guides are measured.
POINTS, ALPHA, SIGMA, SETS = (-1.5, 0.0, 1.5), 0.8, 0.6, 400


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unknown method, solver or time grid."""
    options = config.sample
    lookup(dict.fromkeys(METHODS), options.gaussian.method, "sample.gaussian.method")
    lookup(SOLVERS, options.gaussian.solver, "sample.gaussian.solver")
    time_grid_of(system, options.gaussian.path, options.steps)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`: nothing depends on data."""
    check_config(run.config, run.system, run.dataset.domain)


def sample(run: Run) -> dict:
    """Sample with the method, and return distances of each set from the exact tilted distribution.

    The reward is r(x) = x; each set has separate lookahead samples, which are drawn from the mixture.
    """
    options = run.config.sample
    ahead_options, base = options.gaussian.lookahead, reference_mixture()
    tilted, _ = oracle.tilted(base, REWARD, ahead_options.strength)
    times = time_grid_of(run.system, options.gaussian.path, options.steps)
    acting = solvers.mask_until(times, ahead_options.stop)
    solver = lookup(SOLVERS, options.gaussian.solver, "sample.gaussian.solver")(options.gaussian.eta)
    grid = solvers.gaussian_grid(times, solver, acting)

    def predict(samples) -> Predict:
        if options.gaussian.method == "exact":
            return exact_prediction(tilted)
        plain = exact_prediction(base)
        if options.gaussian.method == "gradient":
            return guided(plain, (guides.reward_gradient(REWARD, options.gaussian.gradient.scale),))
        if options.gaussian.method == "plain":
            return plain
        ahead = Lookahead(samples[None], REWARD(samples)[None])
        return guided(plain, (lookahead_guide(ahead, ahead_options.strength, ahead_options.scale),))

    @jax.jit
    def draw(key):
        samples = oracle.draw(named(key, "lookahead"), base, ahead_options.particles)
        keys = example_keys(named(key, "target"), jnp.arange(options.count))
        return sample_gaussian(predict(samples), keys, (1,), grid)[0][:, 0]

    keys = example_keys(named(run.root, "sample"), jnp.arange(options.repeats))
    clouds = np.asarray(jax.lax.map(draw, keys), np.float64)
    truth = quantiles(tilted, options.count)
    measures = [
        {"mean": float(cloud.mean()), "wasserstein": float(np.abs(np.sort(cloud) - truth).mean())} for cloud in clouds
    ]
    metrics = mean_over_sets(measures)
    if options.gaussian.method == "lidar":
        metrics |= guide_errors(run, base, ahead_options.particles, ahead_options.strength)
        metrics["lookahead_particles"] = ahead_options.particles
    return {
        "metrics": metrics | {"exact_mean": float(truth.mean())},
        **({"sets": measures} if len(measures) > 1 else {}),
        "sampler": options.gaussian.method,
    }


def quantiles(mixture: oracle.Mixture, count: int) -> Float[np.ndarray, " N"]:
    """Quantiles (i + 1/2) / N of a one-dimensional mixture, from its distribution function on a fine grid."""
    x = jnp.linspace(-8.0, 12.0, 200_001)
    shares = jax.nn.softmax(mixture.log_weights)
    each = jax.vmap(lambda mean, variance: jax.scipy.stats.norm.cdf(x, mean, variance**0.5))
    levels = np.asarray(shares @ each(mixture.means[:, 0], mixture.variances), np.float64)
    return np.interp((np.arange(count) + 0.5) / count, levels, np.asarray(x, np.float64))


def guide_errors(run: Run, base: oracle.Mixture, particles: int, strength: float) -> dict[str, float]:
    """Root mean square errors, over lookahead sets and three points, of the future reward and of its gradient.

    The result also has 1 / sqrt(particles), the expected rate of their decrease.
    """
    points = jnp.array(POINTS)[:, None]

    def truth(x):
        return oracle.future_reward(base, REWARD, strength, x, ALPHA, SIGMA)

    value, slope = truth(points), jax.grad(lambda x: jnp.sum(truth(x)))(points)

    def errors(key):
        samples = oracle.draw(key, base, particles)
        ahead = lidar.Lookahead(samples, REWARD(samples))
        estimate = lidar.future_reward(ahead, strength, points, ALPHA, SIGMA)
        gradient = lidar.shift(ahead, strength, points, ALPHA, SIGMA) * ALPHA / SIGMA**2
        return jnp.mean((estimate - value) ** 2), jnp.mean((gradient - slope) ** 2)

    squares = jax.lax.map(errors, example_keys(named(run.root, "errors"), jnp.arange(SETS)))
    names = ("future_reward_error", "gradient_error")
    roots = {name: float(jnp.sqrt(jnp.mean(square))) for name, square in zip(names, squares, strict=True)}
    return roots | {"inverse_root_of_particles": particles**-0.5}


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """One-dimensional samples have no images."""
    return []
