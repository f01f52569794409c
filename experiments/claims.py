"""LiDAR's two claims on a table of prompted pictures: cost against gradient guidance, score at equal time.

python -m experiments.claims --table=experiments/results/lidar_shapes.local.jsonl
"""

import sys
from pathlib import Path

from absl import app, flags

from diffusion.metrics.prompted_images import bootstrap_over_prompts
from diffusion.metrics.statistics import Interval, student
from diffusion.report.rows import read_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("table", "experiments/results/lidar_shapes.local.jsonl", "Rows of a table, JSON lines.")

GRADIENTS, RIVALS = ("gradient", "condition"), ("best_of", "steering")


def sampled(rows: list[dict]) -> dict[str, dict]:
    """The rows of the trained model by name; raises ValueError where a claim has nothing to compare."""
    found = {
        row["row"]: row for row in rows if row["verb"] == "sample" and row["config"]["model"]["net"] == "captioned_unet"
    }
    kinds = {row["sampler"] for row in found.values()}
    for wanted in ("lidar", *GRADIENTS, *RIVALS):
        if wanted not in kinds:
            raise ValueError(f"table: no row samples by {wanted}; run the whole table")
    return found


def of_kind(found: dict[str, dict], kinds: tuple[str, ...]) -> list[dict]:
    """The rows of some methods."""
    return [row for row in found.values() if row["sampler"] in kinds]


def score(row: dict) -> float:
    return row["metrics"]["overall"]


def seconds(row: dict) -> float:
    return row["metrics"]["seconds_per_prompt"]


def signed(found: Interval) -> str:
    """A difference with its interval."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def difference(first: dict, second: dict) -> str:
    """Mean difference of two rows' overall scores with its 95 % interval over sets, which share their noise."""
    pairs = zip(first["sets"], second["sets"], strict=True)
    return signed(student([one["overall"] - other["overall"] for one, other in pairs]))


def prompt_difference(first: dict, second: dict) -> str:
    """Mean difference with its 95 % bootstrap interval over prompts within tasks, all sets of a prompt together."""
    sets = zip(first["by_prompt"], second["by_prompt"], strict=True)
    pairs = (pair for one_set, other_set in sets for pair in zip(one_set, other_set, strict=True))
    gaps = ((one["tag"], one["prompt"], one["correct"] - other["correct"]) for one, other in pairs)
    return signed(bootstrap_over_prompts(gaps, draws=4000))


def report(rows: list[dict]) -> list[str]:
    """The claims as lines."""
    found = sampled(rows)
    lines = []
    best = max(of_kind(found, GRADIENTS), key=score)
    lines.append(f"Best gradient guidance: {best['row']}, {score(best):.3f} in {seconds(best):.2f} s a prompt.")
    reaching = [row for row in of_kind(found, ("lidar",)) if score(row) >= score(best)]
    if reaching:
        first = min(reaching, key=seconds)
        lines.append(
            f"{first['row']} reaches it with {score(first):.3f} in {seconds(first):.2f} s, "
            f"{seconds(best) / seconds(first):.1f} times less; difference {difference(first, best)} over sets, "
            f"{prompt_difference(first, best)} over prompts."
        )
    else:
        top = max(of_kind(found, ("lidar",)), key=score)
        lines.append(
            f"No LiDAR row reaches it; the best is {top['row']} with {score(top):.3f} in {seconds(top):.2f} s."
        )
    for kind in RIVALS:
        for rival in of_kind(found, (kind,)):
            cheaper = [row for row in of_kind(found, ("lidar",)) if seconds(row) <= seconds(rival)]
            if not cheaper:
                lines.append(f"No LiDAR row takes as little as {rival['row']} ({seconds(rival):.2f} s).")
                continue
            top = max(cheaper, key=score)
            lines.append(
                f"{top['row']} ({seconds(top):.2f} s) against {rival['row']} ({seconds(rival):.2f} s): "
                f"{difference(top, rival)} over sets, {prompt_difference(top, rival)} over prompts."
            )
    return lines


def main(argv: list[str]) -> None:
    path = Path(FLAGS.table)
    if not path.is_file():
        sys.exit(f"claims: --table: {path} is no file; publish the table with `launch.py run ... --publish`")
    try:
        print("\n".join(report(read_rows(path))))
    except ValueError as error:
        print(f"claims: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
