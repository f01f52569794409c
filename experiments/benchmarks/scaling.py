"""Step time of a compiled recipe on more chips than it was compiled for, by its roofline.

The mesh grows along its data axis. For a batch of B examples in A micro-batches, compiled for m chips, on n chips

    d    = min(n, B)                           chips with at least one example; the others are idle
    a    = max(1, min(A, B // n))              micro-batches, of at least one example a chip
    C(n) = C(m) m / d                          compute
    M(n) = (S + a W + 2 T A m / d) / bandwidth memory
    X(n) = 2 (1 - 1/d) G(a) / link             links
    G(a) = W + (G(A) - W) (a - 1) / (A - 1)    gradients that are summed

S is the state with its update, arguments and outputs, which every chip reads and writes once, W the weights, which
every micro-batch reads, and T the temporaries of one compiled micro-batch, which are written and read; all of them are
taken to shrink with its examples. In a ring an all-reduce of G bytes sends 2 (1 - 1/d) G, so that the traffic of the
compiled program gives G(A). The compiler sums some gradients, such as those of embeddings, in every micro-batch: what
it sends beyond one sum of all gradients, which have W bytes, is taken to shrink with the micro-batches. There is no
latency in it, no slower network between slices, and no loss of efficiency of small products.

With full overlap a step takes the longest of the three; without any, their sum.
"""

from typing import NamedTuple

SIZES = (16, 64, 256, 1024)


class Step(NamedTuple):
    """Seconds of one step, of `tokens` tokens on `chips` chips."""

    chips: int
    tokens: int
    compute: float
    memory: float
    communication: float

    @property
    def overlapped(self) -> float:
        """Seconds with full overlap: the longest of the three."""
        return max(self.compute, self.memory, self.communication)

    @property
    def serial(self) -> float:
        """Seconds without overlap: the sum of the three."""
        return self.compute + self.memory + self.communication

    @property
    def bound(self) -> str:
        """The longest of the three, by name."""
        return max(("compute", "memory", "communication"), key=lambda name: getattr(self, name))

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
    links = ring(used) / ring(compiled) * summed(record, accumulate) / summed(record, record["accumulate"])
    state, activations = program["arguments"] + program["outputs"], 2 * program["temporaries"] * record["accumulate"]
    moved = state + accumulate * program["weights"] + activations * compiled / used
    seconds = program["seconds"]
    return Step(
        chips,
        batch * record["length"],
        seconds["compute"] * compiled / used,
        seconds["memory"] * moved / program["bytes_estimate"],
        seconds["communication"] * links,
    )


def summed(record: dict, accumulate: int) -> float:
    """Bytes of gradients that are summed over the chips in one step of so many micro-batches."""
    program = training(record)
    compiled = sum(each["bytes"] for each in program["collectives"].values()) / 2 / ring(record["chips"])
    once = min(program["weights"], compiled)
    return once + (compiled - once) * (accumulate - 1) / max(record["accumulate"] - 1, 1)


def weak(record: dict, chips: int) -> Step:
    """The step at the same batch a chip on other chips: only the links have more to do."""
    step = compiled_step(record)
    link = step.communication * (ring(chips) / ring(step.chips))
    return step._replace(chips=chips, tokens=step.tokens * chips // step.chips, communication=link)


def ring(chips: int) -> float:
    """Share of an array that a chip sends to gather or scatter it along a ring."""
    return 1 - 1 / chips


def efficiency(step: Step, baseline: Step) -> float:
    """Tokens a second and chip relative to another step."""
    return step.rate / baseline.rate
