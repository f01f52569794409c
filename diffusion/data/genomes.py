"""Nucleotide sequences with the species they come from: splice sites, and windows of whole genomes."""

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diffusion.data import readers, splits, symbol_tokenizers
from diffusion.data.packing import PackedBlock
from diffusion.data.sequences import Stretch, fasta, fasta_files, parquet, stem, tokens_of, windows
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import Tokenizer
from diffusion.data.types import ArraySource, missing

SPLICE_SPECIES = {"at": "A.thaliana", "ce": "C.elegans", "dm": "D.melanogaster"}
# Names in the order of their labels, with what else a file of theirs may be called (the accession of the assembly).
SMALL_SPECIES = {"A.thaliana": "", "C.elegans": "", "D.melanogaster": "", "E.coli": "GCF_000005845.2"}
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
FILE_SPLIT = re.compile(r"(?:^|[/_.-])(train|validation|valid|val|dev|test)(?=[/_.-])")


def splice_sites(settings: DataSettings) -> ArraySource:
    """Splice sites of three species: <bos>, exon + intron + exon, <eos>, then <pad> to `data.length` (256 holds all).

    Exons have one length, so that a site obeys its rule at places counted from its start. A network with relative
    positions alone counts them from <bos>, which every sample is given. Files eie.at.txt, eie.ce.txt and eie.dm.txt (or
    compressed) with rows "exon intron exon count gene". Every token counts in the loss. 5 % of the genes are validation
    and 5 % test, by md5, so that no gene is in two splits.
    Raises: ValueError when files are missing or a row is not as expected.
    """
    folder = Path(settings.path).expanduser()
    names = [f"eie.{code}.txt" for code in SPLICE_SPECIES]
    files = [file for name in names if settings.path and (file := readers.find(folder, [name])) is not None]
    if len(files) < len(names):
        expected = "eie.at.txt, eie.ce.txt and eie.dm.txt (plain, .gz or .xz)"
        where = "https://github.com/KorfLab/datacore, folder project_gendl"
        raise missing("splice_sites", expected, settings.path, where)
    records = [(*splice_records(file), file) for file in files]
    return spliced("splice_sites", records, tuple(SPLICE_SPECIES.values()), settings)


