"""Records of `launch.py compile` for rows of configs/lidar_geneval.py, kept beside the table of costs."""

import json
from pathlib import Path

from diffusion.report.tables import markdown

GIB = 2**30
KEPT = ("program", "arguments", "outputs", "aliased", "temporaries", "flops", "flops_cost_analysis", "seconds")
FACTS = ("row", "topology", "devices", "attention", "effort", "commit", "versions")
KEY = ("row", "topology", "effort")
# In the environment of the command, by the compiler's effort.
EFFORT = {"0": "", "-1": "JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 "}
COMMAND = (
    '{effort}python launch.py compile --config=configs/lidar_geneval.py:paper --row="{row}" --topology={topology} '
    "--config.text_to_image.random=True --config.sample.batch=1"
)


def gathered(known: list[dict], folder: Path) -> list[dict]:
    """The committed records with those of a folder, which replace others of the same row, topology and effort.

    Raises:
      ValueError: for a folder without records.
    """
    found = {tuple(each[name] for name in KEY): each for each in known}
    paths = sorted(folder.glob("lidar_geneval.paper.*.json"))
    if not paths:
        raise ValueError(f"compiled: {folder} has no records; make them with `launch.py compile --workdir=...`")
    for path in paths:
        record = json.loads(path.read_text())
        programs = [{name: each[name] for name in (*KEPT, "compile_seconds")} for each in record["programs"]]
        facts = {name: record[name] for name in FACTS}
        found[tuple(record[name] for name in KEY)] = facts | {"programs": programs}
    return [found[key] for key in sorted(found)]


def compiled_table(records: list[dict]) -> str:
    """Memory, FLOPs and the roofline of each program, by the compiler for TPUs, and the commands."""
    headings = ["row", "slice", "effort", "program", "weights and inputs GiB", "temporaries GiB", "in all GiB", "TFLOP"]
    headings += ["compute s", "memory s", "compiled in s"]
    body = []
    for record in records:
        for each in record["programs"]:
            used = each["arguments"] + each["outputs"] - each["aliased"] + each["temporaries"]
            sizes = [f"{size / GIB:.2f}" for size in (each["arguments"], each["temporaries"], used)]
            bounds = [f"{each['seconds'][name]:.2f}" for name in ("compute", "memory")]
            line = [
                record["row"],
                record["topology"],
                record["effort"],
                each["program"],
                *sizes,
                f"{each['flops'] / 1e12:.1f}",
            ]
            body.append([*line, *bounds, f"{each['compile_seconds']:.0f}"])
    commits = ", ".join(sorted({each["commit"] for each in records}))
    versions = sorted({f"jax {each['versions']['jax']}" for each in records})
    lines = dict.fromkeys(COMMAND.format(**each | {"effort": EFFORT[each["effort"]]}) for each in records)
    note = (
        "One prompt of four images on one chip. FLOPs are those of the trace, and memory seconds an estimate from the "
        "compiler's sizes: in every step the weights are read, and the temporaries written and read, once. Effort -1 "
        "compiles with fewer optimizations, in a twentieth of the time, and has larger temporaries. Finished "
        f"images are not decoded in these programs. Compiled at commit {commits} with {', '.join(versions)} by"
    )
    return markdown(headings, body) + f"\n\n{note}\n\n```bash\n" + "\n".join(lines) + "\n```"
