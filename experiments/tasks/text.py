"""What the verb `sample` makes of texts: a file of them, and their measures, most of them by a judge."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from diffusion.data import evaluation_batches
from diffusion.metrics import infilling, text
from diffusion.metrics.mauve import mauve
from diffusion.metrics.python_code import defined_rate, parse_rate
from experiments.plan import Job, atomic_write
from experiments.run_context import Context
from experiments.table import SEPARATOR
from experiments.tasks.judge import Judge, make_judge


def held_out(job: Context, count: int) -> Int[np.ndarray, "N L"]:
    """Windows of the test split: what perfect samples would score."""
    data = evaluation_batches(job.dataset, "test", min(count, len(job.dataset.split("test"))), limit=count)
    return np.concatenate([batch["tokens"] for batch in data])[:count]


class Gaps(NamedTuple):
    """Held-out windows, and where a span of `sample.infill` tokens of each is hidden."""

    truth: Int[np.ndarray, "N L"]
    starts: Int[np.ndarray, " N"]


def gaps(job: Context) -> Gaps:
    """The infilling task of a config, the same for every model and seed.

    Raises:
      ValueError: for a width that leaves no context, more windows than there are, or a network that reads one side.
    """
    options = job.config.sample
    if job.config.model.causal:
        raise ValueError("sample.infill: an autoregressive model cannot read what follows a gap; set it to 0")
    truth = held_out(job, options.count)
    if len(truth) < options.count:
        raise ValueError(f"sample.count: {options.count} is more than the {len(truth)} held-out windows to fill in")
    return Gaps(truth, infilling.spans(len(truth), truth.shape[1], options.infill, seed=0))


def hidden(job: Context) -> Int[np.ndarray, "N L"]:
    """Windows with masks in their gaps."""
    task = gaps(job)
    return infilling.masked(task.truth, task.starts, job.config.sample.infill, job.dataset.tokenizer.mask_id)


def measure_gaps(job: Context, tokens: Int[np.ndarray, "N L"]) -> dict[str, float]:
    """Write samples.txt and return how many gaps are filled in exactly, and how many of their tokens are right."""
    task = gaps(job)
    write_samples(job, tokens)
    return infilling.score(tokens, task.truth, task.starts, job.config.sample.infill)


def measure(job: Context, spec: Job, tokens: Int[np.ndarray, "N L"], evaluations: float) -> dict[str, float | str]:
    """Write samples.txt and return the measures of the texts."""
    metrics = quality(job, spec, tokens, evaluations)
    write_samples(job, tokens)
    return metrics


def write_samples(job: Context, tokens: Int[np.ndarray, "N L"]) -> None:
    """The texts, one behind the other."""
    decoded = [job.dataset.tokenizer.decode(row) for row in tokens]
    if jax.process_index() == 0:
        atomic_write(job.folder / "samples.txt", SEPARATOR.join(decoded) + "\n")


def quality(job: Context, spec: Job, tokens: Int[np.ndarray, "N L"], evaluations: float) -> dict[str, float | str]:
    """Entropy and parse rate always; perplexity, diversity and MAUVE where there is a judge."""
    config, tokenizer = job.config, job.dataset.tokenizer
    texts = ["\n".join(tokenizer.documents(row)) for row in tokens]
    entropy = float(text.sample_entropy(tokens).mean())
    metrics: dict[str, float | str] = {"samples": len(tokens), "entropy": entropy}
    if config.quality.parse:
        rates = parse_rate(texts)
        metrics |= {"parse_rate": rates.lines, "parse_whole": rates.whole, "parse_blocks": rates.blocks}
        named = defined_rate(texts)
        metrics |= {"names": named.names} | ({} if named.rate is None else {"defined_rate": named.rate})
    judge = make_judge(job, spec)
    if judge is None:
        return metrics
    judged, widths = judge.tokens(tokens, texts)
    record = text.measure(
        tokens,
        judged,
        texts,
        judge.log_probs,
        evaluator=judge.name,
        steps=0 if config.sample.policy == "data" else config.sample.steps,
        evaluations=evaluations,
        precision=config.sample.precision,
        eos=judge.eos,
        batch_size=config.judge.batch,
        widths=widths,
        mauve=mauve_score(job, judge, tokens, judged, widths) if config.quality.mauve else None,
    )
    return metrics | {key: value for key, value in text.columns(record).items() if value is not None}


def mauve_score(
    job: Context,
    judge: Judge,
    tokens: Int[np.ndarray, "N L"],
    judged: Int[np.ndarray, "N M"],
    widths: Int[np.ndarray, " N"] | None,
) -> float:
    """MAUVE against as many held-out windows, from the judge's features at the last token."""
    references = held_out(job, len(tokens))
    texts = ["\n".join(job.dataset.tokenizer.documents(row)) for row in references]
    others, other_widths = judge.tokens(references, texts)
    sides = ((others, other_widths), (judged, widths))
    theirs, ours = (
        text.last_features(
            judge.features, rows, np.full(len(rows), rows.shape[1]) if width is None else width, job.config.judge.batch
        )
        for rows, width in sides
    )
    return mauve(theirs, ours).score
