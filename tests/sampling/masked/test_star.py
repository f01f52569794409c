"""Star-shaped, G-Star, P2 and confidence-guided steps: exact counts, Plackett-Luce draws, windows."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.masked import policies, remasking
from diffusion.sampling.masked.grid import Window, grid, p2_mask_counts
from diffusion.sampling.masked.policies import StepInputs
from diffusion.schedules.masking import Linear, LogLinear, Loop
from tests.weights import keys_of

LOOP = Window(0.05, 0.55)


def row_of(rows, index=-1):
    return jax.tree.map(lambda column: column[index], rows)


def inputs_of(masked, errors=None, log_prob=None, fixed=None):
    """Inputs without a proposal, which these policies do not read."""
    zero = jnp.zeros(masked.shape)
    errors, log_prob = (zero if each is None else each for each in (errors, log_prob))
    return StepInputs(masked, jnp.zeros_like(masked) if fixed is None else fixed, None, log_prob, zero, errors)


# Tables


@pytest.mark.parametrize(
    ("length", "steps", "on", "first", "last", "guided"),
    [
        (512, 128, 0.3, (148, 144, 140), (8, 5, 1), 38),
        (512, 128, 0.2, (96, 92, 88), (8, 5, 1), 25),
        (10, 10, 0.35, (2, 1, 1), (2, 1, 1), 3),
    ],
    ids=["late", "later", "toy"],
)
def test_counts_of_the_plus_sampler(length, steps, on, first, last, guided):
    rows = grid(LogLinear(), steps, length, window=Window(0.0, on))
    index = np.flatnonzero(rows.guided)
    counts = np.asarray(rows.masks)[index, length]
    assert len(index) == guided and tuple(counts[:3]) == first and tuple(counts[-3:]) == last
    if (length, on) == (512, 0.3):
        assert index[0] == 90 and rows.time[90] == pytest.approx(0.296882, abs=1e-6)


def test_counts_and_reveal_probabilities_of_the_loop():
    rows = grid(Loop(), 20, 20, process=LogLinear(), window=LOOP)
    np.testing.assert_array_equal(np.flatnonzero(rows.guided), np.arange(10, 20))
    np.testing.assert_array_equal(np.asarray(rows.masks)[10:, 20], [2] * 9 + [1])
    draft = 1 - np.asarray(rows.keep_mask_prob[:10])
    expected = [0.1, 0.1111, 0.125, 0.1429, 0.1667, 0.2, 0.25, 0.3333, 0.5, 0.00009]
    np.testing.assert_allclose(draft, expected, atol=6e-5)


@pytest.mark.parametrize(
    ("steps", "parts"),
    [(32, (15, 16, 1)), (64, (29, 32, 3)), (128, (58, 64, 6)), (256, (116, 128, 12)), (1024, (461, 512, 51))],
    ids=["32", "64", "128", "256", "1024"],
)
def test_the_loop_drafts_revises_and_finishes(steps, parts):
    guided = np.asarray(grid(Loop(), steps, 8, process=LogLinear(), window=LOOP).guided)
    first, number = int(np.argmax(guided)), int(guided.sum())
    assert (first, number, steps - first - number) == parts


def test_the_loop_masks_a_token_6_times_on_average():
    assert LogLinear().masked(np.array(0.5)) == pytest.approx(0.4995)
    rows = grid(Loop(), 128, 512, process=LogLinear(), window=LOOP)
    assert np.asarray(rows.masks)[np.asarray(rows.guided), 512].sum() / 512 == pytest.approx(6.49, abs=0.005)


# The guided step

PLACKETT_LUCE = {
    1.0: (0.926592, 0.695700, 0.274666, 0.103042),
    0.5: (0.995411, 0.868949, 0.119445, 0.016195),
    2.0: (0.771453, 0.593167, 0.389933, 0.245447),
}
PAIRS = {(0, 1): 0.628239, (0, 2): 0.219054, (0, 3): 0.079299, (1, 2): 0.049665, (1, 3): 0.017797, (2, 3): 0.005947}
LOGITS = jnp.array([2.0, 1.0, 0.0, -1.0])
TWO_OF_FOUR = row_of(grid(Linear(), 2, 4, end=0.5))


def guided_masks(temperature, logits=LOGITS, size=40_000, row=TWO_OF_FOUR, **options):
    """Return the masks after one guided step from a state without masks."""
    errors = jnp.broadcast_to(logits, (size, len(logits)))
    inputs = inputs_of(jnp.zeros(errors.shape, bool), errors, **options)
    return np.asarray(policies.guided_step(temperature)(keys_of(size), inputs, row, ())[0])


@pytest.mark.parametrize("temperature", list(PLACKETT_LUCE))
def test_positions_are_drawn_without_replacement_by_their_odds(temperature):
    masks = guided_masks(temperature)
    assert (masks.sum(axis=1) == 2).all()
    error = 4.5 * (0.25 / len(masks)) ** 0.5
    np.testing.assert_allclose(masks.mean(axis=0), PLACKETT_LUCE[temperature], atol=error)
    np.testing.assert_array_equal(guided_masks(temperature, LOGITS + 7.0), masks, "a constant changes nothing")
    if temperature == 1.0:
        for pair, probability in PAIRS.items():
            assert masks[:, list(pair)].all(axis=1).mean() == pytest.approx(probability, abs=error)


def test_the_limits_of_temperature():
    """Infinity draws subsets uniformly, and 0 selects the largest error logits."""
    masks = guided_masks(math.inf)
    shares = [masks[:, list(pair)].all(axis=1).mean() for pair in itertools.combinations(range(4), 2)]
    np.testing.assert_allclose(shares, 1 / 6, atol=4.5 * (5 / 36 / len(masks)) ** 0.5)
    assert (guided_masks(0.0) == np.array([True, True, False, False])).all()


def test_prompts_are_not_masked_and_do_not_count():
    """With 2 of 4 positions in the prompt, ceil(0.5 x 2) = 1 of the others is masked."""
    fixed = jnp.broadcast_to(jnp.array([True, False, True, False]), (64, 4))
    masks = guided_masks(1.0, size=64, fixed=fixed)
    assert not masks[:, [0, 2]].any() and (masks.sum(axis=1) == 1).all()


@pytest.mark.parametrize(("index", "count"), [(0, 8), (1, 0)], ids=["all", "none"])
def test_the_ends_of_the_count(index, count):
    """k = L masks all positions and k = 0 none, for any logits."""
    rows = grid(Linear(), 2, 8, end=0.0)
    rows = rows._replace(masks=jnp.stack([jnp.arange(9), jnp.zeros(9, jnp.int32)]))
    masks = guided_masks(1.0, jnp.linspace(-20, 20, 8), size=16, row=row_of(rows, index))
    assert (masks.sum(axis=1) == count).all()


def test_adaptive_count_is_that_of_logits_above_the_threshold():
    """Four or three logits are above -1; the count is 0 once that of the grid is 0."""
    size = 16
    inputs = inputs_of(jnp.zeros((size, 4), bool), jnp.broadcast_to(LOGITS + 0.5, (size, 4)))
    step = policies.guided_step(1.0, adaptive=True)
    assert (step(keys_of(size), inputs, TWO_OF_FOUR, ())[0].sum(axis=1) == 4).all()
    inputs = inputs._replace(error_logits=inputs.error_logits - 1.0)
    assert (step(keys_of(size), inputs, TWO_OF_FOUR, ())[0].sum(axis=1) == 3).all()
    last = TWO_OF_FOUR._replace(masks=jnp.zeros(5, jnp.int32))
    assert not step(keys_of(size), inputs, last, ())[0].any()


@pytest.mark.parametrize("masked", [0, 3, 8], ids=["full", "mixed", "empty"])
def test_count_does_not_depend_on_previous_masks(masked):
    before = jnp.broadcast_to(jnp.arange(8) < masked, (32, 8))
    row = row_of(grid(Linear(), 4, 8, end=0.3))
    for step in (policies.guided_step(1.0), policies.guided_step(math.inf), policies.confidence_star(1.0).select):
        extra = jnp.full((32, 8), -0.5)
        masks, _ = step(keys_of(32), inputs_of(before, log_prob=jnp.full((32, 8), -1.0)), row, extra)
        assert (masks.sum(axis=1) == math.ceil(0.3 * 8)).all()


# Confidence in place of error logits


def test_confidence_is_that_of_the_reveal():
    policy = policies.confidence_star(1e-6)
    masked = jnp.array([[True, False, False, True]])
    scores = jnp.array([[-jnp.inf, -0.9, -0.2, -jnp.inf]])
    inputs = inputs_of(masked, log_prob=jnp.log(jnp.array([[0.5, 0.01, 0.01, 0.1]])))
    masks, after = policy.select(keys_of(1), inputs, TWO_OF_FOUR, scores)
    # -p is -0.5 and -0.1 for new tokens, -0.9 and -0.2 for known ones; the two largest are the least confident.
    np.testing.assert_array_equal(masks, [[False, False, True, True]])
    np.testing.assert_allclose(after, [[-0.5, -0.9, -jnp.inf, -jnp.inf]])
    assert (policy.init(keys_of(1), masked) == -jnp.inf).all()


def test_remdm_conf_divides_sigma_max():
    """Known positions share it by softmax(-p), a single one has all of it, and the first step has no known ones."""
    size, policy = 40_000, policies.confidence_remdm()
    row = row_of(grid(Linear(), 10, 4, end=0.0, rule=remasking.shared), 5)._replace(keep_mask_prob=jnp.float32(1.0))
    masked = jnp.broadcast_to(jnp.array([True, False, False, True]), (size, 4))
    conf = jnp.broadcast_to(jnp.array([-jnp.inf, -0.9, -0.2, -jnp.inf]), (size, 4))
    inputs = inputs_of(masked, log_prob=jnp.full((size, 4), -1.0))
    masks, _ = policy.select(keys_of(size), inputs, row, conf)
    total = float(row.remask_prob)
    assert total == pytest.approx(0.4 / 0.5)
    weights = np.exp([-0.9, -0.2]) / np.exp([-0.9, -0.2]).sum()
    np.testing.assert_allclose(masks[:, 1:3].mean(axis=0), total * weights, atol=4.5 * (0.25 / size) ** 0.5)
    alone = inputs._replace(masked=masked.at[:, 1].set(True))
    assert policy.select(keys_of(size), alone, row, conf)[0][:, 2].mean() == pytest.approx(total, abs=0.01)
    first = inputs._replace(masked=jnp.ones_like(masked))
    masks, _ = policy.select(keys_of(size), first, row, jnp.full((size, 4), -jnp.inf))
    assert masks.all() and not jnp.isnan(row.remask_prob)


# P2


def p2(eta, inputs, masks, planner=False):
    row = TWO_OF_FOUR._replace(masks=jnp.full(5, masks))
    return np.asarray(policies.path_planning(eta, planner)(keys_of(len(inputs.masked)), inputs, row, ())[0])


def test_p2_masks_the_lowest_scores():
    inputs = inputs_of(jnp.array([[True, True, False, False]]), log_prob=jnp.array([[-1.0, -3.0, -2.0, -0.5]]))
    np.testing.assert_array_equal(p2(1.0, inputs, 2), [[False, True, True, False]])
    np.testing.assert_array_equal(p2(0.0, inputs, 2), [[True, True, False, False]], "0 never remasks")
    np.testing.assert_array_equal(p2(10.0, inputs, 2), [[False, False, True, True]])
    errors = inputs._replace(error_logits=jnp.array([[0.0, 0.0, -9.0, 9.0]]))
    np.testing.assert_array_equal(p2(1.0, errors, 2, planner=True), [[False, True, False, True]])


def test_p2_counts_round_down():
    """floor(n (1 - j / N)) is 4, 2, 0 for 7 positions in 3 steps, and 51 for 512 positions at a level of 0.1."""
    np.testing.assert_array_equal(p2_mask_counts(3, 7)[:, 7], [4, 2, 0])
    assert p2_mask_counts(10, 512)[8, 512] == 51
    assert math.ceil(0.1 * 512) == 52, "G-Star has one more"
