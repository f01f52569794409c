"""Likelihood of a held-out split by each estimator of a config."""

import sys

import jax
import numpy as np

from diffusion.data import Dataset, evaluation_batches
from diffusion.likelihood.estimators import split_passes
from diffusion.likelihood.summary import evaluate_likelihood, is_likelihood, make_evaluator, summarize
from diffusion.objectives.self_conditioning import self_conditioned
from diffusion.rng import named
from diffusion.train.mesh import put_batch
from experiments import families
from experiments.run_context import Run
from experiments.tasks import zero_shot


def measure(run: Run) -> dict:
    """Score the split by each estimator; only likelihoods have bits and perplexity."""
    options = run.config.evaluate
    assert isinstance(run.dataset, Dataset)
    names = families.estimators(run.config)
    params = run.weights()

    def score(dataset: Dataset, split: str, name: str = names[0]) -> dict[str, float]:
        denoiser = self_conditioned(run.system.denoiser, run.system.self_conditioning, split_passes(name)[1])
        estimate = families.estimate(run.config, run.system, name)
        evaluator = make_evaluator(estimate, denoiser, run.system.process, options.draws)
        data = evaluation_batches(
            dataset,
            split,
            options.batch,
            limit=options.batches * options.batch or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        given = run.config.model.causal and run.config.model.start == "window"
        batches = (put_batch(without_first(batch) if given else batch, run.mesh) for batch in data)
        scores = evaluate_likelihood(evaluator, params, batches, named(run.root, "evaluate"))
        # A scored part of the split is assumed to have the bytes per token of the whole split.
        text = dataset.statistics[split]
        # A first token that is given and is BOS has no bytes, so a window has those of its other tokens.
        bos = run.config.data.bos_eos or run.config.data.packing == "padded"
        share = (scores.tokens.sum() + (given and bos) * len(scores.tokens)) / text.tokens
        covered = {"characters": text.characters * share, "bytes": text.bytes * share}
        if text.lossy:
            covered = {}
            print(
                f"evaluate: no bits per byte, since tokens of {dataset.tokenizer.name!r} do not give back the text of "
                f"{text.lossy} documents or parts of them",
                file=sys.stderr,
            )
        return summarize(
            name,
            scores.nats,
            scores.tokens,
            **covered,
            perplexity=is_likelihood(name),
        )

    with jax.set_mesh(run.mesh):
        metrics = score(run.dataset, options.split)
        others = zero_shot.scores(run, score)
        for name in names[1:]:
            others |= score(run.dataset, options.split, name)
    short = short_names(metrics) if is_likelihood(names[0]) else {}
    return {"metrics": metrics | short | others, "estimator": names[0], "also": names[1:], "draws": options.draws}


def without_first(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch in which the first token of every window is not scored."""
    weights = batch["weights"].copy()
    weights[:, 0] = 0
    return batch | {"weights": weights}


def short_names(metrics: dict[str, float]) -> dict[str, float]:
    """Likelihoods without the name of their estimator, so that a column of a table can hold exact values and bounds."""
    return {key.split("/", 1)[1]: value for key, value in metrics.items()}
