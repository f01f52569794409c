"""Prompt tables, null conditioning, and the U-Net that reads prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd.unet import UNet
from diffusion.nets.text_conditioned_unet import PromptTable, TextConditionedUNet
from tests.small_unets import compiled
from tests.weights import randomized

WORDS, LENGTH, BATCH = 7, 4, 3
UNET = UNet(
    channels=(8,),
    transformer_layers=(0,),
    heads=(2,),
    context_width=6,
    time_width=10,
    layers=1,
    in_channels=3,
    out_channels=3,
    groups=4,
)
NET = TextConditionedUNet(UNET, WORDS, LENGTH)
PROMPT = jnp.array([[1, 2, 3, 0], [6, 2, 5, 4], [1, 2, 3, 0]], jnp.int32)
TIME = jnp.array([3.0, 500.5, 999.0])
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 4, 8, 3)), jnp.float32)

apply = compiled(NET.apply)


@pytest.fixture(scope="module")
def params():
    return randomized(lambda key: NET.init(key, IMAGE, TIME, PROMPT))


def test_context_is_word_plus_position(params):
    tables = params["params"]["prompts"]
    assert tables["word"].shape == (WORDS + 1, 6) and tables["position"].shape == (LENGTH, 6)
    result = NET.apply(params, PROMPT, method="embed")
    np.testing.assert_array_equal(result, tables["word"][PROMPT] + tables["position"][None])
    np.testing.assert_array_equal(result, PromptTable(WORDS, LENGTH, 6).apply({"params": tables}, PROMPT))


def test_contexts_start_with_unit_variance():
    table = PromptTable(200, 64, 32)
    prompt = jnp.arange(192).reshape(3, 64)
    context = table.apply(compiled(table.init)(jax.random.key(0), prompt), prompt)
    assert abs(np.mean(np.square(context)) - 1) < 0.1


def test_null_conditioning_has_a_separate_id(params):
    assert NET.null_id == PromptTable(WORDS).null_id == WORDS
    dropped = PROMPT.at[1].set(NET.null_id)
    conditional, unconditional = (apply(params, IMAGE, TIME, prompt) for prompt in (PROMPT, dropped))
    moved = np.abs(conditional - unconditional).max((1, 2, 3))
    assert moved[1] > 1e-2 and (moved[[0, 2]] == 0).all()


def test_context_replaces_its_prompt(params):
    context = NET.apply(params, PROMPT, method="embed")
    result = apply(params, IMAGE, TIME, PROMPT)
    np.testing.assert_allclose(apply(params, IMAGE, TIME, context), result, atol=1e-5)
    assert set(params["params"]) == {"unet", "prompts"}
    alone = jax.eval_shape(UNET.init, jax.random.key(0), IMAGE, TIME, context)["params"]
    assert jax.tree.map(jnp.shape, params["params"]["unet"]) == jax.tree.map(jnp.shape, alone)


def test_gradients_reach_the_words_of_the_prompts_and_every_context(params):
    def loss(tables, shift):
        conditional = NET.apply({"params": params["params"] | {"prompts": tables}}, PROMPT, method="embed") + shift
        return jnp.mean(jnp.square(NET.apply(params, IMAGE, TIME, conditional) - 1))

    shift = jnp.zeros((BATCH, LENGTH, 6))
    tables, contexts = compiled(jax.grad(loss, argnums=(0, 1)))(params["params"]["prompts"], shift)
    assert (np.abs(contexts).max(-1) > 1e-6).all()
    # The gradient of a word is the sum over its positions in the prompts.
    expected = np.zeros_like(tables["word"])
    np.add.at(expected, np.asarray(PROMPT), np.asarray(contexts))
    np.testing.assert_allclose(tables["word"], expected, atol=1e-6)
    np.testing.assert_allclose(tables["position"], contexts.sum(0), atol=1e-6)


def test_prompts_of_another_length_raise(params):
    with pytest.raises(ValueError, match=r"prompts\.length: is 4, but the prompts are \(3, 3\)"):
        NET.apply(params, IMAGE, TIME, PROMPT[:, :3])
