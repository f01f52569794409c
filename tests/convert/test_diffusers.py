"""Folders of diffusers: sizes from the configuration, weights in every form, outputs, and fields that are refused."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion.convert.diffusers import (
    PipelineFacts,
    SchedulerFacts,
    load_unet,
    load_vae,
    pipeline_facts,
    scheduler_facts,
    unet_of,
    vae_of,
)
from diffusion.nets.sd.unet import TINY_SD, TINY_SDXL
from diffusion.nets.sd.vae import TINY_VAE
from tests.checkpoints import named_tensors, relative
from tests.checks import refused
from tests.convert.diffusers_configs import NETS, SCHEDULER, TINY, UNETS, VAES
from tests.small_unets import inputs
from tests.torch_files import write_arrays
from tests.weights import randomized


def write(path, fields):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(fields))
    return path


@cache
def params(kind):
    net = NETS[kind]
    return randomized(lambda key: net.init(key, *inputs(net)), 0.1)


@cache
def output(kind):
    return np.asarray(jax.jit(NETS[kind].apply)(params(kind), *inputs(NETS[kind])))


def same(found, wanted, kind=None):
    """Check that trees are equal, those in the type `kind` after rounding to it."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        other = np.asarray(other).astype(kind or np.float32)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", NETS)
def test_sizes_of_unets(kind, tmp_path):
    file = write(tmp_path / "unet" / "config.json", UNETS[kind])
    assert all(unet_of(path) == NETS[kind] for path in (file, file.parent, tmp_path))


@pytest.mark.parametrize("kind", VAES)
def test_sizes_of_autoencoders(kind, tmp_path):
    config, net = VAES[kind]
    file = write(tmp_path / "vae" / "config.json", config)
    assert all(vae_of(path) == net for path in (file, file.parent, tmp_path))


