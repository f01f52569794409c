"""The two claims of LiDAR on a table of prompted images: cost relative to gradient guidance, and score at equal time.

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

GRADIENTS, BASELINES = ("gradient", "condition"), ("best_of", "steering")


def sampled(rows: list[dict]) -> dict[str, dict]:
    """Rows of the trained model by name; raises ValueError if a method of the claims has no row."""
    by_name = {
        row["row"]: row for row in rows if row["verb"] == "sample" and row["config"]["model"]["net"] == "captioned_unet"
    }
    methods = {row["sampler"] for row in by_name.values()}
    for method in ("lidar", *GRADIENTS, *BASELINES):
        if method not in methods:
            raise ValueError(f"table: no row samples by {method}; run the whole table")
    return by_name


def of_methods(by_name: dict[str, dict], *methods: str) -> list[dict]:
    """Rows of these methods."""
    return [row for row in by_name.values() if row["sampler"] in methods]


def score(row: dict) -> float:
    """Overall score of a row."""
    return row["metrics"]["overall"]


def seconds(row: dict) -> float:
    """Seconds per prompt of a row."""
    return row["metrics"]["seconds_per_prompt"]


def signed(interval: Interval) -> str:
    """Text of a difference with its interval."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def difference(first: dict, second: dict) -> str:
    """Mean difference of the overall scores of two rows with its 95 % interval over sets, which share their noise."""
    pairs = zip(first["sets"], second["sets"], strict=True)
    return signed(student([one["overall"] - other["overall"] for one, other in pairs]))


def prompt_difference(first: dict, second: dict) -> str:
    """Mean difference with its 95 % bootstrap interval over prompts within tasks, with all sets of a prompt."""
    sets = zip(first["by_prompt"], second["by_prompt"], strict=True)
    pairs = (pair for one_set, other_set in sets for pair in zip(one_set, other_set, strict=True))
    gaps = ((one["tag"], one["prompt"], one["correct"] - other["correct"]) for one, other in pairs)
    return signed(bootstrap_over_prompts(gaps, draws=4000))


def report(rows: list[dict]) -> list[str]:
    """Lines with the result of each claim."""
    by_name = sampled(rows)
    lines = []
    best = max(of_methods(by_name, *GRADIENTS), key=score)
    lines.append(f"Best gradient guidance: {best['row']}, {score(best):.3f} in {seconds(best):.2f} s per prompt.")
    reaching = [row for row in of_methods(by_name, "lidar") if score(row) >= score(best)]
    if reaching:
        first = min(reaching, key=seconds)
        lines.append(
            f"{first['row']} reaches it with {score(first):.3f} in {seconds(first):.2f} s, "
            f"{seconds(best) / seconds(first):.1f} times less; difference {difference(first, best)} over sets, "
            f"{prompt_difference(first, best)} over prompts."
        )
    else:
        top = max(of_methods(by_name, "lidar"), key=score)
        lines.append(
            f"No LiDAR row reaches it; the best is {top['row']} with {score(top):.3f} in {seconds(top):.2f} s."
        )
    for method in BASELINES:
        for baseline in of_methods(by_name, method):
            cheaper = [row for row in of_methods(by_name, "lidar") if seconds(row) <= seconds(baseline)]
            if not cheaper:
                lines.append(f"No LiDAR row takes as little as {baseline['row']} ({seconds(baseline):.2f} s).")
                continue
            top = max(cheaper, key=score)
            lines.append(
                f"{top['row']} ({seconds(top):.2f} s) against {baseline['row']} ({seconds(baseline):.2f} s): "
                f"{difference(top, baseline)} over sets, {prompt_difference(top, baseline)} over prompts."
            )
    return lines


def main(argv: list[str]) -> None:
    """Print the result of each claim."""
    path = Path(FLAGS.table)
    if not path.is_file():
        sys.exit(f"claims: --table: {path} is not a file; publish the table with `launch.py run ... --publish`")
    try:
        print("\n".join(report(read_rows(path))))
    except ValueError as error:
        print(f"claims: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
