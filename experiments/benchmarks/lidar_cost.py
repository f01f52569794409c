"""Cost of LiDAR and its baselines at the size of Stable Diffusion 1.5 and SDXL, by roofline, without weights.

    python -m experiments.benchmarks.lidar_cost
    python -m experiments.benchmarks.lidar_cost --compiled=WORKDIR/compile

Every row of configs/lidar_geneval.py:paper is composed of the real programs by shape (`lidar_programs`), and its
seconds on four chips stand beside those that were published for one A100. The second form adds the records of
`launch.py compile` first. Both write experiments/tables/lidar_cost.md.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from configs import lidar_geneval
from configs.lidar_geneval import PUBLISHED, SD, XL
from diffusion.report.rows import commit
from diffusion.report.tables import markdown
from diffusion.storage import atomic_write
from diffusion.train.hardware import PEAKS
from diffusion.train.traffic import Roofline, flops, roofline
from experiments.benchmarks.lidar_compiled import compiled_table, gathered
from experiments.benchmarks.lidar_programs import KINDS, Cost, method_cost, row_config

FLAGS = flags.FLAGS
flags.DEFINE_string("compiled", "", "folder of records of `launch.py compile` to add to the committed ones")

TABLE = Path(__file__).parents[1] / "tables" / "lidar_cost.md"
RECORDS = TABLE.with_suffix(".json")
COMMAND = "python -m experiments.benchmarks.lidar_cost"
A100 = "NVIDIA A100"
# Float32 products, those of VAE and reward, relative to bfloat16: TF32 on GPUs, and one bfloat16 pass on TPUs.
CHIPS = {A100: 0.5, "NVIDIA H100": 0.5, "TPU v5p": 1.0, "TPU v6e": 1.0}
DATE_POINT, LIDAR_POINT = f"{XL}DATE, every step", f"{XL}LiDAR, DPM-8, 9"
SD_DATE, SD_LIDAR = f"{SD}DATE, every step", f"{SD}LiDAR, DPM-5, 9"
PUBLISHED_RATIO = 9.5
OURS, FOUR = "ours, both branches again", "four images at a time"


class Row(NamedTuple):
    """One row: its cost, its rooflines by chip and kind of part, and the published seconds."""

    name: str
    cost: Cost
    seconds: dict[str, dict[str, Roofline]]
    published: float | None

    def total(self, chip: str) -> Roofline:
        """The roofline of all parts."""
        return added(*self.seconds[chip].values())


def added(*rooflines: Roofline) -> Roofline:
    """The sum of rooflines."""
    return Roofline(*(sum(column) for column in zip(*rooflines, strict=True)))


def times(number: float, each: Roofline) -> Roofline:
    """A roofline some times."""
    return Roofline(*(number * value for value in each))


def seconds_of(cost: Cost, chip: str, wide: float) -> dict[str, Roofline]:
    """The rooflines of a method on a chip by kind of part, with float32 at `wide` times the rate of bfloat16."""
    found: dict[str, Roofline] = {kind: Roofline() for kind in KINDS}
    for part in cost.parts:
        whole = roofline(part.program, PEAKS[chip], wide)
        before = times(-1, roofline(part.without, PEAKS[chip], wide)) if part.without else Roofline()
        found[part.kind] = added(found[part.kind], times(part.times, added(whole, before)))
    return found


def variants() -> Iterator[tuple[str, str, dict, bool, float | None]]:
    """Name, row of the config, more overrides, whether DATE has its published passes, and published seconds."""
    for each in lidar_geneval.rows(lidar_geneval.get_config("paper")):
        each: dict = each
        name = each["name"]
        if not each["overrides"]:
            continue
        seconds = PUBLISHED[name].get("seconds_per_prompt")
        if each["overrides"]["sample.gaussian.method"] == "condition":
            yield name, name, {}, True, seconds
            yield f"{name}, {OURS}", name, {}, False, None
        else:
            yield name, name, {}, False, seconds
    # Published seconds of DATE with an update at every step (arXiv 2602.03211, appendix B.2).
    every = {"sample.gaussian.condition.period": 1}
    yield SD_DATE, f"{SD}DATE", every, True, 58.80
    yield DATE_POINT, f"{XL}DATE", every, True, 498.96
    yield f"{DATE_POINT}, {OURS}", f"{XL}DATE", every, False, None
    yield f"{DATE_POINT}, {FOUR}", f"{XL}DATE", every | {"sample.gaussian.chunk": 4}, True, None
    # 42.00 s of the vanilla sampler and the 10.04 s that 9 lookahead samples add to that of Table 10.
    yield LIDAR_POINT, f"{XL}LiDAR, DPM-8, 50", {"sample.gaussian.lookahead.particles": 9}, False, 42.00 + 31.49 - 21.45


def measured(scores: bool = False, only: tuple[str, ...] = ()) -> dict[str, Row]:
    """All rows by name, or `only` some; with `scores`, attention without a kernel."""
    table, found = lidar_geneval.get_config("paper"), {}
    for name, row, overrides, published_date, published in variants():
        if only and name not in only:
            continue
        cost = method_cost(row_config(lidar_geneval, table, row, overrides), published_date, scores)
        found[name] = Row(name, cost, {chip: seconds_of(cost, chip, wide) for chip, wide in CHIPS.items()}, published)
    return found


def dominated(row: Row) -> str:
    """The kind of part with most seconds on an A100, its share, and the share of all that compute binds."""
    parts, total = row.seconds[A100], row.total(A100)
    kind = max(parts, key=lambda each: parts[each].seconds)
    share, bound = (value / total.seconds for value in (parts[kind].seconds, total.bound))
    return f"{kind} {share:.0%}; compute-bound {bound:.0%}"


def main_table(rows: dict[str, Row]) -> str:
    """The table of all methods."""
    headings = ["method", "NFE", "backward", "PFLOP", *(f"{chip.split(' ', 1)[1]} s" for chip in CHIPS)]
    headings += ["A100 s, whole", "published s", "published / roofline", "most seconds on A100"]
    body = []
    for row in rows.values():
        seconds = row.total(A100).seconds
        work = sum(part.times * (flops(part.program) - flops(part.without)) for part in row.cost.parts)
        line = [row.name, f"{row.cost.forward}", f"{row.cost.backward}", f"{work / 1e15:.2f}"]
        line += [f"{row.total(chip).seconds:.2f}" for chip in CHIPS] + [f"{row.total(A100).whole:.2f}"]
        line += [f"{row.published:.2f}", f"{row.published / seconds:.1f}"] if row.published else ["", ""]
        body.append([*line, dominated(row)])
    return markdown(headings, body)


def ratio(date: Row, lidar: Row, chip: str) -> float:
    """How many times as long one row takes as another."""
    return date.total(chip).seconds / lidar.total(chip).seconds


def half(row: Row) -> Row:
    """A row with the products of VAE and reward at the rate of half precision."""
    return row._replace(seconds={chip: seconds_of(row.cost, chip, 1.0) for chip in CHIPS})


def slower(row: Row) -> float:
    """The published seconds over the roofline of an A100; the inverse is the efficiency of the published code."""
    assert row.published
    return row.published / row.total(A100).seconds


def published_ratio(date: Row, lidar: Row) -> float:
    """The ratio of published seconds."""
    assert date.published and lidar.published
    return date.published / lidar.published


def ratio_tables(rows: dict[str, Row], scores: dict[str, Row]) -> str:
    """The ratio at the 9.5x point on each chip, and the parts of its two methods."""
    pairs = {
        "SDXL": (rows[DATE_POINT], rows[LIDAR_POINT]),
        f"SDXL, DATE {OURS}": (rows[f"{DATE_POINT}, {OURS}"], rows[LIDAR_POINT]),
        "SDXL, DATE of four images at a time": (rows[f"{DATE_POINT}, {FOUR}"], rows[LIDAR_POINT]),
        "SDXL, attention without a kernel": (scores[DATE_POINT]._replace(published=None), scores[LIDAR_POINT]),
        "SDXL, VAE and reward at the rate of bfloat16": (
            half(rows[DATE_POINT])._replace(published=None),
            half(rows[LIDAR_POINT]),
        ),
        "SD 1.5, LiDAR of DPM-5": (rows[SD_DATE], rows[SD_LIDAR]),
        "SD 1.5, VAE and reward at the rate of bfloat16": (half(rows[SD_DATE]), half(rows[SD_LIDAR])),
    }
    body = []
    for name, (date, lidar) in pairs.items():
        line = [name, *(f"{ratio(date, lidar, chip):.1f}" for chip in CHIPS)]
        body.append([*line, f"{published_ratio(date, lidar):.1f}" if date.published else ""])
    headings = ["DATE, every step, over LiDAR, n = 9", *(chip.split(" ", 1)[1] for chip in CHIPS), "published, A100"]
    date, lidar = rows[DATE_POINT], rows[LIDAR_POINT]
    gap, parts = date.total(A100).seconds - lidar.total(A100).seconds, []
    for kind in KINDS:
        one, two = (row.seconds[A100][kind].seconds for row in (date, lidar))
        parts.append([kind, f"{one:.2f}", f"{two:.2f}", f"{(one - two) / gap:.0%}"])
    names = ["SDXL, A100 s", "DATE, every step", "LiDAR, DPM-8, n = 9", "of the difference"]
    return f"{markdown(headings, body)}\n\n{markdown(names, parts)}"


def explained(rows: dict[str, Row]) -> str:
    """Where the published ratio comes from, in words."""
    date, lidar, universal = rows[DATE_POINT], rows[LIDAR_POINT], rows[f"{XL}UG"]
    small = rows[SD_DATE], rows[SD_LIDAR]
    fast = half(small[0]), half(small[1])
    assert lidar.published
    bound = ratio(date, lidar, A100)
    return (
        f"Published: DATE with an update in every step takes {date.published:.2f} s on SDXL, and LiDAR reaches its "
        f"reward {PUBLISHED_RATIO} times as fast. That is about {lidar.published:.2f} s, those of {LIDAR_POINT}, which "
        f"are not printed but follow from Tables 2 and 10, and a ratio of {published_ratio(date, lidar):.2f}. By "
        f"roofline on an A100 the ratio is {bound:.1f}: the work of the two methods. The other factor, "
        f"{slower(date) / slower(lidar):.2f}, is efficiency: the published seconds are {slower(date):.1f} times the "
        f"roofline for DATE, {slower(universal):.1f} times for UG, whose decoder and reward have the same passes, and "
        f"{slower(lidar):.1f} times for LiDAR. With UG's efficiency DATE would take "
        f"{slower(universal) * date.total(A100).seconds:.0f} s, and the ratio would be "
        f"{slower(universal) * date.total(A100).seconds / lidar.published:.1f}. On SD 1.5 the public code runs "
        "in half precision, decoder included, for which the roofline is "
        f"{fast[0].total(A100).seconds:.2f} s for DATE and "
        f"{fast[1].total(A100).seconds:.2f} s for LiDAR, a ratio of {ratio(*fast, A100):.1f} against "
        f"{published_ratio(*small):.1f} published: {slower(fast[0]):.1f} and {slower(fast[1]):.1f} times the roofline."
    )


def rendered(version: str, records: list[dict]) -> str:
    """The whole file."""
    rows, scores = measured(), measured(True, (DATE_POINT, LIDAR_POINT))
    title = "# Cost of lookahead reward guidance at the size of Stable Diffusion 1.5 and SDXL, by roofline"
    parts = [title, main_table(rows), RULES, "## The 9.5x point", explained(rows), ratio_tables(rows, scores)]
    if records:
        parts += ["## Compiled for TPU slices", compiled_table(records)]
    parts.append(f"Made by `{COMMAND}` at commit {version}; no weights, no data and no accelerator are needed.\n")
    return "\n\n".join(parts)


RULES = (
    "Seconds are lower bounds for the four images of a prompt on one chip, in the chunks of the config: each product "
    "or convolution takes the slower of its FLOPs at the chip's rate and its bytes at its bandwidth, summed over all "
    "operations; *whole* is the slower of all FLOPs and all bytes. Each operation reads its operands and writes its "
    "result once; all else, norms among it, is taken as fused, and the scores of attention as kept on chip. The U-Net "
    "has bfloat16 products; VAE and reward have float32 ones, at half that rate on GPUs (TF32) and at the full rate on "
    "TPUs (one bfloat16 pass); the published code is taken to decode in float32 for SDXL, and in half precision for SD "
    "1.5. Products of LiDAR's guidance, solver updates and text encoders are left out; the images "
    "are decoded once at the end. NFE counts both branches of classifier-free guidance for all images of the prompt. "
    "Lookahead samples run in chunks of equal size, so that 9 in chunks of at most 5 cost as much as 10. DATE has the "
    "passes of its published code in an update step, unconditional, conditional with a gradient, and conditional "
    f"again; *{OURS}* is the program of this repository, which also evaluates the unconditional branch again. On SDXL "
    "both gradient methods take one image at a time, since four do not fit an A100 (published: out of memory)."
)


def main(arguments):
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    if FLAGS.compiled:
        records = gathered(records, Path(FLAGS.compiled))
        atomic_write(RECORDS, json.dumps(records, indent=1) + "\n")
    atomic_write(TABLE, rendered(commit(), records))
    print(TABLE.read_text())


if __name__ == "__main__":
    app.run(main)
