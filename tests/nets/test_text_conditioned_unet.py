"""Prompt tables, null conditioning, and the U-Net that reads prompts."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.sd.unet import TextConditioning
from diffusion.nets.text_conditioned_unet import PromptTable, TextConditionedUNet
from tests.checks import refused
from tests.small_unets import SMALL
from tests.weights import randomized

WORDS, LENGTH, BATCH = 7, 4, 3
UNET = SMALL.clone(channels=(8,), transformer_layers=(0,), heads=(2,), context_width=6)
NET = TextConditionedUNet(UNET, WORDS, LENGTH)
PROMPT = jnp.array([[1, 2, 3, 0], [6, 2, 5, 4], [1, 2, 3, 0]], jnp.int32)
TIME = jnp.array([3.0, 500.5, 999.0])
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 4, 8, 3)), jnp.float32)

PARAMS = randomized(lambda key: NET.init(key, IMAGE, TIME, PROMPT))
CONTEXT = NET.apply(PARAMS, PROMPT, method="embed")
apply = jax.jit(NET.apply)


def test_context_is_word_plus_position_and_replaces_its_prompt():
    tables = PARAMS["params"]["prompts"]
    assert tables["word"].shape == (WORDS + 1, 6) and tables["position"].shape == (LENGTH, 6)
    np.testing.assert_array_equal(CONTEXT, tables["word"][PROMPT] + tables["position"][None])
    result = apply(PARAMS, IMAGE, TIME, PROMPT)
    np.testing.assert_allclose(apply(PARAMS, IMAGE, TIME, TextConditioning(CONTEXT)), result, atol=1e-5)
    alone = jax.eval_shape(UNET.init, jax.random.key(0), IMAGE, TIME, CONTEXT)["params"]
    assert jax.tree.map(jnp.shape, PARAMS["params"]["unet"]) == jax.tree.map(jnp.shape, alone)


def test_contexts_start_with_unit_variance():
    table = PromptTable(200, 64, 32)
    prompt = jnp.arange(192).reshape(3, 64)
    context, _ = jax.jit(table.init_with_output)(jax.random.key(0), prompt)
    assert abs(np.mean(np.square(context)) - 1) < 0.1


def test_null_conditioning_has_a_separate_id():
    assert NET.null_id == WORDS
    prompts = PROMPT, PROMPT.at[1].set(NET.null_id)
    conditional, unconditional = (apply(PARAMS, IMAGE, TIME, prompt) for prompt in prompts)
    moved = np.abs(conditional - unconditional).max((1, 2, 3))
    assert moved[1] > 1e-2 and (moved[[0, 2]] == 0).all()


def test_prompts_of_another_length_raise():
    with refused(r"prompts\.length: is 4, but the prompts are \(3, 3\)"):
        NET.apply(PARAMS, IMAGE, TIME, PROMPT[:, :3])
