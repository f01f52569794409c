"""Translations: of the pairs of a held-out split, with their metrics, or of a user's file."""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from tqdm import tqdm

from diffusion.data.pairs import text_of
from diffusion.metrics.translation import check_measures, scores
from diffusion.rng import example_keys, named
from diffusion.sampling.sequences.rerank import bleu_mbr, judged
from diffusion.storage import atomic_write
from diffusion.train.mesh import batch_sharding, check_batch, replicated
from experiments import families
from experiments.families import seq2seq
from experiments.families.base import System
from experiments.families.seq2seq import autoregressive
from experiments.families.translation import Candidates, Translator, longest, mean_log_likelihood, translator
from experiments.flops import sampling_flops
from experiments.run_context import Run, in_batches
from experiments.tasks.translation_sources import Sources, held_out_pairs, user_lines, user_sources

LINES = True
MAX_MEASURED_STEPS = 20  # samplers with more steps have no BLEU per step


class Outputs(NamedTuple):
    """Candidates of each source as texts, and seconds per sentence."""

    texts: list[list[str]]
    seconds: float


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unsuitable sampler, count or choice among candidates."""
    options = config.sample
    if options.repeats != 1:
        raise ValueError("sample.repeats: translations are measured as one set; set it to 1, or pass more seeds")
    if options.prompt or options.suffix or options.infill or options.prefix:
        raise ValueError(
            "sample.prompt, suffix, infill and prefix: pairs have sources; pass --config.sample.source=FILE"
        )
    if longest(config) > config.encoder_decoder.positions:
        raise ValueError(
            f"encoder_decoder.positions: {longest(config)} tokens of a target exceed "
            f"{config.encoder_decoder.positions}; raise it, or lower sample.length"
        )
    model = translator(config, system)
    if model.candidates > 1 and options.translation.rerank == "judge" and config.judge.name != "row":
        raise ValueError("sample.translation.rerank: judge needs judge.name=row, and a causal row as judge.row")
    if not options.source and options.translation.split == "train":
        raise ValueError(
            "sample.translation.split: texts of the training split are not stored; set it to test or validation"
        )


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for unsuitable measures, data or files, before any training."""
    options = run.config.sample
    check_config(run.config, run.system, run.dataset.domain)
    check_batch(options.batch, run.mesh, field="sample.batch")
    check_measures(options.translation.tokenize, options.translation.rouge, options.translation.bertscore)
    if options.source:
        user_lines(options.source)
    elif not len(run.dataset.split(options.translation.split)):
        raise ValueError(f"data.source: the {options.translation.split} split of {run.dataset.source} is empty")


def sample(run: Run) -> dict:
    """Translate, write the texts, and return their metrics and cost."""
    config, options = run.config, run.config.sample
    sources = user_sources(run) if options.source else held_out_pairs(run)
    model = translator(config, run.system)
    params = run.weights()
    candidates = draw(run, model, params, sources)
    begin = time.perf_counter()
    outputs = select_candidates(run, sources, candidates.texts)
    metrics: dict[str, Any] = {
        "evaluations": model.evaluations,
        "candidates": model.candidates,
        "gigaflops": sum(sampling_flops(config, run.dataset.tokenizer.vocab_size)) / options.batch / 1e9,
        "seconds_per_sentence": candidates.seconds,
        "rerank_seconds_per_sentence": (time.perf_counter() - begin) / len(outputs),
        "sentences": len(outputs),
        "sources_cut": sources.cut,
    }
    if not autoregressive(config):
        metrics["steps"] = options.steps
    result = {}
    if sources.references is not None:
        measures = options.translation
        quality = scores(
            outputs,
            sources.references,
            measures.tokenize,
            measures.rouge,
            measures.bertscore,
            measures.bertscore_layer,
        )
        metrics, result["signature"] = quality.metrics | metrics, quality.signature
        if options.translation.diagnose and not autoregressive(config):
            result["by_step"] = step_metrics(run, params, sources)
    if jax.process_index() == 0:
        write(run, sources, outputs)
    return {
        "metrics": metrics,
        **result,
        "sampler": "beam" if autoregressive(config) else options.translation.solver,
    }


def batch_at(run: Run, sources: Sources, start: int) -> tuple[Array, ...]:
    """Indices, sources and their masks of one batch; the last batch is padded with the last source."""
    rows = batch_sharding(run.mesh)
    indices = np.arange(start, start + run.config.sample.batch)
    at = np.minimum(indices, len(sources.sources) - 1)
    arrays = (indices, sources.source[at], sources.weights[at] > 0)
    return tuple(jax.make_array_from_callback(each.shape, rows, lambda part, each=each: each[part]) for each in arrays)


def compile_translator(run: Run, model: Translator, params: Any, first: tuple[Array, ...]) -> Any:
    """Compiled program of one batch; the noise of a sentence does not depend on the batch size."""

    def translate(params, root, indices, source, mask):
        return model.translate(params, example_keys(named(root, "sample"), indices), source, mask)

    with jax.set_mesh(run.mesh):
        function = jax.jit(translate, out_shardings=replicated(run.mesh))
        return function.lower(params, run.root, *first).compile()


