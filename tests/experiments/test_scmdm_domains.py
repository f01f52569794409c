"""Tables of SCMDM for images, molecules and genomes: kinds of rows, class conditioning, and sets of samples."""

import importlib
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.recipes import scmdm
from experiments import run, table
from experiments.identity import to_json
from experiments.plan import Job, plan, resolve
from experiments.run import prepare
from experiments.run_context import Run
from experiments.tasks import genomes as genomes_task
from experiments.tasks import token_sampling

DOMAINS = ("images", "molecules", "genomes")
# A metric of each table, and its row of held-out examples.
MEASURES = {"images": "classifier_frechet", "molecules": "valid", "genomes": "kmer6_distance"}
HELD_OUT = {"images": "Real images", "molecules": "Held-out molecules", "genomes": "Held-out sequences"}


def module_of(domain):
    return importlib.import_module(f"configs.scmdm_{domain}")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("domains")


@pytest.fixture(
    scope="module",
    # Each needs a minute of compilation; the quick tests include only the fastest one.
    params=[name if name == "molecules" else pytest.param(name, marks=pytest.mark.slow) for name in DOMAINS],
)
def finished(request, workdir):
    """Return a debug table with one row of each kind: (domain, module, config, results)."""
    domain = request.param
    if domain == "molecules":
        pytest.importorskip("rdkit")
    module = module_of(domain)
    config = module.get_config("debug")
    config.data.cache_dir = str(workdir / "cache")
    config.train.steps, config.evaluate.batches = 2, 1
    config.unet.multipliers = (1,)
    all_rows = list(module.rows(config))
    full = f"{scmdm.FULL}, 4 steps"
    # Null memory does not depend on the domain, so one domain is enough.
    null = (f"{scmdm.FULL}, null memory, 4 steps",) if domain == "molecules" else ()
    names = (HELD_OUT[domain], scmdm.FULL, full, *null)
    rows = [row for row in all_rows if row["name"] in names]
    assert len(rows) == len(names)
    results = run.run_jobs(plan(rows, config, all_rows), workdir)
    return domain, module, config, results


def result_of(results, verb, row):
    (match,) = [result for result in results if (result["verb"], result["row"]) == (verb, row)]
    return match


def test_table_runs_from_training_to_samples(finished, workdir):
    domain, _, config, results = finished
    bounds = result_of(results, "evaluate", scmdm.FULL)["metrics"]
    kinds = ("bound_continuous", "bound_continuous_passes_2", "bound_continuous_passes_3")
    assert all(np.isfinite(bounds[f"{kind}/nats_per_token"]) for kind in kinds)
    assert bounds["nats_per_token"] == bounds["bound_continuous_passes_2/nats_per_token"]
    trainings = [result["row"] for result in results if result["verb"] == "train"]
    # Trainings are those of the base, of the row that starts from it, and of the judge of images.
    assert len(trainings) == (3 if domain == "images" else 2)
    for sampled in (result for result in results if result["verb"] == "sample" and result["row"] != HELD_OUT[domain]):
        assert (sampled["metrics"]["evaluations"], sampled["metrics"]["samples"]) == (5, config.sample.count)
        assert MEASURES[domain] in sampled["metrics"] and sampled["domain"] == {"images": "image"}.get(domain, domain)
        folder = workdir / "jobs" / sampled["job"]
        assert (folder / "samples.png").exists() == (domain != "genomes")
        if domain != "images":
            lines = (folder / "samples.txt").read_text().split("\n")[:-1]
            assert len(lines) == config.sample.count * config.sample.repeats
    held_out = result_of(results, "sample", HELD_OUT[domain])
    assert held_out["metrics"]["evaluations"] == 0 and len(held_out["sets"]) == 2
    if domain == "molecules":
        assert held_out["metrics"]["valid_rate"] == 1
    if domain == "genomes":
        assert held_out["metrics"]["splice_rule"] == 1


def test_each_set_of_samples_is_measured_and_the_mean_has_an_interval(finished):
    _, _, config, results = finished
    compared = 0
    for result in (result for result in results if result["verb"] == "sample"):
        assert len(result["sets"]) == config.sample.repeats == 2
        for name in result["sets"][0].keys() & result["sets"][1].keys():
            first, second = (each[name] for each in result["sets"])
            assert result["metrics"][name] == pytest.approx((first + second) / 2)
            if first != second:
                # Two numbers: t = 12.706, s / sqrt(2) = |first - second| / 2.
                half = 12.7062 * abs(first - second) / 2
                assert result["metrics"][f"{name}_interval"] == pytest.approx(half, rel=1e-4)
                compared += 1
    assert compared > 2


def test_table_has_intervals_and_a_few_samples(finished, workdir):
    domain, module, config, results = finished
    table.write(module, config, results, workdir, publish=False)
    folder = workdir / "tables" / f"scmdm_{domain}.debug"
    text = (folder / "table.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {HELD_OUT[domain]} ")]
    assert "(± " in line and "over 2 sets of samples of one model" in text
    images = {path.stem for path in folder.glob("samples-*.png")}
    shown = {"samples-scmdm-lambda-1-4-steps-seed-0", f"samples-{HELD_OUT[domain].lower().replace(' ', '-')}-seed-0"}
    assert images == (set() if domain == "genomes" else shown)
    assert (folder / "samples.md").exists() == (domain != "images")
    if domain == "genomes":
        lines = (folder / "samples.md").read_text().splitlines()
        assert lines.count("and 8 more") == 2 and sum(line.startswith("rich_in_") for line in lines) == 16
        text = table.describe(result_of(results, "sample", f"{scmdm.FULL}, 4 steps"), workdir)
        assert "and 8 more\n" in text and text.count("rich_in_") - text.count("/rich_in_") == 8


