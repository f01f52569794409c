"""The verb `sample`: draw texts from one model, count what they cost, and measure them."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from diffusion import build
from diffusion.data import evaluation_batches
from diffusion.evaluate.generation import columns, last_features, measure, sample_entropy
from diffusion.evaluate.mauve import mauve
from diffusion.evaluate.python_code import parse_rate
from diffusion.randomness import example_keys, named
from diffusion.report.rows import provenance
from diffusion.train.mesh import batch_sharding, replicated
from experiments.context import Context, trained_weights
from experiments.jobs import Job, atomic_write
from experiments.judge import Judge, check_judge, make_judge
from experiments.table import SEPARATOR


def run(job: Context, spec: Job) -> dict:
    """Sample, write the texts, and return their measures with their cost."""
    config, options = job.config, job.config.sample
    begin = time.time()
    check(job)
    if options.policy == "data":
        tokens, cost = held_out(job, options.count), {"evaluations": 0.0, "idle_share": 0.0}
    else:
        tokens, cost = generate(job, spec)
    tokenizer = job.dataset.tokenizer
    decoded = [tokenizer.decode(row) for row in tokens]
    metrics = cost | quality(job, spec, tokens, cost["evaluations"])
    if jax.process_index() == 0:
        atomic_write(job.folder / "samples.txt", SEPARATOR.join(decoded) + "\n")
    return {
        "metrics": metrics,
        "sampler": "autoregressive" if config.model.causal else options.policy,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def check(job: Context) -> None:
    """Raise ValueError for what a training need not be waited for: counts, prompts that do not fit, no judge."""
    options = job.config.sample
    if options.count < 1 or options.batch < 1:
        raise ValueError(f"sample.count and sample.batch: must be at least 1, not {options.count}, {options.batch}")
    if options.policy != "data":
        prompts(job, options.length or job.config.data.length)
    check_judge(job.config.judge)


def prompts(job: Context, length: int) -> np.ndarray:
    """One prompt [L]: masks, with the tokens of sample.prompt at the start and of sample.suffix at the end.

    Raises:
      ValueError: when they leave nothing to write, or a causal model is given a suffix.
    """
    tokenizer, options = job.dataset.tokenizer, job.config.sample
    start, end = tokenizer.encode(options.prompt), tokenizer.encode(options.suffix)
    if len(start) + len(end) >= length:
        raise ValueError(
            f"sample.prompt: {len(start)} + {len(end)} tokens leave nothing of {length} to write; shorten prompt or "
            "suffix, or raise --config.sample.length"
        )
    if len(end) and job.config.model.causal:
        raise ValueError("sample.suffix: an autoregressive model cannot read what follows; leave it empty")
    prompt = np.full(length, tokenizer.mask_id, np.int32)
    prompt[: len(start)] = start
    prompt[length - len(end) :] = end
    return prompt


def generate(job: Context, spec: Job) -> tuple[np.ndarray, dict[str, float]]:
    """Draw `sample.count` sequences in batches; sample i is the same for every batch size and device count."""
    options = job.config.sample
    length = options.length or job.config.data.length
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    sample = build.sampler(job.config, job.system)
    prompt = prompts(job, length)

    def draw(params, root, prompt, indices):
        keys = example_keys(named(root, "sample"), indices)
        return sample(params, keys, jnp.broadcast_to(prompt[None], (len(indices), length)))

    rows, whole = batch_sharding(job.mesh), replicated(job.mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    function = jax.jit(draw, in_shardings=(shardings, whole, whole, rows), out_shardings=rows)
    root, parts = job.root, []
    with jax.set_mesh(job.mesh):
        compiled = function.lower(params, root, prompt, put_indices(0, options.batch, rows)).compile()
    clock = time.perf_counter()
    starts = range(0, options.count, options.batch)
    for start in tqdm(starts, desc="sampling", disable=not sys.stderr.isatty(), leave=False):
        parts.append(to_host(compiled(params, root, prompt, put_indices(start, options.batch, rows))))
    seconds = time.perf_counter() - clock
    tokens, evaluations, idle = (
        np.concatenate([getattr(part, name) for part in parts])[: options.count]
        for name in ("tokens", "evaluations", "idle")
    )
    job.dataset.tokenizer.check(tokens, special=False)
    cost = {
        "evaluations": float(evaluations.mean()),
        "idle_share": float((idle / evaluations).mean()),
        # Every batch is computed whole, the last one's surplus too.
        "seconds_per_sample": seconds / (len(starts) * options.batch),
    }
    return tokens, cost


def put_indices(start: int, size: int, sharding) -> jax.Array:
    """Indices start .. start + size as a global array."""
    indices = np.arange(start, start + size)
    return jax.make_array_from_callback((size,), sharding, lambda part: indices[part])


def to_host(tree):
    """Numpy arrays, also of what other processes hold."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def held_out(job: Context, count: int) -> np.ndarray:
    """Windows of the test split: what perfect samples would score."""
    data = evaluation_batches(job.dataset, "test", min(count, len(job.dataset.split("test"))), limit=count)
    return np.concatenate([batch["tokens"] for batch in data])[:count]


def quality(job: Context, spec: Job, tokens: np.ndarray, evaluations: float) -> dict[str, float]:
    """Entropy and parse rate always; perplexity, diversity and MAUVE where there is a judge."""
    config, tokenizer = job.config, job.dataset.tokenizer
    texts = ["\n".join(tokenizer.documents(row)) for row in tokens]
    metrics: dict[str, float] = {"samples": len(tokens), "entropy": float(sample_entropy(tokens).mean())}
    if config.quality.parse:
        rates = parse_rate(texts)
        metrics |= {"parse_rate": rates.lines, "parse_whole": rates.whole, "parse_blocks": rates.blocks}
    judge = make_judge(job, spec)
    if judge is None:
        return metrics
    judged, widths = judge.tokens(tokens, texts)
    record = measure(
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
    return metrics | {key: value for key, value in columns(record).items() if value is not None}


def mauve_score(job: Context, judge: Judge, tokens: np.ndarray, judged: np.ndarray, widths) -> float:
    """MAUVE against as many held-out windows, from the judge's features at the last token."""
    references = held_out(job, len(tokens))
    texts = ["\n".join(job.dataset.tokenizer.documents(row)) for row in references]
    others, other_widths = judge.tokens(references, texts)
    sides = ((others, other_widths), (judged, widths))
    features = [
        last_features(
            judge.features, rows, np.full(len(rows), rows.shape[1]) if width is None else width, job.config.judge.batch
        )
        for rows, width in sides
    ]
    return mauve(*features).score
