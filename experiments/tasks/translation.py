"""Translations of pairs: of a held-out split with their metrics, or of a user's file."""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from diffusion.data.pairs import text_of
from diffusion.metrics.translation import check_measures, scores
from diffusion.rng import example_keys, named
from diffusion.sampling.sequences.rerank import bleu_mbr, judged
from diffusion.train.mesh import batch_sharding, check_batch, replicated
from experiments import families
from experiments.families import seq2seq
from experiments.families.seq2seq import autoregressive
from experiments.families.translation import Candidates, Translator, longest, mean_log_likelihood, translator
from experiments.plan import atomic_write
from experiments.run_context import Run, in_batches
from experiments.tasks.translation_sources import Task, held_out, own, user_lines

LINES = True
MAX_MEASURED_STEPS = 20  # up to so many steps have a BLEU each


class Drawn(NamedTuple):
    """Candidates of every source as texts, and the seconds that a sentence took."""

    texts: list[list[str]]
    seconds: float


def check(run: Run) -> None:
    """Raise ValueError for what a training need not be waited for: samplers, counts, measures, a file of sources."""
    options = run.config.sample
    for name in ("count", "batch"):
        if options[name] < 1:
            raise ValueError(f"sample.{name}: must be at least 1, not {options[name]}")
    if options.repeats != 1:
        raise ValueError("sample.repeats: translations are measured as one set; set it to 1, or pass more seeds")
    if options.prompt or options.suffix or options.infill:
        raise ValueError("sample.prompt, suffix and infill: pairs have sources; pass --config.sample.source=FILE")
    if longest(run.config) > run.config.encoder_decoder.positions:
        raise ValueError(
            f"encoder_decoder.positions: {longest(run.config)} tokens of a target exceed "
            f"{run.config.encoder_decoder.positions}; raise it, or lower sample.length"
        )
    made = translator(run.config, run.system)
    check_batch(options.batch, run.mesh, field="sample.batch")
    check_measures(options.translation.tokenize, options.translation.rouge, options.translation.bertscore)
    if made.candidates > 1 and options.translation.rerank == "judge" and run.config.judge.name != "row":
        raise ValueError("sample.translation.rerank: judge needs judge.name=row, and a causal row as judge.row")
    if options.source:
        if options.translation.lengths == "known":
            raise ValueError("sample.translation.lengths: those of a user's file are not known; set it to around")
        user_lines(options.source)
    elif options.translation.split == "train":
        raise ValueError("sample.translation.split: texts of training are not kept; set it to test or validation")
    else:
        run.dataset.split(options.translation.split)


def sample(run: Run) -> dict:
    """Translate, write the texts, and return their metrics with their cost."""
    config, options = run.config, run.config.sample
    task = own(run) if options.source else held_out(run)
    made = translator(config, run.system)
    params = run.weights()
    drawn = draw(run, made, params, task)
    clock = time.perf_counter()
    outputs = chosen(run, task, drawn.texts)
    metrics: dict[str, Any] = {
        "evaluations": made.evaluations,
        "candidates": made.candidates,
        "gigaflops": made.flops / 1e9,
        "seconds_per_sentence": drawn.seconds,
        "rerank_seconds_per_sentence": (time.perf_counter() - clock) / len(outputs),
        "sentences": len(outputs),
        "sources_cut": task.cut,
    }
    if not autoregressive(config):
        metrics["steps"] = options.steps
    result = {}
    if task.references is not None:
        told = options.translation
        found = scores(outputs, task.references, told.tokenize, told.rouge, told.bertscore, told.bertscore_layer)
        metrics, result["signature"] = found.metrics | metrics, found.signature
        if options.translation.diagnose and not autoregressive(config):
            result["by_step"] = traced(run, params, task)
    if jax.process_index() == 0:
        write(run, task, outputs)
    return {
        "metrics": metrics,
        **result,
        "sampler": "beam" if autoregressive(config) else options.translation.solver,
    }


def batched(run: Run, task: Task, start: int) -> tuple[Array, ...]:
    """Indices, sources, their masks and target lengths of one batch, the last one filled up."""
    rows = batch_sharding(run.mesh)
    indices = np.arange(start, start + run.config.sample.batch)
    at = np.minimum(indices, len(task.sources) - 1)
    arrays = (indices, task.source[at], task.weights[at] > 0, task.lengths[at])
    return tuple(jax.make_array_from_callback(each.shape, rows, lambda part, each=each: each[part]) for each in arrays)


def compiled(run: Run, made: Translator, params: Any, first: tuple[Array, ...]) -> Any:
    """The program of one batch; a sentence's noise is the same for every batch size."""

    def translate(params, root, indices, source, mask, lengths):
        return made.translate(params, example_keys(named(root, "sample"), indices), source, mask, lengths)

    with jax.set_mesh(run.mesh):
        function = jax.jit(translate, out_shardings=replicated(run.mesh))
        return function.lower(params, run.root, *first).compile()


