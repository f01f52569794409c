"""Bad input of text-to-image jobs: one line that names field and remedy, and status 2, before anything is drawn."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.families import image_rewards
from experiments.tasks import text_to_image as task
from tests.experiments.conftest import one_line, words_of
from tests.small_pipelines import FOLDERS, lora_tensors, patch_sizes, write_json, write_pipeline, write_rewards

TABLE = "--config=configs/lidar_geneval.py:gpu"
VANILLA, LIDAR = "--row=SD 1.5, DDPM: vanilla", "--row=SD 1.5, DDPM: LiDAR, DPM-5, 3"
PIPELINE = FOLDERS["sd15"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Use networks of small sizes, and one device."""
    patch_sizes(monkeypatch)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = write_rewards(tmp_path_factory.mktemp("published"))
    for kind, name in FOLDERS.items():
        write_pipeline(folder / name, kind)
    return folder


@pytest.fixture
def weights(published, tmp_path):
    """Return a copy of the weights, which a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


@pytest.fixture
def sample(cli, tmp_path):
    """Return `sample(row, fields)`, which draws a prompt in two steps, and checks that a refusal leaves no images."""

    def call(row=VANILLA, **fields):
        fields = {key.replace("__", "."): value for key, value in fields.items()}
        usual = {"data.source": "geneval_examples", "geneval.detector": "none", "sample.steps": 2}
        usual |= {"sample.gaussian.prompts": 1, "sample.gaussian.images": 2, "model.dtype": "float32"}
        usual |= {"sample.gaussian.lookahead.particles": 3, "sample.gaussian.lookahead.steps": 2}
        result = cli("sample", TABLE, row, *words_of(usual | fields))
        if result[0]:
            assert not list((tmp_path / "runs").rglob("*.png"))
        return result

    return call


def late(result):
    """Return a refusal without the line that says that the job runs."""
    status, out, err = result
    return status, out, "".join(line for line in err.splitlines(keepends=True) if not line.startswith("[1/1]"))


def edited(file, **fields):
    write_json(file, json.loads(file.read_text()) | fields)


def test_weights_of_files_draw_and_score_images(sample, weights, tmp_path):
    """Everything that refuses below is there: a LoRA on the lookahead sampler, rewards, and the pipeline of files."""
    save_file(lora_tensors("sd15"), weights / "lora.safetensors")
    status, _, error = sample(LIDAR, weights=weights, sample__gaussian__lookahead__lora="lora.safetensors")
    assert status == 0, error
    (scores,) = (tmp_path / "runs").rglob("scores.json")
    rewards = json.loads(scores.read_text())["rewards"]
    assert rewards.keys() == {"image_reward", "clip", "hps"}
    assert all(len(each) == 2 and np.all(np.isfinite(each)) for each in rewards.values())
    assert len(list((tmp_path / "runs").rglob("images/00000/samples/*.png"))) == 2


def test_weights_are_asked_for(sample, cli, tmp_path):
    one_line(sample(), "weights: empty; pass --config.weights=FOLDER", "lidar.md", VANILLA.removeprefix("--row="))
    paper = ("sample", "--config=configs/lidar_geneval.py:paper", VANILLA)
    one_line(cli(*paper, "--config.data.source=geneval_examples"), "weights: empty; pass --config.weights=FOLDER")
    one_line(
        sample(weights=tmp_path), "text_to_image.pipeline: 'stable-diffusion-v1-5' is not in the folder of weights"
    )
    one_line(sample(weights=tmp_path / "nowhere"), "text_to_image.pipeline: 'stable-diffusion-v1-5' is not in")


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("ImageReward/ImageReward.pt", "text_to_image.image_reward"),
        ("bert-base-uncased", "text_to_image.bert"),
        ("clip-vit-large-patch14", "text_to_image.clip"),
        ("HPSv2/HPS_v2.1_compressed.pt", "text_to_image.hps"),
    ],
)
def test_files_of_rewards_are_asked_for(file, field, sample, weights):
    path = weights / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    one_line(sample(weights=weights), f"{field}: '{file}' is not in the folder of weights", "download it there")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_components_of_pipelines_are_asked_for(part, sample, weights):
    shutil.rmtree(weights / PIPELINE / part)
    one_line(sample(weights=weights), f"{weights / PIPELINE}' has no folder '{part}'", "copy the whole pipeline")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("scheduler/scheduler_config.json", dict(clip_sample=True), "clip_sample = True; use False"),
        ("scheduler/scheduler_config.json", dict(prediction_type="v_prediction"), "is not the schedule of"),
        ("scheduler/scheduler_config.json", dict(beta_end=0.02), "is not the schedule of Stable Diffusion 1.5"),
        (
            "unet/config.json",
            dict(cross_attention_dim=24),
            "unet has context_width 24 where text_to_image.backbone has 16",
        ),
        (
            "vae/config.json",
            dict(scaling_factor=0.13025),
            "vae has scale 0.13025 where text_to_image.backbone has 0.18215",
        ),
        ("unet/config.json", dict(class_embed_type="timestep"), "class_embed_type = 'timestep'"),
        ("model_index.json", dict(_class_name="FluxPipeline"), "_class_name = 'FluxPipeline'"),
        ("model_index.json", dict(_class_name="StableDiffusionXLPipeline"), "has no folder 'text_encoder_2'"),
    ],
)
def test_other_pipelines_are_refused(file, fields, message, sample, weights):
    edited(weights / PIPELINE / file, **fields)
    one_line(sample(weights=weights), message)


def test_the_pipeline_of_sdxl_is_no_stable_diffusion(sample, weights):
    one_line(
        sample(weights=weights, text_to_image__pipeline=FOLDERS["sdxl"]),
        f"text_to_image.pipeline: {weights / FOLDERS['sdxl']} is a pipeline of SDXL; set text_to_image.backbone to it",
    )
    edited(weights / FOLDERS["sdxl"] / "model_index.json", force_zeros_for_empty_prompt=False)
    fields = dict(text_to_image__backbone="sdxl", text_to_image__pipeline=FOLDERS["sdxl"])
    one_line(sample(weights=weights, **fields), "force_zeros_for_empty_prompt")


def test_damaged_weights_are_named(sample, weights):
    (weights / PIPELINE / "model_index.json").write_text("{")
    one_line(sample(weights=weights), "model_index.json' is not a JSON file")
    write_pipeline(weights / PIPELINE, "sd15")
    file = weights / PIPELINE / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if name != "decoder.conv_in.bias"}, file)
    one_line(late(sample(weights=weights)), "vae' has no tensor 'decoder.conv_in.bias'; is it this kind of model?")
    file.write_bytes(file.read_bytes()[:1000])
    one_line(sample(weights=weights), "diffusion_pytorch_model.safetensors' is not a readable safetensors file")
    (weights / PIPELINE / "tokenizer" / "merges.txt").unlink()
    one_line(sample(weights=weights), "tokenizer' has no merges.txt")


def test_lookahead_files_of_other_models_are_refused(sample, weights):
    save_file(lora_tensors("sdxl"), weights / "lora.safetensors")
    fields = dict(weights=weights, sample__gaussian__lookahead__lora="lora.safetensors")
    one_line(sample(LIDAR, **fields), "lora: 'lora_unet_", "it is for another base model")
    one_line(
        sample(LIDAR, weights=weights, sample__gaussian__lookahead__lora="none.safetensors"),
        "sample.gaussian.lookahead.lora: 'none.safetensors' is not in the folder of weights",
    )
    fields = dict(weights=weights, sample__gaussian__lookahead__weights=f"{FOLDERS['sdxl']}/unet")
    one_line(late(sample(LIDAR, **fields)), "unet' has ", "is it this")


def test_random_weights_and_files_exclude_each_other(sample, weights):
    message = "text_to_image.random: is set, and weights are given; leave one of them out"
    one_line(sample(weights=weights, text_to_image__random=True), message)
    one_line(sample(LIDAR, text_to_image__random=True, sample__gaussian__lookahead__lora="lora.pt"), message)
    one_line(sample(weights=weights, text_to_image__backbone="tiny"), "tiny has no published weights")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(text_to_image__rewards="('beauty',)"), "text_to_image.rewards: unknown 'beauty'"),
        (dict(text_to_image__measures="('fid',)"), "text_to_image.measures: unknown 'fid'"),
        (dict(text_to_image__mix="(0.5, 0.5)"), "text_to_image.mix: 2 weights for 1 rewards; give one for each"),
        (dict(text_to_image__mix="(0.0,)"), "text_to_image.mix: 1 weights for 1 rewards; give one for each, not all"),
        (dict(sample__gaussian__method="dream"), "sample.gaussian.method: unknown 'dream'"),
        (dict(sample__gaussian__path="spiral"), "sample.gaussian.path: unknown 'spiral'"),
        (dict(text_to_image__backbone="sd3"), "text_to_image.backbone"),
        (dict(sample__steps=0), "sample.steps"),
        (dict(sample__gaussian__images=0), "sample.gaussian.images"),
        (dict(data__source="geneval"), "evaluation_metadata.jsonl' is not a file"),
        (dict(data__source="captions", data__path=""), "data.path: captions expects a text file"),
        (dict(data__source="geneval", data__path="/nowhere/prompts.jsonl"), "prompts: '/nowhere/prompts.jsonl' is not"),
    ],
)
def test_wrong_fields_are_named(fields, message, sample, weights):
    one_line(sample(weights=weights, **fields), message)


def test_a_broken_line_of_prompts_is_named(sample, weights, tmp_path):
    file, good = tmp_path / "prompts.jsonl", '{"tag": "single_object", "include": [{"class": "cat", "count": 1}]'
    for line, message in (("no JSON", "is not a JSON object"), (f"{good}}}", "has no prompt")):
        file.write_text(f'{good}, "prompt": "a photo of a cat"}}\n{line}\n')
        result = sample(weights=weights, data__source="geneval", data__path=file)
        one_line(result, f"prompts: line 2 of '{file}' {message}")


def test_batches_that_devices_do_not_divide_are_refused(sample, weights, monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    one_line(sample(weights=weights), "sample.batch: 1 prompts are no multiple of 2 local devices")


def test_a_detector_needs_pytorch_before_anything_is_drawn(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.geneval.detector.find_spec", lambda name: None)
    row = ("run", "--config=configs/lidar_geneval.py:debug", "--config.geneval.detector=random")
    one_line(cli(*row), "the detector needs torch and transformers")
    assert not (tmp_path / "runs" / "jobs").exists()


@pytest.mark.parametrize("when", ["annotation", "score"])
def test_rewards_that_are_no_numbers_are_named(when, sample, weights, monkeypatch, tmp_path):
    """Broken weights of ImageReward make broken rewards, of lookahead samples, and without them of finished images."""
    known = image_rewards.image_reward_scorer

    def broken(*args):
        scorer = known(*args)
        return scorer._replace(score=lambda *inputs: scorer.score(*inputs) / 0.0)

    monkeypatch.setattr(image_rewards, "image_reward_scorer", broken)
    result = sample(LIDAR if when == "annotation" else VANILLA, weights=weights)
    prompt = next(iter(task.captions.EXAMPLES))["prompt"]
    one_line(late(result), f"text_to_image.image_reward: the reward of image 0 of {prompt!r} is ", "inf", "model.dtype")
    assert not list((tmp_path / "runs").rglob("*.npz")) and not list((tmp_path / "runs").rglob("scores.json"))
