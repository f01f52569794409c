"""The verb `sample`: draw examples from one model, count what they cost, and measure them."""

import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Int
from tqdm import tqdm

from diffusion import build
from diffusion.metrics.statistics import over_sets
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.report.rows import provenance
from diffusion.rng import example_keys, named
from diffusion.train.mesh import batch_sharding, replicated
from experiments import domains, images, mixtures, prompted, texts, translations
from experiments.context import Context, trained_weights
from experiments.domains import SCIENCES
from experiments.jobs import Job
from experiments.judge import check_judge

# Domains that are checked, sampled and measured by a file of their own.
OWN = {"prompted": prompted, "mixture": mixtures, "pairs": translations}


class Samples(NamedTuple):
    """One set of samples, and the classes that they were asked to be of, where the network is told one."""

    tokens: Int[np.ndarray, "N L"]
    labels: Int[np.ndarray, " N"] | None


def run(job: Context, spec: Job) -> dict:
    """Sample, write the samples, and return their measures with their cost.

    Of several sets (`sample.repeats`) the measures are means with 95 % intervals; each set's own are kept beside them.
    """
    config, options = job.config, job.config.sample
    begin = time.time()
    check(job)
    if job.dataset.domain in OWN:
        return OWN[job.dataset.domain].run(job, spec)
    if options.policy == "data":
        sets, cost = real(job), {"evaluations": 0.0, "predictor_evaluations": 0.0, "gigaflops": 0.0, "idle_share": 0.0}
    else:
        sets, cost = generate(job, spec)
    if job.dataset.image:
        measures = images.measure(job, spec, [each.tokens for each in sets])
    elif job.dataset.domain in SCIENCES:
        measures = domains.measure(job, sets)
    elif options.infill:
        measures = [texts.measure_gaps(job, each.tokens) for each in sets]
    else:
        measures = [texts.measure(job, spec, each.tokens, cost["evaluations"]) for each in sets]
    return {
        "metrics": cost | over_sets(measures),
        **({"sets": measures} if len(measures) > 1 else {}),
        "domain": job.dataset.domain,
        "sampler": "autoregressive" if config.model.causal else options.policy,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def check(job: Context) -> None:
    """Raise ValueError for what a training need not be waited for: counts, classes, prompts, judges."""
    options, domain = job.config.sample, job.dataset.domain
    if options.source and domain != "pairs":
        raise ValueError(f"sample.source: {domain} has no sources to translate; leave it empty")
    if domain in OWN:
        OWN[domain].check(job)
        return
    if options.count < 1 or options.batch < 1:
        raise ValueError(f"sample.count and sample.batch: must be at least 1, not {options.count}, {options.batch}")
    if options.repeats < 1:
        raise ValueError(f"sample.repeats: must be at least 1, not {options.repeats}")
    if options.repeats > 1 and domain not in ("image", *SCIENCES):
        raise ValueError(f"sample.repeats: {domain} is measured as one set; set it to 1, or raise sample.count")
    if options.infill and domain != "text":
        raise ValueError(f"sample.infill: gaps are filled in text, not in {domain}; set it to 0")
    check_label(options.label, job.config.model.labels)
    if options.policy != "data":
        given(job, options.length or job.config.data.length)
    if job.dataset.image:
        images.check(job)
    elif domain in SCIENCES:
        domains.check(job)
    else:
        check_judge(job.config.judge)


def prompts(job: Context, length: int) -> np.ndarray:
    """One prompt [L]: masks, with the tokens of sample.prompt at the start and of sample.suffix at the end.

    Where every example of the data begins with one token, so does the prompt.

    Raises:
      ValueError: when they leave nothing to write, or a causal model is given a suffix.
    """
    tokenizer, options = job.dataset.tokenizer, job.config.sample
    start, end = tokenizer.encode(options.prompt), tokenizer.encode(options.suffix)
    if job.dataset.start is not None:
        start = np.append(np.int32(job.dataset.start), start)
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
    """What every sample starts from [N, L], or [N, L, l] with `sample.planes`: digits of held-out examples.

    With `sample.infill` it is held-out windows with a gap each.

    Raises:
      ValueError: for places that the code does not have, or a prompt beside them.
    """
    options = job.config.sample
    count = options.count * options.repeats
    prompt = np.broadcast_to(prompts(job, length)[None], (count, length))
    if options.infill:
        if options.prompt or options.suffix or len(options.planes) or length != job.config.data.length:
            raise ValueError("sample.infill: goes without sample.prompt, suffix, planes and length")
        return texts.hidden(job)
    if not len(options.planes):
        return prompt
    process = job.system.masking
    if not set(options.planes) < set(range(process.subtokens)):
        raise ValueError(f"sample.planes: {tuple(options.planes)} must be some of 0..{process.subtokens - 1}, not all")
    if options.prompt or options.suffix or length != job.config.data.length:
        raise ValueError("sample.planes: goes without sample.prompt, sample.suffix and sample.length")
    assert isinstance(process, PartialMaskedDiffusion)
    digits = np.array(process.codec.encode(texts.held_out(job, count)))
    if len(digits) < count:
        raise ValueError(f"sample.count: {count} is more than the {len(digits)} held-out examples of planes")
    free = ~np.isin(np.arange(process.subtokens), list(options.planes))
    digits[..., free] = process.mask_id
    return digits


def generate(job: Context, spec: Job) -> tuple[list[Samples], dict[str, float]]:
    """Draw `sample.repeats` sets of `sample.count` sequences, one after the other, in batches, and count the cost.

    Sample i is the same for every batch size, device count and number of sets.
    """
    options = job.config.sample
    length, count = options.length or job.config.data.length, options.count * options.repeats
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    sample = build.sampler(job.config, job.system)
    prompt, label = given(job, length), labels(job)

    def draw(params, root, prompt, indices, label):
        return sample(params, example_keys(named(root, "sample"), indices), prompt, label)

    def arguments(start: int) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        indices = np.arange(start, start + options.batch)
        wanted = np.minimum(indices, count - 1)
        told = None if label is None else put_rows(label[wanted], rows)
        return put_rows(prompt[wanted], rows), put_rows(indices, rows), told

    rows, whole = batch_sharding(job.mesh), replicated(job.mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    function = jax.jit(draw, in_shardings=(shardings, whole, rows, rows, rows), out_shardings=rows)
    root, parts = job.root, []
    with jax.set_mesh(job.mesh):
        compiled = function.lower(params, root, *arguments(0)).compile()
    clock = time.perf_counter()
    starts = range(0, count, options.batch)
    for start in tqdm(starts, desc="sampling", disable=not sys.stderr.isatty(), leave=False):
        parts.append(to_host(compiled(params, root, *arguments(start))))
    seconds = time.perf_counter() - clock
    tokens, evaluations, idle, invalid, predictor_evaluations = (
        np.concatenate([getattr(part, name) for part in parts])[:count]
        for name in ("tokens", "evaluations", "idle", "invalid", "predictor_evaluations")
    )
    # A causal network answers for one position at a time, and remembers the others.
    forward = build.forward_flops(job.config, job.system.classes) / (length if job.config.model.causal else 1)
    cost = {
        "evaluations": float(evaluations.mean()),
        "predictor_evaluations": float(predictor_evaluations.mean()),
        "gigaflops": float(evaluations.mean() * forward + predictor_evaluations.mean() * job.system.error_flops) / 1e9,
        "idle_share": float((idle / evaluations).mean()),
        # Every batch is computed whole, the last one's surplus too.
        "seconds_per_sample": seconds / (len(starts) * options.batch),
    }
    kept = np.ones(count, bool)
    if job.config.codec.digits > 1:
        cost["invalid_code_rate"] = float(invalid.sum() / tokens.size)
        kept = decodable(invalid)
    job.dataset.tokenizer.check(tokens[kept], special=False)
    return in_sets(tokens, label, kept, options.count), cost


def in_sets(
    tokens: Int[np.ndarray, "N L"], label: Int[np.ndarray, " N"] | None, kept: Bool[np.ndarray, " N"], count: int
) -> list[Samples]:
    """Consecutive sets of `count` samples, without those that are not kept."""
    starts = range(0, len(tokens), count)
    parts = [np.arange(start, min(start + count, len(tokens))) for start in starts]
    parts = [part[kept[part]] for part in parts]
    return [Samples(tokens[part], None if label is None else label[part]) for part in parts]


def real(job: Context) -> list[Samples]:
    """Held-out examples in place of samples: as many whole sets as there are, or one smaller one."""
    options, label = job.config.sample, None
    wanted = options.count * options.repeats
    if job.dataset.image:
        tokens = images.held_out(job, wanted)
    elif job.dataset.domain in SCIENCES:
        tokens, label = domains.held_out(job, wanted)
        label = label if job.config.model.labels else None
    else:
        tokens = texts.held_out(job, wanted)
    whole = max(len(tokens) // options.count, 1) * options.count
    tokens, label = tokens[:whole], None if label is None else label[:whole]
    return in_sets(tokens, label, np.ones(len(tokens), bool), options.count)


def check_label(label: int, classes: int) -> None:
    """Raise ValueError for a class that a network of `classes` (0: none) cannot be told."""
    if not classes and label >= 0:
        raise ValueError(f"sample.label: {label} is for a network that is told classes; set model.labels, or -1 here")
    if classes and not -2 <= label < classes:
        raise ValueError(f"sample.label: {label} must be -1 (as in the data), -2 (each in turn) or 0 .. {classes - 1}")


def labels(job: Context) -> Int[np.ndarray, " N"] | None:
    """The class that every sample is asked to be of; None for a network that is told none.

    Raises:
      ValueError: for a class that the data do not have.
    """
    options, classes = job.config.sample, job.config.model.labels
    check_label(options.label, classes)
    if not classes:
        return None
    indices = np.arange(options.count * options.repeats)
    if options.label >= 0:
        return np.full(len(indices), options.label, np.int32)
    if options.label == -2:
        return (indices % classes).astype(np.int32)
    train = job.dataset.split("train")
    return train.rows(np.random.default_rng(job.config.seed).integers(len(train), size=len(indices)))["label"]


def decodable(invalid: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which samples hold digits of tokens alone, given how many of each do not; says how many are left out.

    Raises:
      ValueError: when there is none.
    """
    broken = int((invalid > 0).sum())
    remedy = "sample.digits_draw=token and codec.carry_over=True never make one"
    if broken == len(invalid):
        raise ValueError(f"sample: every one of {broken} samples holds digits of no token ({remedy})")
    if broken:
        message = f"warning: {broken} of {len(invalid)} samples hold digits of no token and are left out ({remedy})"
        print(message, file=sys.stderr)
    return invalid == 0


def put_rows(array: np.ndarray, sharding) -> jax.Array:
    """The rows of a batch as a global array."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def to_host(tree):
    """Numpy arrays, also of what other processes hold."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)
