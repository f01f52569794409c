"""Sampling with memory: every step reads the prediction of the step before, at no further evaluation; the cache.

Most tests look at one recorded run: what the network was given at each evaluation, and what it answered.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.base import defaults, tiny
from diffusion import build
from diffusion.corrupt.masking import Masking
from diffusion.objectives.reveal import RevealNelbo
from diffusion.oracles.enumerable import Enumerable
from diffusion.randomness import draws, example_keys
from diffusion.sampling.draw import Draw, Proposal
from diffusion.sampling.grid import grid
from diffusion.sampling.masked import MaskedSampler
from diffusion.sampling.select import Policy, ancestral_step, random_order_step
from diffusion.schedules import Linear, LogLinear
from diffusion.self_conditioning import Recall, many_passes, two_pass
from experiments.jobs import resolve

MASK, LENGTH, SIZE, STEPS = 7, 6, 2, 12


def keys_of(size, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(size))


def config_of(**overrides):
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    config.data.length, config.memory.adapter = LENGTH, "linear"
    config.sample.update(steps=STEPS, final="draw")
    return resolve(config, {name.replace("__", "."): value for name, value in overrides.items()}, 0)


def randomised(init, scale=0.3):
    """Weights away from the start, whose zero head answers the same to everything; made without compiling it."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        around = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(rng.normal(around, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, jax.random.key(0)))


SYSTEM = build.system(config_of(), MASK)
PARAMS = randomised(SYSTEM.init)
# Loud enough that what is remembered changes what is drawn.
PARAMS["adapter"] = jax.tree.map(lambda leaf: 5 * leaf, PARAMS["adapter"])
ZERO = PARAMS | {"adapter": jax.tree.map(jnp.zeros_like, PARAMS["adapter"])}
BLANK = jnp.full((SIZE, LENGTH), MASK)


def record(seen, *arrays):
    """Append what these are at every evaluation."""
    jax.debug.callback(lambda *values: seen.append([np.asarray(value) for value in values]), *arrays, ordered=True)


def recorded(config, params=PARAMS, size=SIZE, seed=0, system=None):
    """A run, and what each evaluation saw and answered: (state, memory, logits), in order."""
    system = system or build.system(config, MASK)
    seen = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        assert keys is None
        logits = system.denoiser(params, noisy, time, cond, memory)
        told = jnp.zeros((len(noisy), LENGTH, 16)) if memory is None else memory
        record(seen, noisy, told, logits)
        return logits

    sample = jax.jit(build.sampler(config, replace(system, denoiser=denoiser)))
    samples = jax.block_until_ready(sample(params, keys_of(size, seed), jnp.full((size, LENGTH), MASK)))
    jax.effects_barrier()
    return samples, [np.stack(arrays) for arrays in zip(*seen, strict=True)]


@pytest.fixture(scope="module")
def run():
    """A run without a cache: 12 steps of 6 positions leave idle ones."""
    return recorded(config_of())


remember = jax.jit(SYSTEM.recall)


def test_every_step_reads_the_prediction_of_the_step_before(run):
    """The first reads nothing, the last fill reads the last step; the soft embedding is p E of masked positions."""
    samples, (states, memories, logits) = run
    assert len(states) == STEPS + 1 and (samples.evaluations == STEPS + 1).all()
    assert not memories[0].any()
    for step in range(STEPS):
        before, after = states[step], states[step + 1]
        np.testing.assert_array_equal(memories[step + 1], remember(PARAMS, logits[step], before, after))
        p = jax.nn.softmax(logits[step][..., :MASK].astype(np.float64), axis=-1)
        by_hand = (np.asarray(p) @ np.asarray(PARAMS["embedding"])[:MASK]) * (after == MASK)[..., None]
        np.testing.assert_allclose(memories[step + 1], by_hand, atol=1e-6)
    assert all(memories[step + 1].any() for step in range(STEPS) if (states[step + 1] == MASK).any())


def test_what_is_revealed_stays_and_no_mask_is_left(run):
    samples, (states, _, _) = run
    states = np.concatenate([states, np.asarray(samples.tokens)[None]])
    known = states[:-1] != MASK
    np.testing.assert_array_equal(states[1:][known], states[:-1][known])
    assert (samples.tokens < MASK).all() and (states[0] == MASK).all()
    assert len({tuple(row) for row in (states == MASK).sum(axis=2)}) > 4


