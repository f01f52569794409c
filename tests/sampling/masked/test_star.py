"""Star-shaped, G-Star, P2 and confidence-guided steps: exact counts, Plackett-Luce draws, windows."""

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
SIZE = 40_000
ERROR = 4.5 * (0.25 / SIZE) ** 0.5


def row_of(rows, index=-1):
    return jax.tree.map(lambda column: column[index], rows)


def rows_of(values):
    """Return SIZE rows of the same values."""
    return np.broadcast_to(values, (SIZE, len(values)))


def inputs_of(masked, errors=None, log_prob=None, fixed=None):
    """Inputs without a proposal, which these policies do not read, for rows that are repeated."""
    arrays = [np.zeros(len(masked), np.float32) if each is None else each for each in (log_prob, errors)]
    fixed = np.zeros(len(masked), bool) if fixed is None else fixed
    log_prob, errors, masked, fixed = (jnp.asarray(rows_of(np.asarray(each))) for each in (*arrays, masked, fixed))
    return StepInputs(masked, fixed, None, log_prob, None, errors)


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
    """A token is masked 6 times on average in 128 steps."""
    rows = grid(Loop(), 20, 20, process=LogLinear(), window=LOOP)
    np.testing.assert_array_equal(np.flatnonzero(rows.guided), np.arange(10, 20))
    np.testing.assert_array_equal(np.asarray(rows.masks)[10:, 20], [2] * 9 + [1])
    draft = 1 - np.asarray(rows.keep_mask_prob[:10])
    expected = [0.1, 0.1111, 0.125, 0.1429, 0.1667, 0.2, 0.25, 0.3333, 0.5, 0.00009]
    np.testing.assert_allclose(draft, expected, atol=6e-5)
    rows = grid(Loop(), 128, 512, process=LogLinear(), window=LOOP)
    assert np.asarray(rows.masks)[np.asarray(rows.guided), 512].sum() / 512 == pytest.approx(6.49, abs=0.005)


@pytest.mark.parametrize(
    ("steps", "parts"),
    [(32, (15, 16, 1)), (64, (29, 32, 3)), (128, (58, 64, 6)), (256, (116, 128, 12)), (1024, (461, 512, 51))],
    ids=["32", "64", "128", "256", "1024"],
)
def test_the_loop_drafts_revises_and_finishes(steps, parts):
    guided = np.asarray(grid(Loop(), steps, 8, process=LogLinear(), window=LOOP).guided)
    first, number = int(np.argmax(guided)), int(guided.sum())
    assert (first, number, steps - first - number) == parts


# The guided step

PLACKETT_LUCE = {
    1.0: (0.926592, 0.695700, 0.274666, 0.103042),
    0.5: (0.995411, 0.868949, 0.119445, 0.016195),
    2.0: (0.771453, 0.593167, 0.389933, 0.245447),
    math.inf: (0.5,) * 4,
    0.0: (1, 1, 0, 0),
}
PAIRS = {(0, 1): 0.628239, (0, 2): 0.219054, (0, 3): 0.079299, (1, 2): 0.049665, (1, 3): 0.017797, (2, 3): 0.005947}
LOGITS = np.array([2.0, 1.0, 0.0, -1.0], np.float32)
TWO_OF_FOUR = row_of(grid(Linear(), 2, 4, end=0.5))


def guided_masks(temperature, logits=LOGITS, row=TWO_OF_FOUR, adaptive=False, **options):
    """Return the masks after one guided step."""
    step = policies.guided_step(temperature, adaptive)
    return np.asarray(step(keys_of(SIZE), inputs_of((False,) * 4, logits, **options), row, ())[0])


@pytest.mark.parametrize("temperature", list(PLACKETT_LUCE))
def test_positions_are_drawn_without_replacement_by_their_odds(temperature):
    masks = guided_masks(temperature)
    assert (masks.sum(axis=1) == 2).all()
    np.testing.assert_allclose(masks.mean(axis=0), PLACKETT_LUCE[temperature], atol=ERROR)
    np.testing.assert_array_equal(guided_masks(temperature, LOGITS + 7), masks, "a constant changes nothing")
    pairs = {1.0: PAIRS, math.inf: dict.fromkeys(PAIRS, 1 / 6)}.get(temperature, {})
    for pair, probability in pairs.items():
        assert masks[:, list(pair)].all(axis=1).mean() == pytest.approx(probability, abs=ERROR)


def test_prompts_are_not_masked_and_do_not_count():
    """With 2 of 4 positions in the prompt, ceil(0.5 x 2) = 1 of the others is masked."""
    masks = guided_masks(1.0, fixed=(True, False, True, False))
    assert not masks[:, [0, 2]].any() and (masks.sum(axis=1) == 1).all()


def test_adaptive_count_is_that_of_logits_above_the_threshold():
    """Four or three logits are above -1; the count is 0 once that of the grid is 0."""
    last = TWO_OF_FOUR._replace(masks=jnp.zeros(5, jnp.int32))
    for offset, row, count in ((0.5, TWO_OF_FOUR, 4), (-0.5, TWO_OF_FOUR, 3), (0.5, last, 0)):
        assert (guided_masks(1.0, LOGITS + np.float32(offset), row, adaptive=True).sum(axis=1) == count).all()


# Confidence in place of error logits

MIXED = (True, False, False, True)
SCORES = np.array([-np.inf, -0.9, -0.2, -np.inf], np.float32)


