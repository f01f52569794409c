"""What follows from the rows of a table: differences with their 95 % intervals.

    python -m experiments.compare KIND [--rows=FILE] [--option=value ...]

  paired    the difference of two rows, seed by seed
              python -m experiments.compare paired --rows=experiments/results/prime_text.local.jsonl \
                  --first="Prime, 2 digits, marginal" --second="Prime, 2 digits, joint" --metric=nats_per_token
  frontier  better text or sharper text: the distance of samples from the temperature curve of a base
              python -m experiments.compare frontier --rows=experiments/results/scmdm_text.local.jsonl \
                  --base="MDLM, same tokens, 128 steps" --match="SCMDM"
  lidar     LiDAR's cost and score against its baselines'
              python -m experiments.compare lidar
  fastdiss  FastDiSS's few steps against many
              python -m experiments.compare fastdiss --prefix="Tatoeba: " --metric=chrf
"""

import argparse
import inspect
import sys
from pathlib import Path
from typing import NoReturn

from diffusion.report.rows import read_rows
from experiments.compare import fastdiss, frontier, lidar, paired

# Each kind with the table that it is about; its options are the parameters of `report`.
KINDS = {
    "paired": (paired, ""),
    "frontier": (frontier, ""),
    "lidar": (lidar, "experiments/results/lidar_shapes.local.jsonl"),
    "fastdiss": (fastdiss, "experiments/results/fastdiss_translation.local.jsonl"),
}


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit."""
        print(f"compare: {message}", file=sys.stderr)
        raise SystemExit(2)


def parser() -> Parser:
    """The options of every kind."""
    whole = Parser(prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = whole.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, (module, table) in KINDS.items():
        kind = kinds.add_parser(name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        kind.add_argument("--rows", default=table, required=not table, help="rows of a table, JSON lines")
        _, *options = inspect.signature(module.report).parameters.values()
        for option in options:
            required = option.default is option.empty
            default = None if required else option.default
            kind.add_argument(f"--{option.name}", default=default, required=required, type=option.annotation)
    return whole


def main(arguments: list[str]) -> None:
    """Print a comparison; bad input ends in one line and status 2."""
    options = vars(parser().parse_args(arguments))
    (module, _), path = KINDS[options.pop("kind")], Path(options.pop("rows"))
    try:
        if not path.is_file():
            raise ValueError(f"--rows: {path} is not a file; publish the table with `launch.py run ... --publish`")
        print("\n".join(module.report(read_rows(path), **options)))
    except ValueError as error:
        parser().error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
