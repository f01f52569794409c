"""Zero-shot likelihood: other corpora, read with the tokenizer, window and packing of the model."""

import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion.data import Dataset, load_dataset
from diffusion.storage import cache_of
from experiments.run_context import Run

# Function that scores one split of a data set; keys may have the name of the estimator as a prefix.
Score = Callable[[Dataset, str], dict[str, float]]
REPORTED = ("perplexity", "perplexity_sem", "tokens")


def scores(run: Run, score: Score) -> dict[str, float]:
    """Metrics NAME_perplexity, NAME_perplexity_sem and NAME_tokens for each available set of `evaluate.zero_shot`.

    Each set is scored on the split that the public MDLM code uses. All sets are opened before the first is scored.

    Raises:
      ValueError: for a missing set if `evaluate.zero_shot_required` is set.
    """
    metrics = {}
    for name, dataset in read(run).items():
        values = {key.rpartition("/")[2]: value for key, value in score(dataset, dataset.paper_split).items()}
        metrics |= {f"{name}_{key}": values[key] for key in REPORTED if key in values}
    return metrics


def read(run: Run) -> dict[str, Dataset]:
    """Data sets of `evaluate.zero_shot` by name; missing sets are omitted with a warning.

    Raises:
      ValueError: for a missing set if `evaluate.zero_shot_required` is set, with the field of the set.
    """
    datasets, unset = {}, []
    for name, changes in run.config.evaluate.zero_shot.items():
        fields = ConfigDict(run.config.data.to_dict() | {"path": ""} | changes.to_dict())
        fields.cache_dir = run.config.data.cache_dir or str(cache_of(run.workdir))
        try:
            dataset = load_dataset(fields, tokenizer=run.dataset.tokenizer)
            dataset.split(dataset.paper_split)
        except ValueError as error:
            # The loader names the field data.path, but the user has to set the field of the zero-shot set.
            message = str(error).replace("data.path", f"evaluate.zero_shot.{name}.path")
            if run.config.evaluate.zero_shot_required:
                raise ValueError(message) from None
            if fields.path:
                print(f"warning: {name} is omitted: {message}", file=sys.stderr)
            else:
                unset.append(name)
            continue
        datasets[name] = dataset
    if unset:
        where = "pass --config.evaluate.zero_shot.NAME.path=FOLDER"
        print(f"warning: zero-shot columns are left empty for {', '.join(unset)}; {where}", file=sys.stderr)
    return datasets
