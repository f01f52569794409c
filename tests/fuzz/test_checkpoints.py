"""Checkpoints of PyTorch for `convert`, and folders of weights, damaged, of another kind, or made to run code."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from diffusion.data import stored_tokenizers
from diffusion.data.tokenizers import bytes_tokenizer
from diffusion.train.weights import save_weights
from experiments import families, run
from experiments.plan import resolve
from tests import torch_files
from tests.checks import LEFT_BY_ORBAX
from tests.experiments.pipeline_files import write_lora, write_pipeline
from tests.experiments.weight_files import gpt2_file, gpt2_vocabulary, mdlm_file
from tests.fuzz import mutations, small_table
from tests.fuzz.commands import ROOT, case, checked, holds
from tests.weights import randomized

TEXT = "".join(f"the {number} words of the line that is read\n" for number in range(300))
HIDDEN = 64
CALLS = [
    ("os", "mkdir", "executed"),
    ("builtins", "eval", "__import__('os').mkdir('executed')"),
    ("builtins", "int", "x"),
]
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, -1, 64, 2**31 - 1]), max_size=3)
WORDS = {
    "mdlm": [["--from=mdlm", "--checkpoint=mdlm.safetensors"], ["--from=mdlm", "--checkpoint=.", "--tokenizer=gpt2"]],
    "prime": [["--from=prime", "--checkpoint=prime.safetensors"], ["--from=mdlm", "--checkpoint=prime.safetensors"]],
    "gpt2": [["--from=gpt2", "--checkpoint=.", "--heads=4"], ["--from=gpt2", "--checkpoint=model.safetensors"]],
    "torch": [["--from=mdlm", "--checkpoint=model.pt"], ["--from=gpt2", "--checkpoint=model.pt", "--heads=4"]],
    "split": [["--from=mdlm", "--checkpoint=."], ["--from=mdlm", "--checkpoint=model.safetensors.index.json"]],
    "pipeline": [
        ["--from=diffusers", "--checkpoint=."],
        ["--from=diffusers", "--checkpoint=.", "--lora=lora.safetensors"],
    ],
    "rewards": [
        ["--from=clip", "--checkpoint=mdlm.safetensors"],
        ["--from=image_reward", "--checkpoint=mdlm.safetensors"],
    ],
}


@pytest.fixture(scope="module")
def sources(base):
    """Return a folder with a folder of each kind of checkpoint."""
    folder = base / "checkpoints"
    for name in WORDS:
        (folder / name).mkdir(parents=True)
    tensors = mdlm_file(folder / "mdlm" / "mdlm.safetensors", vocabulary=258)
    gpt2_vocabulary(folder / "mdlm" / "gpt2")
    shutil.copy(folder / "mdlm" / "mdlm.safetensors", folder / "rewards")
    mdlm_file(folder / "prime" / "prime.safetensors", vocabulary=257, table=(6, HIDDEN // 4))
    gpt2_file(folder / "gpt2" / "model.safetensors", vocabulary=257)
    gpt2_vocabulary(folder / "gpt2")
    torch_files.write_arrays(folder / "torch" / "model.pt", tensors)
    shutil.copy(folder / "mdlm" / "mdlm.safetensors", folder / "split" / "part.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "part.safetensors")}
    (folder / "split" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "split" / "config.json").write_text(
        json.dumps({"n_heads": 4, "model_length": 16, "time_conditioning": False})
    )
    write_pipeline(folder / "pipeline", "tiny", np.float32)
    write_lora(folder / "pipeline" / "lora.safetensors")
    return folder


@st.composite
def pickled(draw):
    """Return the content of a file of `torch.save` with tensors of any shape, and calls of functions."""
    items, storages = {}, {}
    for number in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["state_dict", "model", "ema", f"backbone.x{number}", "vocab_embed.embedding"]))
        shape, strides, offset = draw(SHAPES), draw(SHAPES), draw(st.sampled_from([0, 0, 1, -1, 2**31 - 1]))
        kind = draw(st.sampled_from(["FloatStorage", "BFloat16Storage", "LongStorage", "NoStorage"]))
        tensor = torch_files.tensor(str(number), kind, shape, strides, offset)
        items[name] = draw(st.sampled_from([tensor, tensor, torch_files.call(*draw(st.sampled_from(CALLS)))]))
        if draw(st.integers(0, 4)):
            storages[str(number)] = b"\0" * draw(st.sampled_from([0, 4, 48, 1001]))
    return items, storages


def damage(data, place: Path, file: Path) -> None:
    """Damage a file, or put one in its place that would run code."""
    content = file.read_bytes()
    how = data.draw(st.integers(0, 9))
    if how < 5 and file.suffix == ".safetensors":
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(data.draw(mutations.changed(json.loads(content[8 : 8 + size])))).encode()
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    elif how < 6 and file.suffix in (".pt", ".bin"):
        torch_files.write(file, *data.draw(pickled()))
    elif how < 6 and file.suffix == ".json":
        file.write_text(json.dumps(data.draw(mutations.changed(json.loads(content)))))
    elif how < 9:
        file.write_bytes(data.draw(mutations.damaged(content)))
    else:
        file.unlink()
        data.draw(st.sampled_from([file.mkdir, lambda: None, lambda: file.symlink_to(file)]))()


@pytest.mark.slow
def test_conversions(base, sources):
    def check(data):
        kind = data.draw(st.sampled_from(sorted(WORDS)))
        with case(base) as place:
            shutil.copytree(sources / kind, place, dirs_exist_ok=True)
            files = sorted(path for path in place.rglob("*") if path.is_file())
            damage(data, place, data.draw(st.sampled_from(files)))
            checked(place, "convert", *data.draw(st.sampled_from(WORDS[kind])))

    holds(check, st.data(), 60)


@pytest.fixture(scope="module")
def weights(base):
    """Return the weights of a row of the small table, with what they were trained on."""
    config = small_table.get_config("debug")
    system = families.system(resolve(config, {}, 0), bytes_tokenizer().vocab_size)
    save_weights(base / "weights" / "weights", randomized(system.init))
    (base / "weights" / "weights" / stored_tokenizers.FILE).write_text(stored_tokenizers.record(bytes_tokenizer()))
    overrides = {"model.hidden": 16, "codec.digits": 1}
    (base / "weights" / "config.json").write_text(json.dumps({"layout": "mdlm", "overrides": overrides, "parts": {}}))
    return base / "weights"


@pytest.mark.slow
@LEFT_BY_ORBAX
def test_folders_of_weights(base, weights, monkeypatch):
    def load(job, workdir, profile=0):
        found = prepare(job, workdir, profile)
        found.weights()
        return found

    prepare = run.prepare
    monkeypatch.setattr(run, "prepare", load)
    table = f"--config={ROOT}/tests/fuzz/small_table.py:debug"
    verbs = [["evaluate"], ["sample"], ["train"], ["evaluate", "--config.model.hidden=32"]]

    def check(data):
        with case(base) as place:
            (place / "text.txt").write_text(TEXT)
            shutil.copytree(weights, place / "weights")
            files = sorted(path for path in (place / "weights").rglob("*") if path.is_file())
            damage(data, place, data.draw(st.sampled_from(files)))
            words = data.draw(st.sampled_from(verbs))
            checked(
                place, *words, table, "--row=MDLM, 4 steps", "--config.checkpoint=weights", "--config.judge.name=none"
            )

    holds(check, st.data(), 20)
    jax.clear_caches()
