"""Splice sites: exact tokens, labels and splits, omissions, and messages."""

import numpy as np
import pytest

from diffusion.data import load_dataset, symbol_tokenizers
from diffusion.data.arrays import label_count
from tests.checks import refused
from tests.data.files import fields, ids, labeled, random_sequence, rows, sizes, split_of, write

BEGIN, END, PAD = 5, 6, 7


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Files of rows, and (site, species, gene) of all of them: 120 genes per species with two rows each."""
    files, records = {}, []
    for species, name in enumerate(("eie.at.txt.xz", "eie.ce.txt.gz", "eie.dm.txt")):
        lines = []
        for number in range(240):
            parts, gene = [random_sequence(3), "GT" + random_sequence(number % 5) + "AG"], f"{name}{number // 2}"
            parts.append(random_sequence(3))
            lines.append(" ".join([*parts, str(number), gene]))
            records.append(("".join(parts), species, gene))
        files[name] = "\n".join(lines) + "\n"
    return write(tmp_path_factory.mktemp("sites"), files), records


@pytest.fixture(scope="module")
def dataset(sites):
    return load_dataset(fields("splice_sites", sites[0]))


def test_a_splice_site_is_its_nucleotides_between_its_ends_then_padding(sites, dataset):
    folder, records = sites
    assert dataset.label_names == ("A.thaliana", "C.elegans", "D.melanogaster")
    assert dataset.labels == label_count(fields("splice_sites")) == 3
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
    again = load_dataset(fields("splice_sites", folder))
    np.testing.assert_array_equal(rows(again, "train")["tokens"], rows(dataset, "train")["tokens"])


def test_splice_sites_that_are_too_long_are_counted(sites):
    folder, records = sites
    long = sum(len(site) > 12 for site, _, _ in records)
    with pytest.warns(UserWarning, match=rf"data\.length: {long} of 720 splice sites have more than 12 nucleotides"):
        dataset = load_dataset(fields("splice_sites", folder, length=14))
    assert sum(sizes(dataset).values()) == 720 - long > 0
    with pytest.warns(UserWarning), refused(r"data\.length: the train split of splice_sites"):
        load_dataset(fields("splice_sites", folder, length=5))


def test_nucleotides_decode_to_the_text_before_the_first_end(dataset):
    tokenizer = dataset.tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.filler_id, tokenizer.mask_id) == (BEGIN, END, PAD, 8)
    assert tokenizer.encode("ACGTNacgtnRU-").tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 3, 4]
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
    with refused(r"data\.tokenizer: 'E' is not a nucleotide"):
        tokenizer.encode("ACE")
