"""Solvers and time grids compared with the schedulers of `diffusers`, with the same noise and the same network.

Each sampler runs as a whole, from its start to its last state. `RECORDED` has the last states of the schedulers of
`diffusers` 0.42.1, and is compared without that package.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.rng import fold, normal
from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.sampler import sample_gaussian
from diffusion.schedules.gaussian import ScaledLinear
from tests.checks import refused
from tests.weights import keys_of

STABLE, SHAPE = ScaledLinear(), (3,)
DMD2 = (999, 749, 499, 249)
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
DDIM = dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")

# Grid, solver and steps; and the scheduler with its fields and the arguments of its steps.
CASES = {
    "ddim": (solvers.leading, solvers.ddim(0.0), 8, "DDIMScheduler", DDIM, {"eta": 0.0}),
    "ddpm": (solvers.leading, solvers.ddim(1.0), 8, "DDIMScheduler", DDIM, {"eta": 1.0}),
    **{
        f"dpm {steps}": (solvers.linspace, solvers.dpm_solver, steps, "DPMSolverMultistepScheduler", {}, {})
        for steps in (3, 5, 8)
    },
    "dpm karras": (
        solvers.karras,
        solvers.dpm_solver,
        8,
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True},
        {},
    ),
    **{f"lcm {steps}": (solvers.lcm, solvers.consistency, steps, "LCMScheduler", {}, {}) for steps in (1, 4, 8)},
    "dmd2": (partial(solvers.indices, at=DMD2), solvers.consistency, 4, "LCMScheduler", {}, {}),
    "dmd2, one step": (partial(solvers.indices, at=(399,)), solvers.consistency, 1, "LCMScheduler", {}, {}),
    **{
        f"euler {steps}": (
            solvers.trailing,
            solvers.ddim(0.0),
            steps,
            "EulerDiscreteScheduler",
            {"timestep_spacing": "trailing"},
            {},
        )
        for steps in (1, 4, 7)
    },
}
RECORDED = {
    "ddim": [[0.5894004, 1.125084, 2.882884], [1.27991, 1.806321, 0.6614479]],
    "ddpm": [[0.2594652, 0.2259542, 1.501438], [1.290262, 3.192593, -0.2329223]],
    "dpm 3": [[0.4018351, 0.8091788, 4.791634], [1.039864, 2.365259, 0.5185356]],
    "dpm 5": [[0.6002421, 1.057883, 4.209443], [1.242758, 2.195752, 0.6588284]],
    "dpm 8": [[0.5907431, 1.152228, 4.049992], [1.342767, 2.18771, 0.6634914]],
    "dpm karras": [[0.9241155, 1.355392, 3.797342], [1.503157, 2.174456, 0.9825099]],
    "lcm 1": [[-6.536768, -0.8155822, 7.120234], [0.4028273, 3.320209, -5.719799]],
    "lcm 4": [[0.6233816, -0.2857729, 1.191367], [1.033716, 2.110374, -2.652153]],
    "lcm 8": [[0.1180115, 0.7529476, 0.7537241], [0.5454959, 1.23688, 0.7232305]],
    "dmd2": [[0.6170833, -0.2766406, 1.19487], [1.037137, 2.089182, -2.684461]],
    "dmd2, one step": [[0.6131202, 0.8690586, 1.49025], [0.9447393, 1.157699, 0.6429904]],
    "euler 1": [[-6.546165, -0.8425121, 7.071613], [0.3723831, 3.281651, -5.731781]],
    "euler 4": [[-0.01458967, 0.8742331, 4.779753], [1.117155, 2.375068, 0.1421581]],
    "euler 7": [[0.2854036, 1.024557, 4.420082], [1.253581, 2.283462, 0.3961108]],
}


def noise_estimate(x, index, numpy):
    """Return the stand-in for a network, a function of the state and the index."""
    return numpy.tanh(0.8 * x + 0.002 * index - 1.2) + 0.3 * x


@cache
def ours(name):
    """Return the last state of our sampler, and the indices that its network reads."""
    make, solver, steps, *_ = CASES[name]
    times = make(STABLE, steps)

    def predict(x, row, carry):
        return (x - row.sigma * noise_estimate(x, 1000 * row.time - 1, jnp)) / row.alpha, carry

    grid = solvers.gaussian_grid(times, solver)
    x, _ = jax.jit(lambda keys: sample_gaussian(predict, keys, SHAPE, grid, scale=times.start))(keys_of(2))
    return np.asarray(x), (times.time[:-1] * 1000 - 1).round().astype(int).tolist()


def noises(steps):
    """Return the noise of the start, and that of each step, which `sample_gaussian` draws from these keys."""
    keys = keys_of(2)
    return normal(fold(keys, "start"), SHAPE), [normal(fold(fold(keys, "step"), step), SHAPE) for step in range(steps)]


def close(result, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() < tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def reference(diffusers, torch, name, monkeypatch):
    """Return the last state of the scheduler, and its indices."""
    make, _, steps, kind, fields, arguments = CASES[name]
    start, later = noises(steps)
    draws = iter([torch.tensor(np.asarray(noise)) for noise in later])
    if kind == "LCMScheduler":
        module = diffusers.schedulers.scheduling_lcm
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **options: next(draws))
    scheduler = getattr(diffusers, kind)(**BETAS, **fields)
    if "dmd2" in name:
        scheduler.set_timesteps(timesteps=list(make.keywords["at"]))
    else:
        scheduler.set_timesteps(steps)
    x = torch.tensor(np.asarray(start)) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, time)
        if kind == "DDIMScheduler":
            arguments = arguments | {"variance_noise": next(draws)}
        x = scheduler.step(noise_estimate(inputs, float(time), torch), time, x, return_dict=False, **arguments)[0]
    return x.numpy(), [round(float(time)) for time in scheduler.timesteps]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_samplers_agree_with_the_public_schedulers(name, diffusers, torch, monkeypatch):
    expected, indices = reference(diffusers, torch, name, monkeypatch)
    x, at = ours(name)
    assert at == indices
    close(x, expected)


@pytest.mark.parametrize("name", CASES)
def test_samplers_agree_with_recorded_states(name):
    close(ours(name)[0], RECORDED[name])


def test_indices_of_samplers_of_few_steps():
    for name, expected in {
        "lcm 4": [999, 759, 499, 259],
        "lcm 8": [999, 879, 759, 639, 499, 379, 259, 139],
        "euler 4": [999, 749, 499, 249],
        "euler 7": [999, 856, 713, 570, 428, 285, 142],
        "dmd2": list(DMD2),
        "dmd2, one step": [399],
    }.items():
        assert ours(name)[1] == expected
    times = solvers.trailing(STABLE, 4)
    assert (times.alpha[-1], times.sigma[-1]) == (1.0, 0.0)
    # Euler's method starts from sigma / alpha = 14.6146 times the noise, as multiples of alpha.
    assert times.start == pytest.approx(14.6146412 / np.sqrt(1 + 14.6146412**2), rel=1e-7)
    assert solvers.lcm(STABLE, 4).start == solvers.leading(STABLE, 4).start == 1.0


def test_invalid_indices_raise():
    for at, message in (
        ((999, 999), r"indices: must decrease within 999 .. 0"),
        ((499, 749), r"indices: must decrease"),
        ((1000, 1), r"indices: must decrease"),
        ((5, -1), r"indices: must decrease"),
        ((5,), r"sample.steps: is 2, but 1 indices are given"),
    ):
        with refused(message):
            solvers.indices(STABLE, 2, at)
    with refused(r"sample.steps: must lie in 1 .. 50, not 51"):
        solvers.lcm(STABLE, 51)
    with refused(r"sample.steps: must lie in 1 .. 1000, not 1001"):
        solvers.trailing(STABLE, 1001)
