"""What the verb `evaluate` does for a reward model: whether it tells pictures that fulfill their prompt from others."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata, spearmanr

from diffusion.data import evaluation_batches
from diffusion.report.rows import provenance
from diffusion.train.mesh import put_batch
from experiments.plan import Job
from experiments.run_context import Context, trained_weights


def run(job: Context, spec: Job) -> dict:
    """Score a held-out split, whose prompts training has not seen where there are enough."""
    options, begin = job.config.evaluate, time.time()
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    data = evaluation_batches(job.dataset, options.split, options.batch, limit=options.batches * options.batch or None)

    @jax.jit
    def judge(params, batch):
        picture = job.system.levels.encode(batch["tokens"])
        return job.system.denoiser(params, picture, jnp.zeros(len(picture)), batch["prompt"])

    rewards, truth = [], []
    for batch in data:
        kept = batch["weights"][:, 0] > 0
        rewards.append(np.asarray(judge(params, put_batch(batch, job.mesh)))[kept])
        truth.append(batch["score"][kept])
    rewards, truth = np.concatenate(rewards), np.concatenate(truth)
    correlation = spearmanr(rewards, truth).statistic  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "metrics": {
            "auc": area_under_curve(rewards, truth == 1),
            "rank_correlation": float(correlation),
            "mean_squared_error": float(np.mean((rewards - truth) ** 2)),
            "examples": len(truth),
        },
        "split": options.split,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def area_under_curve(scores: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Probability that a positive example scores higher than a negative one, ties counted as half."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(scores) - count)))
