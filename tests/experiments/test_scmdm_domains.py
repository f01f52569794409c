"""SCMDM's tables beyond text: every kind of row from end to end, classes asked for, and several sets of samples."""

import importlib
import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from configs.recipes import scmdm
from diffusion.metrics.statistics import student
from experiments import run, table
from experiments.plan import Job, plan, resolve, to_json
from experiments.run import prepare
from experiments.run_context import Run
from experiments.tasks import genomes as genomes_task
from experiments.tasks import token_sampling

DOMAINS = ("images", "molecules", "genomes")
# What each table measures by itself, and a column of its own data's name for held-out examples.
MEASURES = {"images": "classifier_frechet", "molecules": "valid", "genomes": "kmer6_distance"}
HELD_OUT = {"images": "Real images", "molecules": "Held-out molecules", "genomes": "Held-out sequences"}


def module_of(domain):
    return importlib.import_module(f"configs.scmdm_{domain}")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("domains")


@pytest.fixture(
    scope="module",
    # Each takes a minute of compilation; the fastest one stands for all in the quick tests.
    params=[name if name == "molecules" else pytest.param(name, marks=pytest.mark.slow) for name in DOMAINS],
)
def finished(request, workdir):
    """A debug table with one row of each kind: (domain, module, config, results by verb and row)."""
    domain = request.param
    if domain == "molecules":
        pytest.importorskip("rdkit")
    module = module_of(domain)
    config = module.get_config("debug")
    config.data.cache_dir = str(workdir / "cache")
    config.train.steps, config.evaluate.batches = 2, 1
    config.unet.multipliers = (1,)
    everything = list(module.rows(config))
    full = f"{scmdm.FULL}, 4 steps"
    # Null memory is the same on every domain: one network shows that its rows run.
    null = (f"{scmdm.FULL}, null memory, 4 steps",) if domain == "molecules" else ()
    names = (HELD_OUT[domain], scmdm.FULL, full, *null)
    rows = [row for row in everything if row["name"] in names]
    assert len(rows) == len(names)
    results = run.run_jobs(plan(rows, config, everything), workdir)
    return domain, module, config, results


def of(results, verb, row):
    (found,) = [result for result in results if (result["verb"], result["row"]) == (verb, row)]
    return found


def test_a_table_runs_from_training_to_samples(finished, workdir):
    domain, _, config, results = finished
    bounds = of(results, "evaluate", scmdm.FULL)["metrics"]
    kinds = ("bound_continuous", "bound_continuous_passes_2", "bound_continuous_passes_3")
    assert all(np.isfinite(bounds[f"{kind}/nats_per_token"]) for kind in kinds)
    assert bounds["nats_per_token"] == bounds["bound_continuous_passes_2/nats_per_token"]
    trainings = [result["row"] for result in results if result["verb"] == "train"]
    # The base, what starts from it, and for images the judge: rows of one network share its training.
    assert len(trainings) == (3 if domain == "images" else 2)
    for found in (result for result in results if result["verb"] == "sample" and result["row"] != HELD_OUT[domain]):
        assert (found["metrics"]["evaluations"], found["metrics"]["samples"]) == (5, config.sample.count)
        assert MEASURES[domain] in found["metrics"] and found["domain"] == {"images": "image"}.get(domain, domain)
        folder = workdir / "jobs" / found["job"]
        assert (folder / "samples.png").exists() == (domain != "genomes")
        if domain != "images":
            lines = (folder / "samples.txt").read_text().split("\n")[:-1]
            assert len(lines) == config.sample.count * config.sample.repeats
    real = of(results, "sample", HELD_OUT[domain])
    assert real["metrics"]["evaluations"] == 0 and len(real["sets"]) == 2
    if domain == "molecules":
        assert real["metrics"]["valid_rate"] == 1
    if domain == "genomes":
        assert real["metrics"]["splice_rule"] == 1


def test_each_set_of_samples_is_measured_and_the_mean_has_an_interval(finished):
    domain, _, config, results = finished
    compared = 0
    for result in results:
        if result["verb"] != "sample":
            continue
        assert len(result["sets"]) == config.sample.repeats == 2
        for name in result["sets"][0].keys() & result["sets"][1].keys():
            first, second = (each[name] for each in result["sets"])
            assert result["metrics"][name] == pytest.approx((first + second) / 2)
            if first != second:
                # Two numbers: t = 12.706, s / sqrt(2) = |first - second| / 2.
                half = 12.7062 * abs(first - second) / 2
                assert result["metrics"][f"{name}_interval"] == pytest.approx(half, rel=1e-4)
                compared += 1
    assert compared > 2, domain


