"""The error predictor: published sizes, copied and frozen parameters, and its initial logits."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.dit import SIZES, DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.train import flops
from tests.weights import random_like

VOCAB, LENGTH, BATCH = 19, 8, 3
TRUNK = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.3, labels=4, memory=True)
DIGITS = DiT(9, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.0, embedder=SubtokenEmbedding(3, 2, 16))
KINDS = ["full", "block", "head"]
STATE = jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 0, VOCAB)
LABEL = jnp.array([0, 3, 1])


def shapes_of(net, width=1):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, LENGTH * width), jnp.int32)))["params"]


DENOISER = random_like(shapes_of(TRUNK), 0.3)


@partial(jax.jit, static_argnums=0)
def start(predictor, denoiser):
    return predictor.init(jax.random.key(2), denoiser)


@partial(jax.jit, static_argnums=0)
def logits(predictor, denoiser, params, state, label=None, keys=None):
    return predictor(denoiser, params, state, label, keys=keys)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("kind", "size"), [("full", 130_980_353), ("block", 46_525_697), ("head", 199_681)])
def test_numbers_of_trained_parameters_at_the_published_size(kind, size):
    trunk = DiT(50259, **SIZES["small"])
    predictor = ErrorPredictor(kind, trunk)
    denoiser = shapes_of(trunk)
    predictor_params = jax.eval_shape(lambda denoiser: predictor.init(jax.random.key(0), denoiser), denoiser)
    assert count(denoiser) == 169_628_755 and count(predictor_params) == size
    tokens = jax.ShapeDtypeStruct((2, 512), jnp.int32)
    assert jax.eval_shape(predictor, denoiser, predictor_params, tokens).shape == (2, 512)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_parameters(kind):
    """All except the head and the adapter, or those with the first block only; arrays are not shared, for donation."""
    predictor_params = ErrorPredictor(kind, TRUNK).init(jax.random.key(2), DENOISER)
    head = predictor_params.pop("head")
    assert head["linear"]["kernel"].shape == (16, 1)
    assert not np.any(head["linear"]["kernel"]) and not np.any(head["linear"]["bias"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(head["modulation"]))
    np.testing.assert_array_equal(head["norm"]["scale"], np.ones(16))
    if kind == "head":
        assert predictor_params == {}
        return
    expected = {name: part for name, part in DENOISER.items() if name not in ("head", "adapter")}
    if kind == "block":
        expected["blocks"] = jax.tree.map(lambda leaf: leaf[:1], expected["blocks"])
    chex.assert_trees_all_equal(predictor_params, expected)
    jitted = start(ErrorPredictor(kind, TRUNK), DENOISER)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(DENOISER)}
    assert not pointers & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((predictor_params, jitted))}


def test_features_are_those_of_the_denoiser():
    """Those of a new full predictor are equal to the denoiser's, and those of a block to a denoiser of one block."""

    @partial(jax.jit, static_argnums=0)
    def features(net, params):
        return net.apply({"params": params}, STATE, label=LABEL, method="features")

    by_pieces = TRUNK.apply({"params": DENOISER}, STATE, method="embed")
    by_pieces = TRUNK.apply({"params": DENOISER}, by_pieces, label=LABEL, method="trunk")
    expected = features(TRUNK, DENOISER)
    np.testing.assert_allclose(expected, by_pieces, atol=1e-5)
    full, block = ErrorPredictor("full", TRUNK), ErrorPredictor("block", TRUNK)
    np.testing.assert_allclose(features(full.net, start(full, DENOISER)), expected, atol=1e-5)
    first = DENOISER | {"blocks": jax.tree.map(lambda leaf: leaf[:1], DENOISER["blocks"])}
    small = features(block.net, start(block, DENOISER))
    np.testing.assert_allclose(small, features(TRUNK.clone(blocks=1), first), atol=1e-5)
    assert np.abs(small - expected).max() > 1e-1
    # The head of the denoiser reads these features.
    head = ErrorPredictor("head", TRUNK)
    predictor_params = random_like(start(head, DENOISER), 0.3)
    read = head.net.apply({"params": DENOISER | predictor_params}, expected, label=LABEL, method="head")[..., 0]
    np.testing.assert_allclose(logits(head, DENOISER, predictor_params, STATE, LABEL), read, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_exactly_the_trained_parameters(kind):
    predictor = ErrorPredictor(kind, TRUNK)
    wrong = (STATE % 3 == 0).astype(jnp.float32)

    @jax.jit
    def slope(denoiser, params):
        def loss(denoiser, params):
            e = predictor(denoiser, params, STATE, LABEL)
            return jnp.sum(jax.nn.softplus(e) - wrong * e)

        return jax.grad(loss, argnums=(0, 1))(denoiser, params)

    new = start(predictor, DENOISER)
    frozen, gradient = slope(DENOISER, new)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
    # The zero output layer has no gradient with respect to its input at first.
    assert np.all(gradient["head"]["linear"]["kernel"]) and np.all(gradient["head"]["linear"]["bias"])
    gradient["head"].pop("linear")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    frozen, gradient = slope(DENOISER, random_like(new, 0.3))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(gradient["head"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_dropout_acts_in_trained_parts_only():
    keys = jax.random.split(jax.random.key(3), BATCH)
    for kind in KINDS:
        predictor = ErrorPredictor(kind, TRUNK)
        params = random_like(start(predictor, DENOISER), 0.3)
        plain, dropped = (logits(predictor, DENOISER, params, STATE, LABEL, k) for k in (None, keys))
        assert (np.abs(plain - dropped).max() > 1e-2) == (kind != "head")


def test_labels_are_read_and_may_be_absent():
    predictor = ErrorPredictor("head", TRUNK)
    params = random_like(start(predictor, DENOISER), 0.3)
    labeled, unlabeled = logits(predictor, DENOISER, params, STATE, LABEL), logits(predictor, DENOISER, params, STATE)
    assert np.abs(labeled - unlabeled).max() > 1e-2
    none = logits(predictor, DENOISER, params, STATE, jnp.full(BATCH, TRUNK.labels))
    np.testing.assert_allclose(none, unlabeled, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_subtokens_have_one_logit_per_token(kind):
    predictor = ErrorPredictor(kind, DIGITS)
    denoiser = random_like(shapes_of(DIGITS, 2), 0.3)
    new = start(predictor, denoiser)
    assert kind == "head" or new["embedder"]["table"].shape == denoiser["embedder"]["table"].shape
    state = jax.random.randint(jax.random.key(1), (BATCH, 2 * LENGTH), 0, 3)
    assert not np.any(logits(predictor, denoiser, new, state))
    params = random_like(new, 0.3)
    before = logits(predictor, denoiser, params, state)
    assert before.shape == (BATCH, LENGTH)
    changed = state.at[:, 1].set((state[:, 1] + 1) % 3)
    assert np.abs(logits(predictor, denoiser, params, changed) - before).min() > 0


def test_bfloat16_predictors_have_float32_logits():
    predictor = ErrorPredictor("block", TRUNK.clone(dtype="bfloat16", unroll=2))
    exact = ErrorPredictor("block", TRUNK)
    params = random_like(start(exact, DENOISER), 0.3)
    low, high = (logits(p, DENOISER, params, STATE, LABEL) for p in (predictor, exact))
    assert low.dtype == jnp.float32 and 0 < np.abs(low - high).max() < 0.1 * np.abs(high).max()


def test_costs_of_a_guided_step():
    """One block has about 6 % and a trunk about 69 % of the products of a denoiser, next to attention and adaLN."""
    trunk, tokens = DiT(50259, **SIZES["small"], attention="plain"), jax.ShapeDtypeStruct((1, 16), jnp.int32)
    denoiser = jax.eval_shape(trunk.init, jax.random.key(0), tokens)["params"]
    whole = flops.count(trunk.apply, {"params": denoiser}, tokens)
    share = {}
    for kind in KINDS:
        predictor = ErrorPredictor(kind, trunk)
        params = jax.eval_shape(predictor.init, jax.random.key(0), denoiser)
        share[kind] = flops.count(predictor, denoiser, params, tokens) / whole
    assert share["block"] == pytest.approx(0.0573, abs=2e-3)
    assert share["full"] == share["head"] == pytest.approx(0.6876, abs=5e-3)


def test_unknown_kinds_raise():
    with pytest.raises(ValueError, match=r"predictor\.kind: unknown 'two'; known: full, block, head"):
        ErrorPredictor("two", TRUNK)
