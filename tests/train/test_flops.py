"""The counter of floating-point operations against closed forms of products, convolutions, loops and networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from diffusion.nets.attention import attend
from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.dit import DiT
from diffusion.nets.sd.unet import SD15
from diffusion.train.flops import count
from tests.checks import refused

FLOAT = jnp.float32


def shape(*axes, dtype=FLOAT):
    return jax.ShapeDtypeStruct(axes, dtype)


def loss_and_gradients(function):
    """Return the sum of a function's results and its gradients with respect to both arguments."""
    return jax.value_and_grad(lambda x, y: jnp.sum(jnp.sin(function(x, y))), argnums=(0, 1))


def test_multiply_adds_of_a_product_count_as_two():
    x, y = shape(5, 3, 4), shape(4, 7)
    forward = 2 * 5 * 3 * 4 * 7
    assert count(jnp.matmul, x, y) == forward
    assert count(jax.vmap(jnp.matmul, in_axes=(0, None)), x, y) == forward
    assert count(loss_and_gradients(jnp.matmul), x, y) == 3 * forward
    assert count(lambda x, y: jnp.sum(x) + jnp.sum(jnp.exp(y)), x, y) == 0, "sums and elementwise functions are free"
    assert count(lambda x, y: (x @ y, x)[1], x, y) == 0, "nothing reads the product"


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_convolutions_have_one_product_a_tap_also_in_their_gradients(stride, groups):
    layout = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **layout)

    x, kernel = shape(2, 8, 12, 6), shape(3, 3, 6 // groups, 10)
    forward = 2 * (2 * (8 // stride) * (12 // stride) * 10) * 9 * (6 // groups)
    assert count(convolve, x, kernel) == forward
    assert count(loss_and_gradients(convolve), x, kernel) == 3 * forward


def test_loops_multiply_and_calls_do_not():
    x, one = shape(4, 4), 2 * 4**3

    def scan(function, length):
        return lambda x: jax.lax.scan(lambda x, _: (function(x), None), x, length=length)[0]

    @jax.custom_vjp
    def own(x):
        return x @ x

    own.defvjp(lambda x: (x @ x, x), lambda x, cotangent: (cotangent @ x,))

    def square(x):
        return x @ x

    assert count(scan(square, 5), x) == 5 * one
    assert count(scan(scan(square, 3), 5), x) == 15 * one
    assert count(lambda x: jax.lax.fori_loop(0, 6, lambda _, x: x @ x, x), x) == 6 * one
    for call in (jax.jit(square), jax.checkpoint(square), own, jax.nn.silu):
        assert count(call, x) == (0 if call is jax.nn.silu else one)
    assert count(jax.value_and_grad(lambda x: jnp.sum(own(x))), x) == 2 * one


def test_conditionals_count_the_share_of_their_larger_branch():
    x, one = shape(4, 4), 2 * 4**3

    def choose(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count(choose, x) == 2 * one
    assert count(choose, x, taken=0.25) == 1.25 * one


def test_shards_count_on_every_device():
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    specs = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=specs, out_specs=specs[0], axis_names={"data"})
    assert count(sharded, shape(6, 4), shape(4, 5)) == 2 * 6 * 4 * 5


def test_what_cannot_be_counted_raises():
    x = shape(4, 4)

    def loop(body):
        return lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, body, x)

    assert count(loop(lambda x: x - 1), x) == 0
    with refused("flops: while has products inside and an unknown number of turns"):
        count(loop(lambda x: x @ x), x)
    with refused("flops: cholesky cannot be counted"):
        count(jnp.linalg.cholesky, x)
    heads = [shape(1, 128, 2, 128)] * 3
    with refused(r"flops: pallas_call cannot be counted; trace .* attention=plain"):
        count(lambda *inputs: attend(*inputs, Causal(), backend="splash"), *heads)


@pytest.mark.parametrize("causal", [False, True])
def test_operations_of_a_transformer(causal):
    """Matrices 2 (4 + 2 m) D^2 and attention 4 L D per token and block, the head, and adaLN per example."""
    hidden, blocks, ratio, classes, width, batch, length = 48, 3, 2, 11, 16, 2, 32
    sizes = dict(hidden=hidden, blocks=blocks, heads=4, cond_dim=width, mlp_ratio=ratio, attention="plain")
    net = DiT(classes, **sizes, mask=Causal() if causal else Full(), adaln=not causal)
    tokens = shape(batch, length, dtype=jnp.int32)
    token = blocks * (2 * (4 + 2 * ratio) * hidden**2 + 4 * length * hidden) + 2 * hidden * classes
    # The noise level is embedded for the blocks and again for the head.
    modulation = 2 * (2 * (256 * width + width**2) + blocks * width * 6 * hidden + width * 2 * hidden)
    forward = batch * (length * token + (0 if causal else modulation))
    params = jax.eval_shape(net.init, jax.random.key(0), tokens)
    assert count(net.apply, params, tokens) == forward
    # Every product has two gradients, but that of the sinusoids of the noise level.
    inputs = 0 if causal else batch * 2 * 2 * 256 * width
    for remat in ("none", "full"):
        apply = net.clone(remat=remat).apply
        step = jax.value_and_grad(lambda params, tokens, apply=apply: jnp.sum(apply(params, tokens)))
        repeated = count(step, params, tokens) - (3 * forward - inputs)
        assert repeated == 0 if remat == "none" else 0 < repeated < forward


def test_operations_of_the_network_of_stable_diffusion():
    """SD 1.5 on latents of 64 x 64 with 77 tokens has 401.6 G multiply-adds."""
    inputs = shape(1, 64, 64, 4), shape(1), shape(1, 77, 768)
    params = jax.eval_shape(SD15.init, jax.random.key(0), *inputs)
    assert count(SD15.clone(attention="plain").apply, params, *inputs) == pytest.approx(803.3e9, rel=1e-3)