def test_a_table_shows_intervals_and_a_few_samples(finished, workdir, capsys):
    domain, module, config, results = finished
    table.write(module, config, results, workdir, publish=False)
    folder = workdir / "tables" / f"scmdm_{domain}.debug"
    text = (folder / "table.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {HELD_OUT[domain]} ")]
    assert "(± " in line and "over 2 sets of samples of one model" in text
    pictures = {path.stem for path in folder.glob("samples-*.png")}
    shown = {"samples-scmdm-lambda-1-4-steps-seed-0", f"samples-{HELD_OUT[domain].lower().replace(' ', '-')}-seed-0"}
    assert pictures == (set() if domain == "genomes" else shown)
    assert (folder / "samples.md").exists() == (domain != "images")
    if domain == "genomes":
        lines = (folder / "samples.md").read_text().splitlines()
        assert lines.count("and 8 more") == 2 and sum(line.startswith("rich_in_") for line in lines) == 16
        said = table.describe(of(results, "sample", f"{scmdm.FULL}, 4 steps"), workdir)
        assert "and 8 more\n" in said and said.count("rich_in_") - said.count("/rich_in_") == 8
    capsys.readouterr()


# What follows needs no training: a network made by hand, which writes its class everywhere.


@pytest.fixture(scope="module")
def genomes(workdir):
    config = module_of("genomes").get_config("debug")
    config.data.cache_dir = str(workdir / "cache")
    config.memory.adapter = "none"
    return config


def job_of(config, **options):
    made = config.copy_and_resolve_references()
    made.sample.update(options)
    return Job("job", "sample", "row", 0, {"weights": "training"}, to_json(made))


@pytest.fixture
def drawn(genomes, workdir, monkeypatch):
    """`drawn(denoise, ...)`: the sets that a hand-made denoiser gives."""
    monkeypatch.setattr(Run, "weights", lambda run: {"nothing": jnp.zeros(8)})

    def make(denoise, **options):
        job = job_of(genomes, **options)
        made = prepare(job, workdir)

        def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
            return denoise(noisy, cond)

        made = replace(made, system=replace(made.system, denoiser=denoiser))
        return token_sampling.generate(made, genomes_task.TASK)[0], made

    return make


def write_class(noisy, cond):
    """All mass on the token of the class that is asked for."""
    choices = jnp.where(jnp.arange(9)[None] == cond[:, None], 0.0, -1e9)
    return jnp.broadcast_to(choices[:, None], (*noisy.shape, 9))


def anything(noisy, cond):
    del cond
    return jnp.zeros((*noisy.shape, 9)).at[..., 8].set(-1e9)


def test_a_network_that_is_asked_for_a_species_writes_that_one(drawn):
    (one,), _ = drawn(write_class, count=8, repeats=1, label=2)
    # What every example begins with is given, here <bos>.
    assert (one.tokens[:, 0] == 5).all()
    assert (one.tokens[:, 1:] == 2).all() and (one.labels == 2).all()
    (turns,), _ = drawn(write_class, count=8, repeats=1, label=-2)
    assert turns.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert np.array_equal(turns.tokens[:, 1:], np.repeat(turns.labels[:, None], 143, axis=1))


def test_species_are_asked_for_as_often_as_the_data_have_them(drawn):
    sets, made = drawn(write_class, count=40, repeats=3, batch=16)
    assert [len(each.tokens) for each in sets] == [40, 40, 40]
    for each in sets:
        assert np.array_equal(each.tokens[:, 1], each.labels) and (each.tokens[:, 1:] == each.tokens[:, 1:2]).all()
    asked = np.bincount(np.concatenate([each.labels for each in sets]), minlength=3)
    train = made.dataset.split("train")
    shares = np.bincount(train.rows(range(len(train)))["label"], minlength=3) / len(train)
    # Within four standard errors of a share of a third in 120.
    assert np.abs(asked / 120 - shares).max() < 4 * np.sqrt(2 / 9 / 120)


def test_sets_are_one_long_run(drawn):
    sets, _ = drawn(anything, count=5, repeats=3)
    (whole,), _ = drawn(anything, count=15, repeats=1)
    assert np.array_equal(np.concatenate([each.tokens for each in sets]), whole.tokens)
    assert np.array_equal(np.concatenate([each.labels for each in sets]), whole.labels)
    (first,), _ = drawn(anything, count=5, repeats=1)
    assert np.array_equal(first.tokens, sets[0].tokens) and np.array_equal(first.labels, sets[0].labels)
    assert not np.array_equal(sets[0].tokens, sets[1].tokens)


