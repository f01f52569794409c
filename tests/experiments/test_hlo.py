"""Collectives of compiled programs: number of executions, and bytes that a ring sends."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffusion.train.mesh import make_mesh
from experiments.aot.hlo import Traffic, collectives, group_size

ITERATIONS, WIDTH = 5, 16


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=2, fsdp=4)


def traffic_of(function, mesh, shape, spec):
    argument = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        return collectives(jax.jit(function).lower(argument).compile().as_text())


def test_collective_in_nested_loops_counts_every_iteration(mesh):
    def each(x):
        def inner(total, _):
            return jax.lax.psum(jnp.sin(total), "fsdp"), None

        def outer(total, _):
            return jax.lax.scan(inner, total, length=3)[0], None

        return jax.lax.scan(outer, x, length=ITERATIONS)[0]

    function = jax.shard_map(each, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    traffic = traffic_of(function, mesh, (2, WIDTH), P("data"))
    size = WIDTH * 4
    runs = 3 * ITERATIONS
    assert traffic == {"all-reduce": Traffic(1, runs, runs * 2 * 3 / 4 * size)}


@pytest.mark.parametrize(
    ("kind", "function", "sent"),
    [
        ("all-gather", lambda x: jax.lax.all_gather(x, "fsdp"), 3 / 4 * 4 * WIDTH * 4),
        ("collective-permute", lambda x: jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % 4) for i in range(4)]), WIDTH * 4),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "fsdp", 1, 1, tiled=True), 3 / 4 * WIDTH * 4),
        (
            "reduce-scatter",
            lambda x: jax.lax.psum_scatter(x, "fsdp", scatter_dimension=1, tiled=True),
            3 / 4 * WIDTH * 4,
        ),
    ],
)
def test_bytes_of_each_kind(mesh, kind, function, sent):
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    traffic = traffic_of(mapped, mesh, (2, WIDTH), P("data"))
    assert traffic == {kind: Traffic(1, 1, sent)}


def test_group_sizes_in_every_notation():
    assert group_size("all-reduce(%x), replica_groups={{0,1,2},{3,4,5}}, to_apply=%add") == 3
    assert group_size("all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add") == 4
    line = "replica_groups=mesh['axis_0'=16,'axis_1'=2,'axis_2'=1] {'axis_0','axis_1'}, use_global_device_ids=true"
    assert group_size(line) == 32


@pytest.mark.parametrize(
    ("kind", "slices", "sent"),
    [
        ("ALL_REDUCE", "1,2", 1.0),
        ("ALL_REDUCE", "1,2,3,4", 1.5),
        ("ALL_GATHER", "1,2,3", 2.0),
        ("REDUCE_SCATTER", "1,2", 0.5),
    ],
)
def test_what_chips_send_between_slices(kind, slices, sent):
    """A line as the TPU compiler writes it for several slices, after the sum within each slice."""
    line = (
        "  %send = (bf16[198,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%bitcast, %after-all), channel_id=16, "
        'is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.34_0",'
        f'_xla_megascale_target="{{{slices}}}x{{0:15}}",_xla_megascale_transfer_type="{kind}"}}'
    )
    other = "  %send.1 = (f32[8]{0}, u32[], token[]) send(%x, %after-all), channel_id=17, is_host_transfer=true"
    text = f"ENTRY %main (x: bf16[1]) -> bf16[1] {{\n{line}\n{other}\n}}\n"
    name = f"{kind.lower().replace('_', '-')} between slices"
    assert collectives(text) == {name: Traffic(1, 1, sent * 198 * 8 * 128 * 2)}


def test_program_without_collectives_has_no_traffic():
    assert collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == {}
