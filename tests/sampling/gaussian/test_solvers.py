"""Solvers compared with worked examples, exact flows, and the moments of a Gaussian mixture."""

import jax
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle
from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.sampler import sample_gaussian
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear, SigmaIsTime, SquareRootChain
from tests.weights import keys_of

STABLE = ScaledLinear()


def exact(mixture):
    return lambda x, row, carry: (oracle.clean(mixture, x, row.alpha, row.sigma), carry)


def walk(path, solver, clean_at, start=1.0):
    """Return the last state of a deterministic solver with the exact clean estimate, in float64."""
    table, x, before = solver(path), start, 0.0
    for step in range(len(path.time) - 1):
        clean = clean_at(x, path.alpha[step], path.sigma[step])
        x = table.state[step] * x + table.clean[step] * clean + table.slope[step] * (clean - before)
        before = clean
    return x


def gaussian_clean(x, alpha, sigma):
    return (sigma**2 * 0.5 + alpha * 0.64 * x) / (alpha**2 * 0.64 + sigma**2)


DPM_SOLVER = {3: 0.96110758, 5: 1.10519447, 8: 1.18639456, 10: 1.21005183, 20: 1.24798308, 50: 1.26405805}
DDIM = {50: 1.24677562, 100: 1.25991134}


def test_solvers_follow_the_published_numbers():
    for path, solver, published in (
        (solvers.linspace, solvers.dpm_solver, DPM_SOLVER),
        (solvers.leading, solvers.ddim(0.0), DDIM),
    ):
        for steps, expected in published.items():
            assert walk(path(STABLE, steps), solver, gaussian_clean) == pytest.approx(expected, abs=2e-8)


def test_deterministic_solvers_converge_to_the_exact_flow():
    """The flow preserves quantiles, from N(.5 a, .64 a^2 + s^2) at the start to N(.5, .64)."""
    path = solvers.linspace(STABLE, 900)
    start = (1.0 - 0.5 * path.alpha[0]) / np.sqrt(0.64 * path.alpha[0] ** 2 + path.sigma[0] ** 2)
    flow = 0.5 + 0.8 * start
    assert flow == pytest.approx(1.27334300, abs=1e-8)
    assert walk(path, solvers.dpm_solver, gaussian_clean) == pytest.approx(flow, abs=3e-3)
    assert walk(path, solvers.ddim(0.0), gaussian_clean) == pytest.approx(flow, abs=3e-3)


def test_grids_of_indices():
    def indices(path):
        return (path.time[:-1] * 1000 - 1).round().astype(int).tolist()

    assert indices(solvers.leading(STABLE, 100))[:3] == [991, 981, 971]
    assert indices(solvers.leading(STABLE, 100))[-1] == 1
    assert indices(solvers.linspace(STABLE, 3)) == [999, 666, 333]
    assert indices(solvers.linspace(STABLE, 5)) == [999, 799, 599, 400, 200]
    assert indices(solvers.linspace(STABLE, 8)) == [999, 874, 749, 624, 500, 375, 250, 125]
    path = solvers.karras(STABLE, 8)
    assert indices(path) == [999, 890, 746, 549, 299, 90, 12, 0]
    expected = [14.6146, 7.9029, 4.0277, 1.9104, 0.8289, 0.3211, 0.1072, 0.0292]
    np.testing.assert_allclose((path.sigma / path.alpha)[:-1], expected, atol=5e-5)
    # LiDAR is guided at indices above 200, in 80 of 100 steps and in 40 of 50.
    for steps, count in ((100, 80), (50, 40)):
        path = solvers.leading(STABLE, steps)
        assert solvers.mask_until(path, 0.201).sum() == count
        np.testing.assert_array_equal(np.diff(solvers.mask_until(path, 0.201)) > 0, np.arange(steps - 1) == count - 1)


