"""Step time of a compiled recipe on more chips than it was compiled for, by its roofline.

The mesh grows along its data axis. For a batch of B examples in A micro-batches, compiled for m chips, on n chips

    d    = min(n, B)                           chips with at least one example; the others are idle
    a    = max(1, min(A, B // n))              micro-batches, of at least one example a chip
    C(n) = C(m) m / d                          compute
    M(n) = (S + a W + 2 T A m / d) / bandwidth memory
    X(n) = 2 (1 - s/d) G(a) / link             links, in s = ceil(d / slice) slices of at most `slice` chips
    N(n) = 2 (1 - 1/s) G(a) s / (d network)    network between slices
    G(a) = W + (G(A) - W) (a - 1) / (A - 1)    gradients that are summed; G(A) where A = 1

S is the state with its update, arguments and outputs, which every chip reads and writes once, W the weights, which
every micro-batch reads, and T the temporaries of one compiled micro-batch, which are written and read; all of them are
taken to shrink with its examples. In a ring an all-reduce of G bytes sends 2 (1 - 1/d) G, so that the traffic of the
compiled program gives G(A). Between slices each chip sends its share of what its slice has summed, as the compiler for
several slices does. It sums some gradients, such as those of embeddings, in every micro-batch: what it sends beyond one
sum of all gradients, which have W bytes, is taken to shrink with the micro-batches. There is no latency in it, and no
loss of efficiency of small products.

With full overlap a step takes the longest of the four; without any, their sum.
"""

import math
from typing import NamedTuple

from diffusion.train.hardware import peak

SIZES = (16, 64, 256, 1024)


class Step(NamedTuple):
    """Seconds of one step, of `tokens` tokens on `chips` chips."""

    chips: int
    tokens: int
    compute: float
    memory: float
    communication: float
    network: float = 0.0

    @property
    def overlapped(self) -> float:
        """Seconds with full overlap: the longest of the four."""
        return max(self.compute, self.memory, self.communication, self.network)

    @property
    def serial(self) -> float:
        """Seconds without overlap: the sum of the four."""
        return self.compute + self.memory + self.communication + self.network

    @property
    def bound(self) -> str:
        """The longest of the four, by name."""
        return max(("compute", "memory", "communication", "network"), key=lambda name: getattr(self, name))

    @property
    def rate(self) -> float:
        """Tokens a second and chip, with full overlap."""
        return self.tokens / self.overlapped / self.chips


def compiled_step(record: dict) -> Step:
    """The step of a record on the chips that it was compiled for."""
    return Step(record["chips"], record["batch"] * record["length"], **training(record)["seconds"])


def training(record: dict) -> dict:
    """The program of the training step."""
    return record["programs"][0]


def strong(record: dict, chips: int) -> Step:
    """The step at the same batch on other chips."""
    program, compiled, batch = training(record), record["chips"], record["batch"]
    used, accumulate = min(chips, batch), max(1, min(record["accumulate"], batch // chips))
    gradients = summed(record, accumulate)
    links, network = summing(record, used, gradients)
    state, activations = program["arguments"] + program["outputs"], 2 * program["temporaries"] * record["accumulate"]
    moved = state + accumulate * program["weights"] + activations * compiled / used
    seconds = program["seconds"]
    return Step(
        chips,
        batch * record["length"],
        seconds["compute"] * compiled / used,
        seconds["memory"] * moved / program["bytes_estimate"],
        links,
        network,
    )


def summing(record: dict, chips: int, gradients: float) -> tuple[float, float]:
    """Seconds on the links, and in the network between slices, in which so many chips sum bytes of gradients."""
    limit = peak(record["devices"].partition(" x ")[2])
    slices = math.ceil(chips / limit.slice) if limit and limit.slice else 1
    compiled = training(record)["seconds"]["communication"]
    most = ring(record["chips"]) * summed(record, record["accumulate"])
    links = compiled * ring(chips / slices) * gradients / most
    return links, 2 * ring(slices) * gradients * slices / chips / limit.network if slices > 1 and limit else 0.0


def summed(record: dict, accumulate: int) -> float:
    """Bytes of gradients that are summed over the chips in one step of so many micro-batches."""
    program = training(record)
    compiled = sum(each["bytes"] for each in program["collectives"].values()) / 2 / ring(record["chips"])
    if record["accumulate"] == 1:
        return compiled
    once = min(program["weights"], compiled)
    return once + (compiled - once) * (accumulate - 1) / (record["accumulate"] - 1)


def weak(record: dict, chips: int) -> Step:
    """The step at the same batch a chip on other chips: only the links and the network have more to do."""
    step = compiled_step(record)
    links, network = summing(record, chips, summed(record, record["accumulate"]))
    tokens = step.tokens * chips // step.chips
    return step._replace(chips=chips, tokens=tokens, communication=links, network=network)


def ring(chips: float) -> float:
    """Share of an array that a chip sends to gather or scatter it along a ring."""
    return 1 - 1 / chips


def efficiency(step: Step, baseline: Step) -> float:
    """Tokens a second and chip relative to another step."""
    return step.rate / baseline.rate
