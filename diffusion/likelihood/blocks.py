"""The bound of block diffusion (BD3-LM) on -log p(x), in nats per sequence."""

from collections.abc import Callable

from jaxtyping import Array, Float

from diffusion.objectives.blocks import reveal_block_bound

# "bound_blocks": the sum over blocks of the NELBO given clean earlier blocks (arXiv 2503.09573).
ESTIMATORS = {"bound_blocks": reveal_block_bound}


def estimator(name: str) -> Callable[..., Float[Array, " B"]]:
    """Look up an estimator of block diffusion; raises ValueError for an unknown name, with the known ones."""
    if name not in ESTIMATORS:
        known = ", ".join(ESTIMATORS)
        raise ValueError(f"evaluate.estimator: unknown name {name!r} for process.name=blocks; known: {known}")
    return ESTIMATORS[name]
