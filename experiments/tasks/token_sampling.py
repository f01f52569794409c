"""Sampling of sequences of tokens, whatever they stand for: prompts, batches, costs, and sets of samples."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from diffusion.metrics.statistics import mean_over_sets
from diffusion.rng import example_keys, named
from diffusion.sampling.masked.sampler import Trace
from diffusion.train.mesh import batch_sharding, check_batch, replicated
from experiments import families
from experiments.families.base import System
from experiments.families.error_prediction import planned
from experiments.flops import sampling_flops
from experiments.run_context import Run
from experiments.tasks import token_batches
from experiments.tasks.checks import check_prompt, check_room, check_suffix
from experiments.tasks.planner import opened
from experiments.tasks.token_batches import put_rows


class SampleSet(NamedTuple):
    """One set of samples, with the classes on which they are conditioned, if any."""

    tokens: Int[np.ndarray, "N L"]
    labels: Int[np.ndarray, " N"] | None


@dataclass(frozen=True, kw_only=True)
class TokenTask:
    """What a kind of data that is a sequence of tokens says of its samples.

    `held_out(run, count)` gives held-out examples with their labels, `measure(run, sets, cost)` writes samples and
    returns the metrics of each set, and `masked_gaps(run)` gives held-out windows with masks to fill (`sample.infill`,
    `sample.prefix`).
    `rewarded(run, task)` draws in place of `generate` where a reward takes part in sampling (`sample.uniform.method`).
    """

    many_sets: bool  # whether several sets of samples are measured
    held_out: Callable[[Run, int], tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"] | None]]
    measure: Callable[[Run, list[SampleSet], dict[str, float]], list[dict]]
    masked_gaps: Callable[[Run], Int[np.ndarray, "N L"]] | None = None
    rewarded: Callable[..., tuple[list[SampleSet], dict[str, float]]] | None = None


def check_config(config: ConfigDict, system: System, domain: str, task: TokenTask) -> None:
    """Raise ValueError for counts, classes, prompts or a sampler that do not fit."""
    options = config.sample
    if options.source:
        raise ValueError(f"sample.source: {domain} has no sources to translate; leave it empty")
    if options.repeats > 1 and not task.many_sets:
        raise ValueError(f"sample.repeats: {domain} is measured as one set; set it to 1, or raise sample.count")
    for name in ("infill", "prefix"):
        if options[name] and task.masked_gaps is None:
            raise ValueError(f"sample.{name}: held-out windows are completed in text, not in {domain}; set it to 0")
    if is_rewarded(config) and (task.rewarded is None or config.process.name != "uniform"):
        raise ValueError(
            f"sample.uniform.method: {options.uniform.method} is for molecules under process.name=uniform; set it to "
            "plain"
        )
    check_label(options.label, config.model.labels)
    if options.policy != "data":
        check_prompt(config, domain)
        # A planner is the network of another row, for which the denoiser stands here.
        families.sampler(config, planned(system, system) if options.remask.planner_row else system)


def check(run: Run, task: TokenTask) -> None:
    """Raise ValueError as `check_config`, and for what depends on data and devices, before anything is trained."""
    options = run.config.sample
    check_config(run.config, run.system, run.dataset.domain, task)
    if options.policy == "data":
        task.held_out(run, 1)
    else:
        check_batch(options.batch, run.mesh, field="sample.batch")
        initial_states(run, task)


def draw_and_measure(run: Run, task: TokenTask) -> dict:
    """Samples, or held-out examples in their place, with their metrics and their cost.

    Of several sets (`sample.repeats`) the metrics are means with 95 % intervals; those of each set are beside them.
    """
    options = run.config.sample
    if options.policy == "data":
        sets = held_out_sets(run, task)
        cost = {"evaluations": 0.0, "predictor_evaluations": 0.0, "gigaflops": 0.0, "idle_share": 0.0}
    else:
        draw = task.rewarded if is_rewarded(run.config) and task.rewarded else generate
        sets, cost = draw(run, task)
    scores = task.measure(run, sets, cost)
    return {
        "metrics": cost | mean_over_sets(scores),
        **({"sets": scores} if len(scores) > 1 else {}),
        "sampler": "autoregressive" if run.family.CAUSAL else options.policy,
    }


def is_rewarded(config: ConfigDict) -> bool:
    """Whether a reward of samples takes part in sampling."""
    return config.sample.uniform.method != "plain"


def prompts(run: Run, length: int) -> np.ndarray:
    """One prompt [L]: masks, with the tokens of sample.prompt at the start and of sample.suffix at the end.

    Where every example of the data begins with one token, so does the prompt; it follows BOS where examples have one,
    and where the network starts from the first token of a window.

    Raises:
      ValueError: when they leave nothing to write, or a causal model is given a suffix.
    """
    tokenizer, options = run.dataset.tokenizer, run.config.sample
    start, end = tokenizer.encode(options.prompt), tokenizer.encode(options.suffix)
    window = run.config.model.causal and run.config.model.start == "window"
    follows = run.config.data.packing == "padded" or run.config.data.bos_eos
    begin = run.dataset.start
    if begin is None and (window or (follows and len(start) and tokenizer.bos_id is not None)):
        if tokenizer.bos_id is None:
            raise ValueError(f"model.start: window needs BOS, which tokenizer {tokenizer.name!r} has not; use mask")
        start = np.append(np.int32(tokenizer.bos_id), start)
    if begin is not None:
        start = np.append(np.int32(begin), start)
    check_room(len(start), len(end), length)
    check_suffix(run.config)
    prompt = np.full(length, tokenizer.mask_id, np.int32)
    prompt[: len(start)] = start
    prompt[length - len(end) :] = end
    return prompt


def initial_states(run: Run, task: TokenTask) -> np.ndarray:
    """The tokens [N, L] from which every sample starts: the prompt, or held-out windows with masks.

    Raises:
      ValueError: for too few held-out windows, or a prompt that leaves nothing to write.
    """
    options = run.config.sample
    length, count = options.length or run.config.data.length, options.count * options.repeats
    if options.infill or options.prefix:
        assert task.masked_gaps is not None
        return task.masked_gaps(run)
    return np.broadcast_to(prompts(run, length)[None], (count, length))


def generate(run: Run, task: TokenTask) -> tuple[list[SampleSet], dict[str, float]]:
    """Draw `sample.repeats` sets of `sample.count` sequences, one after the other, in batches, and count the cost.

    Sample i is the same for every batch size, device count and number of sets.
    """
    prompt, label = initial_states(run, task), labels(run)
    model = opened(run)
    sample = families.sampler(run.config, model.system)
    columns, seconds = token_batches.draw_batches(run, sample, prompt, label, params=model.params)
    return finished(run, columns, label, seconds, model.planner)


def finished(
    run: Run,
    columns: dict[str, np.ndarray],
    label: Int[np.ndarray, " N"] | None,
    seconds: float,
    planner: ConfigDict | None = None,
) -> tuple[list[SampleSet], dict[str, float]]:
    """The sets of samples given their columns, and their cost with `seconds` per sample."""
    tokens, evaluations, invalid = columns["tokens"], columns["evaluations"], columns["invalid"]
    vocabulary = run.dataset.tokenizer.vocab_size
    # The sampler itself is the last of its programs.
    call = run.family.calls(run.config, run.system, families.system(planner, vocabulary) if planner else None)[-1]
    work = sampling_flops(run.config, vocabulary, planner)[-1]
    cost = {
        "evaluations": float(evaluations.mean()),
        "predictor_evaluations": float(columns["predictor_evaluations"].mean()),
        "gigaflops": work / run.config.sample.batch * float(evaluations.mean()) / call.turns / 1e9,
        "idle_share": float((columns["idle"] / evaluations).mean()),
        "seconds_per_sample": seconds,
    }
    valid = np.ones(len(tokens), bool)
    if run.config.codec.digits > 1:
        cost["invalid_code_rate"] = float(invalid.sum() / tokens.size)
        valid = decodable(invalid)
    run.dataset.tokenizer.check(tokens[valid], special=False)
    return in_sets(tokens, label, valid, run.config.sample.count), cost


def traced(run: Run, task: TokenTask, most: int) -> Trace:
    """The states of the first samples of `generate`, at most `most` of them: its first batch is drawn again."""
    options = run.config.sample
    count = options.count * options.repeats
    model = opened(run)
    sample = families.traced_sampler(run.config, model.system, min(most, count, options.batch))
    indices = np.arange(options.batch)
    filled = np.minimum(indices, count - 1)
    prompt, label = initial_states(run, task), labels(run)
    rows = batch_sharding(run.mesh)

    def draw(params, root, prompt, indices, label):
        return sample(params, example_keys(named(root, "sample"), indices), prompt, label).trace

    classes = None if label is None else put_rows(label[filled], rows)
    inputs = (put_rows(prompt[filled], rows), put_rows(indices, rows), classes)
    with jax.set_mesh(run.mesh):
        return jax.device_get(jax.jit(draw, out_shardings=replicated(run.mesh))(model.params, run.root, *inputs))


def in_sets(
    tokens: Int[np.ndarray, "N L"], label: Int[np.ndarray, " N"] | None, valid: Bool[np.ndarray, " N"], count: int
) -> list[SampleSet]:
    """Consecutive sets of `count` samples, without those that are not valid."""
    starts = range(0, len(tokens), count)
    parts = [np.arange(start, min(start + count, len(tokens))) for start in starts]
    parts = [part[valid[part]] for part in parts]
    return [SampleSet(tokens[part], None if label is None else label[part]) for part in parts]


def held_out_sets(run: Run, task: TokenTask) -> list[SampleSet]:
    """Held-out examples in place of samples: as many whole sets as there are, or one smaller one."""
    options = run.config.sample
    tokens, label = task.held_out(run, options.count * options.repeats)
    label = label if run.config.model.labels else None
    whole = max(len(tokens) // options.count, 1) * options.count
    tokens, label = tokens[:whole], None if label is None else label[:whole]
    return in_sets(tokens, label, np.ones(len(tokens), bool), options.count)


def check_label(label: int, classes: int) -> None:
    """Raise ValueError for a class that a network of `classes` (0: none) cannot read."""
    if not classes and label >= 0:
        raise ValueError(f"sample.label: {label} is for a class-conditional network; set model.labels, or -1 here")
    if classes and not -2 <= label < classes:
        raise ValueError(f"sample.label: {label} must be -1 (as in the data), -2 (each in turn) or 0 .. {classes - 1}")


def labels(run: Run) -> Int[np.ndarray, " N"] | None:
    """The class on which every sample is conditioned; None for a network without classes.

    Raises:
      ValueError: for a class that the data do not have.
    """
    options, classes = run.config.sample, run.config.model.labels
    check_label(options.label, classes)
    if not classes:
        return None
    indices = np.arange(options.count * options.repeats)
    if options.label >= 0:
        return np.full(len(indices), options.label, np.int32)
    if options.label == -2:
        return (indices % classes).astype(np.int32)
    train = run.dataset.split("train")
    return train.rows(np.random.default_rng(run.config.seed).integers(len(train), size=len(indices)))["label"]


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
