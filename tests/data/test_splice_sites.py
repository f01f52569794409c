"""Splice sites: exact tokens, labels and splits, omissions, and messages."""

import gzip
import lzma

import numpy as np
import pytest

from diffusion.data import load_dataset, symbol_tokenizers
from diffusion.data.arrays import LABELS, label_count
from tests.genome_files import (
    BEGIN,
    END,
    PAD,
    check_refusals,
    fields,
    ids,
    labeled,
    random_sequence,
    real_data,
    rows,
    split_of,
)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Files of rows, and (site, species, gene) of all of them: 120 genes per species with two rows each."""
    folder = tmp_path_factory.mktemp("sites")
    records = []
    for species, code in enumerate(("at", "ce", "dm")):
        lines = []
        for number in range(240):
            parts = [random_sequence(3), "GT" + random_sequence(number % 5) + "AG", random_sequence(3)]
            lines.append(" ".join([*parts, str(number), f"{code}{number // 2}"]))
            records.append(("".join(parts), species, f"{code}{number // 2}"))
        text = "".join(line + "\n" for line in lines).encode()
        name, pack = {"at": (".xz", lzma.compress), "ce": (".gz", gzip.compress), "dm": ("", bytes)}[code]
        (folder / f"eie.{code}.txt{name}").write_bytes(pack(text))
    return folder, records


def test_a_splice_site_is_its_nucleotides_between_its_ends_then_padding(sites):
    folder, records = sites
    dataset = load_dataset(fields("splice_sites", folder))
    assert dataset.label_names == ("A.thaliana", "C.elegans", "D.melanogaster")
    assert dataset.labels == label_count("splice_sites") == LABELS["splice_sites"] == 3
    assert (dataset.domain, dataset.image, dataset.tokenizer.name) == ("genomes", None, "nucleotides")
    assert dataset.start == BEGIN
    for split in ("train", "validation", "test"):
        mine = [(site, species) for site, species, gene in records if split_of(gene) == split]
        expected = sorted(((BEGIN, *ids(site), END) + (PAD,) * (14 - len(site)), species) for site, species in mine)
        assert labeled(dataset, split) == expected and len({species for _, species in expected}) == 3
        assert (rows(dataset, split)["weights"] == 1).all()
        statistics = dataset.statistics[split]
        assert (statistics.examples, statistics.tokens) == (len(mine), 16 * len(mine))
        assert statistics.characters == statistics.bytes == sum(len(site) for site, _ in mine)
    # Any first examples contain all species, independently of the order of the files.
    assert set(rows(dataset, "train")["label"][:30]) == {0, 1, 2}
    first = rows(load_dataset(fields("splice_sites", folder)), "train")["tokens"]
    np.testing.assert_array_equal(first, rows(dataset, "train")["tokens"])


def test_splice_sites_that_are_too_long_are_counted(sites):
    folder, records = sites
    long = sum(len(site) > 12 for site, _, _ in records)
    with pytest.warns(UserWarning, match=rf"data\.length: {long} of 720 splice sites have more than 12 nucleotides"):
        dataset = load_dataset(fields("splice_sites", folder, length=14))
    assert sum(map(len, dataset.splits.values())) == 720 - long > 0
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"data\.length: the train split of splice_sites"):
        load_dataset(fields("splice_sites", folder, length=5))


def test_nucleotides_decode_to_the_text_before_the_first_end(sites):
    tokenizer = load_dataset(fields("splice_sites", sites[0])).tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.filler_id, tokenizer.mask_id) == (BEGIN, END, PAD, 8)
    assert tokenizer.encode("ACGTNacgtnRU-").tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 4, 4]
    for row, text in (
        ([BEGIN, 0, 1, 2, 3, END, PAD, PAD], "ACGT"),
        ([0, 4, END, 2, END], "AN"),
        ([3, PAD, 8, 2, BEGIN], "T▢G"),
        ([END, 0], ""),
    ):
        assert tokenizer.decode(np.array(row)) == text
        assert tokenizer.documents(np.array(row)) == ([text] if text else [])
    assert tokenizer.decode_text(np.array([0, 1, 2, 3, END, 0])) == "ACGT"
    bare = symbol_tokenizers.nucleotides()
    assert (bare.bos_id, bare.eos_id, bare.filler_id, bare.mask_id) == (None, 5, 6, 7)
    assert bare.fingerprint != tokenizer.fingerprint
    with pytest.raises(ValueError, match=r"data\.tokenizer: 'E' is not a nucleotide"):
        tokenizer.encode("ACE")


def test_damaged_splice_sites_are_named(sites, tmp_path):
    for file in sites[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for content, message in (
        (b"ACG GTAG ACG 3 gene\nACG GTAG ACG gene\n", r"line 2 of .*eie\.dm\.txt has 4 fields, not exon, intron"),
        (b"ACG 12 ACG 3 gene\n", "is not a file of nucleotides .*'1' is not a nucleotide"),
    ):
        (tmp_path / "eie.dm.txt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"data\.path: .*{message}") as caught:
            load_dataset(fields("splice_sites", tmp_path))
        assert "\n" not in str(caught.value)


def test_missing_files_and_fields_that_do_not_fit_are_named(sites):
    check_refusals("splice_sites", sites[0])


def test_the_real_splice_sites_begin_and_end_as_introns_do():
    dataset = load_dataset(fields("splice_sites", real_data("splice_sites"), length=256))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 122_508, "validation": 6_835, "test": 6_863}
    batch = rows(dataset, "test")
    assert np.bincount(batch["label"]).tolist() == [3259, 2689, 915]
    ends = (batch["tokens"] == END).argmax(1)
    tokens, each = batch["tokens"], np.arange(len(ends))
    assert (tokens[:, 0] == BEGIN).all()
    # Between exons of 50 the intron starts with GT and ends with AG.
    assert (tokens[:, 51] == 2).all() and (tokens[:, 52] == 3).all()
    assert (tokens[each, ends - 52] == 0).all() and (tokens[each, ends - 51] == 2).all()
