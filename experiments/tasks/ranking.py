"""Ranking of the examples of a held-out split by a reward, compared with whether they match their prompts."""

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy
from jaxtyping import Bool, Float

from diffusion.data import evaluation_batches
from diffusion.train.mesh import put_batch
from experiments.run_context import Run

with epy.lazy_imports():
    from scipy import stats


def measure(run: Run) -> dict:
    """AUC, rank correlation and squared error of the rewards.

    The prompts of held-out examples are not in the training split, unless the data have too few prompts.
    """
    options, params = run.config.evaluate, run.weights()
    data = evaluation_batches(run.dataset, options.split, options.batch, limit=options.batches * options.batch or None)

    @jax.jit
    def score(params, batch):
        image = run.system.pixels.encode(batch["tokens"])
        return run.system.denoiser(params, image, jnp.zeros(len(image)), batch["prompt"])

    rewards, truth = [], []
    for batch in data:
        valid = batch["weights"][:, 0] > 0  # the last batch is padded
        rewards.append(np.asarray(score(params, put_batch(batch, run.mesh)))[valid])
        truth.append(batch["score"][valid])
    rewards, truth = np.concatenate(rewards), np.concatenate(truth)
    correlation = stats.spearmanr(rewards, truth).statistic  # pyright: ignore[reportAttributeAccessIssue]
    metrics = {
        "auc": area_under_curve(rewards, truth == 1),
        "rank_correlation": float(correlation),
        "mean_squared_error": float(np.mean((rewards - truth) ** 2)),
        "examples": len(truth),
    }
    return {"metrics": metrics}


def area_under_curve(scores: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Probability that a positive example scores higher than a negative one, ties counted as half."""
    count = int(positive.sum())
    ranks = stats.rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(scores) - count)))
