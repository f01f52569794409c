"""G-Star from its denoiser to its samples: trained and frozen parameters, costs, and combinations of methods."""

import os
import shutil
import signal

import chex
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import gstar_code
from configs.recipes.gstar import BASE, GUIDED, PLAIN, predictor
from configs.recipes.small import left_to_right
from diffusion.data import prefetch
from diffusion.metrics.text import self_bleu
from diffusion.train.loop import Interrupted
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from experiments import families, run, train
from experiments.families import masked_sampling
from experiments.plan import Job, plan, resolve
from experiments.run_context import build
from experiments.tasks import text, token_sampling
from tests.checks import refused

DEBUG = "--config=configs/gstar_code.py:debug"
HEAD, BLOCK = "predictor, head", "predictor, block"
STEPS, GAP, PREFIX = 8, 6, 5
LOOP = GUIDED["G-Star-loop"] | {"sample.steps": STEPS}


@pytest.fixture(scope="module")
def config(fields):
    # Weight decay would change frozen parameters, unless the optimizer excludes them.
    return resolve(gstar_code.get_config("debug"), fields | {"optimizer.weight_decay": 0.01}, 0)


@pytest.fixture(scope="module")
def workdir(text):
    return text / "runs"


@pytest.fixture(scope="module")
def drawn():
    """Return the tokens of all sample jobs, by row."""
    tokens, generate = {}, token_sampling.generate

    def recorded(run, task):
        sets, cost = generate(run, task)
        tokens[run.job.row] = sets[0].tokens
        return sets, cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_sampling, "generate", recorded)
        yield tokens


@pytest.fixture(scope="module")
def table(config):
    """Return the rows of all tests by name, which share trainings."""
    networks = {kind: predictor(config, kind) for kind in ("head", "block")}
    self_conditioning = {"start": BASE, "memory.adapter": "linear", "train.steps": 2}
    digits = {"codec.digits": 2, "train.steps": 2}
    rows = {
        "AR": (left_to_right(config) | {"train.steps": 2}, "train"),
        BASE: ({}, "train"),
        HEAD: (networks["head"], "train"),
        BLOCK: (networks["block"], "train"),
        "guided": (networks["head"] | LOOP, "sample"),
        "block's": (networks["block"] | LOOP, "sample"),
        "ancestral, gaps": ({"sample.infill": GAP, "sample.steps": STEPS}, "sample"),
        "guided, gaps": (networks["head"] | LOOP | {"sample.infill": GAP}, "sample"),
        "ancestral, continued": (
            {"sample.prefix": PREFIX, "sample.steps": STEPS, "quality.self_bleu": True, "judge.name": "none"},
            "sample",
        ),
        "judged": (predictor(config, "head", labels="likelihood", judge="AR"), "train"),
        "small": ({"model.blocks": 1, "train.steps": 2}, "train"),
        "planned": (PLAIN["P2"] | {"sample.remask.planner_row": "small", "sample.steps": STEPS}, "sample"),
    }
    for name, network in (("SCMDM", self_conditioning), ("Prime", digits)):
        with_predictor = network | predictor(config, "head", base=name) | {"train.steps": 2}
        rows |= {name: (network, "train"), f"{name}, predictor": (with_predictor, "train")}
        for policy in ("G-Star-loop", "P2, planner"):
            rows[f"{name}, {policy}"] = (with_predictor | GUIDED[policy] | {"sample.steps": STEPS}, "sample")
        for policy in ("Star-loop", "ReMDM-loop"):
            rows[f"{name}, {policy}"] = (network | PLAIN[policy] | {"sample.steps": STEPS}, "sample")
    return {name: dict(name=name, overrides=each, verbs=(verb,)) for name, (each, verb) in rows.items()}


@pytest.fixture(scope="module")
def results(config, workdir, table, drawn):
    """Return `results(*names)`, which returns the results of these rows and of the rows that they need, by row."""

    def call(*names):
        planned = plan([table[name] for name in names], config, list(table.values()))
        return {result["row"]: result for result in run.run_jobs(planned, workdir)}

    return call


def system_of(result):
    """Return the network of a result."""
    return families.system(ConfigDict(result["config"]), 257)


def weights_of(result, workdir):
    return load_weights(workdir / "jobs" / result["job"] / "weights", system_of(result).init, make_mesh())


def network_flops(blocks, outputs, cond_dim):
    """Return FLOPs per example of 32 positions: blocks of width 32 with a fourfold MLP, outputs, and adaLN."""
    modulation = 2 * (2 * (256 * cond_dim + cond_dim**2) + (6 * blocks + 2) * cond_dim * 32)
    return 32 * (blocks * (2 * 12 * 32**2 + 4 * 32 * 32) + 2 * 32 * outputs) + modulation


