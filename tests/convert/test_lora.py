"""LoRA added to weights: the formula in every layout of names, the sums of diffusers, and files of other models."""

import ml_dtypes
import numpy as np
import pytest

from diffusion.convert.files import open_tensors
from diffusion.convert.lora import with_lora
from tests.checks import refused

# Weights by name: a linear map, a 1 x 1 and a 3 x 3 convolution, and names with "_" and with the last number.
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
SHAPES = {
    f"{BLOCK}.to_q": (6, 5),
    f"{BLOCK}.to_out.0": (5, 6),
    "down_blocks.1.attentions.0.proj_in": (6, 4, 1, 1),
    "down_blocks.0.downsamplers.0.conv": (7, 4, 3, 3),
    "mid_block.resnets.1.time_emb_proj": (4, 8),
}
RANK = 2


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def weights(kind=np.float32):
    tensors = {f"{layer}.weight": normal(*shape).astype(kind) for layer, shape in SHAPES.items()}
    return tensors | {"conv_in.weight": normal(4, 4, 3, 3).astype(kind), "conv_in.bias": normal(4)}


def factors(shape):
    window = shape[2:]
    return normal(RANK, shape[1], *window, seed=1), normal(shape[0], RANK, *(1 for _ in window), seed=2)


def kohya(layer):
    return "lora_unet_" + layer.replace(".", "_")


LAYOUTS = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "peft": (lambda layer: layer, ".lora_A.weight", ".lora_B.weight", ""),
    "pipeline": (lambda layer: f"unet.{layer}", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "wrapped": (lambda layer: f"base_model.model.{layer}", ".lora_A.default.weight", ".lora_B.default.weight", ""),
    "diffusers": (lambda layer: f"unet.{layer}", ".lora.down.weight", ".lora.up.weight", ""),
    "linear": (lambda layer: f"unet.{layer}", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", ""),
}


def file(layout):
    name, down, up, alpha = LAYOUTS[layout]
    tensors = {}
    for layer, shape in SHAPES.items():
        tensors[name(layer) + down], tensors[name(layer) + up] = factors(shape)
        tensors |= {name(layer) + alpha: np.float32(3)} if alpha else {}
    return tensors


def expected(kind, factor):
    """Each value of a window has a product of its own: y = W x + factor up (down x) is linear in the inputs."""
    tensors = weights(kind)
    for layer, shape in SHAPES.items():
        down, up = factors(shape)
        window = down.reshape(RANK, shape[1], -1)
        change = np.einsum("or,riw->oiw", up.reshape(-1, RANK), window).reshape(shape)
        tensors[f"{layer}.weight"] = (tensors[f"{layer}.weight"].astype(np.float32) + factor * change).astype(kind)
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_formula(layout):
    """A missing alpha is the rank; the 16-bit sums are rounded once."""
    alpha = 3 if LAYOUTS[layout][3] else RANK
    for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
        found, wanted = with_lora(weights(kind), file(layout), 0.7), expected(kind, 0.7 * alpha / RANK)
        assert list(found) == list(wanted) and len(found) == len(wanted)
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype
            tolerance = 1e-6 if value.dtype == np.float32 else 2e-2
            np.testing.assert_allclose(*(x.astype(np.float32) for x in (found[name], value)), atol=tolerance, rtol=0)


def test_linear_maps_and_convolutions_of_one_pixel_stand_for_each_other():
    down, up = factors((6, 4))
    lora = {"proj.lora_down.weight": down, "proj.lora_up.weight": up}
    lora = {f"lora_unet_{name}": value for name, value in lora.items()}
    flat = with_lora({"proj.weight": normal(6, 4)}, lora, 1.0)["proj.weight"]
    pixel = with_lora({"proj.weight": normal(6, 4).reshape(6, 4, 1, 1)}, lora, 1.0)["proj.weight"]
    np.testing.assert_array_equal(flat, pixel[..., 0, 0])
    lora = {name: value.reshape(*value.shape, 1, 1) for name, value in lora.items()}
    np.testing.assert_array_equal(with_lora({"proj.weight": normal(6, 4)}, lora, 1.0)["proj.weight"], flat)


def test_the_oldest_names():
    down, up = factors((5, 6))
    stem = f"unet.{BLOCK}.processor.to_out_lora"
    found = with_lora(weights(), {f"{stem}.down.weight": down, f"{stem}.up.weight": up}, 2.0)
    name = f"{BLOCK}.to_out.0.weight"
    np.testing.assert_allclose(found[name], weights()[name] + 2 * up @ down, atol=1e-6)


def test_files_of_other_models_are_refused():
    lora = file("kohya")
    stem = kohya(f"{BLOCK}.to_q")
    other = "lora_unet_up_blocks_3_attentions_0_proj_in.lora_up.weight"
    for change, message in (
        ({other: normal(3, 2)}, f"'{other}' of 'a.safetensors' matches no weight.*another base model"),
        ({"lora_te_text_model_x.lora_up.weight": normal(3, 2)}, "changes a text encoder"),
        ({f"{stem}.dora_scale": normal(6)}, "dora_scale' of 'a.safetensors' is of a kind"),
        ({f"{stem}.hada_w1_a": normal(6)}, "of a kind that is not supported"),
        ({f"{stem}.lora_up.weight": None}, "has no pair"),
        ({f"{BLOCK}.to_q.lora_A.weight": normal(2, 5)}, "are the same factor; remove one of them"),
    ):
        changed = {name: value for name, value in (lora | change).items() if value is not None}
        with refused(message):
            with_lora(weights(), changed, 1.0, "a.safetensors")
    for down, up in (((2, 9), (6, 2)), ((2, 5), (7, 2)), ((2, 5), (6, 3)), ((2, 5, 3, 3), (6, 2, 1, 1))):
        changed = lora | {f"{stem}.lora_down.weight": normal(*down), f"{stem}.lora_up.weight": normal(*up)}
        with refused(f"'{stem}.lora_down.weight' of 'lora' has shape .* another base model"):
            with_lora(weights(), changed, 1.0)[f"{BLOCK}.to_q.weight"]


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_sums_are_those_of_diffusers(layout, tmp_path):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    from safetensors.torch import save_file

    net = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=6,
        attention_head_dim=2,
    )
    net.save_pretrained(tmp_path)
    layers = ["attentions.0.proj_in", "attentions.0.transformer_blocks.0.ff.net.0.proj", "resnets.0.conv1"]
    layers += [f"attentions.0.transformer_blocks.0.attn{i}.{name}" for i in (1, 2) for name in ("to_k", "to_out.0")]
    layers = [f"down_blocks.1.{layer}" for layer in layers] + ["down_blocks.0.downsamplers.0.conv", "conv_in"]
    lora = {}
    for layer in layers:
        down, up = factors(tuple(net.get_submodule(layer).weight.shape))
        if layout == "kohya":
            stem = kohya(layer)
            lora |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": np.float32(3)}
        else:
            lora |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    save_file({name: torch.tensor(value) for name, value in lora.items()}, tmp_path / "lora.safetensors")
    state, alphas = diffusers.StableDiffusionPipeline.lora_state_dict(str(tmp_path), weight_name="lora.safetensors")
    net.load_lora_adapter(state, network_alphas=alphas, prefix="unet")
    net.fuse_lora(lora_scale=0.7)
    net.unload_lora()
    found = with_lora(open_tensors(tmp_path), open_tensors(tmp_path / "lora.safetensors"), 0.7)
    wanted = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    assert sorted(found) == sorted(wanted)
    changed = 0
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-6)
        changed += np.abs(value - open_tensors(tmp_path)[name]).max() > 0.1
    assert changed == len(layers)