def test_samples_that_are_left_out_take_their_classes_with_them():
    tokens, label = np.arange(10).reshape(5, 2), np.arange(5)
    kept = np.array([True, False, True, True, False])
    first, second, third = token_sampling.in_sets(tokens, label, kept, 2)
    assert first.labels.tolist() == [0] and second.labels.tolist() == [2, 3] and third.labels.tolist() == []
    assert np.array_equal(second.tokens, tokens[2:4])
    assert token_sampling.in_sets(tokens, None, kept, 5)[0].labels is None


def test_held_out_examples_come_in_whole_sets(genomes, workdir):
    def sizes(**options):
        return [
            len(each.tokens)
            for each in token_sampling.held_out_sets(
                prepare(job_of(genomes, policy="data", **options), workdir), genomes_task.TASK
            )
        ]

    held = sum(sizes(count=10_000))
    assert 30 < held < 100
    assert sizes(count=10, repeats=2) == [10, 10]
    assert sizes(count=20, repeats=100) == [20] * (held // 20)
    (labeled,) = token_sampling.held_out_sets(
        prepare(job_of(genomes, policy="data", repeats=1), workdir), genomes_task.TASK
    )
    assert set(labeled.labels) <= {0, 1, 2} and len(labeled.labels) == 8
    other = genomes.copy_and_resolve_references()
    other.model.labels = 0
    (plainly,) = token_sampling.held_out_sets(
        prepare(job_of(other, policy="data", repeats=1), workdir), genomes_task.TASK
    )
    assert plainly.labels is None, "what is told no species is compared as one set"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample.label": 3}, r"sample\.label: 3 must be -1 \(as in the data\), -2 \(each in turn\) or 0 \.\. 2"),
        ({"sample.label": -3}, r"sample\.label: -3 must be"),
        ({"sample.label": 0, "model.labels": 0}, r"sample\.label: 0 is for a class-conditional network; set model"),
        ({"sample.repeats": 0}, r"sample\.repeats: must be at least 1, not 0"),
        ({"judge.name": "gpt2"}, r"judge\.name: 'gpt2' cannot judge genomes"),
        ({"data.length": 128}, r"data\.length: 128 is too short; pass --config\.data\.length=142, or more"),
        ({"data.source": "splice_sites"}, r"data\.path: splice_sites expects eie\.at\.txt.* \(data\.path is empty\)"),
        (
            {"data.source": "qm9", "data.tokenizer": "smiles", "model.labels": 0},
            r"data\.path: qm9 expects QM9_smiles\.txt.* \(data\.path is empty\)",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_the_field(fields, message, genomes, workdir):
    with pytest.raises(ValueError, match=message) as caught:
        run.run_jobs([job_of(resolve(genomes, fields, 0))], workdir)
    assert "\n" not in str(caught.value)


def test_text_is_measured_as_one_set(workdir):
    config = quickstart.get_config("debug")
    config.data.update(source="text_files", path=str(workdir / "text.txt"), cache_dir=str(workdir / "cache"))
    (workdir / "text.txt").write_text("".join(f"line {number} of many\n" for number in range(400)))
    with pytest.raises(ValueError, match=r"sample\.repeats: text is measured as one set; set it to 1"):
        run.run_jobs([job_of(config, repeats=2)], workdir)


def test_rows_of_one_table_share_their_trainings_and_differ_in_what_they_should():
    for domain in DOMAINS:
        module = module_of(domain)
        config = module.get_config("local")
        jobs = plan(list(module.rows(config)), config)
        trained = {job.id: json.dumps(job.config["memory"]) for job in jobs if job.verb == "train"}
        # A base, two that are trained on without memory, three rates; a classifier for images.
        assert len(trained) == 6 + (domain == "images") and len(set(trained.values())) == 4
        steps = {row["overrides"].get("train.steps") for row in module.rows(config) if row["name"] in scmdm.MODELS}
        post = module.POST_TRAINING["local"]
        assert steps == {post, round(post * 4 / 3)}
        sampled = [row["name"] for row in module.rows(config) if row["verbs"] == ("sample",)]
        last = module.STEPS["local"][-1]
        assert {f"{name}, {last} steps" for name in ("MDLM", *scmdm.MODELS, f"{scmdm.FULL}, null memory")} <= set(
            sampled
        )


def test_several_sets_make_seeds_that_can_be_paired(finished):
    """Per-set values stay in the row, so that another statistic can be made of them."""
    domain, _, _, results = finished
    values = [each[MEASURES[domain]] for each in of(results, "sample", HELD_OUT[domain])["sets"]]
    interval = student(values)
    metrics = of(results, "sample", HELD_OUT[domain])["metrics"]
    half = metrics.get(f"{MEASURES[domain]}_interval", 0.0)
    assert (metrics[MEASURES[domain]], half) == pytest.approx((interval.mean, interval.high - interval.mean))
