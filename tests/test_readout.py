"""Gathered rows of logits give the losses, gradients and samples of a network whose logits are all computed."""

import math
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion.readout
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.dit import DiT
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.objectives import elbo
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.reveal import RevealNelbo
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.readout import Rows, SplitDenoiser, first_rows, of_logits, read, readout
from diffusion.rng import draws
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import (
    Policy,
    ancestral_step,
    confidence_remdm,
    confidence_star,
    confidence_step,
    first_hitting,
    guided_step,
    path_planning,
    race_step,
    random_order_step,
)
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.sampling.masked.subtokens import SubtokenDraw
from diffusion.schedules.masking import LogLinear
from diffusion.train.flops import count
from diffusion.train.mesh import batch_sharding, make_mesh
from tests.weights import keys_of, randomized

VOCABULARY, LENGTH, BATCH, LABELS = 7, 6, 8, 3
TOKENS = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, VOCABULARY)
WEIGHTS = jnp.ones((BATCH, LENGTH)).at[1, 3:].set(0)
LABEL = jnp.arange(BATCH) % LABELS
DATA = {"tokens": TOKENS, "weights": WEIGHTS, "label": LABEL}
ROOT = jax.random.key(4)


def models(digits=1, carry_over=True):
    """Return a process, random weights, and one network twice: with a head apart, and as a function."""
    codec = SubtokenCodec(VOCABULARY, digits) if digits > 1 else None
    process = MaskedDiffusion(VOCABULARY, LogLinear())
    embedder, classes = None, VOCABULARY + 1
    if codec:
        process = PartialMaskedDiffusion(codec, LogLinear(), carry_over)
        embedder, classes = SubtokenEmbedding(process.mask_id, digits, 8, "sum", False), VOCABULARY
    net = DiT(vocab_size=classes, hidden=8, blocks=1, heads=2, cond_dim=4, labels=LABELS, embedder=embedder)

    def apply(params, noisy, time, cond=None, memory=None, *, keys=None, method=None):
        return net.apply({"params": params}, noisy, time, label=cond, keys=keys, method=method)

    def head(params, x):
        return net.apply({"params": params}, x, method="logits")

    params = randomized(lambda key: net.init(key, jnp.zeros((1, LENGTH * digits), jnp.int32))["params"])
    return process, params, SplitDenoiser(partial(apply, method="head_input"), head), apply


def test_rows_of_groups_are_taken_and_put_back():
    """Of two groups of two examples; the second has fewer needed tokens than rows."""
    needed = jnp.zeros((4, 3), bool).at[jnp.array([0, 1, 1, 3]), jnp.array([2, 0, 1, 1])].set(True)
    values = jnp.arange(1, 13).reshape(4, 3)
    rows = Rows(4, 3, first_rows(needed.reshape(2, 6), 3))
    np.testing.assert_array_equal(rows.index, [[2, 3, 4], [4, 7, 8]])
    np.testing.assert_array_equal(rows.take(values), [3, 4, 5, 11, 0, 0])
    np.testing.assert_array_equal(rows.put(rows.take(values)), jnp.where(needed, values, 0))
    np.testing.assert_array_equal(rows.of_examples(jnp.array([10, 11, 12, 13]))[:4], [10, 11, 11, 13])
    keys, everything = keys_of(4), Rows(4, 3)
    data = jax.random.key_data(everything.keys(keys)).reshape(4, 3, -1)
    np.testing.assert_array_equal(jax.random.key_data(rows.keys(keys))[:4], data[needed])
    assert len(np.unique(data.reshape(12, -1), axis=0)) == 12


@pytest.mark.parametrize("needed", [0, 1, 12, 13, 20, 48])
def test_needed_tokens_are_read_in_pieces(needed, monkeypatch):
    """At all counts the values are those of the needed tokens; plain logits are read at once."""
    monkeypatch.setattr(diffusion.readout, "MIN_PIECE", 4)
    mask = (jax.random.permutation(jax.random.key(1), BATCH * LENGTH) < needed).reshape(BATCH, LENGTH)
    _, params, split, whole = models()
    expected = np.where(mask[..., None], whole(params, TOKENS, jnp.ones(BATCH), LABEL), 0)
    for denoiser, share, sizes in ((split, 0.0, {4}), (split, 1 / 4, {12, 36}), (split, 1.0, {48}), (whole, 0.0, {48})):
        evaluation = readout(denoiser, params, TOKENS, jnp.ones(BATCH), LABEL)
        read_sizes = set()

        def compute(logits, rows, read_sizes=read_sizes):
            read_sizes.add(len(logits))
            return logits[:, 0]

        values = read(evaluation, mask, compute, share)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        assert read_sizes == sizes
    np.testing.assert_array_equal(of_logits(values).logits(), values)


CASES = [(Nelbo, 1, {}), (RevealNelbo, 1, {})]
CASES += [(Nelbo, 3, {"target": target}) for target in ("marginal", "joint")]


