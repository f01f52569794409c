"""Whole pipelines, from prompts to images, compared with those of diffusers on small networks from the same files.

Both begin with the noise of the same keys. `RECORDED` has numbers of diffusers 0.42.1 with transformers 5.24, and is
compared without those packages.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.base import defaults
from diffusion.rng import example_keys, fold, normal
from experiments import families
from experiments.families import text_to_image
from experiments.families.guidance import guided_sampler
from experiments.tasks import pipelines
from tests.checkpoints import named_tensors, relative
from tests.small_pipelines import FOLDERS, lora_tensors, patch_sizes, unet_params, write_pipeline

PROMPTS = ["a photo of a red dog", "Two cats... to the left of a bench, and the dog's 3 photos"]
IMAGES, SHAPE = 2, (8, 8, 4)
LORA, ONE_STEP = "lcm-lora-sdxl/pytorch_lora_weights.safetensors", "DMD2/dmd2_sdxl_1step_unet_fp16.safetensors"


def target(**fields):
    return {"sample.steps": 5} | {f"sample.gaussian.{name}": value for name, value in fields.items()}


def ahead(**fields):
    """Return fields of a lookahead sampler; its guidance is that of the sampler unless it is given."""
    fields = {f"sample.gaussian.lookahead.{name}": value for name, value in fields.items()}
    return {"sample.gaussian.method": "lidar", "sample.gaussian.lookahead.particles": IMAGES} | fields


LINSPACE = dict(timestep_spacing="linspace")
DISTILLED = dict(solver="consistency", guidance=1.0)
# Kind of pipeline, our fields, scheduler of diffusers with its fields, and the arguments of its call.
CASES = {
    **{
        f"{kind}, {name}": (kind, target(eta=eta), "DDIMScheduler", {}, dict(num_inference_steps=5, eta=eta))
        for kind in ("sd15", "sdxl")
        for name, eta in (("ddim", 0.0), ("ddpm", 1.0))
    },
    **{
        f"{kind}, dpm": (kind, ahead(steps=5), "DPMSolverMultistepScheduler", LINSPACE, dict(num_inference_steps=5))
        for kind in ("sd15", "sdxl")
    },
    "sdxl, karras": (
        "sdxl",
        ahead(steps=8, path="karras"),
        "DPMSolverMultistepScheduler",
        dict(use_karras_sigmas=True),
        dict(num_inference_steps=8),
    ),
    "sdxl, lcm lora": (
        "sdxl",
        ahead(steps=4, path="lcm", lora=LORA, **DISTILLED),
        "LCMScheduler",
        {},
        dict(num_inference_steps=4, guidance_scale=1.0),
    ),
    "sdxl, half of the lora": (
        "sdxl",
        ahead(steps=2, path="lcm", lora=LORA, lora_scale=0.5, **DISTILLED),
        "LCMScheduler",
        {},
        dict(num_inference_steps=2, guidance_scale=1.0),
    ),
    "sdxl, one step": (
        "sdxl",
        ahead(steps=1, path="indices", indices=(399,), weights=ONE_STEP, **DISTILLED),
        "LCMScheduler",
        {},
        dict(timesteps=[399], guidance_scale=1.0),
    ),
}
# Embeddings by the kind of pipeline, latents and images by the case.
EMBEDDINGS = {
    "sd15": {"context": [-0.6340938, -0.5737112, -0.6742976], "null": [-0.03810946, -0.2821842, -0.3632372]},
    "sdxl": {"context": [-2.046656, -1.56564, -1.571984], "null": [0.0, 0.0, 0.0], "pooled": [-0.2302494, -0.3856182]},
}
RECORDED = {
    "sd15, ddpm": {
        "latents": [-6.319529, -3.329384, -10.50998, 6.666312],
        "images": [0.5298977, 0.4627733, 0.274382, 0.5102902],
    },
    "sdxl, ddpm": {
        "latents": [-2.228837, -2.943317, -3.029544, 15.61498],
        "images": [0.5952421, 0.5980573, 0.2802346, 0.5245096],
    },
    "sd15, dpm": {
        "latents": [-13.17591, -0.9841866, -18.91074, 1.957893],
        "images": [0.3602923, 0.6373062, 0.3119768, 0.3753512],
    },
    "sdxl, dpm": {
        "latents": [-6.57338, -2.296439, -2.401588, 15.34052],
        "images": [0.5675545, 0.6855183, 0.2719114, 0.5474937],
    },
    "sdxl, karras": {
        "latents": [-22.96638, -11.46908, -4.125956, 5.173914],
        "images": [0.5247179, 0.7304335, 0.1667922, 0.6375886],
    },
    "sdxl, lcm lora": {
        "latents": [-27.29415, -17.68806, -14.19995, -0.003117485],
        "images": [0.4479072, 0.5978651, 0.3787748, 0.6138842],
    },
    "sdxl, half of the lora": {
        "latents": [-19.43404, -13.0724, -14.28008, -9.179646],
        "images": [0.4401862, 0.6459795, 0.4616536, 0.5381682],
    },
    "sdxl, one step": {
        "latents": [-0.5782267, -0.7175888, -1.469408, -0.9967659],
        "images": [0.3265236, 0.323001, 0.08665577, 0.1590788],
    },
    "sd15, ddim": {
        "latents": [-4.815586, -0.03282889, -6.708649, 0.7202356],
        "images": [0.4802897, 0.5769027, 0.2454456, 0.3073733],
    },
    "sdxl, ddim": {
        "latents": [-3.371265, -1.209509, -0.3498502, 6.419291],
        "images": [0.5435865, 0.6777519, 0.2937476, 0.4704843],
    },
}


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    patch_sizes(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for kind, name in FOLDERS.items():
        write_pipeline(folder / name, kind)
    for name, tensors in ((LORA, lora_tensors("sdxl")), (ONE_STEP, named_tensors(unet_params("sdxl", seed=8)))):
        (folder / name).parent.mkdir()
        save_file(tensors, folder / name)
    return folder


def config_of(name, **fields):
    kind, ours, *_ = CASES[name]
    config = defaults("lidar_geneval", "paper")
    config.model.update(net="text_to_image", dtype="float32")
    config.process.schedule = "scaled_linear"
    config.sample.gaussian.update(guidance=7.5, images=IMAGES)
    config.text_to_image.update(backbone=kind, pipeline=FOLDERS[kind])
    config.update_from_flattened_dict(ours | fields)
    return config


def slots():
    root = example_keys(jax.random.key(3), jnp.arange(len(PROMPTS)))
    return jax.vmap(lambda key: example_keys(key, jnp.arange(IMAGES)))(root)


def drawn(name, weights):
    """Return our conditioning, latents [P n, h, w, 4] and images of a case."""
    config = config_of(name)
    pipelines.check_pipeline(weights / config.text_to_image.pipeline, text_to_image.backbone_of(config))
    source = pipelines.file_source(config, text_to_image.backbone_of(config), weights)
    text, null = pipelines.encoded(text_to_image.backbone_of(config), source, PROMPTS)
    system, prompted = families.system(config, 1), text_to_image.Prompted(text, null, {})
    sampler = guided_sampler(config, system, text_to_image.latent_reward(config))
    if sampler.lookahead:
        distilled = config.sample.gaussian.lookahead.weights or config.sample.gaussian.lookahead.lora
        latents = jax.jit(sampler.lookahead)(source("lookahead" if distilled else "unet"), slots(), prompted)
    else:
        latents = jax.jit(lambda *inputs: sampler.draw(*inputs, None, {}))(source("unet"), {}, slots(), prompted)
    latents = latents.reshape(-1, *SHAPE)
    images = jax.jit(text_to_image.decoder(config))(source("vae"), latents)
    return SimpleNamespace(text=text, null=null, latents=np.asarray(latents), images=np.asarray(images))


def numbers(result):
    """Return a few numbers of a result, for the record."""
    shown = {"context": result.text.context[1, 5:40:17, 3], "null": result.null.context[0, 2:40:17, 3]}
    if result.text.added is not None:
        shown["pooled"] = result.text.added.pooled[:, 7]
    shown |= {"latents": result.latents[1:3, 2, 5, :2].ravel(), "images": result.images[1:3, 3, 9, :2].ravel()}
    return {part: [float(f"{value:.7g}") for value in each] for part, each in shown.items()}


@pytest.mark.parametrize("name", CASES)
def test_recorded_numbers_of_diffusers(name, weights):
    result = drawn(name, weights)
    for part, values in numbers(result).items():
        scale = {"latents": np.abs(result.latents).max(), "images": 1.0}.get(part, np.abs(result.text.context).max())
        wanted = (EMBEDDINGS[CASES[name][0]] | RECORDED[name])[part]
        np.testing.assert_allclose(values, wanted, rtol=0, atol=2e-5 * scale, err_msg=part)


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return pytest.importorskip("diffusers")


def channels_first(x):
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1))


def reference_pipeline(diffusers, weights, name):
    """Return the pipeline with its scheduler, and the U-Net of the case."""
    kind, ours, scheduler, fields, _ = CASES[name]
    pipe = getattr(diffusers, "StableDiffusionXLPipeline" if kind == "sdxl" else "StableDiffusionPipeline")
    more = dict(add_watermarker=False) if kind == "sdxl" else {}
    pipe = pipe.from_pretrained(weights / FOLDERS[kind], **more)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **fields)
    if ours.get("sample.gaussian.lookahead.weights"):
        from safetensors.torch import load_file

        pipe.unet.load_state_dict(load_file(weights / ONE_STEP))
    if ours.get("sample.gaussian.lookahead.lora"):
        pytest.importorskip("peft")
        pipe.load_lora_weights(weights / LORA)
        pipe.fuse_lora(lora_scale=ours.get("sample.gaussian.lookahead.lora_scale", 1.0))
        pipe.unload_lora_weights()
    return pipe


def expected(diffusers, weights, name, monkeypatch):
    """Return what diffusers gives for a case, with our noise in place of its own."""
    *_, arguments = CASES[name]
    pipe, keys, step = reference_pipeline(diffusers, weights, name), slots().reshape(-1), iter(range(99))

    def noise(*shape, **options):
        return channels_first(normal(fold(fold(keys, "step"), next(step)), SHAPE))

    for module in ("ddim", "lcm"):
        monkeypatch.setattr(getattr(diffusers.schedulers, f"scheduling_{module}"), "randn_tensor", noise)
    start = channels_first(normal(fold(keys, "start"), SHAPE))
    outputs = {}
    arguments = dict(guidance_scale=7.5, num_images_per_prompt=IMAGES) | arguments
    more = dict(height=16, width=16)
    for output in ("latent", "np"):
        step = iter(range(99))
        outputs[output] = pipe(PROMPTS, latents=start, output_type=output, **arguments, **more).images
    embeddings = pipe.encode_prompt(PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    text, null, *pooled = [each.detach().numpy() for each in embeddings]
    added = [SimpleNamespace(pooled=each) for each in pooled] or [None, None]
    return SimpleNamespace(
        text=SimpleNamespace(context=text, added=added[0]),
        null=SimpleNamespace(context=null, added=added[1]),
        latents=np.moveaxis(outputs["latent"].detach().numpy(), 1, -1),
        images=outputs["np"],
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_pipelines_agree_with_diffusers(name, weights, reference, monkeypatch):
    found, wanted = drawn(name, weights), expected(reference, weights, name, monkeypatch)
    errors = {
        "context": relative(found.text.context, wanted.text.context),
        "null": np.abs(found.null.context - wanted.null.context).max() / np.abs(wanted.text.context).max(),
        "latents": relative(found.latents, wanted.latents),
        "images": np.abs(found.images - wanted.images).max(),
    }
    if found.text.added is not None:
        errors["pooled"] = relative(found.text.added.pooled, wanted.text.added.pooled)
        assert not np.any(found.null.added.pooled) and not np.any(wanted.null.added.pooled)
    assert 0.2 < wanted.images.std() and max(errors.values()) < 1e-5, errors
