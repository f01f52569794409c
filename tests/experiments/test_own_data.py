"""A user's own sequences: classes of networks, and the vocabularies of weights."""

from pathlib import Path

import pytest

from configs import scmdm_genomes
from diffusion.data import Dataset, stored_tokenizers, symbol_tokenizers
from experiments.checks import check_plan
from experiments.plan import plan
from experiments.run_context import check_labels
from tests.checks import refused


def config_of(**data):
    config = scmdm_genomes.get_config("debug")
    config.data.update(source="fasta", path="nowhere", **data)
    return config


def jobs_of(config):
    return plan([row for row in scmdm_genomes.rows(config) if row["name"] == "MDLM, 2 steps"], config)


def test_networks_have_classes_where_labels_are_named():
    with pytest.warns(UserWarning, match=r"data\.labels: none, so that no network has classes"):
        unlabeled = jobs_of(config_of())
    assert {job.config["model"]["labels"] for job in unlabeled} == {0}
    labeled = config_of(labels="file")
    assert {job.config["model"]["labels"] for job in jobs_of(labeled)} == {3}
    tokenizer = symbol_tokenizers.nucleotides()
    dataset = Dataset({}, tokenizer, 16, False, "", {}, "fasta", labels=7, label_names=tuple("abcdefg"))
    with refused(r"model\.labels: data\.labels=file finds 7 \(a, b, c, d, e, \.\.\.\); pass --config\.model\.labels=7"):
        check_labels(labeled, dataset, Path(), "")
    for labeled.model.labels in (7, 0):
        check_labels(labeled, dataset, Path(), stored_tokenizers.record(tokenizer, dataset.label_names))
    other, labeled.model.labels = stored_tokenizers.record(tokenizer, tuple("gfedcba")), 7
    with refused(r"data\.path: the weights in job were trained with the classes g, f, .* have a, b, .*same classes"):
        check_labels(labeled, dataset, Path("job"), other)
    labeled.model.labels = 0
    check_labels(labeled, dataset, Path("job"), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "header"}, r"data\.field: empty; data\.labels=header needs"),
        ({"labels": "names"}, r"data\.labels: "),
        ({"labels": "file", "source": "splice_sites"}, r"data\.labels: 'file' is for fasta, not for splice_sites"),
    ],
)
def test_labels_that_no_file_can_have_are_refused_without_data(changes, message):
    config = config_of(labels="file")
    config.data.update(changes)
    with refused(message):
        check_plan(jobs_of(config))


def test_weights_of_dna_and_of_rna_have_different_records():
    dna, rna = (stored_tokenizers.record(symbol_tokenizers.nucleotides(rna=rna)) for rna in (False, True))
    assert stored_tokenizers.agree(dna, dna) and not stored_tokenizers.agree(dna, rna)
