"""The verb `convert` for pipelines of diffusers and rewards: the same networks, and nothing written for wrong files."""

import hashlib
import json
import shlex
import shutil
from functools import partial

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs import lidar_geneval
from diffusion.convert.clip import load_clip
from diffusion.convert.files import open_tensors
from diffusion.convert.image_reward import load_image_reward
from diffusion.nets.sd.blip import TINY_IMAGE_REWARD
from diffusion.nets.sd.clip import CLIP_H, CLIP_L, TINY_CLIP
from experiments.convert import rewards
from experiments.convert.command import run
from experiments.families import image_rewards, text_to_image
from experiments.geneval import clip as geneval_clip
from experiments.published import open_weights
from experiments.tasks.pipelines import check_weights, file_source
from tests.checks import refused
from tests.experiments.conftest import one_line
from tests.experiments.pipeline_files import (
    LAYER,
    clip_tensors,
    image_reward_tensors,
    unet_tensors,
    write_json,
    write_lora,
    write_pipeline,
    write_tokenizer,
)
from tests.torch_files import write_arrays

KINDS = {"sd15": "tiny", "sdxl": "tiny_xl"}
PROMPTS = ["a red kite", "a bus above two dogs"]


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch):
    """Put tiny networks in place of the published ones, so that files of theirs are accepted."""
    for kind, tiny in KINDS.items():
        monkeypatch.setitem(text_to_image.BACKBONES, kind, text_to_image.BACKBONES[tiny])


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder of weights with a pipeline of each kind and a LoRA; they are not changed."""
    folder = tmp_path_factory.mktemp("weights")
    for kind, tiny in KINDS.items():
        write_pipeline(folder / kind, tiny, np.float16 if kind == "sd15" else ml_dtypes.bfloat16)
        write_lora(folder / f"lora_{kind}.safetensors")
    return folder


@pytest.fixture
def weights(originals, tmp_path):
    """A copy of the folder of weights."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return tmp_path


def source(root, kind, pipeline, **fields):
    """The networks that a job would read, of a row whose weights are there."""
    config = lidar_geneval.get_config("paper")
    config.weights = str(root)
    config.text_to_image.update(backbone=kind, pipeline=pipeline, rewards=(), mix=(), measures=())
    config.sample.gaussian.lookahead.update(fields)
    check_weights(config)
    return file_source(config, text_to_image.BACKBONES[kind], root)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_converted_pipeline_holds_the_networks_and_tokenizers_of_the_original(kind, weights):
    lora, name = weights / f"lora_{kind}.safetensors", f"lora_{kind}.safetensors"
    run("diffusers", str(weights / kind), weights / "new")
    run("diffusers", str(weights / kind), weights / "fused", lora=str(lora), lora_scale=0.5)
    old, new = (source(weights, kind, each, lora=name, lora_scale=0.5) for each in (kind, "new"))
    fused, ahead = source(weights, kind, "fused"), source(weights, kind, kind, weights="fused")
    for number in range(len(text_to_image.BACKBONES[kind].encoders)):
        same(old(f"text_encoder_{number}"), new(f"text_encoder_{number}"))
        one, other = (each(f"tokenizer_{number}")(PROMPTS) for each in (old, new))
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one)) > 10
    same(old("vae"), new("vae"))
    same(old("unet"), new("unet"))
    same(old("lookahead"), new("lookahead"))  # the LoRA is added to the converted weights
    same(old("lookahead"), fused("unet"))
    same(old("lookahead"), ahead("lookahead"))
    changed = jax.tree.map(lambda left, right: bool((left != right).any()), old("unet"), fused("unet"))
    assert sum(jax.tree.leaves(changed)) == 1
    half = np.float16 if kind == "sd15" else ml_dtypes.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(new("unet"))} == {np.dtype(half)}