def draw(run: Run, made: Translator, params: Any, task: Task) -> Drawn:
    """All candidates of all sources; compiling, and a first call, come before the clock starts."""
    size, count = run.config.sample.batch, len(task.sources)
    program = compiled(run, made, params, batched(run, task, 0))
    jax.block_until_ready(program(params, run.root, *batched(run, task, 0)))
    texts: list[list[str]] = []
    seconds = 0.0
    with tqdm(total=count, desc="translating", unit="line", disable=hidden(run), leave=True) as progress:
        for start in range(0, count, size):
            inputs = batched(run, task, start)
            clock = time.perf_counter()
            found: Candidates = jax.block_until_ready(program(params, run.root, *inputs))
            seconds += time.perf_counter() - clock
            tokens = np.asarray(found.tokens)[: count - start]
            texts += [[text_of(run.dataset.tokenizer, row) for row in rows] for rows in tokens]
            progress.update(len(tokens))
    # Every batch is computed whole, the last one's surplus too.
    return Drawn(texts, seconds / (-(-count // size) * size))


def hidden(run: Run) -> bool:
    """Whether there is no progress to show: a user who waits for a file sees it always."""
    return jax.process_index() > 0 or not (run.config.sample.source or sys.stderr.isatty())


def chosen(run: Run, task: Task, groups: list[list[str]]) -> list[str]:
    """One candidate of every sentence."""
    options = run.config.sample.translation
    if len(groups[0]) == 1:
        return [group[0] for group in groups]
    if options.rerank == "mbr":
        picked = bleu_mbr(groups, options.role, options.tokenize)
    else:
        picked = judged(task.sources, groups, judge(run, len(groups[0]), task))
    return [group[index] for group, index in zip(groups, picked, strict=True)]


def judge(run: Run, count: int, task: Task) -> Any:
    """Mean log-likelihoods of a token under the causal row `judge.row`."""
    tokenizer, size = run.dataset.tokenizer, run.config.judge.batch
    config, system, params = run.load("scorer")
    if families.family_of(config) is not seq2seq or not autoregressive(config):
        raise ValueError(f"judge.row: {run.config.judge.row!r} is not autoregressive; name a row that is")
    end = tokenizer.eos_id
    assert end is not None
    score, length = jax.jit(mean_log_likelihood(system)), longest(run.config)

    def judging(sources: list[str], texts: list[str]) -> Float[np.ndarray, " N"]:
        del sources  # their tokens are there
        tokens = np.full((len(texts), length), tokenizer.pad_id, np.int32)
        for row, ids in zip(tokens, tokenizer.encode_batch(texts), strict=True):
            ids = np.append(ids[: length - 1], end)
            row[: len(ids)] = ids
        found = []
        for at in in_batches(len(texts), size):
            told = (task.source[at // count], task.weights[at // count] > 0)
            weights = (tokens[at] != tokenizer.pad_id).astype(np.float32)
            found.append(np.asarray(score(params, *told, tokens[at], weights)))
        return np.concatenate(found)[: len(texts)]

    return judging


def traced(run: Run, params: Any, task: Task) -> list[dict[str, float]]:
    """What every step looks like on the first batch: of all candidates, BLEU of each sentence's first.

    The share of tokens that changed since the step before, mean confidence, and the mean squared difference of the
    memory that was read and the new estimate.
    """
    made, options = translator(run.config, run.system, diagnose=True), run.config.sample
    first = batched(run, task, 0)
    found: Candidates = compiled(run, made, params, first)(params, run.root, *first)
    assert found.steps is not None and task.references is not None
    kept, count = min(options.batch, len(task.sources)), found.tokens.shape[1]
    target = np.asarray(found.target)[:kept]
    shape = (options.steps, -1, count)
    tokens = np.asarray(found.steps.tokens).reshape(*shape, target.shape[-1])[:, :kept]
    means = {"confidence": found.steps.confidence, "memory_error": found.steps.error}
    means = {name: np.asarray(value).reshape(shape)[:, :kept].mean(axis=(1, 2)) for name, value in means.items()}
    trace = []
    for step in range(options.steps):
        row = {"step": step + 1} | {name: float(value[step]) for name, value in means.items()}
        if step:
            row["changed"] = float((tokens[step] != tokens[step - 1])[target].mean())
        if options.steps <= MAX_MEASURED_STEPS:
            texts = np.where(target, tokens[step], run.dataset.tokenizer.pad_id)[:, 0]
            outputs = [text_of(run.dataset.tokenizer, each) for each in texts]
            row["bleu"] = scores(outputs, task.references[:kept], options.translation.tokenize).metrics["bleu"]
        trace.append(row)
    return trace


def write(run: Run, task: Task, outputs: list[str]) -> None:
    """samples.txt, for people, and of a user's file translations.txt, line beside line."""
    references = task.references or [()] * len(outputs)
    parts = []
    for source, known, output in zip(task.sources, references, outputs, strict=True):
        lines = [f"source     {source}", *(f"reference  {text}" for text in known[:1]), f"output     {output}"]
        parts.append("\n".join(lines) + "\n")
    atomic_write(run.folder / "samples.txt", "\n".join(parts))
    if task.references is None:
        texts = [""] * len(user_lines(run.config.sample.source))
        for number, output in zip(task.lines, outputs, strict=True):
            texts[number] = output
        atomic_write(run.folder / "translations.txt", "".join(f"{text}\n" for text in texts))


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Translations have no images."""
    return []