@pytest.mark.parametrize(("kind", "row", "blocks"), [(HEAD, "guided", 2), (BLOCK, "block's", 1)], ids=["head", "block"])
def test_predictor_is_trained_on_its_denoiser_and_evaluated_by_the_sampler(results, workdir, drawn, kind, row, blocks):
    by_row = results(BASE, kind, row)
    trained, sampled = by_row[kind], by_row[row]

    # The denoiser is frozen, also in the averaged weights; the predictor has changed.
    weights = weights_of(trained, workdir)
    assert set(weights) == {"denoiser", "errors"}
    chex.assert_trees_all_equal(weights["denoiser"], weights_of(by_row[BASE], workdir))
    assert np.any(weights["errors"]["head"]["linear"]["kernel"])

    metrics = trained["metrics"]
    assert trained["step"] == 4 and 0 < metrics["validation_loss"] < 0.75
    assert all(0 <= metrics[f"validation_{name}"] <= 1 for name in ("accuracy", "precision", "recall", "f1"))
    # A denoiser of four steps has many errors.
    assert metrics["validation_error_rate"] > 0.1

    # The loop has the window [0.05, 0.55]: times 1/2, 3/8, 1/4 and 1/8 of eight steps; the final step is one more pass.
    cost, system = sampled["metrics"], system_of(sampled)
    assert (cost["predictor_evaluations"], cost["evaluations"]) == (4, STEPS + 1)
    model = system.net
    denoiser, predictor = (network_flops(*sizes, model.cond_dim) for sizes in ((2, model.vocab_size), (blocks, 1)))
    assert cost["gigaflops"] == pytest.approx(((STEPS + 1) * denoiser + 4 * predictor) / 1e9)
    assert whole(drawn[row])


def whole(tokens):
    """Return whether there are eight samples without masks or invalid codes."""
    return tokens.shape == (8, 32) and tokens.min() >= 0 and tokens.max() < 257


def test_a_masked_denoiser_of_another_row_plans(config, results, table, drawn):
    """It is trained before, evaluated in every step and counted; with a checkpoint of its network it is that one."""
    rows = list(table.values())
    by_row = results(BASE, "small", "planned")
    sampled, job = by_row["planned"], plan([table["planned"]], config, rows)[-1]
    assert job.needs == {"weights": by_row[BASE]["job"], "planner": by_row["small"]["job"]}
    cost, model = sampled["metrics"], system_of(sampled).net
    assert (cost["predictor_evaluations"], cost["evaluations"]) == (STEPS, STEPS + 1)
    two, one = (network_flops(blocks, model.vocab_size, model.cond_dim) for blocks in (2, 1))
    assert cost["gigaflops"] == pytest.approx(((STEPS + 1) * two + STEPS * one) / 1e9)
    assert whole(drawn["planned"])

    # As in a table, where rows that are not predictors are trained for others.
    rows = [each | {"verbs": ("evaluate",)} for each in rows]
    with_checkpoint = resolve(config, {"checkpoint": "/some/weights"}, 0)
    with refused(r"^sample\.remask\.planner_row: 'small' is not the network of the checkpoint"):
        plan([table["planned"]], with_checkpoint, rows)
    of_base = dict(table["planned"], overrides=table["planned"]["overrides"] | {"sample.remask.planner_row": BASE})
    assert [each.needs for each in plan([of_base], with_checkpoint, rows)] == [{}]


def test_interrupted_predictor_has_the_same_weights(config, results, table, workdir, tmp_path, monkeypatch):
    """It continues from its checkpoint, not from its denoiser."""
    by_row = results(BASE, HEAD)
    shutil.copytree(workdir / "jobs" / by_row[BASE]["job"], tmp_path / "jobs" / by_row[BASE]["job"])
    with_checkpoints = resolve(config, {"train.checkpoint_every": 2}, 0)
    planned = plan([table[HEAD]], with_checkpoints, list(table.values()))
    assert planned[-1].id == by_row[HEAD]["job"]

    starts = []

    def interrupted_prefetch(batch_at, first):
        starts.append(first)
        for step, batch in enumerate(prefetch(batch_at, first), first):
            if len(starts) == 1 and step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(train, "prefetch", interrupted_prefetch)
    with pytest.raises(Interrupted):
        run.run_jobs(planned, tmp_path)
    assert not planned[-1].done(tmp_path)
    continued = run.run_jobs(planned, tmp_path)[-1]
    assert starts[0] == 0 < starts[1] < 4
    chex.assert_trees_all_equal(weights_of(continued, tmp_path), weights_of(by_row[HEAD], workdir))