def test_the_description_has_what_was_fused_and_the_sums_of_the_sources(weights, capsys):
    save_file(unet_tensors("tiny", seed=8), weights / "dpo.safetensors")
    lora, unet = weights / "lora_sd15.safetensors", weights / "dpo.safetensors"
    # An older conversion is replaced, and what an interrupted one left.
    run("diffusers", str(weights / "sd15"), weights / "new")
    write_json(weights / "new.partial" / "config.json", {})
    capsys.readouterr()
    run("diffusers", str(weights / "sd15"), weights / "new", lora=str(lora), lora_scale=0.5, unet=str(unet))
    described = json.loads((weights / "new" / "config.json").read_text())
    assert described["layout"] == "diffusers" and described["kind"] == "sd15"
    assert described["fused"] == {"lora": lora.name, "lora_scale": 0.5, "unet": unet.name}
    files = {"lora": lora, "unet/dpo.safetensors": unet, "tokenizer/vocab.json": weights / "sd15/tokenizer/vocab.json"}
    files["vae/diffusion_pytorch_model.bin"] = weights / "sd15/vae/diffusion_pytorch_model.bin"
    for name, file in files.items():
        assert described["sha256"][name] == hashlib.sha256(file.read_bytes()).hexdigest()
    count = sum(value.size for value in load_file(unet).values())
    assert described["parts"]["unet"] == count and f"{count:,} parameters" in capsys.readouterr().out
    found = open_weights(weights / "new", "unet")
    for name, value in load_file(unet).items():
        assert (found[name] != value).any() == (name == f"{LAYER}.weight")
    assert sorted(each.name for each in weights.glob("new*")) == ["new"]


@pytest.mark.slow
def test_the_printed_command_draws_the_images_of_the_original(weights, capsys, succeed, tmp_path):
    run("diffusers", str(weights / "sd15"), weights / "new")
    _, name, *words = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert name == "launch.py" and f"--config.weights={weights}" in words
    small = [f"--config.sample.batch={jax.local_device_count()}", "--config.sample.steps=2"]
    small += ["--config.sample.gaussian.images=1"]
    drawn = []
    for pipeline in ("new", "sd15"):
        succeed(*words, *small, f"--config.text_to_image.pipeline={pipeline}")
        (file,) = set((tmp_path / "runs" / "jobs").glob("*/samples.npy")) - {path for path, _ in drawn}
        drawn.append((file, np.load(file)))
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    assert drawn[0][1].std() > 1


def test_rewards_are_those_of_the_original(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rewards, "CLIP_L", TINY_CLIP)
    monkeypatch.setattr(rewards, "IMAGE_REWARD", TINY_IMAGE_REWARD)
    clip, reward = tmp_path / "clip", write_arrays(tmp_path / "ImageReward.pt", image_reward_tensors())
    write_tokenizer(clip)
    save_file({name: value.astype(np.float16) for name, value in clip_tensors().items()}, clip / "model.safetensors")
    run("clip", str(clip), tmp_path / "new_clip")
    assert "--config.text_to_image.clip=new_clip" in capsys.readouterr().out
    run("image_reward", str(reward), tmp_path / "new_reward")
    assert "--config.text_to_image.image_reward=new_reward" in capsys.readouterr().out
    for vocabulary in ("vocab.json", "merges.txt"):
        assert (tmp_path / "new_clip" / vocabulary).read_bytes() == (clip / vocabulary).read_bytes()
    config = lidar_geneval.get_config("paper")
    config.text_to_image.update(backbone="tiny", clip="new_clip", image_reward="new_reward")
    scorers = image_rewards.scorers(config, ("clip", "image_reward"))
    same(scorers["clip"].read(tmp_path), load_clip(TINY_CLIP, open_tensors(clip), "clip")["params"])
    wanted = load_image_reward(open_tensors(reward), "reward", TINY_IMAGE_REWARD)["params"]
    same(scorers["image_reward"].read(tmp_path), wanted)
    # The classifier of colors reads either, too.
    monkeypatch.setattr(geneval_clip, "CLIP_L", TINY_CLIP)
    crop = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    features = [geneval_clip.load_clip(str(folder))[0]([crop]) for folder in (clip, tmp_path / "new_clip")]
    np.testing.assert_array_equal(*features)
    config.text_to_image.update(clip="new_reward")
    with refused("converted by --from=image_reward and has no clip"):
        image_rewards.scorers(config, ("clip",))["clip"].read(tmp_path)


