"""Public checkpoints of language models as folders for `evaluate` and `sample`: MDLM, MDM-Prime, G-Star, and GPT-2."""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from configs import gstar_text, mdlm_owt
from diffusion.convert.gpt2 import load_gpt2
from diffusion.convert.mdlm import Checkpoint, beside, load_mdlm
from experiments.convert.folder import Conversion, files_of
from experiments.convert.tokenizers import TokenizerFiles, tokenizer_of
from experiments.convert.uses import command

PERMUTATION = "permutation.npy"
# Text that is always there, and few of its windows, for a first look.
LOOK = {
    "data.source": "python_stdlib",
    "evaluate.zero_shot_required": False,
    "evaluate.batches": 1,
    "evaluate.batch": 8,
}
DRAW = {"judge.name": "none", "quality.mauve": False, "sample.count": 8, "sample.batch": 8, "sample.steps": 32}
ELSEWHERE = (
    "(few windows of Python's standard library; data.source=openwebtext, data.path=FOLDER: the published figure)"
)


def mdlm(
    path: Path, heads: int | None = None, tokenizer: str = "", denoiser: str = "", carry_over: bool | None = None
) -> Conversion:
    """What to write for a checkpoint of MDLM, its autoregressive baseline, MDM-Prime on text, or G-Star.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing, not readable, or of another model.
    """
    found = load_mdlm(path, heads, denoiser)
    tokens = found.sizes["vocab_size"] - (0 if "digits" in found.sizes else 1 + found.padded)
    folder = path if path.is_dir() else path.parent
    words = tokenizer_of(Path(tokenizer) if tokenizer else folder, tokens, bool(tokenizer))
    # Whether training filtered by carry-over, the published name of the folder says, and not the file.
    filtered = "_co_" in path.absolute().parent.name if carry_over is None else carry_over
    fields = network_fields(found, path) | data_fields(found, words, tokens, path)
    fields |= {"codec.carry_over": filtered} if "digits" in found.sizes else {}
    return Conversion(
        parts={"weights": lambda: found.params},
        copies=words.copies,
        sources=files_of(path, "weights") | words.copies | (files_of(Path(denoiser), "denoiser") if denoiser else {}),
        description={
            "checkpoint": path.name,
            "sizes": found.sizes,
            "overrides": fields,
            "start": fields["model.start"],
            "tokenizer": words.name,
        },
        tokenizer=words.record,
        arrays={} if found.permutation is None else {PERMUTATION: found.permutation},
        uses=partial(text_uses, found, fields, words),
    )


def network_fields(found: Checkpoint, path: Path) -> dict[str, Any]:
    """Config fields of a network, which `run` compares with those of a job that uses it."""
    sizes, causal = found.sizes, not found.sizes["adaln"]
    names = ("hidden", "blocks", "heads", "mlp_ratio", "adaln", "cond_dim")
    fields = {f"model.{name}": sizes[name] for name in names if name in sizes}
    # The baseline reads the first token of a window, BOS, where ours begin with the mask.
    fields |= {"model.causal": causal, "model.start": "window" if causal else "mask"}
    fields |= {"model.time_conditioning": beside(path).get("time_conditioning", False, (False, True))}
    fields |= {"objective.name": "autoregressive"} if causal else {}
    fields |= {f"codec.{name}": sizes[name] for name in ("digits", "merge", "shared") if name in sizes}
    fields |= {"predictor.kind": found.kind} if found.kind != "none" else {}
    return fields | ({} if found.permutation is None else {"codec.permutation": PERMUTATION})


def data_fields(found: Checkpoint, words: TokenizerFiles, tokens: int, path: Path) -> dict[str, Any]:
    """Config fields of the text that a network reads."""
    length = beside(path).number("model_length", 1) if "model_length" in beside(path).fields else None
    fields = {"data.tokenizer": words.name, "data.vocab_size": tokens}
    fields |= {"data.packing": "padded" if found.padded else "wrapped"}
    return fields | ({"data.length": length} if length else {})


def text_uses(found: Checkpoint, fields: dict[str, Any], words: TokenizerFiles, out: Path) -> list[str]:
    """The commands that use a folder, and what they need."""
    table: ModuleType = gstar_text if found.padded else mdlm_owt
    row = "MDLM" if found.sizes["adaln"] else "AR"
    row = row if found.kind == "none" else "G-Star-loop, 128 steps"
    fields = {"checkpoint": str(out), "data.tokenizer_path": str(out)} | fields
    if found.permutation is not None:
        fields["codec.permutation"] = str(out / PERMUTATION)
    lines = [command("evaluate", table, row, fields | LOOK), ELSEWHERE, command("sample", table, row, fields | DRAW)]
    if "digits" in found.sizes:
        kind = "with" if fields["codec.carry_over"] else "without"
        lines.append(f"(taken to be trained {kind} the carry-over filter; else convert with --[no]carry_over)")
    return needed(words, out) + lines


def needed(words: TokenizerFiles, out: Path) -> list[str]:
    """What a folder lacks for its commands."""
    how = "or convert with --tokenizer=FOLDER"
    return [] if words.copies else [f"(after you put GPT-2's vocab.json and merges.txt into {out}, {how})"]


def gpt2(path: Path, heads: int | None = None, tokenizer: str = "") -> Conversion:
    """What to write for GPT-2, the judge of samples.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing, not readable, or of another model.
    """
    sizes, variables = load_gpt2(path, heads)
    folder = path if path.is_dir() else path.parent
    words = tokenizer_of(Path(tokenizer) if tokenizer else folder, sizes["vocab_size"], bool(tokenizer))
    return Conversion(
        parts={"weights": lambda: variables["params"]},
        copies=words.copies,
        sources=files_of(path, "weights") | words.copies,
        description={"checkpoint": path.name, "sizes": sizes, "tokenizer": words.name},
        uses=partial(judge_uses, words),
    )


def judge_uses(words: TokenizerFiles, out: Path) -> list[str]:
    """The command that judges held-out text."""
    fields = {"judge.name": "gpt2", "judge.checkpoint": str(out), "judge.tokenizer_path": str(out), "judge.batch": 8}
    fields |= {"sample.policy": "data", "sample.count": 8} | {"data.source": "python_stdlib"}
    fields |= {"data.tokenizer_path": str(out)}
    return [*needed(words, out), command("sample", mdlm_owt, "MDLM", fields), "(it judges held-out text)"]
