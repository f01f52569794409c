"""Solvers compared with worked examples, exact flows, and the moments of a Gaussian mixture."""

import jax
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle
from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.sampler import sample_gaussian
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear, SquareRootChain
from tests.checks import refused
from tests.weights import keys_of

STABLE = ScaledLinear()


def walk(path, solver):
    """Return the last state, from 1, of a deterministic solver with the exact clean estimate of N(.5, .64)."""
    table, x, before = solver(path), 1.0, 0.0
    for step, (alpha, sigma) in enumerate(zip(path.alpha[:-1], path.sigma[:-1], strict=True)):
        clean = (sigma**2 * 0.5 + alpha * 0.64 * x) / (alpha**2 * 0.64 + sigma**2)
        x = table.state[step] * x + table.clean[step] * clean + table.slope[step] * (clean - before)
        before = clean
    return x


DPM_SOLVER = {3: 0.96110758, 5: 1.10519447, 8: 1.18639456, 10: 1.21005183, 20: 1.24798308, 50: 1.26405805}
DDIM = {50: 1.24677562, 100: 1.25991134}


def test_solvers_follow_the_published_numbers():
    for path, solver, published in (
        (solvers.linspace, solvers.dpm_solver, DPM_SOLVER),
        (solvers.leading, solvers.ddim(0.0), DDIM),
    ):
        for steps, expected in published.items():
            assert walk(path(STABLE, steps), solver) == pytest.approx(expected, abs=2e-8)


def test_deterministic_solvers_converge_to_the_exact_flow():
    """The flow preserves quantiles, from N(.5 a, .64 a^2 + s^2) at the start to N(.5, .64)."""
    path = solvers.linspace(STABLE, 900)
    start = (1.0 - 0.5 * path.alpha[0]) / np.sqrt(0.64 * path.alpha[0] ** 2 + path.sigma[0] ** 2)
    flow = 0.5 + 0.8 * start
    assert flow == pytest.approx(1.27334300, abs=1e-8)
    for solver in (solvers.dpm_solver, solvers.ddim(0.0)):
        assert walk(path, solver) == pytest.approx(flow, abs=3e-3)


def test_grids_of_indices():
    def indices(path):
        return (path.time[:-1] * 1000 - 1).round().astype(int).tolist()

    assert indices(solvers.leading(STABLE, 100)) == list(range(991, 0, -10))
    assert indices(solvers.linspace(STABLE, 3)) == [999, 666, 333]
    assert indices(solvers.linspace(STABLE, 8)) == [999, 874, 749, 624, 500, 375, 250, 125]
    path = solvers.karras(STABLE, 8)
    assert indices(path) == [999, 890, 746, 549, 299, 90, 12, 0]
    expected = [14.6146, 7.9029, 4.0277, 1.9104, 0.8289, 0.3211, 0.1072, 0.0292]
    np.testing.assert_allclose((path.sigma / path.alpha)[:-1], expected, atol=5e-5)
    # LiDAR is guided at indices above 200, in 80 of 100 steps and in 40 of 50.
    for steps, count in ((100, 80), (50, 40)):
        mask = solvers.mask_until(solvers.leading(STABLE, steps), 0.201)
        np.testing.assert_array_equal(mask, np.arange(steps) < count)


def test_the_ancestral_posterior():
    """Coefficients of the clean data and the state, and the variance, for five steps of the square-root chain."""
    table = solvers.ddim(1.0)(solvers.leading(STABLE, 100))
    assert table.noise[-1] ** 2 == pytest.approx(4.2635e-4, rel=1e-4)
    path = solvers.at_indices(SquareRootChain(), np.linspace(0, 1999, 5).round()[::-1], (1.0, 0.0))
    squares = [0.98535869, 0.50444481, 0.29542332, 0.13526956, 2.0204e-7]
    np.testing.assert_allclose((path.alpha**2)[:-1][::-1], squares, rtol=1e-4)
    table = solvers.ddim(1.0)(path)
    np.testing.assert_allclose(table.clean[::-1], [1, 0.97763807, 0.41769170, 0.34074854, 0.36778963], rtol=1e-5)
    np.testing.assert_allclose(table.state[::-1], [0, 0.02113964, 0.53824415, 0.55134720, 0.00105682], atol=1e-6)
    np.testing.assert_allclose((table.noise**2)[::-1], [0, 0.01441985, 0.29143456, 0.44171270, 0.86472932], atol=1e-6)


@pytest.mark.parametrize("eta", ["0.0", "0.5", "1.0"])
def test_noise_keeps_the_marginals_under_a_perfect_estimate(eta):
    """If x has N(alpha x_0, sigma^2), then x' has that of the next level, for every eta."""
    path = solvers.uniform(CosineSignal(), 7, last=0.05)
    table = solvers.ddim(float(eta))(path)
    variance = (table.state * path.sigma[:-1]) ** 2 + table.noise**2
    np.testing.assert_allclose(variance, path.sigma[1:] ** 2, atol=1e-12)
    np.testing.assert_allclose(table.state * path.alpha[:-1] + table.clean, path.alpha[1:], atol=1e-12)


def test_the_consistency_solver_ends_on_its_estimate():
    path = solvers.at_indices(STABLE, np.array([999, 759, 499, 259]), (1.0, 0.0))
    table = solvers.consistency(path)
    assert table.noise[-1] == 0
    assert table.clean[-1] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(table.noise[:-1], path.sigma[1:-1])


MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)


@jax.jit
def sample(keys, grid):
    """Return samples of the mixture, and the states and clean estimates of all steps."""
    return sample_gaussian(
        lambda x, row, carry: (oracle.clean(MIXTURE, x, row.alpha, row.sigma), carry),
        keys,
        (1,),
        grid,
        summary=lambda x, clean, carry, row: (x, clean),
    )


@pytest.mark.parametrize(
    "solver", [solvers.ddim(0.0), solvers.ddim(1.0), solvers.dpm_solver], ids=["ddim", "ddpm", "dpm_solver"]
)
def test_samplers_reach_the_moments_of_a_mixture(solver):
    """Law 5, with a schedule whose start is pure noise."""
    path = solvers.uniform(CosineSignal(), 60, first=0.999)
    x, _ = sample(keys_of(20_000), solvers.gaussian_grid(path, solver))
    second = 0.5 * (4 + 0.25) + 0.3 * (0.25 + 0.16) + 0.2 * (4 + 0.36)
    assert float(x.mean()) == pytest.approx(-0.45, abs=0.06)
    assert float((x**2).mean()) == pytest.approx(second, rel=0.05)


def test_examples_do_not_depend_on_their_batch_and_summaries_read_the_inputs_of_each_step():
    grid = solvers.gaussian_grid(solvers.leading(STABLE, 5), solvers.ddim(1.0))
    x, (states, clean) = sample(keys_of(9), grid)
    # The noise is equal, but programs for different shapes may round differently.
    np.testing.assert_allclose(x[:4], sample(keys_of(4), grid)[0], atol=1e-5)
    assert states.shape == (5, 9, 1)
    mean = grid.state[-1] * states[-1] + grid.clean[-1] * clean[-1]
    assert 0 < np.abs(x - mean).max() < 5 * grid.noise[-1]


def test_invalid_numbers_of_steps_raise():
    for path in (solvers.leading, solvers.linspace, solvers.karras, solvers.uniform):
        with refused(r"sample.steps: must lie in 1"):
            path(STABLE, 0)
    with refused(r"sample.eta: must lie in \[0, 1\]"):
        solvers.ddim(1.5)
