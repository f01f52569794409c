"""SCMDM on genomes: sequences conditioned on a species, by an MDLM trained further with its own prediction as input.

`paper` is the recipe on ten species (needs --config.data.path=FOLDER with their genomes) in windows of 32,768
nucleotides; the published backbone is DiMamba, here it is the transformer at the same width. `gpu` and `local` are
splice sites of three species (--config.data.path=FOLDER with eie.at.txt and its siblings). Windows of four small
genomes need --config.data.source=genomes_small --config.data.vocab_size=7 --config.model.labels=4. `debug` draws its
sequences. Your own sequences need --config.data.source=fasta, and for species --config.data.labels=file and
--config.model.labels with their number; without data.labels no network has classes.
"""

import warnings

from configs.base import defaults
from configs.recipes.scmdm import BOUNDS, NOTES, domain_rows, networks
from configs.recipes.small import small, tiny
from configs.recipes.table import columns, plot

STEPS = {"paper": (128,), "gpu": (16, 64, 128), "local": (16, 64), "debug": (2, 4)}
POST_TRAINING = {"paper": 600, "gpu": 400, "local": 200, "debug": 4}

TABLE = dict(
    title="SCMDM on genomes: self-conditioning after training, and its controls",
    columns=columns(
        ("kmer3_distance", "3-mer distance", ".4f"),
        ("kmer6_distance", "6-mer distance", ".4f"),
        ("splice_rule", "GT..AG", ".1%"),
        ("donor", "GT after 50", ".1%"),
        ("acceptor", "AG before 50", ".1%"),
        ("species_accuracy", "asked-for species", ".1%"),
        ("species_f1", "F1 of species", ".3f"),
        ("kmer_auroc", "AUROC (k-mers)", ".3f"),
        "samples",
        "entropy",
        ("nats_per_token", "NELBO (nats/token; SCMDM: two passes)", ".4f"),
        *BOUNDS,
        "evaluations",
        "seconds_per_sample",
    ),
    published={},
    comparable=("paper",),
    plots=(
        plot(
            "kmers",
            "evaluations",
            "kmer6_distance",
            "Distance of 6-mer spectra from held-out sequences against cost",
            ylabel="Jensen-Shannon distance, mean over species",
        ),
    ),
    notes=(
        "Published: better fidelity, without a figure. Distances are Jensen-Shannon distances (the square root of the "
        "divergence in nats) of a species' k-mer spectrum from that of its test sequences, weighted by the species' "
        "share; they fall with the number of samples, so that rows compare at equal counts alone, and the held-out row "
        "is what real sequences reach. GT..AG is the share of samples that are exon, intron, exon with an intron that "
        "starts with GT and ends with AG; the next columns are its two ends alone. Every sample is given its start "
        "marker, from which the network, whose positions are relative, counts the fixed length of an exon. Species are "
        "classified by naive Bayes on 6-mers, which is not a published judge, and AUROC is that of logistic "
        "regression on 6-mers (0.5 is best), not of the published HyenaDNA. " + NOTES
    ),
)


def get_config(variant: str = "local"):
    config = defaults("scmdm_genomes", variant)
    config.sample.final = "draw"
    if variant == "debug":
        tiny(config)
        config.data.update(source="simple_introns", tokenizer="nucleotides", length=144, vocab_size=8)
        config.model.labels = 3
        config.sample.repeats = 2
        return config
    if variant == "paper":
        config.data.update(source="ten_species", tokenizer="nucleotides", length=32_768, vocab_size=7)
        config.model.update(hidden=256, blocks=8, heads=8, labels=10, dtype="bfloat16", remat="full")
        config.optimizer.update(learning_rate=2e-3, warmup=3000, decay="cosine", floor=2e-6)
        config.train.update(steps=30_000, batch=32, evaluate_every=3000, evaluate_batches=8, checkpoint_every=3000)
        config.evaluate.update(batch=32)
        # 64 per species.
        config.sample.update(count=640, batch=32, label=-2)
        return config
    small(config)
    config.data.update(source="splice_sites", tokenizer="nucleotides", length=256, vocab_size=8)
    config.model.labels = 3
    config.train.update(steps=3000, batch=16)
    config.evaluate.update(batches=16, batch=32, draws=2)
    config.sample.update(count=64, repeats=4, batch=64)
    if variant == "gpu":
        config.model.update(hidden=256, blocks=8, heads=8, cond_dim=128, dropout=0.1, dtype="bfloat16", unroll=1)
        config.optimizer.update(learning_rate=1e-3, warmup=500)
        config.train.update(steps=10_000, batch=128, ema=0.999, evaluate_every=1000, checkpoint_every=1000)
        config.evaluate.update(batches=0, batch=128, draws=4)
        config.sample.update(count=1024, repeats=5, batch=256)
    return config


def rows(config):
    models = networks(config, POST_TRAINING[config.variant], warmup=60)
    unlabeled = config.data.source == "fasta" and config.data.labels == "none"
    if unlabeled and config.model.labels:
        warnings.warn(
            "data.labels: none, so that no network has classes (model.labels=0), and no metric is by species; pass "
            "file, folder or header for labels",
            stacklevel=2,
        )
    for row in domain_rows(models, STEPS[config.variant], "Held-out sequences"):
        yield row | ({"overrides": row["overrides"] | {"model.labels": 0}} if unlabeled else {})
