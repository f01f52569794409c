"""Samples of text: a file of samples, and their metrics, most of which need a judge."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from diffusion.data import evaluation_batches
from diffusion.metrics import infilling, text
from diffusion.metrics.mauve import mauve
from diffusion.metrics.python_code import defined_rate, parse_rate
from diffusion.storage import atomic_write
from experiments.families import family_of
from experiments.families.base import System
from experiments.run_context import Run
from experiments.tasks import token_sampling
from experiments.tasks.judge import Judge, check_judge, check_judge_name, make_judge
from experiments.tasks.token_sampling import SampleSet, TokenTask

LINES = False
SEPARATOR = "\n" + "=" * 100 + "\n"


def held_out_windows(run: Run, count: int) -> Int[np.ndarray, "N L"]:
    """Windows of the test split, whose metrics are those of perfect samples."""
    data = evaluation_batches(run.dataset, "test", min(count, len(run.dataset.split("test"))), limit=count)
    return np.concatenate([batch["tokens"] for batch in data])[:count]


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], None]:
    """Windows of the test split, without labels."""
    return held_out_windows(run, count), None


class Gaps(NamedTuple):
    """Held-out windows, and the start of the masked span of `sample.infill` tokens in each."""

    truth: Int[np.ndarray, "N L"]
    starts: Int[np.ndarray, " N"]


def completed_windows(run: Run) -> Int[np.ndarray, "N L"]:
    """Held-out windows of which samples complete a part; raises ValueError for too few of them."""
    count = run.config.sample.count
    truth = held_out_windows(run, count)
    if len(truth) < count:
        raise ValueError(f"sample.count: {count} exceeds the {len(truth)} held-out windows to fill in")
    return truth


def gaps(run: Run) -> Gaps:
    """Infilling task of a config, equal for all models and seeds.

    Raises:
      ValueError: for a gap without context, or too few held-out windows.
    """
    truth = completed_windows(run)
    return Gaps(truth, infilling.spans(len(truth), truth.shape[1], run.config.sample.infill, seed=0))


def masked_gaps(run: Run) -> Int[np.ndarray, "N L"]:
    """Held-out windows with masks in their gaps, or behind their first `sample.prefix` tokens."""
    if run.config.sample.prefix:
        truth = np.array(completed_windows(run), np.int32)
        truth[:, run.config.sample.prefix :] = run.dataset.tokenizer.mask_id
        return truth
    windows = gaps(run)
    return infilling.masked(windows.truth, windows.starts, run.config.sample.infill, run.dataset.tokenizer.mask_id)


def measure_gaps(run: Run, tokens: Int[np.ndarray, "N L"]) -> dict[str, float]:
    """Write samples.txt and return the rates of exact gaps and of correct tokens in gaps."""
    windows = gaps(run)
    write_samples(run, tokens)
    return infilling.score(tokens, windows.truth, windows.starts, run.config.sample.infill)


def measure(run: Run, sets: list[SampleSet], cost: dict[str, float]) -> list[dict]:
    """Write samples.txt and return the metrics of each set: infilling metrics with gaps, otherwise metrics of texts.

    Where examples are padded, a sample is one document, and what stands behind its end is padding.
    """
    tokenizer = run.dataset.tokenizer
    if run.dataset.padded and tokenizer.eos_id is not None:
        pad, end = tokenizer.pad_id, tokenizer.eos_id
        sets = [each._replace(tokens=text.ended(each.tokens, end, pad)) for each in sets]
    if run.config.sample.infill:
        return [measure_gaps(run, each.tokens) for each in sets]
    scores = [quality(run, each.tokens, cost["evaluations"]) for each in sets]
    for each in sets:
        write_samples(run, each.tokens)
    return scores


def write_samples(run: Run, tokens: Int[np.ndarray, "N L"]) -> None:
    """Write samples.txt, with separators between texts."""
    decoded = [run.dataset.tokenizer.decode(row) for row in tokens]
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", SEPARATOR.join(decoded) + "\n")


def quality(run: Run, tokens: Int[np.ndarray, "N L"], evaluations: float) -> dict[str, float | str]:
    """Entropy and parse rate; with a judge also perplexity, diversity and MAUVE."""
    config, tokenizer = run.config, run.dataset.tokenizer
    texts = ["\n".join(tokenizer.documents(row)) for row in tokens]
    entropy = float(text.sample_entropy(tokens, tokenizer.pad_id).mean())
    metrics: dict[str, float | str] = {"samples": len(tokens), "entropy": entropy}
    if config.quality.parse:
        rates = parse_rate(texts)
        metrics |= {"parse_rate": rates.lines, "parse_whole": rates.whole, "parse_blocks": rates.blocks}
        defined = defined_rate(texts)
        metrics |= {"names": defined.names} | ({} if defined.rate is None else {"defined_rate": defined.rate})
    if config.quality.self_bleu:
        metrics["self_bleu"] = text.self_bleu(texts)
    judge = make_judge(run)
    if judge is None:
        return metrics
    judged, widths = judge.tokens(tokens)
    return metrics | text.measure(
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
        pad=tokenizer.pad_id,
        mauve=mauve_score(run, judge, tokens, judged, widths) if config.quality.mauve else None,
    )


def mauve_score(
    run: Run,
    judge: Judge,
    tokens: Int[np.ndarray, "N L"],
    judged: Int[np.ndarray, "N M"],
    widths: Int[np.ndarray, " N"] | None,
) -> float:
    """MAUVE against the same number of held-out windows, from features of the judge at the last token."""
    references = held_out_windows(run, len(tokens))
    reference_tokens, reference_widths = judge.tokens(references)
    sides = ((reference_tokens, reference_widths), (judged, widths))
    reference_features, features = (
        text.last_features(
            judge.features, rows, np.full(len(rows), rows.shape[1]) if width is None else width, run.config.judge.batch
        )
        for rows, width in sides
    )
    return mauve(reference_features, features)


TASK = TokenTask(many_sets=False, held_out=held_out, measure=measure, masked_gaps=masked_gaps)


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unsuitable sampler, prompt, count or judge."""
    token_sampling.check_config(config, system, domain, TASK)
    check_judge_name(config.judge)
    if config.sample.infill:
        if family_of(config).CAUSAL:
            raise ValueError("sample.infill: an autoregressive model cannot read what follows a gap; set it to 0")
        infilling.spans(0, config.data.length, config.sample.infill, seed=0)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for missing windows of the test split or files of the judge."""
    check_config(run.config, run.system, run.dataset.domain)
    token_sampling.check(run, TASK)
    check_judge(run.config.judge)
    if run.config.quality.mauve and run.config.judge.name != "none":
        run.dataset.split("test")


def sample(run: Run) -> dict:
    """Draw and measure texts."""
    return token_sampling.draw_and_measure(run, TASK)


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Texts have no images."""
    return []