@pytest.mark.parametrize(
    ("function", "config", "change", "message"),
    [
        (unet_of, UNETS["tiny_sd"], {"_class_name": "UNet2DModel"}, "_class_name = 'UNet2DModel'"),
        (unet_of, UNETS["tiny_sd"], {"act_fn": "gelu"}, "act_fn = 'gelu'; only 'silu' is supported"),
        (unet_of, UNETS["tiny_sd"], {"norm_eps": 1e-6}, "norm_eps = 1e-06"),
        (unet_of, UNETS["tiny_sd"], {"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256; this field is not"),
        (unet_of, UNETS["tiny_sd"], {"cross_attention_dim": [32, 64]}, "cross_attention_dim = "),
        (unet_of, UNETS["tiny_sd"], {"attention_head_dim": [4]}, "attention_head_dim = "),
        (unet_of, UNETS["tiny_sd"], {"up_block_types": ["UpBlock2D"] * 2}, "up_block_types = "),
        (unet_of, UNETS["tiny_sd"], {"down_block_types": ["AttnDownBlock2D"] * 2}, "down_block_types = "),
        (unet_of, UNETS["tiny_sdxl"], {"addition_embed_type": "image"}, "addition_embed_type = 'image'"),
        (unet_of, UNETS["tiny_sdxl"], {"addition_time_embed_dim": None}, "addition_time_embed_dim = None"),
        (unet_of, UNETS["tiny_sdxl"], {"projection_class_embeddings_input_dim": 40}, "dim = 40; use more"),
        (vae_of, VAES["tiny"][0], {"_class_name": "VQModel"}, "_class_name = 'VQModel'"),
        (vae_of, VAES["tiny"][0], {"shift_factor": 0.1}, "shift_factor = 0.1"),
        (vae_of, VAES["tiny"][0], {"use_quant_conv": False}, "use_quant_conv = False"),
        (vae_of, VAES["tiny"][0], {"up_block_types": ["AttnUpDecoderBlock2D"] * 2}, "up_block_types = "),
        (vae_of, VAES["tiny"][0], {"scaling_factor": "big"}, "scaling_factor = 'big'; use a positive number"),
        (scheduler_facts, SCHEDULER, {"clip_sample": True}, "clip_sample = True; use False"),
        (scheduler_facts, SCHEDULER, {"prediction_type": "sample"}, "prediction_type = 'sample'"),
        (scheduler_facts, SCHEDULER, {"beta_schedule": "linear"}, "beta_schedule = 'linear'; use 'scaled_linear'"),
        (scheduler_facts, SCHEDULER, {"timestep_spacing": "karras"}, "timestep_spacing = 'karras'"),
        (scheduler_facts, SCHEDULER, {"thresholding": True}, "thresholding = True"),
        (scheduler_facts, SCHEDULER, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
    ],
)
def test_other_networks_are_refused(function, config, change, message, tmp_path):
    file = write(tmp_path / "a.json", config | change)
    with refused(f"checkpoint: '{file}' has .*{message}"):
        function(file)


def test_facts_of_pipelines_and_schedulers(tmp_path):
    write(tmp_path / "scheduler" / "scheduler_config.json", SCHEDULER)
    facts = SchedulerFacts("epsilon", "scaled_linear", 0.00085, 0.012, 1000, "leading", 1, False)
    assert scheduler_facts(tmp_path) == scheduler_facts(tmp_path / "scheduler") == facts
    missing = {name: value for name, value in SCHEDULER.items() if name != "clip_sample"}
    assert scheduler_facts(write(tmp_path / "a.json", missing)) == facts
    index = tmp_path / "model_index.json"
    write(index, {"_class_name": "StableDiffusionPipeline"})
    assert pipeline_facts(tmp_path) == PipelineFacts(xl=False, zeros_for_empty_prompt=False)
    write(index, {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True})
    assert pipeline_facts(tmp_path) == PipelineFacts(xl=True, zeros_for_empty_prompt=True)
    for function, name in ((unet_of, "unet"), (vae_of, "vae"), (lambda path: load_unet(path, TINY_SD), "unet")):
        with refused(f"has no folder '{name}'", FileNotFoundError):
            function(tmp_path)
    write(index, {"_class_name": "FluxPipeline"})
    with refused("model_index.json' has _class_name = 'FluxPipeline'"):
        pipeline_facts(tmp_path)


def test_weights_of_single_files_and_folders(tmp_path):
    """The U-Net of DPO is in a folder unet, that of DMD2 is a file; names that are not the network's are an error."""
    tensors = named_tensors(params("tiny_sdxl"))
    (tmp_path / "unet").mkdir()
    save_file(tensors, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    file = write_arrays(tmp_path / "one_step.bin", tensors)
    for path in (tmp_path, file):
        same(load_unet(path, TINY_SDXL), params("tiny_sdxl"))
    with refused(f"'{file}' has no tensor"):
        load_unet(file, TINY_SD.clone(layers=3))
    with refused("1 tensors that the network does not use, such as 'more.weight'"):
        load_unet(write_arrays(tmp_path / "more.pt", tensors | {"more.weight": np.zeros(2)}), TINY_SDXL)
    down, up = np.full((2, 64), 0.5, np.float32), np.full((64, 2), 0.25, np.float32)
    stem = "mid_block.attentions.0.transformer_blocks.1.attn1.to_q"
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    changed = load_unet(file, TINY_SDXL, loras=[(tmp_path / "lora.safetensors", 2.0)])
    difference = jax.tree.map(lambda one, other: np.abs(one - np.asarray(other)).max((-2, -1)), *kernels(changed))
    # scale up down = 2 x (2 x 0.25 x 0.5), in the second of two blocks.
    assert difference.pop("attn1/to_q") == pytest.approx([0, 0.5], abs=1e-6)
    assert len(difference) == 9 and not any(value.any() for value in difference.values())


def kernels(tree):
    """Return kernels of the middle's transformer blocks by name, those of a tree and the original ones."""

    def of(tree):
        blocks = tree["params"]["mid_block"]["attentions_0"]["transformer_blocks"]
        leaves = jax.tree_util.tree_leaves_with_path(blocks)
        names = ["/".join(each.key for each in path[:-1]) for path, _ in leaves if path[-1].key == "kernel"]
        return dict(zip(names, (leaf for path, leaf in leaves if path[-1].key == "kernel"), strict=True))

    return of(tree), of(params("tiny_sdxl"))


# Outputs of diffusers 0.42.1 on these parameters and inputs, from the test below.
RECORDED = {
    "tiny_sd": [[0.9983724, 0.7591350, -1.5796794, 0.9251941], [1.0749601, -0.2149784, 0.1429307, -0.0195651]],
    "tiny_sdxl": [[-0.3244456, 0.1704398, -1.3649490, 0.8605199], [-0.3907080, -0.6545324, -1.5657201, 1.3668716]],
}


@pytest.mark.parametrize("kind", TINY)
def test_recorded_numbers_of_diffusers(kind):
    np.testing.assert_allclose(output(kind)[:, 5, 2], RECORDED[kind], rtol=0, atol=2e-5 * np.abs(output(kind)).max())


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    return pytest.importorskip("diffusers")


def reference_unet(diffusers, kind):
    import torch

    config = {name: value for name, value in UNETS[kind].items() if not name.startswith("_")}
    model = diffusers.UNet2DConditionModel.from_config(config).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in named_tensors(params(kind)).items()})
    return model


@pytest.mark.parametrize("kind", TINY)
def test_networks_agree_with_diffusers(kind, reference, tmp_path):
    import torch

    model = reference_unet(reference, kind)
    x, time, context, added = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), inputs(NETS[kind]))
    added = None if added is None else {"text_embeds": added.pooled, "time_ids": added.time_ids}
    with torch.no_grad():
        expected = model(x.permute(0, 3, 1, 2), time, context, added_cond_kwargs=added).sample.permute(0, 2, 3, 1)
    assert relative(output(kind), expected.numpy()) < 1e-5
    model.save_pretrained(tmp_path / "unet")
    assert unet_of(tmp_path) == NETS[kind]
    same(load_unet(tmp_path, NETS[kind]), params(kind))


