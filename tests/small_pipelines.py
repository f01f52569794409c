"""Folders of weights as they are published, with small networks of random weights, written without PyTorch."""

import json
from functools import cache

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from diffusion.convert import clip as clip_names
from diffusion.convert import image_reward as image_reward_names
from diffusion.data.subword import byte_alphabet
from diffusion.nets.sd.blip import TINY_IMAGE_REWARD
from diffusion.nets.sd.clip import TINY_CLIP, CLIPText
from diffusion.nets.sd.unet import UNet
from diffusion.nets.sd.vae import AutoencoderKL
from experiments.families.text_to_image import Backbone
from tests.checkpoints import named_tensors, tensors_by
from tests.small_unets import inputs
from tests.torch_files import write_arrays
from tests.weights import randomized

MERGES = ("c a", "ca t</w>", "d o", "do g</w>", "r e", "re d</w>", "a t</w>", "p h", "ph o", "t o</w>", "pho to</w>")
SYMBOLS = list(byte_alphabet())
WORDS = [*SYMBOLS, *(f"{symbol}</w>" for symbol in SYMBOLS), *(merge.replace(" ", "") for merge in MERGES)]
VOCABULARY = {name: index for index, name in enumerate([*WORDS, "<|startoftext|>", "<|endoftext|>"])}
BERT_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "two", "cat", "dog", "red", "bench")

TEXT = CLIPText(width=16, layers=3, heads=2, feed_forward=32, vocab_size=len(VOCABULARY))
BIG_TEXT = CLIPText(24, 2, 3, 32, activation="gelu", projection=20, vocab_size=len(VOCABULARY))
UNET = UNet((8, 16), (1, 0), (2, 2), 16, 32, layers=1, groups=4)
XL_UNET = UNet((8, 16), (0, 2), (1, 2), 40, 32, 1, 2, groups=4, linear_projection=True, addition=(8, 20))
VAE = AutoencoderKL(channels=(8, 16), layers=1, groups=4)
# Small networks under the names of the published ones, whose place they take in `text_to_image.BACKBONES`.
BACKBONES = {
    "sd15": Backbone(UNET, VAE, (TEXT,), 8),
    "sdxl": Backbone(XL_UNET, VAE.clone(scale=0.13025), (TEXT, BIG_TEXT), 8),
}
FOLDERS = {"sd15": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}
CLASSES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
REWARD_CLIP = TINY_CLIP.clone(text_model=TINY_CLIP.text_model.clone(vocab_size=len(VOCABULARY)))
REWARD_FILES = ("ImageReward/ImageReward.pt", "HPSv2/HPS_v2.1_compressed.pt")

BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SCHEDULERS = {
    "sd15": BETAS
    | dict(_class_name="PNDMScheduler", clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1),
    "sdxl": BETAS
    | dict(_class_name="EulerDiscreteScheduler", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    | dict(timestep_spacing="leading", prediction_type="epsilon", use_karras_sigmas=False),
}


def write_json(path, fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


def save(folder, name, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)


@cache
def unet_params(kind, seed=0):
    net = BACKBONES[kind].unet
    return randomized(lambda key: net.init(key, *inputs(net)), 0.1, seed)


@cache
def vae_params(kind):
    net = BACKBONES[kind].vae
    return randomized(lambda key: net.init(key, jnp.zeros((1, 2, 2, 3))), 0.1, seed=1)


@cache
def text_params(net):
    ids = jnp.zeros((1, 77), jnp.int32)
    return randomized(lambda key: net.init(key, ids), 0.3, seed=2)["params"]


def text_tensors(net):
    """Return the tensors of a text encoder as transformers 4 named them."""
    return tensors_by(clip_names.name_of_text, text_params(net))


def unet_config(net):
    kinds = ["CrossAttnDownBlock2D" if layers else "DownBlock2D" for layers in net.transformer_layers]
    fields = dict(
        _class_name="UNet2DConditionModel",
        sample_size=8,
        block_out_channels=list(net.channels),
        down_block_types=kinds,
        up_block_types=[kind.replace("Down", "Up") for kind in reversed(kinds)],
        layers_per_block=net.layers,
        cross_attention_dim=net.context_width,
        attention_head_dim=list(net.heads),
        norm_num_groups=net.groups,
        transformer_layers_per_block=[max(1, layers) for layers in net.transformer_layers],
        use_linear_projection=net.linear_projection,
    )
    if net.addition:
        width, pooled = net.addition
        fields |= dict(addition_embed_type="text_time", addition_time_embed_dim=width)
        fields |= dict(projection_class_embeddings_input_dim=pooled + 6 * width)
    return fields


def vae_config(net):
    levels = len(net.channels)
    return dict(
        _class_name="AutoencoderKL",
        block_out_channels=list(net.channels),
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=net.layers,
        norm_num_groups=net.groups,
        scaling_factor=net.scale,
        sample_size=16,
    )


def text_config(net):
    return dict(
        architectures=["CLIPTextModelWithProjection" if net.projection else "CLIPTextModel"],
        model_type="clip_text_model",
        hidden_size=net.width,
        num_hidden_layers=net.layers,
        num_attention_heads=net.heads,
        intermediate_size=net.feed_forward,
        hidden_act=net.activation,
        vocab_size=net.vocab_size,
        max_position_embeddings=net.length,
        projection_dim=net.projection or 16,
        bos_token_id=len(VOCABULARY) - 2,
        eos_token_id=len(VOCABULARY) - 1,
        pad_token_id=len(VOCABULARY) - 1,
        torch_dtype="float32",
    )


def write_tokenizer(folder, pad="<|endoftext|>"):
    write_json(folder / "vocab.json", VOCABULARY)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    special = dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token=pad)
    write_json(folder / "special_tokens_map.json", special)
    config = dict(tokenizer_class="CLIPTokenizer", model_max_length=77, do_lower_case=True)
    write_json(folder / "tokenizer_config.json", special | config)


def write_pipeline(folder, kind):
    """Write a pipeline of diffusers, of the kind "sd15" or "sdxl"."""
    backbone = BACKBONES[kind]
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    parts = {name: ["diffusers", each] for name, each in parts.items()}
    parts["scheduler"] = ["diffusers", SCHEDULERS[kind]["_class_name"]]
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULERS[kind])
    write_json(folder / "unet" / "config.json", unet_config(backbone.unet))
    write_json(folder / "vae" / "config.json", vae_config(backbone.vae))
    for name, params in (("unet", unet_params(kind)), ("vae", vae_params(kind))):
        save(folder / name, "diffusion_pytorch_model.safetensors", named_tensors(params))
    for suffix, net, pad in zip(("", "_2"), backbone.encoders, ("<|endoftext|>", "!"), strict=False):
        parts[f"text_encoder{suffix}"] = ["transformers", text_config(net)["architectures"][0]]
        parts[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
        write_json(folder / f"text_encoder{suffix}" / "config.json", text_config(net))
        save(folder / f"text_encoder{suffix}", "model.safetensors", text_tensors(net))
        write_tokenizer(folder / f"tokenizer{suffix}", pad)
    more = dict(force_zeros_for_empty_prompt=True, image_encoder=[None, None], feature_extractor=[None, None])
    if kind == "sd15":
        more = dict(safety_checker=[None, None], feature_extractor=[None, None], requires_safety_checker=False)
    write_json(folder / "model_index.json", dict(_class_name=CLASSES[kind], _diffusers_version="0.19.0") | parts | more)
    return folder


def write_rewards(folder):
    """Write ImageReward, CLIP and HPS of the sizes of `REWARD_CLIP` and TINY_IMAGE_REWARD, and their vocabularies."""
    side, length = REWARD_CLIP.vision_model.image, REWARD_CLIP.text_model.length
    pair = jnp.zeros((1, side, side, 3)), jnp.zeros((1, length), jnp.int32)
    clip = folder / "clip-vit-large-patch14"
    write_tokenizer(clip)
    params = randomized(lambda key: REWARD_CLIP.init(key, *pair), seed=3)["params"]
    save(clip, "model.safetensors", tensors_by(clip_names.name_of, params))
    hps = randomized(lambda key: REWARD_CLIP.init(key, *pair), seed=4)["params"]
    net, side = TINY_IMAGE_REWARD, TINY_IMAGE_REWARD.vision[0]
    ids = jnp.zeros((1, 35), jnp.int32)
    blip = randomized(lambda key: net.init(key, jnp.zeros((1, side, side, 3)), ids, ids + 1), seed=6)["params"]
    trees = (image_reward_names.name_of, blip), (clip_names.name_of, hps)
    for file, (name_of, tree) in zip(REWARD_FILES, trees, strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / file, tensors_by(name_of, tree))
    (folder / "bert-base-uncased").mkdir()
    (folder / "bert-base-uncased" / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n")
    return folder


def lora_tensors(kind, seed=7, rank=2):
    """Return a LoRA in kohya's layout on linear layers and convolutions of the U-Net, with alpha, as LCM-LoRA's is."""
    rng, lora = np.random.default_rng(seed), {}
    for name, weight in sorted(named_tensors(unet_params(kind)).items()):
        inside = name.removesuffix(".weight")
        if weight.ndim == 1 or not any(part in name for part in ("attn", "ff.net", "conv1", "proj_in")):
            continue
        stem = "lora_unet_" + inside.replace(".", "_")
        outputs, inputs, *window = weight.shape
        lora[f"{stem}.lora_down.weight"] = rng.normal(0, 0.1, (rank, inputs, *window)).astype(np.float32)
        lora[f"{stem}.lora_up.weight"] = rng.normal(0, 0.3, (outputs, rank, *[1 for _ in window])).astype(np.float32)
        lora[f"{stem}.alpha"] = np.array(1.0, np.float32)
    return lora


def patch_sizes(patch):
    """Let the names of published networks stand for those of this module; `patch` is pytest's monkeypatch."""
    from experiments.families import image_rewards, text_to_image

    for name, backbone in BACKBONES.items():
        patch.setitem(text_to_image.BACKBONES, name, backbone)
    for name in ("CLIP_L", "CLIP_H"):
        patch.setattr(image_rewards, name, REWARD_CLIP)
    patch.setattr(image_rewards, "IMAGE_REWARD", TINY_IMAGE_REWARD)
