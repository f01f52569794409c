"""Sources of texts and of pairs by their names."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from diffusion.data import corpora, datasets, local_text, pair_files, pair_tasks, programs, text_files
from diffusion.data.settings import DataSettings
from diffusion.data.types import Source

Open = Callable[[DataSettings], Source]

TEXTS: dict[str, Open] = {
    "python_stdlib": local_text.python_stdlib,
    "text_files": text_files.text_files,
    "text8": local_text.text8,
    "text8_prefix": local_text.text8_prefix,
    "enwiki2018": local_text.enwiki2018,
    "openwebtext": corpora.openwebtext,
    "lm1b": corpora.lm1b,
    "conala": programs.conala,
    "humaneval": programs.humaneval,
    **{name: datasets.texts for name in datasets.TEXTS if name != "enwiki2018"},
}
PAIRS: dict[str, Open] = {
    "dialects": pair_tasks.dialects,
    "dialects_reversed": pair_tasks.dialects,
    "number_words": pair_tasks.number_words,
    **dict.fromkeys((pair_files.OWN, *pair_files.PAIRS), pair_files.pairs),
}


def open_source(settings: DataSettings) -> Source:
    """Opens `data.source`; pairs may be in a subfolder of `data.path` with the name of the source.

    Raises: ValueError naming the field, or the file that is damaged or missing and its origin.
    """
    name = settings.source
    if name not in TEXTS | PAIRS:
        raise ValueError(f"data.source: unknown {name!r}; known: {', '.join(sorted(TEXTS | PAIRS))}")
    if name in PAIRS and settings.path and (subfolder := Path(settings.path).expanduser() / name).is_dir():
        settings = dataclasses.replace(settings, path=str(subfolder))
    return (TEXTS | PAIRS)[name](settings)
