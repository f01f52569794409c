"""Logits at the tokens where they are read: the head of a network is applied to some rows of its features.

The head of a language model has one output per class, so that it is up to half of a network's operations. An objective
reads logits at masked tokens only, and a sampler where it draws. The number of these tokens is an input of the program:
they are read in pieces of a fixed size, as many as there are, and results are exact whatever their number. Samplers
without self-conditioning never have the logits of a whole batch, [B, L, K], in memory, and neither has a training step
whose denoiser is read in `pieces`.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from diffusion.partition import batch_shards, most, shard_batch
from diffusion.types import Denoise, Denoiser, Keys, Logits, Params, Proposal, Propose, Symbols, TokenMask

T = TypeVar("T")
Features = Float[Array, "B L D"]
RowLogits = Float[Array, "R 1 K"]  # logits of single tokens, as of R sequences of one token

PIECES = 16  # at most, into which samplers divide the tokens of a batch
MIN_PIECE = 32  # tokens; a product with fewer takes as long, because it reads the same weights


@dataclass(frozen=True)
class Rows:
    """R = G M tokens of a batch, M in each of G groups of examples; all tokens if `index` is None.

    A group is the part of the batch on one device of a mesh, so that no feature moves between devices. `index` counts
    the tokens of a group, and those from its size on stand for no token: they read zeros and are not written.
    """

    batch: int
    length: int
    index: Int[Array, "G M"] | None = None

    def take(self, values: Shaped[Array, "B L ..."]) -> Shaped[Array, "R ..."]:
        """Return the values of the rows."""
        flat = values.reshape(-1, *values.shape[2:])
        if self.index is None:
            return flat
        grouped = flat.reshape(len(self.index), -1, *flat.shape[1:])

        def one(group: Array, index: Int[Array, " M"]) -> Array:
            return group.at[index].get(mode="fill", fill_value=0, unique_indices=True, indices_are_sorted=True)

        return shard_batch(jax.vmap(one)(grouped, self.index).reshape(-1, *flat.shape[1:]))

    def put(self, values: Shaped[Array, "R ..."]) -> Shaped[Array, "B L ..."]:
        """Return the array with the rows' values, and zeros at other tokens."""
        shape = self.batch, self.length, *values.shape[1:]
        if self.index is None:
            return values.reshape(shape)
        grouped = values.reshape(*self.index.shape, *values.shape[1:])
        empty = jnp.zeros((len(grouped), math.prod(shape[:2]) // len(grouped), *shape[2:]), values.dtype)

        def one(group: Array, index: Int[Array, " M"], new: Array) -> Array:
            return group.at[index].set(new, mode="drop", unique_indices=True, indices_are_sorted=True)

        return shard_batch(jax.vmap(one)(empty, self.index, grouped).reshape(shape))

    def of_examples(self, values: Shaped[Array, "B ..."]) -> Shaped[Array, "R ..."]:
        """Return the value of the example of each row."""
        if self.index is None:
            return jnp.repeat(values, self.length, axis=0)
        grouped = values.reshape(len(self.index), -1, *values.shape[1:])
        last = grouped.shape[1] - 1
        picked = jax.vmap(lambda group, index: group[jnp.minimum(index // self.length, last)])(grouped, self.index)
        return picked.reshape(-1, *values.shape[1:])

    def keys(self, keys: Keys) -> Key[Array, " R"]:
        """Derive one key per row, from the key of its example and its position."""
        positions = jnp.arange(self.batch * self.length) if self.index is None else self.index.reshape(-1)
        return jax.vmap(jax.random.fold_in)(self.of_examples(keys), positions % self.length)


class Readout(NamedTuple):
    """One evaluation of a denoiser at B examples of L tokens, of which the logits are computed where they are read."""

    shape: tuple[int, int]  # B, L
    at: Callable[[Rows], RowLogits]
    saves: bool = True  # whether fewer rows are less work
    pieces: int = 0  # into which all tokens are divided, of which one has its logits at a time; 0: see `read`

    def by_token(self, values: Shaped[Array | np.ndarray, "B N"]) -> Shaped[Array, "B L l"]:
        """Split values of the positions of the state by token."""
        return jnp.asarray(values).reshape(*self.shape, -1)

    def logits(self) -> Logits:
        """Return the logits of all tokens."""
        return self.at(Rows(*self.shape)).reshape(*self.shape, -1)


@runtime_checkable
class ReadableDenoiser(Protocol):
    """A denoiser whose logits can be computed at some tokens; it is called like any `Denoiser` as well."""

    def readout(
        self, params: Params, noisy: Any, time: Any, cond: Any = None, memory: Any = None, *, keys: Keys | None = None
    ) -> Readout:
        """Evaluate the denoiser; see `Denoiser` for the arguments."""
        ...


@dataclass(frozen=True)
class SplitDenoiser:
    """A denoiser as features of whole sequences, and a head that reads the features of single tokens.

    `features(params, noisy, time, cond, memory, keys=keys)` returns features [B, L, D], and `head(params, features)`
    the logits [..., K] of any of them. `pieces` are those of its readouts.
    """

    features: Callable[..., Features]
    head: Callable[[Params, Float[Array, "R M D"]], Float[Array, "R M K"]]
    pieces: int = 0

    def __call__(
        self, params: Params, noisy: Any, time: Any, cond: Any = None, memory: Any = None, *, keys: Keys | None = None
    ) -> Logits:
        return self.head(params, self.features(params, noisy, time, cond, memory, keys=keys))

    def readout(
        self, params: Params, noisy: Any, time: Any, cond: Any = None, memory: Any = None, *, keys: Keys | None = None
    ) -> Readout:
        """Compute the features; the head is applied by `Readout.at`."""
        features = self.features(params, noisy, time, cond, memory, keys=keys)
        return of_features(features, partial(self.head, params), self.pieces)


def of_features(features: Features, head: Callable[[Float[Array, "R 1 D"]], RowLogits], pieces: int = 0) -> Readout:
    """Return the readout of a head on features of tokens."""
    shape = features.shape[0], features.shape[1]
    return Readout(shape, lambda rows: head(rows.take(features)[:, None]), pieces=pieces)


def of_logits(logits: Logits) -> Readout:
    """Return the readout of logits that are computed already."""
    return Readout((logits.shape[0], logits.shape[1]), lambda rows: rows.take(logits)[:, None], saves=False)


def readout(
    denoiser: Denoiser,
    params: Params,
    noisy: Any,
    time: Any,
    cond: Any = None,
    memory: Any = None,
    *,
    keys: Keys | None = None,
) -> Readout:
    """Evaluate any denoiser; one without a method `readout` computes all logits."""
    if isinstance(denoiser, ReadableDenoiser):
        return denoiser.readout(params, noisy, time, cond, memory, keys=keys)
    return of_logits(denoiser(params, noisy, time, cond, memory, keys=keys))


@dataclass(frozen=True)
class BoundDenoiser:
    """A denoiser with its parameters and conditioning, which estimators and objectives call as a `Denoise`."""

    denoiser: Denoiser
    params: Params
    cond: Any = None
    keys: Keys | None = None

    def __call__(self, noisy: Any, time: Any) -> Any:
        return self.denoiser(self.params, noisy, time, self.cond, keys=self.keys)

    def readout(self, noisy: Any, time: Any) -> Readout:
        """Evaluate the denoiser; the logits are computed where they are read."""
        return readout(self.denoiser, self.params, noisy, time, self.cond, keys=self.keys)


def evaluated(denoise: Denoise, noisy: Any, time: Any) -> Readout:
    """Evaluate a denoiser with bound parameters, of which all logits are computed if it is a plain function."""
    return denoise.readout(noisy, time) if isinstance(denoise, BoundDenoiser) else of_logits(denoise(noisy, time))


def read(evaluation: Readout, needed: TokenMask, compute: Callable[[RowLogits, Rows], T], share: float = 0.0) -> T:
    """Return `compute(logits, rows)` at the needed tokens, as arrays [B, L, ...] that are 0 at other tokens.

    Needed tokens are read in pieces, about a sixteenth of all tokens each, as many as there are. A gradient through a
    piece computes its logits again. With `share` there are two pieces, of which the first has this share of all tokens
    and is not computed again; the second is skipped where the first holds all needed tokens. An evaluation with
    `pieces` divides all tokens into so many: those of the share are always computed, the others as far as needed.
    """
    batch, length = evaluation.shape
    groups = batch_shards(batch)
    tokens = batch * length // groups
    first, size = first_and_size(tokens, share, evaluation.pieces)
    if not evaluation.saves or size >= tokens:
        rows = Rows(batch, length)
        values = jax.tree.map(rows.put, compute(evaluation.at(rows), rows))
        return jax.tree.map(lambda value: only(value, needed), values)
    grouped = jnp.asarray(needed).reshape(groups, -1)
    count = most(jnp.max(jnp.sum(grouped, axis=1)))
    rest = -(-max(tokens - first, 0) // size)
    index = first_rows(grouped, first + rest * size)

    def computed(start: Int[Array, ""] | None, index: Int[Array, "G M"]) -> T:
        rows = Rows(batch, length, index)
        return compute(evaluation.at(rows), rows)

    def where_needed(start: Int[Array, ""], index: Int[Array, "G M"]) -> T:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(computed, start, index))
        return jax.lax.cond(start < count, computed, lambda start, index: zeros, start, index)

    def in_pieces(start: int, stop: int, piece: Callable[[Int[Array, ""], Int[Array, "G M"]], T]) -> T:
        part, again = index[:, start:stop], jax.checkpoint(piece)  # a conditional outside of it would copy the head

        def put(stacked: Shaped[Array, "P R ..."]) -> Shaped[Array, "B L ..."]:
            by_group = jnp.swapaxes(stacked.reshape(-1, groups, size, *stacked.shape[2:]), 0, 1)
            return Rows(batch, length, part).put(by_group.reshape(-1, *stacked.shape[2:]))

        split = jnp.swapaxes(part.reshape(groups, -1, size), 0, 1)
        starts = start + size * jnp.arange(len(split))
        return jax.tree.map(put, jax.lax.map(lambda inputs: again(*inputs), (starts, split)))

    parts = []
    if first and evaluation.pieces:
        parts.append(in_pieces(0, first, computed))
    elif first:
        parts.append(jax.tree.map(Rows(batch, length, index[:, :first]).put, computed(None, index[:, :first])))
    if rest:
        parts.append(in_pieces(first, index.shape[1], where_needed))
    return jax.tree.map(lambda *values: reduce(operator.add, values), *parts)


def read_all(evaluation: Readout, compute: Callable[[RowLogits, Rows], T]) -> T:
    """Return `compute(logits, rows)` at all tokens, as arrays [B, L, ...]; see `read`."""
    return read(evaluation, jnp.ones(evaluation.shape, bool), compute, share=1.0)


def first_and_size(tokens: int, share: float, pieces: int) -> tuple[int, int]:
    """Return the number of tokens that are always read, and the size of a piece, for `read`; one piece is of all."""
    first = math.ceil(tokens * share)
    if not first:
        return 0, -(-tokens // max(pieces, most_pieces(tokens)))
    if not pieces:
        return first, tokens - first or tokens
    size = -(-tokens // pieces)
    return -(-first // size) * size, size


def most_pieces(tokens: int) -> int:
    """Return the largest number of equal pieces, up to PIECES, that have MIN_PIECE tokens or more."""
    most = min(PIECES, tokens // MIN_PIECE)
    return max((pieces for pieces in range(1, most + 1) if tokens % pieces == 0), default=1)


def draw_at(
    draw: Propose,
    keys: Keys,
    evaluation: Readout,
    state: Symbols,
    drawn: Bool[Array, "B N"],
    temperature: Float[Array, ""],
    nucleus: Float[Array, ""],
) -> Proposal:
    """Draw values at the positions `drawn`, each from the key of its example and its token; others are undefined.

    `state` is the one at which the denoiser was evaluated.
    """

    def draw_rows(logits: RowLogits, rows: Rows) -> Proposal:
        return draw(rows.keys(keys), logits, rows.take(evaluation.by_token(state)), temperature, nucleus)

    proposal = read(evaluation, jnp.any(evaluation.by_token(drawn), axis=-1), draw_rows)
    return jax.tree.map(lambda values: values.reshape(state.shape), proposal)


def only(values: Shaped[Array, "B L ..."], needed: TokenMask) -> Shaped[Array, "B L ..."]:
    """Return the values at needed tokens, and zeros at others."""
    return jnp.where(
        jnp.asarray(needed).reshape(*needed.shape, *(1,) * (values.ndim - 2)), values, jnp.zeros((), values.dtype)
    )


def first_rows(needed: Bool[Array, "G N"], size: int) -> Int[Array, "G M"]:
    """Return the indices of the first `size` needed tokens of each group, and N, N + 1, ... if there are fewer."""
    ranks = jnp.arange(size)

    def one(group: Bool[Array, " N"]) -> Int[Array, " M"]:
        order = jnp.cumsum(group)
        index = jnp.searchsorted(order, ranks + 1, method="scan_unrolled")
        return jnp.where(ranks < order[-1], index, len(group) + ranks)

    return jax.vmap(one)(needed)
