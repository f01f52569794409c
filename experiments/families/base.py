"""What a model is, whatever its family: a network with its process, and the calls that sample from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import flax.linen as nn
import jax
from jaxtyping import Array
from ml_collections import ConfigDict

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.codecs.subtokens import PixelCodec
from diffusion.nets.sd.unet import TextConditioning
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.types import Denoiser, MaskedProcess, Params, Process, SelfConditioning

T = TypeVar("T")


def lookup(known: dict[str, T], name: str, field: str) -> T:
    """The entry called `name`; raises ValueError with the known names."""
    if name not in known:
        raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def fields_of(section: ConfigDict) -> dict[str, Any]:
    """The fields of a section as keyword arguments, lists as tuples (a stored plan has lists)."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def estimator_names(config: ConfigDict, default: str, estimator: Callable[[str], Any]) -> list[str]:
    """The estimators of `evaluate`, each once: `evaluate.estimator`, where "auto" is `default`, and `evaluate.also`.

    `estimator` returns the one of a name, and raises ValueError for an unknown name.
    """
    first = default if config.evaluate.estimator == "auto" else config.evaluate.estimator
    names = list(dict.fromkeys([first, *config.evaluate.also]))
    for name in names:
        estimator(name)
    return names


@dataclass(frozen=True, kw_only=True)
class System:
    """A network, its process and its parameters' start.

    `init(key)` makes parameters, `length` is the number of tokens of an example and `classes` the network's vocabulary.
    `codec` maps tokens to the values of Gaussian noise, `self_conditioning` a prediction to the network's
    self-conditioning input, and `end` is the token that ends targets of pairs. `condition(params, prompts)` gives the
    conditioning of P prompts and the null conditioning of one. `latent` is the shape of a latent image.
    """

    net: nn.Module
    process: Process | MaskedProcess | GaussianDiffusion
    denoiser: Denoiser
    init: Callable[[jax.Array], Params]
    length: int
    classes: int = 0
    codec: PixelCodec | EmbeddingCodec | None = None
    self_conditioning: SelfConditioning | None = None
    errors: "ErrorHead | None" = None
    end: int = 0
    condition: Callable[[Params, Any], tuple[TextConditioning, TextConditioning]] | None = None
    latent: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample of Gaussian diffusion: a latent image, or an image of pixels."""
        shape = self.latent or self.pixels.image
        assert shape is not None
        return shape

    @property
    def masking(self) -> MaskedProcess:
        """The process of a model of masked tokens."""
        assert isinstance(self.process, MaskedProcess)
        return self.process

    @property
    def diffusing(self) -> GaussianDiffusion:
        """The process of a model with Gaussian noise."""
        assert isinstance(self.process, GaussianDiffusion)
        return self.process

    @property
    def pixels(self) -> PixelCodec:
        """The codec of a model of images."""
        assert isinstance(self.codec, PixelCodec)
        return self.codec

    @property
    def embedding(self) -> EmbeddingCodec:
        """The codec of embedding diffusion."""
        assert isinstance(self.codec, EmbeddingCodec)
        return self.codec


@dataclass(frozen=True, kw_only=True)
class ErrorHead:
    """The error predictor beside a denoiser (G-Star), whose parameters are {"denoiser", "errors"} and maybe "judge".

    `base` is the denoiser's own system, `extend(key, denoiser, judge)` makes the parameters of all from theirs (of a
    masked planner from its own, in place of a judge's), and `predict(params, tokens, label)` gives error logits [B, L].
    """

    base: System
    judge: System | None
    extend: Callable[..., Params]
    predict: Callable[..., Array]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One program of a sampler by the shapes of its inputs, for compilation and shape checks.

    The program is `function(*params, *rows, *scalars)`: `params` are initializers of parameters, `rows` arrays of
    which the first axis is the batch. One execution passes through the network `turns` times. Conditional work, such
    as an error predictor or a guide with a gradient, is done in the share `taken` of them.
    """

    name: str
    function: Callable[..., Any]
    params: tuple[Callable[[jax.Array], Params], ...]
    rows: tuple[Any, ...]
    scalars: tuple[Any, ...] = ()
    turns: int = 1
    taken: float = 1.0
    rows_out: bool = False  # whether all results have the batch as their first axis


def rows_like(size: int, *shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array with `size` rows."""
    return jax.ShapeDtypeStruct((size, *shape), dtype)


def keys_like(size: int, *shape: int) -> jax.ShapeDtypeStruct:
    """The shape of random keys for `size` rows."""
    return jax.ShapeDtypeStruct((size, *shape), jax.eval_shape(lambda: jax.random.key(0)).dtype)