def test_confidence_is_that_of_the_reveal():
    """-p is -0.5 and -0.1 for new tokens, -0.9 and -0.2 for known ones; the two largest are the least confident."""
    policy = policies.confidence_star(1e-6)
    inputs = inputs_of(MIXED, log_prob=np.log(np.array([0.5, 0.01, 0.01, 0.1], np.float32)))
    masks, after = policy.select(keys_of(SIZE), inputs, TWO_OF_FOUR, jnp.asarray(rows_of(SCORES)))
    np.testing.assert_array_equal(masks, rows_of([False, False, True, True]))
    np.testing.assert_allclose(after, rows_of([-0.5, -0.9, -np.inf, -np.inf]))
    assert (policy.init(keys_of(SIZE), inputs.masked) == -jnp.inf).all()


def test_remdm_conf_divides_sigma_max():
    """Known positions share it by softmax(-p), a single one has all of it, and the first step has no known ones."""
    row = row_of(grid(Linear(), 10, 4, end=0.0, rule=remasking.shared), 5)._replace(keep_mask_prob=jnp.float32(1.0))
    total, weights = 0.4 / 0.5, np.exp(SCORES[1:3]) / np.exp(SCORES[1:3]).sum()
    assert float(row.remask_prob) == pytest.approx(total)
    for masked, scores, shares in (
        (MIXED, SCORES, (1, *total * weights, 1)),
        ((True, True, False, True), SCORES, (1, 1, total, 1)),
        ((True,) * 4, np.full(4, -np.inf, np.float32), (1,) * 4),
    ):
        inputs = inputs_of(masked, log_prob=-np.ones(4, np.float32))
        masks, _ = policies.confidence_remdm().select(keys_of(SIZE), inputs, row, jnp.asarray(rows_of(scores)))
        np.testing.assert_allclose(np.asarray(masks).mean(axis=0), shares, atol=ERROR)


# P2


@pytest.mark.parametrize(
    ("eta", "planner", "expected"),
    [
        (1.0, False, [False, True, True, False]),
        (0.0, False, [True, True, False, False]),  # never masks again
        (10.0, False, [False, False, True, True]),
        (1.0, True, [False, True, False, True]),
    ],
)
def test_p2_masks_the_lowest_scores(eta, planner, expected):
    errors, log_prob = (np.array(each, np.float32) for each in ([0.0, 0.0, -9.0, 9.0], [-1.0, -3.0, -2.0, -0.5]))
    inputs, row = inputs_of((True, True, False, False), errors, log_prob), TWO_OF_FOUR._replace(masks=jnp.full(5, 2))
    masks, _ = policies.path_planning(eta, planner)(keys_of(SIZE), inputs, row, ())
    np.testing.assert_array_equal(masks, rows_of(expected))


@pytest.mark.parametrize(("eta", "known"), [(0.0, 0), (0.5, 1 / 3), (1.0, 1 / 2), (2.0, 2 / 3)])
def test_random_scores_of_p2_draw_positions_by_eta(eta, known):
    """-log U is exponential, and the larger of E and eta E' is the second with probability eta / (1 + eta)."""
    inputs, row = inputs_of((True, False), log_prob=np.array([-1.0, -9.0], np.float32)), TWO_OF_FOUR
    masks, _ = policies.path_planning(eta, random=True)(keys_of(SIZE), inputs, row._replace(masks=jnp.ones(5, int)), ())
    assert (masks.sum(axis=1) == 1).all()
    assert np.asarray(masks)[:, 1].mean() == pytest.approx(known, abs=ERROR)


def test_p2_is_ancestral_outside_its_window():
    """A masked position stays masked with probability 1/2, and known ones stay known."""
    row = row_of(grid(Linear(), 2, 4, end=0.0, window=Window(0.0, 0.2)), 0)
    masks, _ = policies.path_planning(1.0)(keys_of(SIZE), inputs_of(MIXED), row, ())
    np.testing.assert_allclose(np.asarray(masks).mean(axis=0), (0.5, 0, 0, 0.5), atol=ERROR)


@pytest.mark.parametrize(
    ("kappa", "counts"),
    # 8 (1 - kappa) at 1/4, 1/2, 3/4 and 1.
    [
        ("linear", (6, 4, 2, 0)),
        ("sine", (4, 2, 0, 0)),  # 8 x .617, .293, .076
        ("geometric", (4, 2, 0, 0)),  # 8 x .5625, .25, .0625
        ("log", (5, 3, 1, 0)),  # 8 x .678, .415, .193
        ("poly2", (7, 6, 3, 0)),  # 8 x .9375, .75, .4375
        ("poly05", (4, 2, 1, 0)),  # 8 x .5, .293, .134
    ],
)
def test_p2_counts_of_every_kappa(kappa, counts):
    np.testing.assert_array_equal(p2_mask_counts(4, 8, kappa)[:, 8], counts)
    table = p2_mask_counts(1000, 512, kappa)
    assert (np.diff(table, axis=0) <= 0).all() and not table[-1].any() and table[0, 512] < 512


def test_p2_counts_round_down():
    """floor(n (1 - j / N)) is 4, 2, 0 for 7 positions in 3 steps, 51 for 512 positions at a level of 0.1, and exact."""
    np.testing.assert_array_equal(p2_mask_counts(3, 7)[:, 7], [4, 2, 0])
    assert p2_mask_counts(10, 512)[8, 512] == 51
    remaining = np.arange(999, -1, -1)[:, None]
    np.testing.assert_array_equal(p2_mask_counts(1000, 1024), np.arange(1025)[None] * remaining // 1000)