def test_an_idle_step_refines_the_prediction_where_the_adapter_is_not_zero(run):
    """Without a cache: the same state and another memory; with a new adapter the same logits."""
    _, (states, memories, logits) = run
    idle = [step for step in range(1, STEPS) if (states[step + 1] == states[step]).all()]
    idle = [step for step in idle if (states[step] == MASK).any()]
    assert len(idle) >= 2
    for step in idle:
        hidden = states[step] == MASK
        assert np.abs(memories[step + 1] - memories[step]).max() > 1e-5
        assert np.abs(logits[step + 1] - logits[step])[hidden].max() > 1e-5
    denoise, time = jax.jit(SYSTEM.denoiser), jnp.zeros(SIZE)
    for step in idle:
        answers = [denoise(ZERO, states[step], time, None, memories[number]) for number in (step, step + 1)]
        np.testing.assert_array_equal(*answers)


def test_a_cache_answers_idle_steps_and_keeps_the_memory():
    """Evaluations are counted as they are made; what comes after an idle stretch reads the last one made."""
    samples, (states, memories, logits) = recorded(config_of(sample__cache=True))
    count = len(states)
    assert (samples.evaluations == count).all() and 2 < count < STEPS + 1
    assert all((states[step + 1] != states[step]).any() for step in range(count - 2))
    assert not memories[0].any()
    # The fill at the end asks whether or not the last step was idle.
    for step in range(count - 1 - int((states[-1] == states[-2]).all())):
        expected = remember(PARAMS, logits[step], states[step], states[step + 1])
        np.testing.assert_array_equal(memories[step + 1], expected)


@pytest.mark.parametrize("rows", ["masked", "recarry", "raw"])
def test_a_new_adapter_samples_what_the_base_samples(rows):
    """Token by token for the same keys, and as often; a trained one, or one told nothing, does not."""
    config = config_of(memory__rows=rows)
    system = build.system(config, MASK)
    base = build.system(config_of(memory__adapter="none"), MASK)
    old = {name: part for name, part in PARAMS.items() if name != "adapter"}
    keys, prompt = keys_of(16), jnp.full((16, LENGTH), MASK)
    expected = jax.jit(build.sampler(config, base))(old, keys, prompt)
    sample = jax.jit(build.sampler(config, system))
    drawn = sample(ZERO, keys, prompt)
    np.testing.assert_array_equal(drawn.tokens, expected.tokens)
    np.testing.assert_array_equal(drawn.evaluations, expected.evaluations)
    np.testing.assert_array_equal(drawn.idle, expected.idle)
    told = sample(PARAMS, keys, prompt)
    assert (told.tokens != expected.tokens).any()
    np.testing.assert_array_equal(told.evaluations, expected.evaluations)
    if rows == "masked":
        np.testing.assert_array_equal(sample(PARAMS, keys[::-1], prompt).tokens[::-1], told.tokens)
        null = jax.jit(build.sampler(config_of(sample__memory="null"), system))(PARAMS, keys, prompt)
        np.testing.assert_array_equal(null.tokens, expected.tokens)


# Costs.


def denoiser_calls(jaxpr):
    """How often the network is called in a program, and in the bodies of its scans."""
    total, inside = 0, 0
    for equation in jaxpr.eqns:
        total += equation.params.get("name") == "network"
        for inner in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and equation.params.get("name") != "network":
                calls, _ = denoiser_calls(inner)
                total += calls
                inside += calls if equation.primitive.name == "scan" else 0
    return total, inside


@pytest.mark.parametrize("final", ["argmax", "draw", "none"])
@pytest.mark.parametrize("memory", ["linear", "none"])
def test_a_step_holds_one_call_of_the_network(memory, final):
    config = config_of(memory__adapter=memory, sample__final=final, sample__end=0.0)
    system = build.system(config, MASK)

    def network(*inputs):
        return system.denoiser(*inputs)

    sample = build.sampler(config, replace(system, denoiser=jax.jit(network)))
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    program = jax.make_jaxpr(sample)(shapes, keys_of(SIZE), BLANK)
    assert denoiser_calls(program.jaxpr) == (1 + (final != "none"), 1)


@dataclass(frozen=True)
class Constant:
    """A proposal that costs nothing: token 0 everywhere."""

    def __call__(self, keys, logits, noisy, temperature, nucleus):
        return Proposal(jnp.zeros(noisy.shape, jnp.int32), jnp.zeros(noisy.shape), jnp.zeros(noisy.shape))

    def best(self, logits, noisy):
        return jnp.zeros(noisy.shape, jnp.int32)