def test_the_ancestral_posterior():
    """Coefficients of the clean data and the state, and the variance, for five steps of the square-root chain."""
    table = solvers.ddim(1.0)(solvers.leading(STABLE, 100))
    assert table.noise[-1] ** 2 == pytest.approx(4.2635e-4, rel=1e-4)
    chain = SquareRootChain()
    path = solvers.at_indices(chain, np.linspace(0, 1999, 5).round()[::-1], (1.0, 0.0))
    np.testing.assert_allclose(
        (path.alpha**2)[:-1][::-1], [0.98535869, 0.50444481, 0.29542332, 0.13526956, 2.0204e-7], rtol=1e-4
    )
    table = solvers.ddim(1.0)(path)
    np.testing.assert_allclose(table.clean[::-1], [1, 0.97763807, 0.41769170, 0.34074854, 0.36778963], rtol=1e-5)
    np.testing.assert_allclose(table.state[::-1], [0, 0.02113964, 0.53824415, 0.55134720, 0.00105682], atol=1e-6)
    np.testing.assert_allclose((table.noise**2)[::-1], [0, 0.01441985, 0.29143456, 0.44171270, 0.86472932], atol=1e-6)


def test_ddim_reaches_a_perfect_estimate():
    """At every point x = alpha x_0 + sigma z with the noise z of the start, and x = x_0 at the end."""
    path = solvers.uniform(SigmaIsTime(), 5)
    table, noise, clean, x = solvers.ddim(0.0)(path), -1.7, 0.4, -1.7
    assert table.state[0] == pytest.approx(0.8)
    first = solvers.ddim(0.0)(solvers.TimeGrid(*(np.array(pair) for pair in ((1, 0.6), (0, 0.8), (1, 0.6)))))
    assert (first.clean[0], first.state[0]) == (pytest.approx(0.8), pytest.approx(0.6))
    for step in range(5):
        x = table.state[step] * x + table.clean[step] * clean
        assert x == pytest.approx(path.alpha[step + 1] * clean + path.sigma[step + 1] * noise)
    assert x == pytest.approx(clean)


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


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm_solver"])
def test_samplers_reach_the_moments_of_a_mixture(name):
    """Law 5, with a schedule whose start is pure noise."""
    solver = {"ddim": solvers.ddim(0.0), "ddpm": solvers.ddim(1.0), "dpm_solver": solvers.dpm_solver}[name]
    path = solvers.uniform(CosineSignal(), 60, first=0.999)
    grid = solvers.gaussian_grid(path, solver)
    x, _ = jax.jit(lambda keys: sample_gaussian(exact(MIXTURE), keys, (1,), grid))(keys_of(20_000))
    second = 0.5 * (4 + 0.25) + 0.3 * (0.25 + 0.16) + 0.2 * (4 + 0.36)
    assert float(x.mean()) == pytest.approx(-0.45, abs=0.06)
    assert float((x**2).mean()) == pytest.approx(second, rel=0.05)


def test_examples_do_not_depend_on_their_batch():
    grid = solvers.gaussian_grid(solvers.leading(STABLE, 5), solvers.ddim(1.0))
    sample = jax.jit(lambda keys: sample_gaussian(exact(MIXTURE), keys, (1,), grid)[0])
    # The noise is equal, but programs for different shapes may round differently.
    np.testing.assert_allclose(sample(keys_of(9))[:4], sample(keys_of(4)), atol=1e-5)


def test_summaries_read_the_inputs_of_each_step():
    grid = solvers.gaussian_grid(solvers.leading(STABLE, 5), solvers.ddim(0.0))
    x, seen = sample_gaussian(exact(MIXTURE), keys_of(3), (1,), grid, summary=lambda x, clean, carry, row: (x, clean))
    assert seen[0].shape == (5, 3, 1)
    last = grid.state[-1] * seen[0][-1] + grid.clean[-1] * seen[1][-1]
    np.testing.assert_allclose(last, x, rtol=1e-6)


def test_invalid_numbers_of_steps_raise():
    for path in (solvers.leading, solvers.linspace, solvers.karras, solvers.uniform):
        with pytest.raises(ValueError, match=r"sample.steps: must lie in 1"):
            path(STABLE, 0)
    with pytest.raises(ValueError, match=r"sample.eta: must lie in \[0, 1\]"):
        solvers.ddim(1.5)
