"""Nucleotide sequences labeled with their species: splice sites, and windows of whole genomes."""

import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from diffusion.data import data_files, readers, splits, symbol_tokenizers, tables
from diffusion.data.packing import Block
from diffusion.data.sequences import LabeledSequence, examples, fasta, fasta_files, frame, parquet, tokens_of
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import Tokenizer
from diffusion.data.types import ArraySource, missing_data

SPLICE_SPECIES = {"at": "A.thaliana", "ce": "C.elegans", "dm": "D.melanogaster"}
# In the order of the labels; the file of E. coli may have the accession of its assembly as its name.
SMALL_SPECIES = ("A.thaliana", "C.elegans", "D.melanogaster", "E.coli")
ACCESSIONS = {"E.coli": "GCF_000005845.2"}
# In the order of the published labels (UDLM, arXiv 2412.10193).
TEN_SPECIES = (
    "Homo_sapiens",
    "Mus_musculus",
    "Drosophila_melanogaster",
    "Danio_rerio",
    "Caenorhabditis_elegans",
    "Gallus_gallus",
    "Gorilla_gorilla",
    "Felis_catus",
    "Salmo_trutta",
    "Arabidopsis_thaliana",
)


def splice_sites(settings: DataSettings) -> ArraySource:
    """Splice sites of three species: <bos>, exon + intron + exon, <eos>, then <pad> to `data.length` (256 holds all).

    Exons have a fixed length, so that the donor site has a fixed position, which a network with relative positions
    alone counts from <bos>, the first token of every sample. `data.path` holds eie.at.txt, eie.ce.txt and eie.dm.txt
    (plain or compressed) with rows "exon intron exon count gene". Every token counts in the loss. 5 % of the genes are
    validation and 5 % test, by md5, so that no gene is in two splits.
    """
    found = [data_files.find(settings.path, [f"eie.{code}.txt"]) for code in SPLICE_SPECIES]
    files = [file for file in found if file is not None]
    if len(files) < len(SPLICE_SPECIES):
        expected = "eie.at.txt, eie.ce.txt and eie.dm.txt (plain, .gz or .xz)"
        where = "https://github.com/KorfLab/datacore, folder project_gendl"
        raise missing_data("splice_sites", expected, settings.path, where)
    records = [(*splice_records(file), file) for file in files]
    return splice_site_source("splice_sites", records, tuple(SPLICE_SPECIES.values()), settings)


def splice_site_source(
    name: str, records: Sequence[tuple[list[str], list[str], Path]], species: tuple[str, ...], settings: DataSettings
) -> ArraySource:
    """Source of splice sites, from the sequences, their genes and the file of each species."""
    tokenizer = symbol_tokenizers.nucleotides(begin=True)
    parts: dict[str, list[Block]] = {split: [] for split in splits.NAMES}
    count, omitted, longest = 0, 0, settings.length - 2
    for label, (sites, genes, file) in enumerate(records):
        count += len(sites)
        omitted += sum(len(site) > longest for site in sites)
        selected: dict[str, list[str]] = {split: [] for split in splits.NAMES}
        for site, gene in zip(sites, genes, strict=True):
            if len(site) <= longest:
                selected[splits.split_of(gene)].append(site)
        for split, framed in selected.items():
            if framed:
                rows = [tokens_of([site], lambda _, file=file: file) for site in framed]
                tokens = frame(rows, settings.length, tokenizer)
                parts[split].append({"tokens": tokens, "label": np.full(len(framed), label, np.int32)})
    if omitted:
        warnings.warn(
            f"data.length: {omitted} of {count} splice sites have more than {longest} nucleotides and are left out",
            stacklevel=2,
        )
    return ArraySource(
        name,
        {split: functools.partial(iter, blocks) for split, blocks in parts.items()},
        settings.length,
        tokenizer.vocab_size,
        labels=len(species),
        domain="genomes",
        label_names=species,
        tokenizer=tokenizer,
        shuffled=True,
        start=tokenizer.bos_id,
    )


def splice_records(file: Path) -> tuple[list[str], list[str]]:
    """Exon + intron + exon of each row, and its gene."""
    sites, genes = [], []
    for number, line in enumerate(readers.lines(file), 1):
        fields = line.split()
        if len(fields) != 5:
            found = f"{len(fields)} fields, not exon, intron, exon, count and gene"
            raise ValueError(f"data.path: line {number} of {file} has {found}")
        sites.append("".join(fields[:3]))
        genes.append(fields[4])
    return sites, genes


def is_of_species(file: Path, name: str) -> bool:
    """Whether a FASTA file has the name of a species, such as "A.thaliana.fa.gz", or the accession of its assembly."""
    stem = Path(file.stem).stem if file.suffix in data_files.COMPRESSED else file.stem
    return stem == name or (name in ACCESSIONS and file.name.startswith(ACCESSIONS[name]))