def counted(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A network that answers nothing."""
    return jnp.zeros((len(noisy), 1, 1))


@pytest.mark.parametrize(
    ("steps", "size", "length", "runs", "published"),
    [(32, 1, 32, 600, 20.78), (4, 1, 2, 4000, 2.31), (16, 3, 4, 600, None), (1000, 1, 1024, 16, 641.4)],
)
def test_cached_evaluations_are_as_many_as_expected(steps, size, length, runs, published):
    """1 + (T - 1)(1 - (1 - 1/T)^(B L)) for B sequences of L tokens: a step is idle when no sequence changed."""
    sampler = MaskedSampler(
        counted, Masking(MASK, Linear()), Policy(ancestral_step), Constant(), "none", None, cache=True
    )
    rows, prompt = grid(Linear(), steps, length, end=0.0), jnp.full((size, length), MASK)

    @jax.jit
    @jax.vmap
    def once(key):
        samples = sampler(None, jax.random.split(key, size), prompt, rows)
        return samples.evaluations

    counts = np.asarray(once(jax.random.split(jax.random.key(0), runs)))
    assert (counts == counts[:, :1]).all(), "one number for the whole batch"
    expected = 1 + (steps - 1) * (1 - (1 - 1 / steps) ** (size * length))
    assert published is None or expected == pytest.approx(published, abs=6e-3 if steps < 1000 else 0.05)
    error = counts[:, 0].std() / runs**0.5
    assert error < 0.01 * expected
    assert abs(counts.mean() - expected) < min(0.03 * expected, 4.5 * error)


def test_a_cache_changes_no_token_of_a_network_without_memory():
    """One that reads no time: idle steps would be answered the same; a network that reads time may not have one."""
    base = build.system(config_of(memory__adapter="none"), MASK)
    old = {name: part for name, part in PARAMS.items() if name != "adapter"}
    keys, drawn = keys_of(4), {}
    for cache in (False, True):
        config = config_of(memory__adapter="none", sample__cache=cache, sample__steps=3 * STEPS)
        drawn[cache] = jax.jit(build.sampler(config, base))(old, keys, jnp.full((4, LENGTH), MASK))
    np.testing.assert_array_equal(drawn[True].tokens, drawn[False].tokens)
    np.testing.assert_array_equal(drawn[True].idle, drawn[False].idle)
    assert drawn[True].evaluations.max() < drawn[False].evaluations.min() == 3 * STEPS + 1
    with pytest.raises(ValueError, match=r"sample\.cache: a network that reads time") as caught:
        build.sampler(config_of(sample__cache=True, model__time_conditioning=True), base)
    assert "\n" not in str(caught.value)


# Masked again.


def test_what_is_masked_again_starts_from_nothing():
    """From alpha 0.5 to 0.6 with sigma 0.1: 0.9 of the known is kept, 0.3 of the masked revealed, 0.6 known after."""
    size, seen, tokens = 2000, [], 4
    process = Masking(tokens, Linear())

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        record(seen, noisy, memory)
        return jnp.zeros((*noisy.shape, tokens + 1))

    recall = Recall(process, lambda params: jnp.eye(tokens), tokens)
    sampler = MaskedSampler(denoiser, process, Policy(ancestral_step), Draw(tokens), "draw", recall)
    steps = grid(Linear(), 2, 8, end=0.0)._replace(stay=jnp.array([0.5, 0.7]), remask=jnp.array([0, 0.1]))
    samples = jax.block_until_ready(jax.jit(sampler)(None, keys_of(size), jnp.full((size, 8), tokens), steps))
    jax.effects_barrier()
    (_, before, after), memory = (np.stack(arrays) for arrays in zip(*seen, strict=True))
    memory = memory[-1]
    was, now = before == tokens, after == tokens
    for share, expected in (
        (was.mean(), 0.5),
        (now.mean(), 0.4),
        (now[was].mean(), 0.7),
        ((~now)[was].mean(), 0.3),
        ((~now)[~was].mean(), 0.9),
    ):
        assert abs(share - expected) < 4.5 * (0.25 / (size * 4)) ** 0.5
    for rows in ("masked", "recarry", "raw"):
        remembered = np.asarray(replace(recall, rows=rows)(None, jnp.zeros((size, 8, tokens + 1)), before, after))
        if rows == "masked":
            np.testing.assert_allclose(memory, remembered, rtol=1e-6)
        assert not remembered[now & ~was].any()
        np.testing.assert_allclose(remembered[now & was], 1 / tokens, rtol=1e-6)
        own = np.eye(tokens)[after % tokens]
        kept, fresh = {"masked": (0 * own, 0 * own), "recarry": (own, own), "raw": (own, 0 * own + 1 / tokens)}[rows]
        np.testing.assert_allclose(remembered[~now & ~was], kept[~now & ~was], rtol=1e-6)
        np.testing.assert_allclose(remembered[~now & was], fresh[~now & was], rtol=1e-6)
    assert (samples.tokens < tokens).all()


# The two strings 00 and 11, which an optimal network knows from the state alone.

PAIRS = Enumerable(np.array([0.5, 0, 0, 0.5]), 2, 2)
PAIR_PROCESS = Masking(2, LogLinear())


def tabular(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Logits of its own for each of the nine states, and a linear map of what is remembered."""
    logits = params["table"][noisy[:, 0] * 3 + noisy[:, 1]]
    memory = jnp.zeros((len(noisy), 2, 3)) if memory is None else memory
    return logits + (memory.reshape(len(noisy), -1) @ params["adapter"]).reshape(logits.shape)


PAIR_RECALL = Recall(PAIR_PROCESS, lambda params: params["embedding"], 3)


def start_of_pairs():
    shapes = {"table": (9, 2, 3), "embedding": (2, 3), "adapter": (6, 6)}
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def trained():
    """Trained by the two-pass objective at rate 1/2."""
    steps, size = 800, 64
    objective = RevealNelbo(two_pass(tabular, PAIR_RECALL, 0.5), PAIR_PROCESS)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    tokens = jnp.broadcast_to(jnp.arange(size)[:, None] % 2, (size, 2))
    batch = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}

    @jax.jit
    def train(params):
        def step(carry, index):
            params, state = carry
            noise = draws(jax.random.key(3), "train", index, size)
            gradient = jax.grad(lambda params: objective(params, batch, noise)[0] / size)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return train(start_of_pairs())


