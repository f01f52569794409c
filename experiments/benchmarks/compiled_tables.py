"""Tables and plot of compiled recipes: memory, work and roofline of each, and its step time on more chips."""

from pathlib import Path

from diffusion.report.plots import lines
from diffusion.report.tables import markdown
from experiments.aot.hlo import BETWEEN
from experiments.benchmarks.scaling import SIZES, Step, compiled_step, efficiency, strong, training, weak

TABLE = Path(__file__).parents[1] / "tables" / "compile.md"
RECORDS, PLOT = TABLE.with_suffix(".jsonl"), TABLE.with_suffix(".png")
GIB = 2**30
LARGEST = SIZES[-1]


def name_of(record: dict) -> str:
    """Table and row."""
    return f"{record['table']}: {record['row']}"


def gibibytes(program: dict) -> float:
    """GiB a chip: arguments + outputs - aliased + temporaries."""
    return (program["arguments"] + program["outputs"] - program["aliased"] + program["temporaries"]) / GIB


def traffic(program: dict) -> str:
    """The collectives: kind, executions and GiB that a chip sends."""
    found = {kind: each for kind, each in program["collectives"].items() if each["instructions"]}
    return ", ".join(f"{kind} {each['executions']} x, {each['bytes'] / GIB:.3g} GiB" for kind, each in found.items())


def utilization(record: dict) -> float:
    """MFU at the roofline: model FLOPs, without what rematerialization repeats, over those of the peak rate."""
    program, step = training(record), compiled_step(record)
    return program["flops"] / program["flops_executed"] * step.compute / step.overlapped


