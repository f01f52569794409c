"""Fields of the section `data` with their defaults, for `configs.base`."""

from typing import Any

from configs.schema import at_least, choice, count, not_negative

DATA: dict[str, Any] = dict(
    source="python_stdlib",  # see configs/README.md
    path="",  # file or folder of the source; python_stdlib needs none
    # bytes, characters, bpe (trained on the source), gpt2, wordpiece, file; not text: values, smiles, nucleotides
    tokenizer="bpe",
    tokenizer_path="",  # vocabulary file or folder
    vocab_size=count(1024),  # of a trained bpe, and what `compile` assumes without reading data
    alphabet="",
    length=count(128),  # tokens per example
    packing=choice("wrapped", "padded"),
    bos_eos=False,  # wrapped: put BOS and EOS around every example, as MDLM does; fasta: around every record
    symbols27=False,
    document=choice("file", "paragraph", "line"),
    detokenize=True,
    validation_documents=count(100_000),
    validation_images=not_negative(5000),  # mnist, cifar10: last training images; 0: validation is the test split
    # image_files: cover (scale until both sides suffice, cut the middle), stretch (scale both), crop (cut unscaled)
    resize=choice("cover", "stretch", "crop"),
    flip=False,  # images: mirror half of the training examples horizontally
    cache_dir="",  # empty: the work directory's cache
    # Pairs of a source and a target, with tokenizer words, bpe (of both sides), bytes or file; `length` is
    # that of the target.
    source_length=at_least(2, 16),  # tokens of a source including its end; training omits longer sources
    # pair_files: names of columns (numbers from 1: there is no header), or last suffixes of two files
    source_field="source",
    target_field="target",
    reverse=False,  # swap source and target
    lower=False,  # lower-case both sides
    seed=not_negative(0),  # of the synthetic sources: dialects, dialects_reversed, number_words
    labels=choice("none", "file", "folder", "header"),  # fasta: what labels a sequence
    # text_files, smiles: column of tables (JSON lines, CSV, Parquet, ...); fasta: name or number (from 1) of the
    # header's field
    field="",
)