def genomes_small(settings: DataSettings) -> ArraySource:
    """Windows of `data.length` nucleotides of small samples of three genomes and of the whole genome of E. coli.

    `data.path` holds one FASTA file per species (A.thaliana.fa.gz, ...; E. coli's may be GCF_000005845.2*). Each block
    of 8,192 nucleotides of a sequence is validation or test with probability 5 % each, by md5; see
    `sequences.examples`.
    """
    files = fasta_files(settings.path)
    species_files = [[file for file in files if is_of_species(file, name)] for name in SMALL_SPECIES]
    if not all(species_files):
        expected = "FASTA files A.thaliana, C.elegans, D.melanogaster and E.coli (.fa or .fna, plain or compressed)"
        raise missing_data("genomes_small", expected, settings.path, "https://github.com/iankorf/MCB185, folder data")

    def read() -> Iterator[LabeledSequence]:
        for species, (file, *_) in enumerate(species_files):
            yield from fasta(file, species)

    return sequence_source("genomes_small", read, settings, SMALL_SPECIES)


def ten_species(settings: DataSettings) -> ArraySource:
    """Windows of `data.length` nucleotides (32,768 published) of the ten genomes of UDLM (arXiv 2412.10193).

    `data.path` holds FASTA files of every species (Homo_sapiens*.fa.gz, ...), or Parquet files with columns "sequence"
    and "species_label" (0 .. 9 in the order of `TEN_SPECIES`, or names). Names of files or folders determine the
    splits; without a validation split the test split replaces it. Where no name does, 5 % each are validation and test
    by md5 (published: 5 % of the windows at random); see `sequences.examples`. Packed once.
    """
    root = Path(settings.path).expanduser()
    parquet_files = data_files.files_below(settings.path, "*.parquet")
    sequence_files = [] if parquet_files else fasta_files(settings.path)
    species_files = [[file for file in sequence_files if species_label(file.name) == label] for label in range(10)]
    if not parquet_files and not all(species_files):
        expected = f"Parquet files, or FASTA files of {', '.join(TEN_SPECIES)},"
        where = "https://huggingface.co/datasets/yairschiff/ten_species"
        raise missing_data("ten_species", expected, settings.path, where)
    files = parquet_files or [file for group in species_files for file in group]
    names = [file.relative_to(root).as_posix() for file in files]
    split_names = tables.file_splits(names)

    def read() -> Iterator[LabeledSequence]:
        for file, name, split in zip(files, names, split_names, strict=True):
            if parquet_files:
                yield from parquet(file, name, species_label, split)
            else:
                label = species_label(file.name)
                assert label is not None  # else it would not be among the files
                yield from fasta(file, label, split)

    content = f"{data_files.content_hash(list(zip(names, files, strict=True)))}-{settings.length}"
    return sequence_source("ten_species", read, settings, TEN_SPECIES, set(split_names), content)


def species_label(name: object) -> int | None:
    """Label of one of the `TEN_SPECIES`, from the label itself or a name that begins with the species'; else None."""
    if isinstance(name, str):
        normalized = name.strip().replace(" ", "_").lower()
        return next((n for n, species in enumerate(TEN_SPECIES) if normalized.startswith(species.lower())), None)
    return name if isinstance(name, int) and 0 <= name < len(TEN_SPECIES) else None


def sequence_source(
    name: str,
    read: Callable[[], Iterator[LabeledSequence]],
    settings: DataSettings,
    species: tuple[str, ...],
    file_split_names: Collection[str] = ("",),
    content_hash: str = "",
    tokenizer: Tokenizer | None = None,
    split_of: Callable[[str], str] = splits.split_of,
) -> ArraySource:
    """Source of windows of sequences, whose files name the splits `file_split_names` ("": split by md5).

    With a `tokenizer` that has <bos>, of whole sequences; see `sequences.examples`.
    """
    tokenizer = tokenizer or symbol_tokenizers.nucleotides()
    frame_by = None if tokenizer.bos_id is None else tokenizer
    origins = {split: split for split in splits.NAMES if split in file_split_names or "" in file_split_names}
    if "validation" not in origins:
        origins["validation"] = "test"

    def read_split(split: str) -> Iterator[Block]:
        return examples(read(), name, split, settings.length, frame_by, split_of)

    return ArraySource(
        name,
        {split: functools.partial(read_split, origin) for split, origin in origins.items()},
        settings.length,
        tokenizer.vocab_size,
        labels=len(species),
        content_hash=content_hash,
        domain="genomes",
        label_names=species,
        tokenizer=tokenizer,
        shuffled=True,
        start=tokenizer.bos_id,
    )
