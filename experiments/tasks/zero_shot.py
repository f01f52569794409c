"""Zero-shot likelihood: other corpora, read with the model's own tokenizer, window and packing."""

import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion.data import Dataset, load_dataset
from experiments.run_context import Run

# Scores one split of a data set; keys may carry the estimator's name before a slash.
Score = Callable[[Dataset, str], dict[str, float]]
KEPT = ("perplexity", "perplexity_sem", "tokens")


def scores(run: Run, score: Score) -> dict[str, float]:
    """Metrics NAME_perplexity, NAME_perplexity_sem and NAME_tokens for every set of `evaluate.zero_shot` that is there.

    Each set is scored on the split that the public MDLM code uses. All of them are opened before the first is scored.

    Raises:
      ValueError: when a set is missing and `evaluate.zero_shot_required` is set.
    """
    metrics = {}
    for name, dataset in read(run).items():
        values = {key.rpartition("/")[2]: value for key, value in score(dataset, dataset.paper_split).items()}
        metrics |= {f"{name}_{key}": values[key] for key in KEPT if key in values}
    return metrics


def read(run: Run) -> dict[str, Dataset]:
    """The data sets of `evaluate.zero_shot` by name; those that are missing are left out with a warning line.

    Raises:
      ValueError: naming the set's field, when one is missing and `evaluate.zero_shot_required` is set.
    """
    datasets, unset = {}, []
    for name, changes in run.config.evaluate.zero_shot.items():
        fields = ConfigDict(run.config.data.to_dict() | {"path": ""} | changes.to_dict())
        fields.cache_dir = run.config.data.cache_dir or str(run.workdir / "cache")
        try:
            dataset = load_dataset(fields, tokenizer=run.dataset.tokenizer)
            dataset.split(dataset.paper_split)
        except ValueError as error:
            # The loader speaks of its own field; the user has to set this one.
            message = str(error).replace("data.path", f"evaluate.zero_shot.{name}.path")
            if run.config.evaluate.zero_shot_required:
                raise ValueError(message) from None
            if fields.path:
                print(f"warning: {name} is left out: {message}", file=sys.stderr)
            else:
                unset.append(name)
            continue
        datasets[name] = dataset
    if unset:
        where = "pass --config.evaluate.zero_shot.NAME.path=FOLDER"
        print(f"warning: zero-shot columns are left empty for {', '.join(unset)}; {where}", file=sys.stderr)
    return datasets