def reachable(params, depth=4):
    """Every (state, prediction) that a sampler can come to: idle steps and reveals of one of the two positions."""
    frontier = [(jnp.array([[2, 2]]), PAIR_RECALL.empty(jnp.array([[2, 2]])))]
    for _ in range(depth):
        following = []
        for state, memory in frontier:
            logits = tabular(params, state, None, None, memory)
            yield state[0].tolist(), np.asarray(jax.nn.softmax(logits[0, :, :2], axis=-1))
            places = [(place, value) for place in (0, 1) for value in (0, 1)] if (state == 2).all() else []
            for after in (state, *(state.at[0, place].set(value) for place, value in places)):
                following.append((after, PAIR_RECALL(params, logits, state, after)))
        frontier = following


def worst(params):
    """The largest distance of a reachable prediction from the exact posterior."""
    errors = []
    for state, p in reachable(params):
        for place in (0, 1):
            if state[place] == 2:
                other = state[1 - place]
                exact = np.full(2, 0.5) if other == 2 else np.eye(2)[other]
                errors.append(np.abs(p[place] - exact).max())
    return max(errors), len(errors)


def test_a_trained_network_needs_no_memory_where_the_state_says_all(trained):
    """Its bounds reach the entropy, ln 2, and on every reachable pair it answers the exact posterior."""
    for passes in (1, 2, 3):
        bound = PAIRS.expected_bound(partial(many_passes(tabular, PAIR_RECALL, passes), trained))
        assert PAIRS.table @ bound == pytest.approx(np.log(2), abs=0.02)
    assert worst(trained)[0] < 0.05 and worst(trained)[1] > 20
    assert worst(start_of_pairs())[0] > 0.5


@pytest.mark.parametrize("recall", [PAIR_RECALL, None], ids=["memory", "none"])
def test_memory_makes_no_dependence_within_a_step(trained, recall):
    """One step draws all four strings alike; one position a step draws 00 and 11 alone."""
    size = 8192
    prompt = jnp.full((size, 2), 2)
    for policy, steps, expected in (
        (Policy(ancestral_step), 1, [0.25] * 4),
        (Policy(random_order_step), 2, [0.5, 0, 0, 0.5]),
    ):
        sampler = MaskedSampler(tabular, PAIR_PROCESS, policy, Draw(2), "none", recall)
        rows = grid(Linear(), steps, 2, end=0.0)
        tokens = np.asarray(jax.jit(sampler)(trained, keys_of(size), prompt, rows).tokens)
        shares = np.bincount(tokens @ [2, 1], minlength=4) / size
        np.testing.assert_allclose(shares, expected, atol=0.03)
