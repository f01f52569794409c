"""The error predictor: published sizes, copied and frozen parameters, and its initial logits."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.dit import SIZES, DiT, Head
from diffusion.nets.error_predictor import KINDS, ErrorPredictor
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.train import flops
from tests.checks import refused
from tests.weights import random_like

VOCAB, LENGTH, BATCH = 19, 8, 3
TRUNK = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.3, labels=4, memory=True)
DIGITS = DiT(9, hidden=16, blocks=2, heads=2, cond_dim=8, unroll=2, embedder=SubtokenEmbedding(3, 2, 16))
STATE = jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 0, VOCAB)
LABEL, NULL = jnp.array([0, 3, 1]), jnp.full(BATCH, TRUNK.labels)
KEYS = jax.random.split(jax.random.key(3), BATCH)


def shapes_of(net, width=1):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, LENGTH * width), jnp.int32)))["params"]


DENOISER = random_like(shapes_of(TRUNK), 0.3)
FIRST = DENOISER | {"blocks": jax.tree.map(lambda leaf: leaf[:1], DENOISER["blocks"])}


@partial(jax.jit, static_argnums=0)
def logits(predictor, denoiser, params, state, label=None, keys=None):
    return predictor(denoiser, params, state, label, keys=keys)


def start(predictor, denoiser=DENOISER):
    return predictor.init(jax.random.key(2), denoiser)


def trained(kind):
    """Return a predictor and random parameters."""
    predictor = ErrorPredictor(kind, TRUNK)
    return predictor, random_like(start(predictor), 0.3)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def zero(tree):
    return not any(np.any(leaf) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("kind", "size", "cost", "tolerance"),
    [("full", 130_980_353, 0.6876, 5e-3), ("block", 46_525_697, 0.0573, 2e-3), ("head", 199_681, 0.6876, 5e-3)],
)
def test_sizes_and_costs_at_the_published_size(kind, size, cost, tolerance):
    """One block has about 6 % and a trunk about 69 % of the products of a denoiser, next to attention and adaLN."""
    trunk, tokens = DiT(50259, **SIZES["small"], attention="plain"), jax.ShapeDtypeStruct((1, 16), jnp.int32)
    predictor, denoiser = ErrorPredictor(kind, trunk), shapes_of(trunk)
    params = jax.eval_shape(partial(start, predictor), denoiser)
    assert count(denoiser) == 169_628_755 and count(params) == size
    low = jax.eval_shape(ErrorPredictor(kind, trunk.clone(dtype="bfloat16")), denoiser, params, tokens)
    assert (low.shape, low.dtype) == ((1, 16), jnp.float32)
    whole = flops.count(trunk.apply, {"params": denoiser}, tokens)
    assert flops.count(predictor, denoiser, params, tokens) / whole == pytest.approx(cost, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_parameters(kind):
    """All except the head and the adapter, or those with the first block only; arrays are not shared, for donation."""
    params = start(ErrorPredictor(kind, TRUNK))
    head = params.pop("head")
    assert head["linear"]["kernel"].shape == (16, 1)
    assert zero((head["linear"], head["modulation"]))
    np.testing.assert_array_equal(head["norm"]["scale"], np.ones(16))
    source = {"full": DENOISER, "block": FIRST, "head": {}}[kind]
    chex.assert_trees_all_equal(params, {name: source[name] for name in source if name not in ("head", "adapter")})
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(DENOISER)}
    assert not pointers & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)}


def test_features_are_those_of_the_denoiser():
    """Those of a new full predictor are equal to the denoiser's, and those of a block to a denoiser of one block."""
    head, params = trained("head")

    @jax.jit
    def features():
        def of(net, params):
            return net.apply({"params": params}, STATE, label=LABEL, method="features")

        full, block = ErrorPredictor("full", TRUNK), ErrorPredictor("block", TRUNK)
        whole = of(TRUNK, DENOISER)
        condition = TRUNK.apply({"params": DENOISER}, None, len(STATE), LABEL, method="_condition")
        output = Head(1, TRUNK.hidden, TRUNK.adaln, TRUNK.dtype)
        read = output.apply({"params": params["head"]}, whole, condition)[..., 0]
        small = of(block.net, start(block)), of(TRUNK.clone(blocks=1), FIRST)
        return whole, of(full.net, start(full)), *small, read

    whole, full, small, first, read = features()
    np.testing.assert_allclose(full, whole, atol=1e-5)
    np.testing.assert_allclose(small, first, atol=1e-5)
    assert np.abs(small - whole).max() > 1e-1
    # The head of the denoiser reads these features.
    np.testing.assert_allclose(logits(head, DENOISER, params, STATE, LABEL), read, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_exactly_the_trained_parameters(kind):
    predictor, params = trained(kind)
    wrong = (STATE % 3 == 0).astype(jnp.float32)

    @jax.jit
    def slope(denoiser, params):
        def loss(denoiser, params):
            e = predictor(denoiser, params, STATE, LABEL)
            return jnp.sum(jax.nn.softplus(e) - wrong * e)

        return jax.grad(loss, argnums=(0, 1))(denoiser, params)

    # The zero output layer has no gradient with respect to its input at first.
    frozen, gradient = slope(DENOISER, start(predictor))
    output = gradient["head"].pop("linear")
    assert np.all(output["kernel"]) and np.all(output["bias"]) and zero((frozen, gradient))
    frozen, gradient = slope(DENOISER, params)
    assert zero(frozen) and all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(gradient["head"]))


def test_labels_are_read_and_dropout_acts_in_trained_parts_only():
    for kind in ("block", "head"):
        predictor, params = trained(kind)
        labeled, dropped = (logits(predictor, DENOISER, params, STATE, LABEL, keys) for keys in (None, KEYS))
        assert (np.abs(labeled - dropped).max() > 1e-2) == (kind != "head")
    absent, null = (logits(predictor, DENOISER, params, STATE, label) for label in (None, NULL))
    assert np.abs(labeled - absent).max() > 1e-2
    np.testing.assert_allclose(null, absent, atol=1e-6)


def test_subtokens_have_one_logit_per_token():
    predictor, denoiser = ErrorPredictor("block", DIGITS), random_like(shapes_of(DIGITS, 2), 0.3)
    new = start(predictor, denoiser)
    assert new["embedder"]["table"].shape == denoiser["embedder"]["table"].shape
    state = jax.random.randint(jax.random.key(1), (BATCH, 2 * LENGTH), 0, 3)
    assert zero(logits(predictor, denoiser, new, state))
    before, after = (
        logits(predictor, denoiser, random_like(new, 0.3), each)
        for each in (state, state.at[:, 1].set((state[:, 1] + 1) % 3))
    )
    assert before.shape == (BATCH, LENGTH) and np.abs(after - before).min() > 0


def test_unknown_kinds_raise():
    with refused(r"predictor\.kind: unknown 'two'; known: full, block, head"):
        ErrorPredictor("two", TRUNK)
