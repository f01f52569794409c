"""The verb `evaluate`: the likelihood of one model on a held-out split, by an estimator that says what it is."""

import time

import jax

from diffusion.data import Dataset, evaluation_batches
from diffusion.likelihood.estimators import split_passes
from diffusion.likelihood.summary import evaluate_likelihood, is_likelihood, make_evaluator, summarize
from diffusion.objectives.self_conditioning import self_conditioned
from diffusion.report.rows import provenance
from diffusion.rng import named
from diffusion.train.mesh import put_batch
from experiments import families
from experiments.plan import Job
from experiments.run_context import Context, trained_weights
from experiments.tasks import rewards, zero_shot


def run(job: Context, spec: Job) -> dict:
    """Score the split by each estimator; the row names them, and only likelihoods get bits and perplexity."""
    config, options = job.config, job.config.evaluate
    begin = time.time()
    if config.model.net == "reward":
        return rewards.run(job, spec)
    assert isinstance(job.dataset, Dataset)
    names = families.estimators(config)
    params = trained_weights(spec, config, job.system, job.mesh, job.workdir)

    def score(dataset: Dataset, split: str, name: str = names[0]) -> dict[str, float]:
        denoiser = self_conditioned(job.system.denoiser, job.system.self_conditioning, split_passes(name)[1])
        estimate = families.estimate(config, job.system, name)
        evaluator = make_evaluator(estimate, denoiser, job.system.process, options.draws)
        data = evaluation_batches(
            dataset,
            split,
            options.batch,
            limit=options.batches * options.batch or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        batches = (put_batch(batch, job.mesh) for batch in data)
        scores = evaluate_likelihood(evaluator, params, batches, named(job.root, "evaluate"))
        # Where only a part of the split is scored, its text is taken to be as dense as the whole split's.
        text = dataset.statistics[split]
        share = scores.tokens.sum() / text.tokens
        return summarize(
            name,
            scores.nats,
            scores.tokens,
            characters=text.characters * share,
            bytes=text.bytes * share,
            perplexity=is_likelihood(name),
        )

    with jax.set_mesh(job.mesh):
        metrics = score(job.dataset, options.split)
        others = zero_shot.run(job, score)
        for name in names[1:]:
            others |= score(job.dataset, options.split, name)
    return {
        "metrics": metrics | (short_names(metrics) if is_likelihood(names[0]) else {}) | others,
        "estimator": names[0],
        "also": names[1:],
        "draws": options.draws,
        "split": options.split,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def short_names(metrics: dict[str, float]) -> dict[str, float]:
    """Likelihoods without their estimator's name, so that one column of a table can hold exact values and bounds."""
    return {key.split("/", 1)[1]: value for key, value in metrics.items()}