def test_the_size_of_a_clip_is_found_in_either_layout(tmp_path):
    published = {"visual.proj": (1024, 768), "visual_projection.weight": (768, 1024)}
    assert all(
        rewards.clip_of({name: np.zeros(shape)}, tmp_path) == ("clip", CLIP_L) for name, shape in published.items()
    )
    assert rewards.clip_of({"module.visual.proj": np.zeros((1280, 1024))}, tmp_path) == ("hps", CLIP_H)


def without(path, name):
    save_file({key: value for key, value in load_file(path).items() if key != name}, path)


def with_one_more(path, name="more.weight"):
    save_file(load_file(path) | {name: np.zeros(2, np.float32)}, path)


WRONG = {
    "component": (lambda folder: shutil.rmtree(folder / "vae"), "no folder 'vae'"),
    "encoder": (lambda folder: (folder / "text_encoder/model.safetensors").unlink(), "text_encoder' holds neither"),
    "tokenizer": (lambda folder: (folder / "tokenizer/merges.txt").unlink(), "has no merges.txt"),
    "extra": (partial(with_one_more), "tensors that the network does not use, such as 'more.weight'"),
    "missing": (lambda path: without(path, "text_model.final_layer_norm.bias"), "has no tensor 'text_model.final_lay"),
    "kind": (
        lambda folder: write_json(folder / "model_index.json", {"_class_name": "FluxPipeline"}),
        "_class_name = 'FluxPipeline'",
    ),
    "sizes": (
        lambda folder: write_json(folder / "text_encoder/config.json", {"hidden_act": "gelu"}),
        "text_encoder has width 512 where text_to_image.backbone has 16",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_pipeline_is_refused_in_one_line_and_nothing_is_written(case, weights, cli, tmp_path):
    change, message = WRONG[case]
    change(weights / "sd15" / ("text_encoder/model.safetensors" if case in ("extra", "missing") else ""))
    one_line(cli("convert", "--from=diffusers", f"--checkpoint={weights / 'sd15'}"), message)
    assert not list(tmp_path.glob("runs*"))


def test_a_wrong_lora_is_refused_in_one_line_and_nothing_is_written(weights, cli, tmp_path):
    convert = "convert", "--from=diffusers", f"--checkpoint={weights / 'sd15'}"
    wide = write_lora(weights / "wide.safetensors", width=32)
    one_line(cli(*convert, f"--lora={wide}"), "this LoRA is for another base model")
    other = write_lora(weights / "other.safetensors", LAYER.replace("blocks.1", "blocks.3"))
    one_line(cli(*convert, f"--lora={other}"), "it is for another base model")
    one_line(cli("convert", "--from=clip", "--checkpoint=x", f"--lora={other}"), "--lora: goes with --from=diffusers")
    assert not list(tmp_path.glob("runs*"))


def test_other_wrong_input_is_refused_and_nothing_is_lost(monkeypatch, weights):
    def assert_error(match, layout, checkpoint, out="out", **options):
        before = sorted(weights.rglob("*"))
        with refused(match, (ValueError, FileNotFoundError)):
            run(layout, str(checkpoint), weights / out, **options)
        assert sorted(weights.rglob("*")) == before

    assert_error("holds other files, which would be lost", "diffusers", weights / "sd15", out="sdxl")
    assert_error("holds other files", "diffusers", weights / "sd15", out="sd15")
    assert_error("is no folder", "diffusers", weights / "lora_sd15.safetensors")
    assert_error("has no tensor", "diffusers", weights / "sd15", unet=str(weights / "lora_sd15.safetensors"))
    run("diffusers", str(weights / "sd15"), weights / "done")
    assert_error("is converted already", "diffusers", weights / "done")
    file = weights / "clip.safetensors"
    save_file(clip_tensors(), file)
    assert_error("no projection of images of CLIP ViT-L/14 or ViT-H/14", "clip", file)
    assert_error("is it this kind of model", "image_reward", file)
    monkeypatch.setattr(rewards, "CLIP_L", TINY_CLIP)
    assert_error("has no vocab.json and merges.txt; copy them", "clip", file)
    with_one_more(file)
    write_tokenizer(weights)
    assert_error("tensors that the network does not use, such as 'more.weight'", "clip", file)
