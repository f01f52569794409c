"""The verb `train`: one training job, from its start or from its last checkpoint."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from diffusion.data import batches, evaluation_batches, prefetch, stored_tokenizers
from diffusion.report.rows import provenance
from diffusion.rng import draws, named
from diffusion.storage import atomic_write
from diffusion.train.loop import Settings, train
from diffusion.train.mesh import check_batch, put_batch, state_shardings
from diffusion.train.population import Member
from diffusion.train.profiler import SKIPPED
from diffusion.train.state import TrainState
from diffusion.train.weights import load_weights, save_weights
from diffusion.train.writers import read_metrics
from diffusion.types import Params
from experiments import families
from experiments.families import gpt2
from experiments.flops import training_flops
from experiments.run_context import Run

Validate = Callable[[Key[Array, ""], Params], dict[str, float]]


def execute(run: Run) -> dict:
    """Train, save the averaged weights, and return metrics and provenance of the result row."""
    return execute_together([run])[0]


def execute_together(runs: Sequence[Run]) -> list[dict]:
    """Train several jobs as one program, of which only seeds and hyper-parameters of the optimizer differ."""
    run, begin = runs[0], time.time()
    objective, settings = families.objective(run.config, run.system), families.settings(run.config)
    validate = validation(run, objective)
    for each in runs:
        store_tokenizer(each, each.folder)
    states = train(
        objective,
        run.system.init,
        [member(each, settings, validate) for each in runs],
        settings,
        run.mesh,
        tokens_per_step=settings.batch * run.system.length,
        flops_per_step=lambda: training_flops(run.config, run.dataset.tokenizer.vocab_size),
        profile=run.profile,
    )
    rows = []
    for each, state in zip(runs, states, strict=True):
        save_weights(each.folder / "weights", state.ema)
        store_tokenizer(each, each.folder / "weights")
        rows.append(row(each, state, settings, validate(each.root, state.ema)))
    shared = {"seconds": time.time() - begin} | ({"population": len(runs)} if len(runs) > 1 else {})
    return [each | shared for each in rows]


def member(run: Run, settings: Settings, validate: Validate) -> Member:
    """What a training has of its own."""
    root, folder = run.root, start_of(run)
    batch_at = batches(
        run.dataset,
        "train",
        settings.batch,
        run.config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return Member(
        families.optimizer(run.config),
        partial(prefetch, batch_at),
        root,
        run.folder,
        start=partial(starting_weights, run, folder) if folder else None,
        evaluate=lambda params: validate(root, params)["loss"],
        name=run.folder.name,
        config=run.config.to_dict(),
    )


def row(run: Run, state: TrainState, settings: Settings, validated: dict[str, float]) -> dict:
    """Metrics and provenance of a training, but for its time."""
    text, trained = run.dataset.statistics, state.params["errors"] if run.system.errors else state.params
    return {
        "metrics": {
            **{f"validation_{name}": value for name, value in validated.items()},
            "train_tokens": settings.steps * settings.batch * run.system.length,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained)),
            **density(text),
        },
        "history": subsampled(read_metrics(run.folder / "metrics.jsonl")),
        "step": int(state.step),
        "data": run.dataset.fingerprint,
        **provenance(),
    }


def density(text: Mapping[str, Any]) -> dict[str, float]:
    """Bytes per token of the text; for pairs, whose bytes are not counted, the number of pairs that are too long."""
    names = {"bytes_per_token": "train", "validation_bytes_per_token": "validation"}
    if text["train"].source_tokens:
        return dict.fromkeys(names, 0.0) | {"pairs_left_out": text["train"].left_out}
    return {name: text[split].bytes / max(text[split].tokens, 1) for name, split in names.items()}


def check(run: Run) -> None:
    """Raise ValueError for an indivisible batch, too few steps for a trace, a missing split, or an error predictor
    without denoiser or judge.
    """
    settings = families.settings(run.config)
    if run.profile < 0 or (run.profile and run.profile + SKIPPED > settings.steps):
        raise ValueError(
            f"--profile: {run.profile} steps after the first {SKIPPED} are not within train.steps={settings.steps}; "
            "pass another number"
        )
    check_batch(settings.batch, run.mesh, settings.accumulate)
    for split in ("train", "validation"):
        run.dataset.split(split)
    if run.system.errors and not (run.config.start or run.config.checkpoint):
        raise ValueError("start: an error predictor learns from a trained denoiser; set it, or pass a checkpoint")
    gpt2.check_label_judge(run.config, run.dataset.tokenizer.vocab_size)


def store_tokenizer(run: Run, folder: Path) -> None:
    """Write the record of the tokenizer beside what is trained with it."""
    if jax.process_index() == 0:
        atomic_write(folder / stored_tokenizers.FILE, run.tokenizer)


def start_of(run: Run) -> Path | None:
    """Folder of the weights from which training starts: `config.checkpoint`, else those of the row `start`, or None."""
    if run.config.checkpoint:
        return Path(run.config.checkpoint)
    return run.weights_of("start") if "start" in run.job.needs else None


def starting_weights(run: Run, folder: Path) -> Params:
    """Weights of a folder, from which training starts.

    An adapter for self-conditioning is added to them and has no effect at first. The parameters of an error predictor
    are derived from them.
    """
    config, head = run.config, run.system.errors
    if head is None:
        return load_weights(folder, run.system.init, run.mesh, added=("adapter",))
    parts = [load_weights(folder, head.base.init, run.mesh)]
    if head.judge:
        of_row = "judge" in run.job.needs
        folder = run.weights_of("judge") if of_row else Path(config.predictor.judge_checkpoint) / "weights"
        parts.append(load_weights(folder, head.judge.init, run.mesh))
    key = named(run.root, "predictor")
    shardings = state_shardings(jax.eval_shape(head.extend, key, *parts), run.mesh)
    return jax.jit(head.extend, out_shardings=shardings)(key, *parts)


def subsampled(records: list[dict], most: int = 200) -> list[dict]:
    """Losses for the plot of a table: about `most` records at most, and all validation losses."""
    every = max(1, len(records) // most)
    selected = [record for index, record in enumerate(records) if index % every == 0 or "validation_loss" in record]
    return [{key: record[key] for key in ("step", "loss", "validation_loss") if key in record} for record in selected]


def validation(run: Run, objective) -> Validate:
    """Returns `evaluate(root, params)`: mean metrics of the objective on fixed batches, with fixed noise and no
    dropout. The noise is that of a training's root key.
    """
    config = run.config
    size = config.train.batch
    data = evaluation_batches(
        run.dataset,
        "validation",
        size,
        limit=config.train.evaluate_batches * size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )

    @jax.jit
    def score(params, batch, root, step):
        noise = draws(root, "validation", step, size)
        return objective(params, batch, noise, train=False)[1]

    def evaluate(root: Key[Array, ""], params: Params) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        # The mesh is set during training and after it, otherwise the program would be compiled twice.
        with jax.set_mesh(run.mesh):
            for step, batch in enumerate(data):
                for name, pair in jax.device_get(score(params, put_batch(batch, run.mesh), root, step)).items():
                    totals[name] = totals.get(name, 0) + np.asarray(pair, np.float64)
        return {name: float(total / max(count, 1)) for name, (total, count) in totals.items()}

    return evaluate