# The following tests have simple denoisers without training.


@pytest.fixture(scope="module")
def genomes(workdir):
    config = module_of("genomes").get_config("debug")
    config.data.cache_dir = str(workdir / "cache")
    config.memory.adapter = "none"
    return config


def job_of(config, **options):
    config = resolve(config, {f"sample.{name}": value for name, value in options.items()}, 0)
    return Job("job", "sample", "row", 0, {"weights": "training"}, to_json(config))


@pytest.fixture
def drawn(genomes, workdir, monkeypatch):
    """Return `drawn(denoise, ...)`, which returns the sets of samples of a denoiser and their run."""
    monkeypatch.setattr(Run, "weights", lambda run: {"nothing": jnp.zeros(8)})

    def make(denoise, **options):
        job = job_of(genomes, **options)
        sampling = prepare(job, workdir)

        def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
            return denoise(noisy, cond)

        sampling = replace(sampling, system=replace(sampling.system, denoiser=denoiser))
        return token_sampling.generate(sampling, genomes_task.TASK)[0], sampling

    return make


def write_class(noisy, cond):
    """Return logits with all mass on the token of the class."""
    choices = jnp.where(jnp.arange(9)[None] == cond[:, None], 0.0, -1e9)
    return jnp.broadcast_to(choices[:, None], (*noisy.shape, 9))


def uniform(noisy, cond):
    del cond
    return jnp.zeros((*noisy.shape, 9)).at[..., 8].set(-1e9)


def test_samples_are_conditioned_on_the_requested_species(drawn):
    (single,), _ = drawn(write_class, count=8, repeats=1, label=2)
    # The first token of all examples, here <bos>, is a prompt.
    assert (single.tokens[:, 0] == 5).all()
    assert (single.tokens[:, 1:] == 2).all() and (single.labels == 2).all()
    (cyclic,), _ = drawn(write_class, count=8, repeats=1, label=-2)
    assert cyclic.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert np.array_equal(cyclic.tokens[:, 1:], np.repeat(cyclic.labels[:, None], 143, axis=1))


def test_species_have_the_frequencies_of_the_data(drawn):
    sets, sampling = drawn(write_class, count=40, repeats=3, batch=16)
    assert [len(each.tokens) for each in sets] == [40, 40, 40]
    for each in sets:
        assert np.array_equal(each.tokens[:, 1], each.labels) and (each.tokens[:, 1:] == each.tokens[:, 1:2]).all()
    counts = np.bincount(np.concatenate([each.labels for each in sets]), minlength=3)
    train = sampling.dataset.split("train")
    shares = np.bincount(train.rows(range(len(train)))["label"], minlength=3) / len(train)
    # The limit is four standard errors of a share of a third in 120.
    assert np.abs(counts / 120 - shares).max() < 4 * np.sqrt(2 / 9 / 120)


def test_sets_are_parts_of_one_sequence_of_samples(drawn):
    sets, _ = drawn(uniform, count=5, repeats=3)
    (whole,), _ = drawn(uniform, count=15, repeats=1)
    assert np.array_equal(np.concatenate([each.tokens for each in sets]), whole.tokens)
    assert np.array_equal(np.concatenate([each.labels for each in sets]), whole.labels)
    (first,), _ = drawn(uniform, count=5, repeats=1)
    assert np.array_equal(first.tokens, sets[0].tokens) and np.array_equal(first.labels, sets[0].labels)
    assert not np.array_equal(sets[0].tokens, sets[1].tokens)


def test_omitted_samples_have_their_labels_omitted():
    tokens, label = np.arange(10).reshape(5, 2), np.arange(5)
    valid = np.array([True, False, True, True, False])
    first, second, third = token_sampling.in_sets(tokens, label, valid, 2)
    assert first.labels.tolist() == [0] and second.labels.tolist() == [2, 3] and third.labels.tolist() == []
    assert np.array_equal(second.tokens, tokens[2:4])
    assert token_sampling.in_sets(tokens, None, valid, 5)[0].labels is None


def test_held_out_examples_form_complete_sets(genomes, workdir):
    def sets(config=genomes, **options):
        run = prepare(job_of(config, policy="data", **options), workdir)
        return token_sampling.held_out_sets(run, genomes_task.TASK)

    def sizes(**options):
        return [len(each.tokens) for each in sets(**options)]

    total = sum(sizes(count=10_000))
    assert 30 < total < 100
    assert sizes(count=10, repeats=2) == [10, 10]
    assert sizes(count=20, repeats=100) == [20] * (total // 20)
    (labeled,) = sets(repeats=1)
    assert set(labeled.labels) <= {0, 1, 2} and len(labeled.labels) == 8
    (unlabeled,) = sets(resolve(genomes, {"model.labels": 0}, 0), repeats=1)
    assert unlabeled.labels is None, "samples of an unconditional model are compared as one group"