def draw(run: Run, model: Translator, params: Any, sources: Sources) -> Outputs:
    """All candidates of all sources; compilation and a first call are not timed."""
    size, count = run.config.sample.batch, len(sources.sources)
    program = compile_translator(run, model, params, batch_at(run, sources, 0))
    jax.block_until_ready(program(params, run.root, *batch_at(run, sources, 0)))
    texts: list[list[str]] = []
    seconds = 0.0
    with tqdm(total=count, desc="translating", unit="line", disable=hides_progress(run), leave=True) as progress:
        for start in range(0, count, size):
            inputs = batch_at(run, sources, start)
            begin = time.perf_counter()
            candidates: Candidates = jax.block_until_ready(program(params, run.root, *inputs))
            seconds += time.perf_counter() - begin
            tokens = np.asarray(candidates.tokens)[: count - start]
            texts += [[text_of(run.dataset.tokenizer, row) for row in rows] for rows in tokens]
            progress.update(len(tokens))
    # The time of the last batch includes its padding.
    return Outputs(texts, seconds / (-(-count // size) * size))


def hides_progress(run: Run) -> bool:
    """Returns whether the progress bar is hidden; translation of a user's file always shows it."""
    return jax.process_index() > 0 or not (run.config.sample.source or sys.stderr.isatty())


def select_candidates(run: Run, sources: Sources, groups: list[list[str]]) -> list[str]:
    """One candidate per sentence."""
    options = run.config.sample.translation
    if len(groups[0]) == 1:
        return [group[0] for group in groups]
    if options.rerank == "mbr":
        indices = bleu_mbr(groups, options.tokenize)
    else:
        indices = judged(sources.sources, groups, judge(run, len(groups[0]), sources))
    return [group[index] for group, index in zip(groups, indices, strict=True)]


def judge(run: Run, count: int, sources: Sources) -> Any:
    """Returns mean log-likelihoods per token under the causal row `judge.row`, for `count` candidates per source."""
    tokenizer, size = run.dataset.tokenizer, run.config.judge.batch
    config, system, params = run.load("scorer")
    if families.family_of(config) is not seq2seq or not autoregressive(config):
        raise ValueError(f"judge.row: {run.config.judge.row!r} is not autoregressive; name a row that is")
    end = tokenizer.eos_id
    assert end is not None
    score, length = jax.jit(mean_log_likelihood(system)), longest(run.config)

    def log_likelihoods(source_texts: list[str], texts: list[str]) -> Float[np.ndarray, " N"]:
        del source_texts  # `sources` holds their tokens
        tokens = np.full((len(texts), length), tokenizer.pad_id, np.int32)
        for row, ids in zip(tokens, tokenizer.encode_batch(texts), strict=True):
            ids = np.append(ids[: length - 1], end)
            row[: len(ids)] = ids
        parts = []
        for at in in_batches(len(texts), size):
            conditioning = (sources.source[at // count], sources.weights[at // count] > 0)
            weights = (tokens[at] != tokenizer.pad_id).astype(np.float32)
            parts.append(np.asarray(score(params, *conditioning, tokens[at], weights)))
        return np.concatenate(parts)[: len(texts)]

    return log_likelihoods


def step_metrics(run: Run, params: Any, sources: Sources) -> list[dict[str, float]]:
    """Metrics of each step on the first batch.

    They are, over all candidates, the share of tokens that differ from the previous step, the mean confidence, and the
    mean squared difference between the self-conditioning input and the new estimate; and BLEU of the first candidates.
    """
    model, options = translator(run.config, run.system, diagnose=True), run.config.sample
    first = batch_at(run, sources, 0)
    candidates: Candidates = compile_translator(run, model, params, first)(params, run.root, *first)
    assert candidates.steps is not None and sources.references is not None
    sentences, count = min(options.batch, len(sources.sources)), candidates.tokens.shape[1]
    target = np.asarray(candidates.target)[:sentences]
    shape = (options.steps, -1, count)
    tokens = np.asarray(candidates.steps.tokens).reshape(*shape, target.shape[-1])[:, :sentences]
    means = {"confidence": candidates.steps.confidence, "memory_error": candidates.steps.error}
    means = {name: np.asarray(value).reshape(shape)[:, :sentences].mean(axis=(1, 2)) for name, value in means.items()}
    trace = []
    for step in range(options.steps):
        row = {"step": step + 1} | {name: float(value[step]) for name, value in means.items()}
        if step:
            row["changed"] = float((tokens[step] != tokens[step - 1])[target].mean())
        if options.steps <= MAX_MEASURED_STEPS:
            texts = np.where(target, tokens[step], run.dataset.tokenizer.pad_id)[:, 0]
            outputs = [text_of(run.dataset.tokenizer, each) for each in texts]
            row["bleu"] = scores(outputs, sources.references[:sentences], options.translation.tokenize).metrics["bleu"]
        trace.append(row)
    return trace


def write(run: Run, sources: Sources, outputs: list[str]) -> None:
    """Write samples.txt, and for a user's file translations.txt with the line numbers of the file."""
    references = sources.references or [()] * len(outputs)
    parts = []
    for source, targets, output in zip(sources.sources, references, outputs, strict=True):
        lines = [f"source     {source}", *(f"reference  {text}" for text in targets[:1]), f"output     {output}"]
        parts.append("\n".join(lines) + "\n")
    atomic_write(run.folder / "samples.txt", "\n".join(parts))
    if sources.references is None:
        texts = [""] * len(user_lines(run.config.sample.source))
        for number, output in zip(sources.lines, outputs, strict=True):
            texts[number] = output
        atomic_write(run.folder / "translations.txt", "".join(f"{text}\n" for text in texts))


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Translations have no images."""
    return []
