"""What the verb `sample` does for pairs: translate a split and measure it, or translate a user's file."""

import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from diffusion.data.pairs import text_of
from diffusion.metrics.translation import check_measures, scores
from diffusion.report.rows import provenance
from diffusion.rng import example_keys, named
from diffusion.sampling.sequences.rerank import bleu_mbr, judged
from diffusion.train.mesh import batch_sharding, check_batch, replicated
from diffusion.train.weights import load_weights
from experiments import families
from experiments.families.translation import Candidates, Translator, longest, mean_log_likelihood, translator
from experiments.plan import Job, atomic_write, read_config
from experiments.run_context import Context, trained_weights
from experiments.tasks.translation_sources import Task, held_out, own, user_lines

WATCHED = 20  # most steps of which every one's BLEU is measured


class Drawn(NamedTuple):
    """Candidates of every source as texts, and the seconds that a sentence took."""

    texts: list[list[str]]
    seconds: float


def check(job: Context) -> None:
    """Raise ValueError for what a training need not be waited for: samplers, counts, measures, a file of sources."""
    options = job.config.sample
    for name in ("count", "batch"):
        if options[name] < 1:
            raise ValueError(f"sample.{name}: must be at least 1, not {options[name]}")
    if options.repeats != 1:
        raise ValueError("sample.repeats: translations are measured as one set; set it to 1, or pass more seeds")
    if options.prompt or options.suffix or options.infill:
        raise ValueError("sample.prompt, suffix and infill: pairs have sources; pass --config.sample.source=FILE")
    if longest(job.config) > job.config.encoder_decoder.positions:
        raise ValueError(
            f"encoder_decoder.positions: {longest(job.config)} tokens of a target exceed "
            f"{job.config.encoder_decoder.positions}; raise it, or lower sample.length"
        )
    made = translator(job.config, job.system)
    check_batch(options.batch, job.mesh, field="sample.batch")
    check_measures(options.translation.tokenize, options.translation.rouge, options.translation.bertscore)
    if made.candidates > 1 and options.translation.rerank == "judge" and job.config.judge.name != "row":
        raise ValueError("sample.translation.rerank: judge needs judge.name=row, and a causal row as judge.row")
    if options.source:
        if options.translation.lengths == "known":
            raise ValueError("sample.translation.lengths: those of a user's file are not known; set it to around")
        user_lines(options.source)
    elif options.translation.split == "train":
        raise ValueError("sample.translation.split: texts of training are not kept; set it to test or validation")
    else:
        job.dataset.split(options.translation.split)