@pytest.mark.parametrize("share", [None, 0.05], ids=["fits", "pieces"])
@pytest.mark.parametrize(("objective", "digits", "options"), CASES)
def test_losses_and_gradients_are_those_of_all_logits(objective, digits, options, share, monkeypatch):
    """With padding, labels, dropout and every digit; also where more tokens are masked than the share holds."""
    if share:
        monkeypatch.setattr(diffusion.readout, "MIN_PIECE", 1)
        monkeypatch.setattr(elbo, "row_share", lambda *args, **kwargs: share)
        monkeypatch.setattr("diffusion.objectives.reveal.row_share", lambda *args, **kwargs: share)
    for carry_over in (True, False) if digits > 1 else (True,):
        process, params, *denoisers = models(digits, carry_over)

        @jax.jit
        def slope(params, process=process, denoisers=denoisers):
            def loss(denoiser, params):
                return objective(denoiser, process, **options)(params, DATA, draws(ROOT, "train", 0, BATCH))[0]

            return [jax.value_and_grad(partial(loss, denoiser))(params) for denoiser in denoisers]

        gathered, expected = slope(params)
        chex.assert_trees_all_close(gathered, expected, rtol=2e-4, atol=2e-5)


def test_the_loss_has_fewer_operations():
    """Half of the head's; the share grows with strata and spread, and never exceeds all tokens."""
    process, params, *denoisers = models()
    tokens = jnp.zeros((64, LENGTH), jnp.int32)
    data = {"tokens": tokens, "weights": jnp.ones(tokens.shape), "label": jnp.zeros(64, jnp.int32)}

    def loss(denoiser):
        noise = draws(ROOT, "train", 0, 64)
        return count(lambda params: RevealNelbo(denoiser, process)(params, data, noise)[0], params, taken=0.0)

    gathered, all_tokens = (loss(denoiser) for denoiser in denoisers)
    share = elbo.row_share(tokens.shape, 0.5, exact=True)
    assert share == (64 * 6 / 2 + 64 / 2 + 64 / 2) / (64 * 6)
    head = 2 * 8 * (VOCABULARY + 1) * 64 * 6
    assert all_tokens - gathered == head - head / 384 * math.ceil(share * 384)
    assert elbo.row_share((1, 6), 0.5) == 1


def test_on_several_devices_every_one_reads_its_own_rows():
    """Of a mesh of eight, and no feature is gathered from another device."""
    process, params, split, _ = models()
    mesh = make_mesh(8, 1, 1)
    tokens = jnp.tile(TOKENS, (8, 4))

    def loss(params, tokens):
        data = {"tokens": tokens, "weights": jnp.ones(tokens.shape), "label": jnp.zeros(len(tokens), jnp.int32)}
        return RevealNelbo(split, process)(params, data, draws(ROOT, "train", 0, len(tokens)))[0]

    expected = jax.jit(jax.value_and_grad(loss))(params, tokens)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(tokens, batch_sharding(mesh))
        program = jax.jit(jax.value_and_grad(loss)).lower(params, sharded).compile()
        value = program(params, sharded)
    chex.assert_trees_all_close(jax.device_get(value), jax.device_get(expected), rtol=1e-4, atol=1e-4)
    assert f"f32[{tokens.size},8]" not in program.as_text()  # the features of all devices


POLICIES = {
    "ancestral": Policy(ancestral_step, reads="none"),
    "race": Policy(race_step, reads="masked"),
    "random order": Policy(random_order_step, reads="none"),
    "first hitting": first_hitting(LogLinear()),
    "star": Policy(guided_step(math.inf), reads="none"),
    "confidence": Policy(confidence_step(0.5), reads="masked"),
    "confidence star": confidence_star(1.0),
    "confidence remdm": confidence_remdm(),
    "p2": Policy(path_planning(1.0)),
}


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_samples_do_not_depend_on_the_rows_that_are_read(name, digits, monkeypatch):
    """Before or after the choice of masks, or all; with a prompt. The last masks are filled in the same way by all."""
    monkeypatch.setattr(diffusion.readout, "MIN_PIECE", 4)
    process, params, split, whole = models(digits)
    precision = "mdlm_float32" if name == "race" and digits == 1 else "exact"
    draw = Draw(VOCABULARY, precision)
    draw = SubtokenDraw(process, draw) if digits > 1 else draw
    policy = POLICIES[name]
    prompt = jnp.where(jnp.arange(LENGTH * digits)[None] < 2, process.encode(TOKENS), process.mask_id)
    steps = LENGTH * digits if name == "first hitting" else 3
    rows = grid(process.schedule, steps, LENGTH * digits, end=0.2)

    def tokens(denoiser, policy, final):
        sampler = MaskedSampler(denoiser, process, policy, draw, final)
        return jax.jit(sampler)(params, keys_of(BATCH), prompt, rows, LABEL).tokens

    for final in ("draw", "argmax") if name == "ancestral" else ("draw",):
        expected = tokens(whole, replace(policy, reads="all"), final)
        np.testing.assert_array_equal(tokens(split, policy, final), expected)
    assert not np.any(expected == process.mask_id)
