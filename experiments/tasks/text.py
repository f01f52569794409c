"""Samples of text: a file of them, and their metrics, most of them by a judge."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from diffusion.data import evaluation_batches
from diffusion.metrics import infilling, text
from diffusion.metrics.mauve import mauve
from diffusion.metrics.python_code import defined_rate, parse_rate
from experiments.plan import atomic_write
from experiments.run_context import Run
from experiments.tasks import token_sampling
from experiments.tasks.judge import Judge, check_judge, make_judge
from experiments.tasks.token_sampling import SampleSet, TokenTask

LINES = False
SEPARATOR = "\n" + "=" * 100 + "\n"


def held_out_windows(run: Run, count: int) -> Int[np.ndarray, "N L"]:
    """Windows of the test split, which score what perfect samples would."""
    data = evaluation_batches(run.dataset, "test", min(count, len(run.dataset.split("test"))), limit=count)
    return np.concatenate([batch["tokens"] for batch in data])[:count]


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], None]:
    """Windows of the test split, without labels."""
    return held_out_windows(run, count), None


class Gaps(NamedTuple):
    """Held-out windows, and where a span of `sample.infill` tokens of each is hidden."""

    truth: Int[np.ndarray, "N L"]
    starts: Int[np.ndarray, " N"]


def gaps(run: Run) -> Gaps:
    """The infilling task of a config, the same for every model and seed.

    Raises:
      ValueError: for a width that leaves no context, more windows than there are, or a network that reads one side.
    """
    options = run.config.sample
    if run.family.CAUSAL:
        raise ValueError("sample.infill: an autoregressive model cannot read what follows a gap; set it to 0")
    truth = held_out_windows(run, options.count)
    if len(truth) < options.count:
        raise ValueError(f"sample.count: {options.count} is more than the {len(truth)} held-out windows to fill in")
    return Gaps(truth, infilling.spans(len(truth), truth.shape[1], options.infill, seed=0))


def masked_gaps(run: Run) -> Int[np.ndarray, "N L"]:
    """Windows with masks in their gaps."""
    task = gaps(run)
    return infilling.masked(task.truth, task.starts, run.config.sample.infill, run.dataset.tokenizer.mask_id)


def measure_gaps(run: Run, tokens: Int[np.ndarray, "N L"]) -> dict[str, float]:
    """Write samples.txt and return how many gaps are filled in exactly, and how many of their tokens are right."""
    task = gaps(run)
    write_samples(run, tokens)
    return infilling.score(tokens, task.truth, task.starts, run.config.sample.infill)


def measure(run: Run, sets: list[SampleSet], cost: dict[str, float]) -> list[dict]:
    """Write samples.txt and return the metrics of each set: of its gaps where there are some, or of its texts."""
    if run.config.sample.infill:
        return [measure_gaps(run, each.tokens) for each in sets]
    scores = [quality(run, each.tokens, cost["evaluations"]) for each in sets]
    for each in sets:
        write_samples(run, each.tokens)
    return scores


def write_samples(run: Run, tokens: Int[np.ndarray, "N L"]) -> None:
    """The texts, one behind the other."""
    decoded = [run.dataset.tokenizer.decode(row) for row in tokens]
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", SEPARATOR.join(decoded) + "\n")


def quality(run: Run, tokens: Int[np.ndarray, "N L"], evaluations: float) -> dict[str, float | str]:
    """Entropy and parse rate always; perplexity, diversity and MAUVE where there is a judge."""
    config, tokenizer = run.config, run.dataset.tokenizer
    texts = ["\n".join(tokenizer.documents(row)) for row in tokens]
    entropy = float(text.sample_entropy(tokens).mean())
    metrics: dict[str, float | str] = {"samples": len(tokens), "entropy": entropy}
    if config.quality.parse:
        rates = parse_rate(texts)
        metrics |= {"parse_rate": rates.lines, "parse_whole": rates.whole, "parse_blocks": rates.blocks}
        named = defined_rate(texts)
        metrics |= {"names": named.names} | ({} if named.rate is None else {"defined_rate": named.rate})
    judge = make_judge(run)
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
        mauve=mauve_score(run, judge, tokens, judged, widths) if config.quality.mauve else None,
    )
    return metrics | {key: value for key, value in text.columns(record).items() if value is not None}


def mauve_score(
    run: Run,
    judge: Judge,
    tokens: Int[np.ndarray, "N L"],
    judged: Int[np.ndarray, "N M"],
    widths: Int[np.ndarray, " N"] | None,
) -> float:
    """MAUVE against as many held-out windows, from the judge's features at the last token."""
    references = held_out_windows(run, len(tokens))
    texts = ["\n".join(run.dataset.tokenizer.documents(row)) for row in references]
    others, other_widths = judge.tokens(references, texts)
    sides = ((others, other_widths), (judged, widths))
    theirs, ours = (
        text.last_features(
            judge.features, rows, np.full(len(rows), rows.shape[1]) if width is None else width, run.config.judge.batch
        )
        for rows, width in sides
    )
    return mauve(theirs, ours).score


TASK = TokenTask(many_sets=False, held_out=held_out, measure=measure, masked_gaps=masked_gaps)


def check(run: Run) -> None:
    """Raise ValueError for a sampler, prompts, counts or a judge that do not fit."""
    token_sampling.check(run, TASK)
    check_judge(run.config.judge)


def sample(run: Run) -> dict:
    """Draw and measure texts."""
    return token_sampling.draw_and_measure(run, TASK)


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Texts have no images."""
    return []