def three_digits(number: float) -> str:
    """A number with three digits, without an exponent."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def milliseconds(seconds: float) -> str:
    """Seconds in ms."""
    return three_digits(1e3 * seconds)


def proof_line(record: dict) -> list[str]:
    """One line of the table of compiled recipes."""
    program, samplers = training(record), record["programs"][1:]
    batch = f"{record['batch']} x {record['length']}, {record['accumulate']}"
    sampler = f"{max(map(gibibytes, samplers)):.2f} ({record['sampled']})" if samplers else ""
    seconds = sum(each["compile_seconds"] for each in record["programs"])
    line = [name_of(record), three_digits(int(record["parameters"].replace(",", "")) / 1e6), batch]
    line += [f"{gibibytes(program):.2f}", f"{program['peak'] / GIB:.2f}", sampler]
    line += [three_digits(program["flops"] / 1e12), traffic(program)]
    if program.get("seconds"):
        step = compiled_step(record)
        line += [milliseconds(each) for each in (step.compute, step.memory, step.communication)]
        line += [step.bound, three_digits(step.tokens / step.overlapped), f"{100 * utilization(record):.0f} %"]
    else:
        line += [""] * 6
    return [*line, f"{seconds:.0f} ({record['effort']})", ", ".join(record["shared"])]


def proof_table(records: list[dict]) -> str:
    """Memory, work, communication and roofline of each compiled recipe."""
    headings = ["recipe", "million parameters", "batch x length, micro-batches", "step GiB", "peak GiB"]
    headings += ["sampler GiB (batch)", "TFLOP", "collectives of a step", "compute ms", "memory ms", "links ms"]
    headings += ["bound by", "tokens/s", "MFU at most", "compiled in s (effort)", "same step in"]
    return markdown(headings, [proof_line(each) for each in records])


def scaling_line(record: dict) -> list[str]:
    """One line of the table of scaling."""
    steps = strong_steps(record)
    line = [name_of(record), f"{record['batch']}"]
    line += [f"{milliseconds(each.overlapped)} to {milliseconds(each.serial)}" for each in steps]
    line += [three_digits(each.rate) for each in (steps[0], steps[-1])]
    line += [f"{efficiency(each, steps[0]):.0%}" for each in steps[1:]]
    return [*line, steps[-1].bound, f"{efficiency(weak(record, LARGEST), weak(record, SIZES[0])):.0%}"]


def scaling_table(records: list[dict]) -> str:
    """Step time, tokens a second and chip, and efficiency of each recipe on more chips."""
    headings = ["recipe", "batch", *(f"{chips:,} chips, ms" for chips in SIZES)]
    headings += [f"tokens/s/chip, {chips:,}" for chips in (SIZES[0], LARGEST)]
    headings += [f"efficiency, {chips:,}" for chips in SIZES[1:]]
    headings += [f"bound by, {LARGEST:,}", f"batch grown, efficiency, {LARGEST:,}"]
    return markdown(headings, [scaling_line(each) for each in records])


def has_roofline(record: dict) -> bool:
    """Whether the chip has known rates and the program communicates in one slice, as the model of scaling needs."""
    seconds, kinds = training(record).get("seconds", {}), training(record)["collectives"]
    one = not any(kind.endswith(BETWEEN) for kind in kinds)
    return one and record["chips"] > 1 and seconds.get("communication", 0.0) > 0


def plot(path: Path, records: list[dict]) -> None:
    """Plot the efficiency over the number of chips, which has no unit, of the first recipe of each table."""
    curves = {}
    for record in records:
        if record.get("programs") and has_roofline(record) and record["table"] not in curves:
            steps = strong_steps(record)
            curves[record["table"]] = [(step.chips, efficiency(step, steps[0]), 0.0) for step in steps]
    if curves:
        title = "Published batch on more chips, by the roofline"
        lines(path, title, curves, "chips", f"efficiency, compared with {SIZES[0]} chips", log_y=True)


def strong_steps(record: dict) -> list[Step]:
    """The steps of a recipe at its own batch for all sizes."""
    return [strong(record, chips) for chips in SIZES]


def rendered(records: list[dict], untrained: list[str], image: str) -> str:
    """The whole file."""
    fitting = [each for each in records if each.get("programs")]
    failed = [each for each in records if each.get("error")]
    missing = [each for each in records if not each.get("programs") and not each.get("error")]
    topologies = ", ".join(sorted({each["topology"] for each in records}))
    parts = [f"# Published recipes compiled for {topologies}", summary(fitting, failed, missing, untrained)]
    if fitting:
        parts += [proof_table(fitting), PROOF]
    if failed:
        parts += ["## Recipes that do not fit or do not compile"]
        parts += [markdown(["recipe", "reason"], [[name_of(each), each["error"]] for each in failed])]
    if missing:
        parts += ["## Recipes that were not compiled", ", ".join(name_of(each) for each in missing) + "."]
    if grown := [each for each in fitting if has_roofline(each)]:
        parts += ["## On more chips", scaling_table(grown), SCALING, f"![Efficiency on more chips]({image})"]
    return "\n\n".join([*parts, made(records)])


def summary(fitting: list[dict], failed: list[dict], missing: list[dict], untrained: list[str]) -> str:
    """What the file holds, in words."""
    devices = ", ".join(sorted({each["devices"] for each in fitting}))
    return (
        f"{len(fitting)} training steps with their samplers fit {devices or 'no device yet'}, {len(failed)} did not "
        f"fit or compile, and {len(missing)} were not compiled. There is one recipe of each network and objective of a "
        "table, up to the limit of the command. Rows that differ in rates, data or numbers of steps have the same "
        "program, and of those that differ in counts the last is taken, which has the most sub-tokens or the largest "
        "blocks. "
        f"Without a trained network at this scale: {', '.join(untrained) or 'none'}. Of these, LiDAR's samplers of "
        "Stable Diffusion are in [lidar_cost.md](lidar_cost.md)."
    )


def made(records: list[dict]) -> str:
    """The provenance, in words."""
    compiled = [each for each in records if each.get("programs")]
    commits = ", ".join(sorted({each["commit"] for each in compiled})) or "none"
    versions = ", ".join(sorted({f"jax {each['versions']['jax']}" for each in compiled})) or "nothing"
    return (
        f"Compiled at commit {commits} with {versions} by `python -m experiments.benchmarks.compiled`; the model of "
        "scaling is `experiments/benchmarks/scaling.py`.\n"
    )


PROOF = (
    "GiB are those of one chip: arguments + outputs - aliased + temporaries, which may exceed the memory of a chip "
    "that a program fits, and the peak by the compiler's account. FLOPs are those of the trace, of all chips. A "
    "sampler is one program for a whole batch, at all its steps; of several programs the largest counts. Milliseconds "
    "are those at the published rates of the chip: compute with what rematerialization repeats, memory by an estimate "
    "from the compiler's sizes (temporaries written and read once), and links from the bytes that a chip sends. "
    "Tokens a second are those at the longest of the three; tokens are color values for images, and those of targets "
    "for pairs. Effort -1 compiles with fewer optimizations, in a fraction of the time, and has larger temporaries; "
    "the seconds are those of a busy core."
)
SCALING = (
    "The roofline of the compiled program on more chips, along the data axis of its mesh, from the longest of "
    "compute, memory, links and the network between slices (full overlap) to their sum (none). Compute and temporaries "
    "divide by the chips, to one example a chip; chips beyond the batch are idle. Every chip reads and writes the "
    "state once a step, and reads the weights once in each micro-batch, of which there are fewer where a chip has "
    "fewer examples. In a ring over n chips each sends 2 (1 - 1/n) times the gradients, once a step; those that the "
    "compiler sums in every micro-batch are sent less often where there are fewer micro-batches. A v5e slice has at "
    "most 256 chips; between slices each chip sends its share of the gradients that its slice has summed, at 3.125 "
    "GB/s, a 256th of the data center network of a pod. Rates and efficiency are those of full overlap. Where the "
    "batch grows with the chips, only links and network have more to do. Left out are latency, and products that are "
    "too small to fill a chip. The plot has the first recipe of each table."
)
