"""The bound of block diffusion (BD3-LM) on -log p(x), in nats per sequence."""

from collections.abc import Callable

from jaxtyping import Array, Float

from diffusion.objectives.blocks import reveal_block_bound


def estimator(name: str) -> Callable[..., Float[Array, " B"]]:
    """Look up "bound_blocks", the sum over blocks of the NELBO given clean earlier blocks (arXiv 2503.09573).

    Raises:
      ValueError: for another name.
    """
    if name != "bound_blocks":
        raise ValueError(f"evaluate.estimator: unknown name {name!r} for process.name=blocks; known: bound_blocks")
    return reveal_block_bound