def test_every_form_in_which_diffusers_saves(reference, tmp_path):
    model, net = reference_unet(reference, "tiny_sdxl"), TINY_SDXL
    for name, options in {"parts": {}, "binary": {"safe_serialization": False}}.items():
        model.save_pretrained(tmp_path / name, max_shard_size="1MB", **options)
        assert len(list((tmp_path / name).glob("*-of-*"))) > 4
        same(load_unet(tmp_path / name, net), params("tiny_sdxl"))
    model.save_pretrained(tmp_path / "one", safe_serialization=False)
    same(load_unet(tmp_path / "one", net), params("tiny_sdxl"))
    model.half().save_pretrained(tmp_path / "half", variant="fp16", max_shard_size="1MB")
    model.save_pretrained(tmp_path / "one", variant="fp16")
    same(load_unet(tmp_path / "one", net), params("tiny_sdxl"))
    for folder, variant in (("half", ""), ("half", "fp16"), ("one", "fp16")):
        same(load_unet(tmp_path / folder, net, variant=variant), params("tiny_sdxl"), np.float16)
    model.bfloat16().save_pretrained(tmp_path / "brain")
    same(
        load_unet(tmp_path / "brain", net),
        jax.tree.map(lambda leaf: leaf.astype(np.float16), params("tiny_sdxl")),
        "bfloat16",
    )


def vae_params():
    return randomized(lambda key: TINY_VAE.init(key, jnp.zeros((1, 2, 2, 3))))


def old_names(tensors):
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        tensors = {name.replace(f".attentions.0.{new}.", f".attentions.0.{old}."): x for name, x in tensors.items()}
    return tensors


def test_old_and_new_names_of_the_autoencoder(tmp_path):
    wanted = vae_params()
    tensors = named_tensors(wanted)
    assert len(tensors.keys() - old_names(tensors).keys()) == 16
    for name, arrays in (("new", tensors), ("old", old_names(tensors))):
        folder = tmp_path / name
        write(folder / "vae" / "config.json", VAES["tiny"][0])
        save_file(arrays, folder / "vae" / "diffusion_pytorch_model.safetensors")
        same(load_vae(folder, vae_of(folder)), wanted)


def test_old_names_are_those_of_diffusers(reference, tmp_path):
    """Its own loader renames them too, and saves the new ones."""
    wanted = vae_params()
    write(tmp_path / "vae" / "config.json", VAES["tiny"][0])
    save_file(old_names(named_tensors(wanted)), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    model = reference.AutoencoderKL.from_pretrained(tmp_path / "vae")
    model.save_pretrained(tmp_path / "again")
    assert not any("query" in name for name in load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors"))
    same(load_vae(tmp_path / "again", vae_of(tmp_path / "again")), wanted)
