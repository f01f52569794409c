"""The verb `sample`: draw texts from one model, count what they cost, and measure them."""

import sys
import time

import jax
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
from experiments import images
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
        real = images.held_out if job.dataset.image else held_out
        tokens, cost = real(job, options.count), {"evaluations": 0.0, "idle_share": 0.0}
    else:
        tokens, cost = generate(job, spec)
    if job.dataset.image:
        metrics = cost | images.measure(job, spec, tokens)
    else:
        metrics = cost | quality(job, spec, tokens, cost["evaluations"])
        decoded = [job.dataset.tokenizer.decode(row) for row in tokens]
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
        given(job, options.length or job.config.data.length)
    if job.dataset.image:
        images.check(job)
    else:
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


def given(job: Context, length: int) -> np.ndarray:
    """What every sample starts from [count, L], or [count, L, l] with `sample.planes`: digits of held-out examples.

    Raises:
      ValueError: for places that the code does not have, or a prompt beside them.
    """
    options, process = job.config.sample, job.system.process
    prompt = np.broadcast_to(prompts(job, length)[None], (options.count, length))
    if not len(options.planes):
        return prompt
    if not set(options.planes) < set(range(process.digits)):
        raise ValueError(f"sample.planes: {tuple(options.planes)} must be some of 0..{process.digits - 1}, not all")
    if options.prompt or options.suffix or length != job.config.data.length:
        raise ValueError("sample.planes: goes without sample.prompt, sample.suffix and sample.length")
    digits = np.array(process.codec.encode(held_out(job, options.count)))
    if len(digits) < options.count:
        raise ValueError(f"sample.count: {options.count} is more than the {len(digits)} held-out examples of planes")
    free = ~np.isin(np.arange(process.digits), list(options.planes))
    digits[..., free] = process.mask_id
    return digits


def generate(job: Context, spec: Job) -> tuple[np.ndarray, dict[str, float]]:
    """Draw `sample.count` sequences in batches; sample i is the same for every batch size and device count."""
    options = job.config.sample
    length = options.length or job.config.data.length
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    sample = build.sampler(job.config, job.system)
    prompt, label = given(job, length), labels(job)

    def draw(params, root, prompt, indices, label):
        return sample(params, example_keys(named(root, "sample"), indices), prompt, label)

    def arguments(start: int) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        indices = np.arange(start, start + options.batch)
        real = np.minimum(indices, options.count - 1)
        told = None if label is None else put_rows(label[real], rows)
        return put_rows(prompt[real], rows), put_rows(indices, rows), told

    rows, whole = batch_sharding(job.mesh), replicated(job.mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    function = jax.jit(draw, in_shardings=(shardings, whole, rows, rows, rows), out_shardings=rows)
    root, parts = job.root, []
    with jax.set_mesh(job.mesh):
        compiled = function.lower(params, root, *arguments(0)).compile()
    clock = time.perf_counter()
    starts = range(0, options.count, options.batch)
    for start in tqdm(starts, desc="sampling", disable=not sys.stderr.isatty(), leave=False):
        parts.append(to_host(compiled(params, root, *arguments(start))))
    seconds = time.perf_counter() - clock
    tokens, evaluations, idle, invalid = (
        np.concatenate([getattr(part, name) for part in parts])[: options.count]
        for name in ("tokens", "evaluations", "idle", "invalid")
    )
    cost = {
        "evaluations": float(evaluations.mean()),
        "idle_share": float((idle / evaluations).mean()),
        # Every batch is computed whole, the last one's surplus too.
        "seconds_per_sample": seconds / (len(starts) * options.batch),
    }
    if job.config.codec.digits > 1:
        cost["invalid_code_rate"] = float(invalid.sum() / tokens.size)
        tokens = decodable(tokens, invalid)
    job.dataset.tokenizer.check(tokens, special=False)
    return tokens, cost


def labels(job: Context) -> np.ndarray | None:
    """The class that every sample is asked to be of [count]; None for a network that is told none.

    Raises:
      ValueError: for a class that the data do not have.
    """
    options, classes = job.config.sample, job.config.model.labels
    if not classes:
        return None
    if not -1 <= options.label < classes:
        raise ValueError(f"sample.label: {options.label} must be -1 (as in the data) or 0 .. {classes - 1}")
    if options.label >= 0:
        return np.full(options.count, options.label, np.int32)
    train = job.dataset.split("train")
    return train.rows(np.random.default_rng(job.config.seed).integers(len(train), size=options.count))["label"]


def decodable(tokens: np.ndarray, invalid: np.ndarray) -> np.ndarray:
    """The samples all of whose digits are those of tokens; says how many are left out.

    Raises:
      ValueError: when there is none.
    """
    broken = int((invalid > 0).sum())
    remedy = "sample.digits_draw=token and codec.carry_over=True never make one"
    if broken == len(tokens):
        raise ValueError(f"sample: every one of {broken} samples holds digits of no token ({remedy})")
    if broken:
        message = f"warning: {broken} of {len(tokens)} samples hold digits of no token and are left out ({remedy})"
        print(message, file=sys.stderr)
    return tokens[invalid == 0]


def put_rows(array: np.ndarray, sharding) -> jax.Array:
    """The rows of a batch as a global array."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


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
