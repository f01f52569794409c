"""Claims of LiDAR on a table of prompted images: cost relative to gradient guidance, and score at equal time."""

from diffusion.metrics.prompted_images import bootstrap_over_prompts
from diffusion.metrics.statistics import Interval, student

GRADIENTS, BASELINES = ("gradient", "condition"), ("best_of", "steering")


def report(rows: list[dict]) -> list[str]:
    """Lines with the result of each claim; raises ValueError if a method of the claims has no row."""
    by_name = {
        row["row"]: row for row in rows if row["verb"] == "sample" and row["config"]["model"]["net"] == "captioned_unet"
    }

    def of_methods(*methods: str) -> list[dict]:
        found = [row for row in by_name.values() if row["sampler"] in methods]
        if not found:
            raise ValueError(f"table: no row samples by {methods[0]}; run the whole table")
        return found

    def score(row: dict) -> float:
        return row["metrics"]["overall"]

    def seconds(row: dict) -> float:
        return row["metrics"]["seconds_per_prompt"]

    ours, *_ = (of_methods(method) for method in ("lidar", *GRADIENTS, *BASELINES))
    best = max(of_methods(*GRADIENTS), key=score)
    lines = [f"Best gradient guidance: {best['row']}, {score(best):.3f} in {seconds(best):.2f} s per prompt."]
    reaching = [row for row in ours if score(row) >= score(best)]
    if reaching:
        first = min(reaching, key=seconds)
        lines.append(
            f"{first['row']} reaches it with {score(first):.3f} in {seconds(first):.2f} s, "
            f"{seconds(best) / seconds(first):.1f} times less; difference {score_difference(first, best)}"
        )
    else:
        top = max(ours, key=score)
        lines.append(
            f"No LiDAR row reaches it; the best is {top['row']} with {score(top):.3f} in {seconds(top):.2f} s."
        )
    for baseline in (row for method in BASELINES for row in of_methods(method)):
        cheaper = [row for row in ours if seconds(row) <= seconds(baseline)]
        if not cheaper:
            lines.append(f"No LiDAR row takes as little as {baseline['row']} ({seconds(baseline):.2f} s).")
            continue
        top = max(cheaper, key=score)
        times = f"{top['row']} ({seconds(top):.2f} s) against {baseline['row']} ({seconds(baseline):.2f} s)"
        lines.append(f"{times}: {score_difference(top, baseline)}")
    return lines


def score_difference(first: dict, second: dict) -> str:
    """Mean difference of the overall scores of two rows, with an interval over sets and one over prompts.

    Sets share their noise. The second interval is a bootstrap over prompts within tasks, with all sets of a prompt.
    """
    sets = [one["overall"] - other["overall"] for one, other in zip(first["sets"], second["sets"], strict=True)]
    both = zip(first["by_prompt"], second["by_prompt"], strict=True)
    pairs = (pair for one_set, other_set in both for pair in zip(one_set, other_set, strict=True))
    by_prompt = ((one["tag"], one["prompt"], one["correct"] - other["correct"]) for one, other in pairs)
    prompts = bootstrap_over_prompts(by_prompt, draws=4000)
    return f"{signed(student(sets))} over sets, {signed(prompts)} over prompts."


def signed(interval: Interval) -> str:
    """Text of a difference with its interval."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
