"""Public checkpoints of language models, MDLM and GPT-2, as weights for `evaluate` and `sample`."""

import json
from pathlib import Path

import jax
from tabulate import tabulate

from configs.base import defaults
from diffusion.convert.gpt2 import load_gpt2
from diffusion.convert.mdlm import load_mdlm
from diffusion.train.weights import save_weights
from experiments.plan import atomic_write

LOADERS = {"mdlm": load_mdlm, "gpt2": load_gpt2}


def convert(layout: str, checkpoint: str, workdir: Path) -> None:
    """Write `workdir`/weights and `workdir`/config.json, and print a command that uses them.

    Raises:
      ValueError, FileNotFoundError: for a missing or unreadable file, or another kind of file.
    """
    sizes, variables = LOADERS[layout](checkpoint)
    params = jax.tree.map(jax.numpy.asarray, variables["params"])
    overrides = model_overrides(sizes) if layout == "mdlm" else {}
    description = {"layout": layout, "checkpoint": Path(checkpoint).name, "sizes": sizes, "overrides": overrides}
    save_weights(workdir / "weights", params)
    atomic_write(workdir / "config.json", json.dumps(description, indent=1) + "\n")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(tabulate([*sizes.items(), ("parameters", f"{count:,}")], tablefmt="plain", disable_numparse=True))
    if "codec.digits" in overrides:
        print("\nWithout the carry-over filter in training, pass --config.codec.carry_over=False as well.")
    print(f"\nwrote {workdir / 'weights'} and {workdir / 'config.json'}; use them by")
    print(f"  {advice(layout, workdir, overrides)}")


def model_overrides(sizes: dict) -> dict:
    """Config fields of this network that differ from the defaults."""
    model, causal = defaults("mdlm_owt", "paper").model, not sizes["adaln"]
    # The baseline reads the first token of a window, BOS, where ours begin with the mask.
    fields = sizes | {"causal": causal, "start": "window" if causal else "mask"}
    changed = {name: value for name, value in fields.items() if name in model and model[name] != value}
    overrides = {f"model.{name}": value for name, value in changed.items()}
    # Whether the published network was trained with the carry-over filter, its name says and not its file.
    overrides |= {"codec.digits": sizes["digits"]} if "digits" in sizes else {}
    return overrides | ({"objective.name": "autoregressive"} if causal else {})


def advice(layout: str, workdir: Path, overrides: dict) -> str:
    """Command line that uses the weights."""
    if layout == "gpt2":
        flags = ["--config.judge.name=gpt2", f"--config.judge.checkpoint={workdir}"]
        words = ["sample", "--config=configs/mdlm_owt.py:paper", *flags, "--config.judge.tokenizer_path=FOLDER"]
    else:
        row = "AR" if overrides.get("model.causal") else "MDLM"
        # The row AR already has the fields of a causal network.
        fields = {name: value for name, value in overrides.items() if row == "MDLM" or name not in AR_ROW}
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        words = ["evaluate", "--config=configs/mdlm_owt.py:paper", f"--row={row}"]
        words += [f"--config.checkpoint={workdir / 'weights'}", *flags]
    return " ".join(["python launch.py", *words])


AR_ROW = ("model.causal", "model.adaln", "objective.name")  # fields that the row AR has already
