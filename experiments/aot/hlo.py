"""Collectives of a compiled program, each times the iterations of the loops around it."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
OPERATION = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?:-start)?\(")
# The runtime of several TPU slices sends over the network of the data center what a chip has after its slice.
BETWEEN = " between slices"
SENT = re.compile(
    r' = (?P<type>.*?) send\(.*_xla_megascale_target="\{(?P<slices>[\d,]+)\}'
    r'.*_xla_megascale_transfer_type="(?P<kind>\w+)"'
)
SHAPE = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=(?:\{([^}]*)\}|(%?[\w.\-]+))")
ITERATIONS = re.compile(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)')
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
LIMIT = re.compile(r"ROOT .*compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT")


@dataclass
class Traffic:
    """Number of instructions and executions of one kind of collective per run, and the bytes that each device sends."""

    instructions: int = 0
    executions: int = 0
    bytes: float = 0.0


def collectives(text: str) -> dict[str, Traffic]:
    """Collectives of an optimized HLO module, by kind.

    In a ring of n devices and for a result of S bytes, one device sends (n-1)/n S bytes for all-gather and all-to-all,
    (n-1) S for reduce-scatter (its result is a shard), 2 (n-1)/n S for all-reduce, and S for a permutation. A loop
    whose number of iterations the compiler does not know counts once, and all branches of a conditional count.

    A collective over several TPU slices is one within each slice, and one of the same kind `BETWEEN` n slices, in
    which a device sends its share of S bytes.
    """
    bodies = computations(text)
    counts = executions(bodies)
    by_kind: dict[str, Traffic] = defaultdict(Traffic)
    for name, lines in bodies.items():
        for line in lines:
            found = collective(line, name) if counts[name] else None
            if found:
                traffic = by_kind[found[0]]
                traffic.instructions += 1
                traffic.executions += counts[name]
                traffic.bytes += counts[name] * found[1]
    return dict(by_kind)


def collective(line: str, name: str) -> tuple[str, float] | None:
    """Kind and bytes of the collective of a line in a computation of this name, or None."""
    if sent := SENT.search(line):
        kind, slices = sent["kind"].lower().replace("_", "-"), sent["slices"].count(",") + 1
        # A send has the operand of its collective; that of an all-gather is a share of its result, and so on.
        of_result = {"all-gather": slices, "reduce-scatter": 1 / slices}.get(kind, 1)
        return kind + BETWEEN, sent_bytes(kind, slices, of_result * result_bytes(sent["type"], started=True))
    match = OPERATION.search(line)
    if not match:
        return None
    kind, group = match["kind"], group_size(line)
    size = result_bytes(match["type"], f"{kind}-start(" in line and kind != "all-reduce")
    # The TPU compiler writes a reduce-scatter as a fusion around an all-reduce whose other shards are dropped.
    if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
        return "reduce-scatter", (group - 1) / group * size
    return kind, sent_bytes(kind, group, size)


def sent_bytes(kind: str, group: int, size: float) -> float:
    """Bytes that one device sends of a result of `size` bytes, in a ring."""
    factor = {"all-reduce": 2 * (group - 1) / group, "reduce-scatter": group - 1, "collective-permute": 1}
    return factor.get(kind, (group - 1) / group) * size


def computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation; the name of the entry starts with "ENTRY "."""
    bodies: dict[str, list[str]] = {}
    current = None
    for line in text.splitlines():
        match = COMPUTATION.match(line)
        if match:
            current = bodies.setdefault((match[1] or "") + match[2], [])
        elif line == "}":  # instructions may hold lines that begin with a brace
            current = None
        elif current is not None:
            current.append(line)
    return bodies


def executions(bodies: dict[str, list[str]]) -> dict[str, int]:
    """Number of executions of each computation per execution of the entry."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            iterations = loop_iterations(line, bodies)
            for match in CALLED.finditer(line):
                for called in (match[1] or match[2]).replace("%", "").split(", "):
                    if called in bodies:
                        calls[name].append((called, iterations))
    totals = dict.fromkeys(bodies, 0)

    def visit(name: str, times: int) -> None:
        totals[name] += times
        for called, iterations in calls[name]:
            visit(called, times * iterations)

    for name in bodies:
        if name.startswith("ENTRY "):
            visit(name, 1)
    return totals


def loop_iterations(line: str, bodies: dict[str, list[str]]) -> int:
    """Iterations of the computations that a line calls: those of a loop that counts to a constant, otherwise 1."""
    stated = ITERATIONS.search(line)
    if stated:
        return int(stated[1])
    condition = CONDITION.search(line)
    lines = bodies.get(condition[1], []) if condition else []
    limit = next((match[1] for match in map(LIMIT.search, lines) if match), None)
    if limit is None:
        return 1
    # Scans of JAX count from 0 in steps of 1.
    constant = re.compile(rf"%?{re.escape(limit)} = \w+\[\]\S* constant\((\d+)\)")
    return next((int(match[1]) for match in map(constant.search, lines) if match), 1)


def group_size(line: str) -> int:
    """Number of devices in one group of a collective."""
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    if listed:
        return max(len(listed[1].split(",")), 1)
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return 2


def result_bytes(kind: str, started: bool) -> int:
    """Bytes of a result type; for an asynchronous start, whose type lists operands and results, its largest array."""
    sizes = []
    for element, shape in SHAPE.findall(kind):
        item = 1 if element.startswith("f8") else BYTES.get(element, 4)
        sizes.append(item * math.prod(int(n) for n in shape.split(",") if n))
    return max(sizes, default=0) if started else sum(sizes)
