"""Loading of data sets: from the fields of `config.data` to random-access splits of packed examples."""

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion.data import arrays, builder, captions, pairs, readers, subword
from diffusion.data.dataset import Dataset, Split
from diffusion.data.packing import Block, Statistics, encode_documents, padded, wrapped
from diffusion.data.pieces import Document, parts_of
from diffusion.data.settings import READY_MADE, DataSettings, read_settings
from diffusion.data.sources import PAIRS, open_source
from diffusion.data.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer, digest, words_tokenizer
from diffusion.data.types import MissingData, Source

# Tokenizers that learn nothing from the data.
SAVED = {"gpt2": subword.gpt2, "wordpiece": subword.wordpiece, "file": subword.from_file}
FORMAT = 2  # increment when packing, detokenizers or sources change the examples of a recipe
TOKENIZERS = ("bytes", "characters", "bpe", "gpt2", "wordpiece", "file")
PAIR_TOKENIZERS = ("words", "bpe", "bytes", "file")


def load_dataset(data: Any, tokenizer: Tokenizer | None = None) -> Dataset:
    """Loads the data set that `data` describes (see DataSettings), and prepares it in the cache the first time.

    Without a path to its files, a set of images, or of text whose tokenizer is not learned, has no splits; what it says
    of its tokens is enough to sample. Asking for a split is an error that names the files.

    Pass the `tokenizer` of another data set to encode this one with it (zero-shot evaluation).
    Raises: ValueError in one line that names the field and the remedy.
    """
    settings = read_settings(data)
    kinds = dict.fromkeys(arrays.SOURCES, load_arrays) | dict.fromkeys(captions.SOURCES, captions.load)
    load = kinds.get(settings.source, load_texts)
    with readers.readable(settings.path):
        return load(settings, tokenizer)


def load_texts(settings: DataSettings, tokenizer: Tokenizer | None) -> Dataset:
    """Loads texts or pairs of texts."""
    if settings.tokenizer in READY_MADE:
        raise ValueError(
            f"data.tokenizer: {settings.tokenizer!r} is for ready-made arrays ({', '.join(arrays.SOURCES)}), and "
            f"{settings.source!r} is text; known: {', '.join(TOKENIZERS)}"
        )
    paired = settings.source in PAIRS
    try:
        source = open_source(settings)
    except MissingData as error:
        if settings.path or paired or not (tokenizer or settings.tokenizer in ("bytes", *SAVED)):
            raise
        source = Source(settings.source, {}, "", missing=str(error))
    tokenizer = tokenizer or load_tokenizer(settings, source)
    is_padded = paired or settings.packing == "padded"
    recipe = {
        "source": source.name,
        "content_hash": source.content_hash,
        "tokenizer": tokenizer.name,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "length": settings.length,
    }
    if paired:
        recipe |= {"source_length": settings.source_length, "lower": settings.lower}
    else:
        bos_eos = settings.bos_eos and not is_padded
        recipe |= {"packing": settings.packing, "bos_eos": bos_eos, "detokenize": settings.detokenize}
        # Examples of an earlier version were cut without their EOS.
        recipe |= {"cut": "EOS"} if is_padded else {}
        # Statistics of an earlier version do not say of all text whether its tokens give it back.
        recipe |= {"lossy": "counted in all"} if tokenizer.token_bytes is None else {}
    builds = {split: functools.partial(build, source, split, paired, tokenizer, settings) for split in source.documents}
    examples, statistics, fingerprint = stored(settings, recipe, builds, source.in_memory)
    splits = {split: Split(each) for split, each in examples.items()}
    if paired:
        pairs.warn(statistics.items(), settings)
        for split in splits.keys() - {"train"}:
            texts = functools.partial(pairs.held_out_pairs, source.documents[split], tokenizer, settings)
            splits[split] = Split(examples[split], texts)
    return Dataset(
        splits=splits,
        tokenizer=tokenizer,
        length=settings.length,
        padded=is_padded,
        fingerprint=fingerprint,
        statistics=statistics,
        source=source.name,
        paper_split=source.paper_split,
        domain="pairs" if paired else "text",
        missing=source.missing,
    )


def build(
    source: Source, split: str, paired: bool, tokenizer: Tokenizer, settings: DataSettings, statistics: Statistics
) -> Iterator[Block]:
    """Packed examples of the documents or pairs of a split."""
    documents = source.documents[split]()
    if paired:
        return pairs.blocks(documents, tokenizer, settings, split == "train", statistics)
    encoded = encode_documents(documents, tokenizer, statistics)
    if settings.packing == "padded":
        return padded(encoded, tokenizer, settings.length, statistics)
    return wrapped(encoded, tokenizer, settings.length, settings.bos_eos, source.separated, statistics)