def run(job: Context, spec: Job) -> dict:
    """Translate, write the texts, and return their measures with their cost."""
    config, options, begin = job.config, job.config.sample, time.time()
    task = own(job) if options.source else held_out(job)
    made = translator(config, job.system)
    params = trained_weights(spec, config, job.system, job.mesh, job.workdir)
    drawn = draw(job, made, params, task)
    clock = time.perf_counter()
    outputs = chosen(job, spec, task, drawn.texts)
    metrics: dict[str, Any] = {
        "evaluations": made.evaluations,
        "candidates": made.candidates,
        "gigaflops": made.flops / 1e9,
        "seconds_per_sentence": drawn.seconds,
        "rerank_seconds_per_sentence": (time.perf_counter() - clock) / len(outputs),
        "sentences": len(outputs),
        "sources_cut": task.cut,
    }
    if config.encoder_decoder.kind != "causal":
        metrics["steps"] = options.steps
    result = {}
    if task.references is not None:
        told = options.translation
        found = scores(outputs, task.references, told.tokenize, told.rouge, told.bertscore, told.bertscore_layer)
        metrics, result["signature"] = found.metrics | metrics, found.signature
        if options.translation.diagnose and config.encoder_decoder.kind != "causal":
            result["by_step"] = traced(job, params, task)
    if jax.process_index() == 0:
        write(job, task, outputs)
    return {
        "metrics": metrics,
        **result,
        "domain": job.dataset.domain,
        "sampler": "beam" if config.encoder_decoder.kind == "causal" else options.translation.solver,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def batched(job: Context, task: Task, start: int) -> tuple[Array, ...]:
    """Indices, sources, their masks and target lengths of one batch, the last one filled up."""
    rows = batch_sharding(job.mesh)
    indices = np.arange(start, start + job.config.sample.batch)
    at = np.minimum(indices, len(task.sources) - 1)
    arrays = (indices, task.source[at], task.weights[at] > 0, task.lengths[at])
    return tuple(jax.make_array_from_callback(each.shape, rows, lambda part, each=each: each[part]) for each in arrays)


def compiled(job: Context, made: Translator, params: Any, first: tuple[Array, ...]) -> Any:
    """The program of one batch; a sentence's noise is the same for every batch size."""

    def translate(params, root, indices, source, mask, lengths):
        return made.translate(params, example_keys(named(root, "sample"), indices), source, mask, lengths)

    with jax.set_mesh(job.mesh):
        function = jax.jit(translate, out_shardings=replicated(job.mesh))
        return function.lower(params, job.root, *first).compile()


def draw(job: Context, made: Translator, params: Any, task: Task) -> Drawn:
    """All candidates of all sources; compiling, and a first call, come before the clock starts."""
    size, count = job.config.sample.batch, len(task.sources)
    program = compiled(job, made, params, batched(job, task, 0))
    jax.block_until_ready(program(params, job.root, *batched(job, task, 0)))
    texts: list[list[str]] = []
    seconds = 0.0
    with tqdm(total=count, desc="translating", unit="line", disable=hidden(job), leave=True) as progress:
        for start in range(0, count, size):
            inputs = batched(job, task, start)
            clock = time.perf_counter()
            found: Candidates = jax.block_until_ready(program(params, job.root, *inputs))
            seconds += time.perf_counter() - clock
            tokens = np.asarray(found.tokens)[: count - start]
            texts += [[text_of(job.dataset.tokenizer, row) for row in rows] for rows in tokens]
            progress.update(len(tokens))
    # Every batch is computed whole, the last one's surplus too.
    return Drawn(texts, seconds / (-(-count // size) * size))


def hidden(job: Context) -> bool:
    """Whether there is no progress to show: a user who waits for a file sees it always."""
    return jax.process_index() > 0 or not (job.config.sample.source or sys.stderr.isatty())


def chosen(job: Context, spec: Job, task: Task, groups: list[list[str]]) -> list[str]:
    """One candidate of every sentence."""
    options = job.config.sample.translation
    if len(groups[0]) == 1:
        return [group[0] for group in groups]
    if options.rerank == "mbr":
        picked = bleu_mbr(groups, options.role, options.tokenize)
    else:
        picked = judged(task.sources, groups, judge(job, spec, len(groups[0]), task))
    return [group[index] for group, index in zip(groups, picked, strict=True)]


def judge(job: Context, spec: Job, count: int, task: Task) -> Any:
    """Mean log-likelihoods of a token under the causal row `judge.row`."""
    folder = job.workdir / "jobs" / spec.needs[-1]
    tokenizer, size = job.dataset.tokenizer, job.config.judge.batch
    config = read_config(folder)
    if config.model.net != "encoder_decoder" or config.encoder_decoder.kind != "causal":
        raise ValueError(f"judge.row: {job.config.judge.row!r} is not autoregressive; name a row that is")
    system = families.system(config, tokenizer.vocab_size)
    params = load_weights(folder / "weights", system.init, job.mesh)
    end = tokenizer.eos_id
    assert end is not None
    score, length = jax.jit(mean_log_likelihood(system)), longest(job.config)

    def judging(sources: list[str], texts: list[str]) -> Float[np.ndarray, " N"]:
        del sources  # their tokens are there
        tokens = np.full((len(texts), length), tokenizer.pad_id, np.int32)
        for row, ids in zip(tokens, tokenizer.encode_batch(texts), strict=True):
            ids = np.append(ids[: length - 1], end)
            row[: len(ids)] = ids
        found = []
        for start in range(0, len(texts), size):
            at = np.minimum(np.arange(start, start + size), len(texts) - 1)
            told = (task.source[at // count], task.weights[at // count] > 0)
            weights = (tokens[at] != tokenizer.pad_id).astype(np.float32)
            found.append(np.asarray(score(params, *told, tokens[at], weights)))
        return np.concatenate(found)[: len(texts)]

    return judging


def traced(job: Context, params: Any, task: Task) -> list[dict[str, float]]:
    """What every step looks like on the first batch: of all candidates, BLEU of each sentence's first.

    The share of tokens that changed since the step before, mean confidence, and the mean squared difference of the
    memory that was read and the new estimate.
    """
    made, options = translator(job.config, job.system, diagnose=True), job.config.sample
    first = batched(job, task, 0)
    found: Candidates = compiled(job, made, params, first)(params, job.root, *first)
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
        if options.steps <= WATCHED:
            texts = np.where(target, tokens[step], job.dataset.tokenizer.pad_id)[:, 0]
            outputs = [text_of(job.dataset.tokenizer, each) for each in texts]
            row["bleu"] = scores(outputs, task.references[:kept], options.translation.tokenize).metrics["bleu"]
        trace.append(row)
    return trace


def write(job: Context, task: Task, outputs: list[str]) -> None:
    """samples.txt, for people, and of a user's file translations.txt, line beside line."""
    references = task.references or [()] * len(outputs)
    parts = []
    for source, known, output in zip(task.sources, references, outputs, strict=True):
        lines = [f"source     {source}", *(f"reference  {text}" for text in known[:1]), f"output     {output}"]
        parts.append("\n".join(lines) + "\n")
    atomic_write(job.folder / "samples.txt", "\n".join(parts))
    if task.references is None:
        texts = [""] * len(user_lines(job.config.sample.source))
        for number, output in zip(task.lines, outputs, strict=True):
            texts[number] = output
        atomic_write(job.folder / "translations.txt", "".join(f"{text}\n" for text in texts))
