"""The compile proof of every table at its published scale, and how its training steps scale, as one committed table.

    python -m experiments.benchmarks.compiled --topology=v5e:4x4 --workdir=WORKDIR
    python -m experiments.benchmarks.compiled --only=udlm,text8 --effort=0 --workdir=WORKDIR
    python -m experiments.benchmarks.compiled --workdir=WORKDIR --tables_only

Rows that differ in network or objective are compiled by `launch.py compile`, one after another in processes of their
own. The table, experiments/tables/compile.md, and its records, compile.jsonl beside it, are written again after each
row. A row whose config and topology have a record is not compiled again, so that the command continues where it
stopped; one that failed for another reason than memory is tried again. Records of rows that the command does not list
are dropped. It needs `pip install "libtpu==0.0.42.*"`, but no TPU and no data.
"""

from functools import partial
from pathlib import Path

from absl import app, flags

from diffusion.report.rows import read_rows, write_rows
from diffusion.storage import atomic_write
from experiments.benchmarks.compiled_recipes import recipes, tables, untrained
from experiments.benchmarks.compiled_runs import matched, process, update
from experiments.benchmarks.compiled_tables import PLOT, RECORDS, TABLE, plot, rendered

FLAGS = flags.FLAGS
flags.DEFINE_string("topology", "v5e:4x4", "TPU slice; empty: the devices here")
flags.DEFINE_string("workdir", "runs", "folder for the records of `launch.py compile`")
flags.DEFINE_list("only", [], "tables to compile now; empty: all")
flags.DEFINE_integer("rows", 4, "rows of each table at most; 0: one of each method", lower_bound=0)
flags.DEFINE_integer("minutes", 60, "limit of one row", lower_bound=1)
flags.DEFINE_enum(
    "effort", "auto", ["auto", "0", "-1"], "of the compiler; auto: -1 for networks of convolutions, 0 else"
)
flags.DEFINE_boolean("tables_only", False, "compile nothing, write the table from the records that are there")


def main(arguments: list[str]) -> None:
    """Compile what is missing, and write records, table and plot."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    modules, known = tables(), read_rows(RECORDS)
    listed, skipped, given = recipes(modules, FLAGS.rows), untrained(modules), (FLAGS.topology, FLAGS.effort)
    if FLAGS.tables_only:
        return write(matched(listed, known, *given), skipped)
    run = partial(process, FLAGS.minutes)
    for records in update(listed, known, *given, Path(FLAGS.workdir).absolute(), run, FLAGS.only):
        write(records, skipped)


def write(records: list[dict], skipped: list[str]) -> None:
    """Write the records, the table and the plot."""
    write_rows(RECORDS, records)
    atomic_write(TABLE, rendered(records, skipped, PLOT.name))
    plot(PLOT, records)


if __name__ == "__main__":
    app.run(main)
