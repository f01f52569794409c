"""The page of `sample --trace`: the states of the first samples of a job, one step after the other."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from diffusion.data.tokenizers import Tokenizer
from diffusion.report import trace as pages
from diffusion.report.trace import Heading, Symbols
from diffusion.storage import atomic_write
from diffusion.types import MaskedProcess, Process
from experiments.families import draws_images, exact, family_of, masked, uniform
from experiments.families.guidance import guided_sampler, time_grid_of
from experiments.families.guided_methods import active_steps
from experiments.run_context import Run
from experiments.tasks import task_of, token_sampling
from experiments.tasks.prompted_images import prompt_slots, shown_slots
from experiments.tasks.prompted_models import opened
from experiments.tasks.prompted_sampling import Drawing

PAGE = "trace.html"
MOST = 4  # samples, or prompts of images
WRITTEN = ("samples.txt", "samples.png", "result.json", "config.json")
OPTIONS = ("temperature", "nucleus", "final")
TOKENS = (masked, uniform)  # families of which the states of token sequences are shown


def check(config: ConfigDict) -> None:
    """Raise ValueError for a row without denoising steps that the page can show, before anything is computed."""
    options, family = config.sample, family_of(config)
    if options.policy == "data":
        raise ValueError("--trace: held-out data have no denoising steps; choose a row that samples a network")
    if family.CAUSAL:
        raise ValueError("--trace: an autoregressive model has no denoising steps; choose a row of a diffusion model")
    if family not in TOKENS and not draws_images(config):
        raise ValueError(
            "--trace: shows masked and uniform-state diffusion, and Gaussian diffusion of images from prompts, not "
            f"model.net={config.model.net} with process.name={config.process.name}"
        )
    if family is uniform and options.uniform.method != "plain":
        raise ValueError("--trace: shows uniform-state diffusion without a reward; set sample.uniform.method=plain")
    if family is masked and (options.length or config.data.length) != config.data.length:
        raise ValueError("--trace: shows one window; leave --config.sample.length at 0, which is data.length")


def write(run: Run) -> Path:
    """Draw the first samples again, with their states, and write the page beside them."""
    page = token_page(run) if run.family in TOKENS else image_page(run)
    if jax.process_index() == 0:
        atomic_write(run.folder / PAGE, page)
    return run.folder / PAGE


def heading(run: Run, facts: dict[str, Any]) -> Heading:
    """The title, how the samples were made, and the files of the job."""
    config = run.config
    weights = run.job.needs.get("weights") or config.checkpoint
    known = {"config": f"configs/{config.table}.py:{config.variant}", "seed": run.job.seed, **facts}
    known |= {"weights": weights} if weights else {}
    files = [name for name in WRITTEN if (run.folder / name).exists()]
    return Heading(run.job.row, {name: str(value) for name, value in known.items()}, files)


def token_page(run: Run) -> str:
    """The page of masked or uniform-state diffusion of text, images or other symbols."""
    task = task_of(run.dataset)
    found = token_sampling.traced(run, task.TASK, MOST)  # pyright: ignore[reportAttributeAccessIssue]
    options, process, tokenizer = run.config.sample, run.system.process, run.dataset.tokenizer
    assert isinstance(process, MaskedProcess | Process)
    shape = run.dataset.image
    numbers = shape is None and tokenizer.name == "values"
    states, symbols = symbols_of(process, tokenizer, np.asarray(found.states), shape, numbers)
    times, guided, errors = (None if each is None else np.asarray(each) for each in found[1:])
    assert times is not None and guided is not None
    count = states.shape[1]
    label = token_sampling.labels(run)
    captions = [f"sample {index}" + ("" if label is None else f", class {label[index]}") for index in range(count)]
    # Their digits are those of no token somewhere, so that they are not among the samples.
    if isinstance(process, MaskedProcess) and process.subtokens > 1:
        broken = np.any(np.asarray(process.decode(found.states[-1])) >= process.vocabulary, axis=1).tolist()
        captions = [text + ", left out" * bad for text, bad in zip(captions, broken, strict=True)]
    levels = np.asarray(process.schedule.masked(times.astype(np.float64)))
    errors = None if errors is None else errors[..., :: process.subtokens]
    facts = {"policy": policy(options), "steps": len(guided)} | {name: options[name] for name in OPTIONS}
    facts |= {"sub-tokens per token": process.subtokens} if process.subtokens > 1 else {}
    return pages.token_page(heading(run, facts), symbols, captions, states, times, levels, guided, errors, shape)


def policy(options: ConfigDict) -> str:
    """The policy with what decides which tokens are masked again."""
    remask, name = options.remask, options.policy
    if name == "remdm":
        name = f"remdm, {remask.rule}, eta {remask.eta:g}"
    return name + (f", loop at level {remask.level:g}" if remask.schedule == "loop" else "")


def symbols_of(
    process: MaskedProcess | Process,
    tokenizer: Tokenizer,
    states: Int[np.ndarray, "S n N"],
    shape: tuple[int, int, int] | None = None,
    apart: bool = False,
) -> tuple[Int[np.ndarray, "S n L"], Symbols]:
    """One number for every token of the states, whole, masked or in part, and what these numbers stand for."""
    digits = process.subtokens
    codes, numbers = np.unique(states.reshape(-1, digits), axis=0, return_inverse=True)
    tokens, masks = codes[:, 0], np.zeros(codes.shape, bool)
    if isinstance(process, MaskedProcess):
        tokens = np.asarray(process.decode(codes.reshape(1, -1).astype(np.int32))).reshape(-1)
        masks = codes == process.mask_id
    known = np.where(tokens < tokenizer.vocab_size, tokens, 0)
    values = None
    if shape is not None:
        # Halves of pixels are shown as they are, other values as brightness.
        values = (known if shape[2] == 2 else known * 255 // (tokenizer.vocab_size - 1)).tolist()
    names = [""] * len(codes)
    if shape is None:
        rows = zip(tokens.tolist(), codes, masks, strict=True)
        names = [name_of(tokenizer, token, code, mask) for token, code, mask in rows]
    return numbers.reshape(*states.shape[:2], -1), Symbols(names, masks.mean(axis=1).tolist(), values, apart)


def name_of(tokenizer: Tokenizer, token: int, code: Int[np.ndarray, " l"], mask: Bool[np.ndarray, " l"]) -> str:
    """The text of a token, or the known sub-tokens of a part of one."""
    if mask.all():
        return ""
    if mask.any():
        return "".join("·" if hidden else f"{digit}" for digit, hidden in zip(code, mask, strict=True))
    if token in (tokenizer.eos_id, tokenizer.bos_id):
        return "⟨end⟩"
    if token >= tokenizer.vocab_size:
        return "⟨pad⟩" if len(code) == 1 else "⟨no token⟩"
    return tokenizer.decode_text(np.array([token]))


def image_page(run: Run) -> str:
    """The page of Gaussian diffusion of images from prompts."""
    config, options = run.config, run.config.sample.gaussian
    slots = prompt_slots(run.config)
    indices = np.array(shown_slots(slots)[: min(MOST, config.sample.batch)])
    model, codec = opened(run, slots), run.system.pixels
    draws = options.images * (options.best_of if options.method == "best_of" else 1)

    def summary(x: Array, clean: Array, carry: Any, row: Any) -> tuple[Array, Array]:
        return clean[: len(indices) * draws], x[: len(indices) * draws]

    sampler = guided_sampler(config, run.system, model.reward, summary)
    images, (last, (clean, noisy)) = Drawing(run, model, slots, sampler).traced(indices)
    times = time_grid_of(run.system, options.path, config.sample.steps)
    acting, _ = active_steps(config, times)
    images, groups = images[: len(indices)], (len(indices), draws, *images.shape[2:])
    last = last[: len(indices) * draws]
    clean, noisy = (as_bytes(codec, np.concatenate([each, last[None]]).reshape(-1, *groups)) for each in (clean, noisy))
    # Of several images those are kept that are among the samples.
    drawn = last.reshape(groups)
    kept = (drawn[:, :, None] == images[:, None]).all(axis=(-3, -2, -1)).any(axis=2)
    facts = {"method": options.method, "steps": len(acting), "solver": options.solver, "path": options.path}
    facts |= {"guidance": f"{options.guidance:g}"} if run.family is not exact else {}
    curves = {"sigma, the noise level of the state": times.sigma, "alpha, its level of signal": times.alpha}
    return pages.image_page(
        heading(run, facts),
        [f"{slots[slot].prompt}" for slot in indices],
        clean,
        noisy,
        times.time,
        {name: np.asarray(values, np.float64).tolist() for name, values in curves.items()},
        np.asarray(acting, bool),
        kept,
        options.method not in ("plain", "best_of", "steering"),
        "steering" in options.method,
    )


def as_bytes(codec: Any, values: Float[np.ndarray, "S n N H W C"]) -> UInt8[np.ndarray, "S n N H W C"]:
    """Values between the ends of the codec as bytes, others as the nearest end."""
    share = (values - codec.low) / (codec.high - codec.low)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
