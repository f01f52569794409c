"""Folders of diffusers, and files of rewards, with tiny networks and random weights; no PyTorch is needed."""

import json
import string

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from diffusion.nets.sd.blip import TINY_IMAGE_REWARD
from diffusion.nets.sd.clip import TINY_CLIP
from experiments.families.text_to_image import BACKBONES, conditioning_like
from tests.checkpoints import named_tensors
from tests.torch_files import write_arrays
from tests.weights import randomized

DOWN, UP = ["DownBlock2D", "CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D", "UpBlock2D"]
UNET = dict(_class_name="UNet2DConditionModel", block_out_channels=[8, 16], down_block_types=DOWN, up_block_types=UP)
UNET |= dict(layers_per_block=1, norm_num_groups=4, attention_head_dim=2, cross_attention_dim=16)
XL = dict(cross_attention_dim=32, transformer_layers_per_block=[1, 2], use_linear_projection=True)
XL |= dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64)
VAE = dict(_class_name="AutoencoderKL", block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4)
VAE |= dict(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
TEXT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=512)
SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False)
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def write_json(path, fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


def write_tokenizer(folder):
    """A vocabulary of characters, without merges."""
    names = [name for letter in string.ascii_lowercase for name in (letter, f"{letter}</w>")]
    write_json(folder / "vocab.json", {name: i for i, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])})
    (folder / "merges.txt").write_text("#version: 0.2\n")


def text_tensors(net, seed):
    tree = randomized(lambda key: net.init(key, jnp.zeros((1, net.length), jnp.int32)), 0.1, seed)
    named = named_tensors(tree, loops=("layers",))
    return {name if name.startswith("text_projection") else f"text_model.{name}": each for name, each in named.items()}


def unet_tensors(kind, seed=0):
    net, side = BACKBONES[kind].unet, BACKBONES[kind].side
    text = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), conditioning_like(BACKBONES[kind], 1))
    return named_tensors(
        randomized(lambda key: net.init(key, jnp.zeros((1, side, side, 4)), jnp.zeros(1), *text), 0.1, seed)
    )


def write_pipeline(folder, kind, dtype):
    """A pipeline of the kind `tiny` or `tiny_xl`, U-Net and text encoders in a type of their own."""
    backbone, xl = BACKBONES[kind], kind == "tiny_xl"
    write_json(folder / "model_index.json", {"_class_name": f"StableDiffusion{'XL' * xl}Pipeline"})
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(folder / "unet" / "config.json", UNET | (XL if xl else {}))
    write_json(folder / "vae" / "config.json", VAE)
    halves = {name: value.astype(dtype) for name, value in unet_tensors(kind).items()}
    save_file(halves, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    pixels = jnp.zeros((1, backbone.pixels, backbone.pixels, 3))
    vae = randomized(lambda key: backbone.vae.init(key, pixels), 0.1, 1)
    write_arrays(folder / "vae" / "diffusion_pytorch_model.bin", named_tensors(vae))
    for number, net in enumerate(backbone.encoders):
        suffix = "_2" * number
        write_json(folder / f"text_encoder{suffix}" / "config.json", TEXT)
        tensors = text_tensors(net, 2 + number) | {"text_model.embeddings.position_ids": np.arange(77)[None]}
        save_file(tensors, folder / f"text_encoder{suffix}" / "model.safetensors")
        write_tokenizer(folder / f"tokenizer{suffix}")
    return folder


def write_lora(path, layer=LAYER, width=16):
    """A LoRA of one layer, in kohya's names."""
    rng, name = np.random.default_rng(7), f"lora_unet_{layer.replace('.', '_')}"
    arrays = {
        f"{name}.lora_down.weight": rng.normal(size=(2, width)),
        f"{name}.lora_up.weight": rng.normal(size=(16, 2)),
    }
    save_file(
        {key: value.astype(np.float32) for key, value in arrays.items()} | {f"{name}.alpha": np.ones((), np.float32)},
        path,
    )
    return path


def clip_tensors(net=TINY_CLIP):
    vision, text = net.vision_model, net.text_model

    def init(key):
        return net.init(key, jnp.zeros((1, vision.image, vision.image, 3)), jnp.zeros((1, text.length), jnp.int32))

    named = named_tensors(randomized(init, 0.1, 5), loops=("layers",))
    # The projections are beside the encoders.
    return {name.partition(".")[2] if "_projection" in name else name: value for name, value in named.items()}


def image_reward_tensors():
    net, ids = TINY_IMAGE_REWARD, jnp.zeros((1, 4), jnp.int32)
    pixels = jnp.zeros((1, net.vision[0], net.vision[0], 3))
    return named_tensors(randomized(lambda key: net.init(key, pixels, ids, ids), 0.1, 6), loops=("blocks", "layer"))
