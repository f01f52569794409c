"""Configurations of networks and schedulers as diffusers writes them, published and tiny ones."""

from diffusion.nets.sd.unet import SD15, SDXL, TINY_SD, TINY_SDXL
from diffusion.nets.sd.vae import SD_VAE, SDXL_VAE, TINY_VAE

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def unet_config(channels, kinds, **fields):
    down = [kind.format("Down") for kind in kinds]
    up = [kind.format("Up") for kind in reversed(kinds)]
    fields = {"block_out_channels": channels, "down_block_types": down, "up_block_types": up} | fields
    return {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "sample_size": 64} | fields


def vae_config(channels, **fields):
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * len(channels)}
    kinds |= {"up_block_types": ["UpDecoderBlock2D"] * len(channels)}
    return {"_class_name": "AutoencoderKL", "block_out_channels": channels, "layers_per_block": 2} | kinds | fields


# The fields of the published configurations that are not at their defaults, and of small ones.
SDXL_FIELDS = dict(use_linear_projection=True, addition_embed_type="text_time", upcast_attention=None)
UNETS = {
    "sd15": unet_config([320, 640, 1280, 1280], [CROSS, CROSS, CROSS, PLAIN], cross_attention_dim=768),
    "sdxl": unet_config(
        [320, 640, 1280],
        [PLAIN, CROSS, CROSS],
        **SDXL_FIELDS,
        cross_attention_dim=2048,
        attention_head_dim=[5, 10, 20],
        transformer_layers_per_block=[1, 2, 10],
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "tiny_sd": unet_config([32, 64], [PLAIN, CROSS], cross_attention_dim=32, attention_head_dim=4),
    "tiny_sdxl": unet_config(
        [32, 64],
        [PLAIN, CROSS],
        **SDXL_FIELDS,
        cross_attention_dim=64,
        attention_head_dim=4,
        transformer_layers_per_block=[1, 2],
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    ),
}
NETS = {"sd15": SD15, "sdxl": SDXL, "tiny_sd": TINY_SD, "tiny_sdxl": TINY_SDXL}
TINY = ("tiny_sd", "tiny_sdxl")
VAES = {
    "sd": (vae_config([128, 256, 512, 512], latent_channels=4), SD_VAE),
    "sdxl": (vae_config([128, 256, 512, 512], scaling_factor=0.13025, force_upcast=True), SDXL_VAE),
    "tiny": (vae_config([32, 64]), TINY_VAE),
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
    "trained_betas": None,
}