def test_gaps_are_filled_and_their_context_is_unchanged(results, workdir, drawn):
    names = ("ancestral, gaps", "guided, gaps")
    by_row = results(*names)
    inputs = []
    for name in names:
        result, tokens = by_row[name], drawn[name]
        job = build(Job("gaps", "sample", name, 0, {}, result["config"]), workdir)
        truth, starts = text.gaps(job)
        gap = (np.arange(32)[None] >= starts[:, None]) & (np.arange(32)[None] < starts[:, None] + GAP)
        assert whole(tokens) and np.all(gap.sum(axis=1) == GAP)
        np.testing.assert_array_equal(tokens[~gap], truth[~gap])
        correct = (tokens == truth) | ~gap
        assert result["metrics"]["infill_exact"] == correct.all(axis=1).mean()
        assert result["metrics"]["infill_accuracy"] == pytest.approx(correct[gap].mean())
        assert result["metrics"]["evaluations"] == STEPS + 1
        inputs.append(np.where(gap, 257, truth))
    # All samplers have the same gaps.
    np.testing.assert_array_equal(*inputs)
    assert [by_row[name]["metrics"]["predictor_evaluations"] for name in names] == [0, 4]


def test_samples_continue_the_first_tokens_of_held_out_windows(results, workdir, drawn):
    name = "ancestral, continued"
    result, tokens = results(name)[name], drawn[name]
    job = build(Job("continued", "sample", name, 0, {}, result["config"]), workdir)
    truth = text.completed_windows(job)
    assert whole(tokens) and (tokens != truth)[:, PREFIX:].any(axis=1).all()
    np.testing.assert_array_equal(tokens[:, :PREFIX], truth[:, :PREFIX])
    texts = ["\n".join(job.dataset.tokenizer.documents(row)) for row in tokens]
    assert result["metrics"]["self_bleu"] == self_bleu(texts)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["SCMDM", "Prime"])
def test_remasking_with_self_conditioning_and_with_sub_tokens(results, workdir, drawn, network):
    """The predictor belongs to a self-conditioned denoiser, which starts from another one, or to one of sub-tokens."""
    policies = {"G-Star-loop": 4, "P2, planner": STEPS, "Star-loop": 0, "ReMDM-loop": 0}
    names = [f"{network}, {policy}" for policy in policies]
    by_row = results(network, f"{network}, predictor", *names)
    weights = weights_of(by_row[f"{network}, predictor"], workdir)
    chex.assert_trees_all_equal(weights["denoiser"], weights_of(by_row[network], workdir))
    assert ("adapter" in weights["denoiser"]) == (network == "SCMDM") and "adapter" not in weights["errors"]
    assert 0 < by_row[f"{network}, predictor"]["metrics"]["validation_error_rate"] <= 1
    for name, evaluations in zip(names, policies.values(), strict=True):
        metrics = by_row[name]["metrics"]
        assert (metrics["evaluations"], metrics["predictor_evaluations"]) == (STEPS + 1, evaluations)
        assert metrics.get("invalid_code_rate", 0) == 0
        assert whole(drawn[name])


def test_likelihood_labels_need_the_denoiser_and_the_judge(config, results, table, workdir):
    by_row = results(BASE, "AR", "judged")
    (job,) = (job for job in plan([table["judged"]], config, list(table.values())) if job.row == "judged")
    assert job.needs == {"start": by_row[BASE]["job"], "judge": by_row["AR"]["job"]}
    # A checkpoint replaces the denoiser, not the judge.
    with_checkpoint = resolve(config, {"checkpoint": "/some/weights"}, 0)
    judge, job = plan([table["judged"]], with_checkpoint, list(table.values()))
    assert (judge.id, job.needs) == (by_row["AR"]["job"], {"judge": by_row["AR"]["job"]})
    weights = weights_of(by_row["judged"], workdir)
    assert set(weights) == {"denoiser", "errors", "judge"}
    for part, row in (("denoiser", BASE), ("judge", "AR")):
        chex.assert_trees_all_equal(weights[part], weights_of(by_row[row], workdir))
    assert np.any(weights["errors"]["head"]["linear"]["kernel"])
    assert 0 < by_row["judged"]["metrics"]["validation_error_rate"] < 1


def test_rows_that_start_from_each_other_or_a_judge_that_is_not_autoregressive_raise(config, table):
    first = dict(table[HEAD], overrides=table[HEAD]["overrides"] | {"start": BLOCK})
    second = dict(table[BLOCK], overrides=table[BLOCK]["overrides"] | {"start": HEAD})
    with refused(f"^start: row '{HEAD}' starts from itself"):
        plan([first, second], config)
    judged = dict(table["judged"], overrides=table["judged"]["overrides"] | {"predictor.judge": "judged"})
    with refused(r"^predictor\.judge: "):
        plan([judged], config, [*table.values(), judged])


def test_every_guided_row_of_the_debug_table_evaluates_its_predictor():
    """The number of predictor evaluations is not rounded to 0."""
    config = gstar_code.get_config("debug")
    guided = [row for row in gstar_code.rows(config) if row["overrides"].get("sample.policy") == "gstar"]
    assert {"G-Star+, 8", "G-Star-loop, 8", "G-Star-loop, one block, 8"} <= {row["name"] for row in guided}
    for row in guided:
        resolved = resolve(config, row["overrides"], 0)
        assert masked_sampling.predictor_evaluations(resolved, families.system(resolved, 257)) > 0, row["name"]
