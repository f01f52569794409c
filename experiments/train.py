"""The verb `train`: one training job, from nothing or from where it stopped."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion.data import batches, evaluation_batches, prefetch
from diffusion.data.pairs import PairStatistics
from diffusion.report.rows import provenance
from diffusion.rng import draws, named
from diffusion.train.loop import train
from diffusion.train.mesh import put_batch, state_shardings
from diffusion.train.weights import load_weights, save_weights
from diffusion.train.writers import read_metrics
from diffusion.types import Params
from experiments import families
from experiments.plan import Job
from experiments.run_context import Context


def run(job: Context, spec: Job) -> dict:
    """Train, save the averaged weights, and return the result row's metrics and provenance."""
    config, system = job.config, job.system
    begin = time.time()
    objective = families.objective(config, system)
    settings = families.settings(config)
    batch_at = batches(
        job.dataset,
        "train",
        settings.batch,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    start = starting_weights(job, spec)
    validate = validation(job, objective)
    state = train(
        objective,
        families.optimizer(config),
        system.init,
        partial(prefetch, batch_at),
        settings,
        job.mesh,
        job.root,
        job.folder,
        start=start,
        evaluate=lambda params: validate(params)["loss"],
        tokens_per_step=settings.batch * system.length,
        flops_per_step=families.training_flops(config, system),
        name=job.folder.name,
        config=config.to_dict(),
    )
    save_weights(job.folder / "weights", state.ema)
    text, trained = job.dataset.statistics, state.params["errors"] if system.errors else state.params
    return {
        "metrics": {
            **{f"validation_{name}": value for name, value in validate(state.ema).items()},
            "train_tokens": settings.steps * settings.batch * system.length,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained)),
            **density(text),
        },
        "history": thin(read_metrics(job.folder / "metrics.jsonl")),
        "step": int(state.step),
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def density(text: Mapping[str, Any]) -> dict[str, float]:
    """Bytes a token of the text; of pairs, whose bytes are not counted, how many are too long to be learned."""
    names = {"bytes_per_token": "train", "validation_bytes_per_token": "validation"}
    if isinstance(text["train"], PairStatistics):
        return dict.fromkeys(names, 0.0) | {"pairs_left_out": text["train"].left_out}
    return {name: text[split].bytes / max(text[split].tokens, 1) for name, split in names.items()}


def starting_weights(job: Context, spec: Job) -> Params | None:
    """What training starts from: `config.checkpoint`, else the row that it starts from, or nothing.

    A memory's adapter is new to them, and starts as it is made: without an effect. An error predictor is made from
    them, and is never without.
    """
    config, base = job.config, job.system.base
    given = Path(config.checkpoint) if config.checkpoint else None
    folder = job.workdir / "jobs" / spec.needs[0] / "weights" if config.start and spec.needs else None
    folder = given or folder
    if base is None:
        return load_weights(folder, job.system.init, job.mesh, added=("adapter",)) if folder else None
    assert folder is not None and job.system.extend is not None
    parts = [load_weights(folder, base.init, job.mesh)]
    if config.predictor.labels == "likelihood":
        judge = families.judge_system(config, job.dataset.tokenizer.vocab_size)
        assert judge is not None
        parts.append(load_weights(job.workdir / "jobs" / spec.needs[-1] / "weights", judge.init, job.mesh))
    key = named(job.root, "predictor")
    shardings = state_shardings(jax.eval_shape(job.system.extend, key, *parts), job.mesh)
    return jax.jit(job.system.extend, out_shardings=shardings)(key, *parts)


def thin(records: list[dict], most: int = 200) -> list[dict]:
    """Losses for the plot of a table: at most about `most` records, and all validation losses."""
    every = max(1, len(records) // most)
    kept = [record for number, record in enumerate(records) if number % every == 0 or "validation_loss" in record]
    return [{key: record[key] for key in ("step", "loss", "validation_loss") if key in record} for record in kept]


def validation(job: Context, objective):
    """`evaluate(params)`: means of the objective's metrics on fixed validation batches, dropout off, noise fixed."""
    config = job.config
    size = config.train.batch
    data = evaluation_batches(
        job.dataset,
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

    root = job.root

    def evaluate(params: Params) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        # In training and after it alike, or the program would be compiled twice.
        with jax.set_mesh(job.mesh):
            for step, batch in enumerate(data):
                for name, pair in jax.device_get(score(params, put_batch(batch, job.mesh), root, step)).items():
                    totals[name] = totals.get(name, 0) + np.asarray(pair, np.float64)
        return {name: float(total / max(count, 1)) for name, (total, count) in totals.items()}

    return evaluate