def spliced(
    name: str, of_species: Sequence[tuple[list[str], list[str], Path]], species: tuple[str, ...], settings: DataSettings
) -> ArraySource:
    """The source of splice sites, given of each species as sequences, their genes, and the file that they are from."""
    tokenizer = symbol_tokenizers.nucleotides(begin=True)
    parts: dict[str, list[PackedBlock]] = {split: [] for split in splits.NAMES}
    records, long, most = 0, 0, settings.length - 2
    for label, (sites, genes, file) in enumerate(of_species):
        records += len(sites)
        long += sum(len(site) > most for site in sites)
        of_gene = {gene: splits.split_of(gene) for gene in set(genes)}
        for split, blocks in parts.items():
            kept = [
                site for site, gene in zip(sites, genes, strict=True) if of_gene[gene] == split and len(site) <= most
            ]
            if kept:
                tokens = framed(kept, settings.length, tokenizer, file)
                blocks.append(PackedBlock(tokens, None, np.full(len(kept), label, np.int32)))
    if long:
        warnings.warn(
            f"data.length: {long} of {records} splice sites have more than {most} nucleotides and are left out",
            stacklevel=2,
        )
    return ArraySource(
        name,
        {split: lambda blocks=blocks: iter(blocks) for split, blocks in parts.items()},
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
    """Exon + intron + exon of every row, and its gene.

    Raises: ValueError naming a row without five fields.
    """
    sites, genes = [], []
    for number, line in enumerate(readers.read_text(file).splitlines(), 1):
        fields = line.split()
        if len(fields) != 5:
            raise ValueError(
                f"data.path: line {number} of {file} has {len(fields)} fields, not exon, intron, exon, count and gene"
            )
        sites.append("".join(fields[:3]))
        genes.append(fields[4])
    return sites, genes


def framed(sequences: list[str], length: int, tokenizer: Tokenizer, file: Path) -> UInt8[np.ndarray, "N L"]:
    """Tokens of the sequences, of `length` - 2 nucleotides at most, <bos> before them and <eos> and <pad> behind.

    Raises: ValueError naming the file for what is no nucleotide.
    """
    flat = tokens_of("".join(sequences), file)
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None and tokenizer.filler_id is not None
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.full((len(sequences), length), tokenizer.filler_id, np.uint8)
    tokens[:, 0] = tokenizer.bos_id
    tokens[:, 1:][np.arange(length - 1)[None] < lengths[:, None]] = flat
    tokens[np.arange(len(tokens)), lengths + 1] = tokenizer.eos_id
    return tokens


def genomes_small(settings: DataSettings) -> ArraySource:
    """Windows of `data.length` nucleotides of three small samples of genomes and of the whole of E. coli's.

    A FASTA file a species (A.thaliana.fa.gz, ...; E. coli's may be called GCF_000005845.2*). Every 8,192 nucleotides
    of a sequence are validation or test with a chance of 5 % each, by md5; see `sequences.windows`.
    Raises: ValueError when a file is missing or no FASTA.
    """
    files = fasta_files(settings.path)
    of_species = [
        [file for file in files if stem(file) == name or (other and file.name.startswith(other))]
        for name, other in SMALL_SPECIES.items()
    ]
    if not all(of_species):
        expected = "FASTA files A.thaliana, C.elegans, D.melanogaster and E.coli (.fa or .fna, plain or compressed)"
        raise missing("genomes_small", expected, settings.path, "https://github.com/iankorf/MCB185, folder data")

    def stretches() -> Iterator[Stretch]:
        for species, (file, *_) in enumerate(of_species):
            yield from fasta(file, species)

    return windowed("genomes_small", stretches, settings, tuple(SMALL_SPECIES))


def ten_species(settings: DataSettings) -> ArraySource:
    """Windows of `data.length` nucleotides (32,768 published) of ten genomes, as UDLM has them (arXiv 2412.10193).

    A folder with FASTA files of every species (Homo_sapiens*.fa.gz, ...), or of Parquet files with columns "sequence"
    and "species_label" (0 .. 9 in the order of `TEN_SPECIES`, or names). Splits are those that the names of files or
    folders tell; without a validation split the test split stands for it. Where they tell none, 5 % each are validation
    and test by md5 (published: 5 % of the windows at random); see `sequences.windows`. Packed once.
    Raises: ValueError when files are missing or are not as expected.
    """
    root = Path(settings.path).expanduser()
    tables = sorted(root.rglob("*.parquet")) if settings.path and root.is_dir() else []
    found = [] if tables else fasta_files(settings.path)
    of_species = [[file for file in found if species_number(file.name) == number] for number in range(10)]
    if not tables and not all(of_species):
        expected = f"Parquet files, or FASTA files of {', '.join(TEN_SPECIES)},"
        where = "https://huggingface.co/datasets/yairschiff/ten_species"
        raise missing("ten_species", expected, settings.path, where)
    files = tables or [file for group in of_species for file in group]
    names = [file.relative_to(root).as_posix() for file in files]
    given = file_splits(names)

    def stretches() -> Iterator[Stretch]:
        for file, name, split in zip(files, names, given, strict=True):
            if tables:
                yield from parquet(file, name, species_number, split)
            else:
                number = species_number(file.name)
                assert number is not None  # else it would not be among the files
                yield from fasta(file, number, split)

    content = f"{readers.content_hash(list(zip(names, files, strict=True)))}-{settings.length}"
    return windowed("ten_species", stretches, settings, TEN_SPECIES, set(given), content)


def species_number(name: object) -> int | None:
    """Label of one of the `TEN_SPECIES`, from the label itself or from a name that begins with it; None for another."""
    if isinstance(name, str):
        begin = name.strip().replace(" ", "_").lower()
        return next((n for n, species in enumerate(TEN_SPECIES) if begin.startswith(species.lower())), None)
    return name if isinstance(name, int) and 0 <= name < len(TEN_SPECIES) else None


def file_splits(names: Sequence[str]) -> list[str]:
    """The split that each file's path tells, or "" for all where they tell of none but train.

    Raises: ValueError when some tell a split and others do not, or none is train.
    """
    matches = [FILE_SPLIT.search(name) for name in names]
    given = [match.group(1) if match else "" for match in matches]
    given = ["validation" if split in ("valid", "val", "dev") else split for split in given]
    if not {"validation", "test"} & set(given):
        return [""] * len(names)
    if "" in given:
        raise ValueError(
            f"data.path: {names[given.index('')]} does not tell its split (train, validation, test), as other files do"
        )
    if "train" not in given:
        raise ValueError(f"data.path: no file tells that it is of the train split; there are {', '.join(names[:5])}")
    return given


def windowed(
    name: str,
    stretches: Callable[[], Iterator[Stretch]],
    settings: DataSettings,
    species: tuple[str, ...],
    given: Collection[str] = ("",),
    content_hash: str = "",
) -> ArraySource:
    """The source of the windows of sequences, where files of the splits `given` hold them ("": cut by md5)."""
    tokenizer = symbol_tokenizers.nucleotides()
    places = {split: split for split in splits.NAMES if split in given or "" in given}
    if "validation" not in places:
        places["validation"] = "test"
    return ArraySource(
        name,
        {
            split: lambda place=place: windows(stretches(), name, place, settings.length)
            for split, place in places.items()
        },
        settings.length,
        tokenizer.vocab_size,
        labels=len(species),
        content_hash=content_hash,
        domain="genomes",
        label_names=species,
        tokenizer=tokenizer,
        shuffled=True,
    )