def load_tokenizer(settings: DataSettings, source: Source) -> Tokenizer:
    """Builds `data.tokenizer`; trained tokenizers use the training split of the source, of pairs both sides."""
    name, paired = settings.tokenizer, settings.source in PAIRS
    known = PAIR_TOKENIZERS if paired else TOKENIZERS
    if name not in known:
        kind = " for pairs" if paired else ""
        raise ValueError(f"data.tokenizer: unknown {name!r}; known{kind}: {', '.join(known)}")
    if name == "bytes":
        return bytes_tokenizer()
    if name in SAVED:
        return SAVED[name](settings.tokenizer_path)
    if name == "characters" and settings.alphabet:
        return characters_tokenizer(settings.alphabet, end=source.separated)
    if "train" not in source.documents:
        raise ValueError(
            f"data.tokenizer: {name!r} learns from a training split, which {source.name} lacks here; pass "
            f"{', '.join(other for other in known if other in ('bytes', *SAVED))}, or the training data's tokenizer"
        )

    def texts() -> Iterator[Document]:
        documents = source.documents["train"]()
        return pairs.both_sides(documents, settings.lower) if paired else documents

    if name == "characters":
        found = set(itertools.chain.from_iterable(set(part) for text in texts() for part in parts_of(text)))
        return characters_tokenizer("".join(sorted(found)), end=source.separated)
    if name == "words":
        return words_tokenizer(sorted({word for text in texts() for part in parts_of(text) for word in part.split()}))
    fields = (settings.detokenize, settings.lower, settings.vocab_size, subword.SAMPLE_CHARACTERS)
    key = digest(str(FORMAT), source.name, source.content_hash, *map(str, fields))
    file = settings.cache / "tokenizers" / f"bpe-{source.name}-{key[:16]}" / "tokenizer.json"
    # A BPE reads a bounded prefix, and large sets of pairs are often sorted: a stride takes texts from all of them.
    # An odd stride alternates between the sides.
    characters = 0
    if paired and not file.exists():
        characters = sum(map(len, pairs.both_sides(source.documents["train"](), settings.lower)))
    stride = characters // subword.SAMPLE_CHARACTERS // 2 * 2 + 1
    sample = itertools.islice(texts(), 0, None, stride)
    return subword.trained_bpe(sample, settings.vocab_size, file)


def load_arrays(settings: DataSettings, tokenizer: Tokenizer | None) -> Dataset:
    """Loads ready-made examples."""
    source = arrays.open_arrays(settings)
    source_tokenizer = source.tokenizer or arrays.values_tokenizer(source.vocab_size)
    if tokenizer is not None and tokenizer.fingerprint != source_tokenizer.fingerprint:
        raise ValueError(f"data.source: {source.name} is not text, so tokenizer {tokenizer.name!r} cannot read it")
    recipe = {
        "source": source.name,
        "content_hash": source.content_hash,
        "tokenizer_fingerprint": source_tokenizer.fingerprint,
        "length": source.length,
    }
    builds = {split: functools.partial(arrays.counted, start, source) for split, start in source.splits.items()}
    examples, statistics, fingerprint = stored(settings, recipe, builds, not source.content_hash, source.shuffled)
    splits = {split: Split(each) for split, each in examples.items()}
    # Some sets have no published test labels and are tested on their validation images.
    if "validation" in splits and "test" not in splits:
        splits["test"], statistics["test"] = splits["validation"], statistics["validation"]
    return Dataset(
        splits=splits,
        tokenizer=source_tokenizer,
        length=source.length,
        padded=False,
        fingerprint=fingerprint,
        statistics=statistics,
        source=source.name,
        paper_split="test",
        image=source.image,
        labels=source.labels,
        flip=settings.flip,
        domain=source.domain,
        label_names=source.label_names,
        start=source.start,
        missing=source.missing,
    )


def stored(
    settings: DataSettings,
    recipe: dict[str, Any],
    builds: Mapping[str, builder.BuildSplit],
    in_memory: bool,
    shuffled: bool = False,
) -> tuple[dict[str, Any], dict[str, Statistics], str]:
    """Examples of each split in memory, or of the cache, where they are written the first time.

    Returns them with their statistics and the fingerprint of the recipe and, in memory, of the examples.
    """
    recipe = {"format": FORMAT} | recipe
    if not builds:
        return {}, {}, digest(json.dumps(recipe, sort_keys=True))
    if in_memory:
        blocks, statistics = builder.in_memory(recipe, builds, shuffled)
        content = [json.dumps(recipe, sort_keys=True)]
        for split, block in blocks.items():
            for name, array in block.items():
                content += [split, name, array.tobytes()]
        return blocks, statistics, digest(*content)
    fingerprint = digest(json.dumps(recipe, sort_keys=True))
    folder = settings.cache / "packed" / f"{recipe['source']}-{fingerprint[:16]}"
    if not builder.is_prepared(folder):
        builder.prepare(folder, recipe, builds, shuffled)
    return *builder.open_prepared(folder), fingerprint
