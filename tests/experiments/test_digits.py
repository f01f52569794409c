"""Sub-tokens in the verbs: several estimators of one model, and invalid codes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data import evaluation_batches
from diffusion.train.weights import save_weights
from experiments import evaluate, families
from experiments.identity import to_json, train_identity
from experiments.plan import Job, resolve
from experiments.run import prepare
from experiments.run_context import Run
from experiments.tasks import text, token_sampling
from experiments.tasks.judge import trained_judge
from tests.weights import randomized

COUNT = 6


@pytest.fixture(scope="module")
def folder(text):
    return text / "digits"


@pytest.fixture(scope="module")
def config(fields, folder):
    """Return a config with random weights and two digits of base 17, with which 32 of 289 codes are invalid."""
    config = resolve(tiny(defaults("test", "debug")), fields | {"codec.digits": 2}, 0)
    config.sample.update(count=COUNT, batch=8, steps=3)
    config.evaluate.update(batches=1, batch=8)
    config.checkpoint = str(folder / "weights")
    save_weights(folder / "weights", randomized(families.system(config, 257).init))
    return config


def job_of(config, verb):
    return Job("job", verb, "row", 0, {}, to_json(config))


def changed(config, **fields):
    """Return a copy with fields such as codec__digits=4."""
    return resolve(config, {name.replace("__", "."): value for name, value in fields.items()}, 0)


def test_model_is_scored_by_several_estimators(config, folder):
    also = ("joint_ce", "bound_grouped", "bound_steps_2")
    job = job_of(changed(config, evaluate__also=also), "evaluate")
    result = evaluate.execute(prepare(job, folder))
    metrics = result["metrics"]
    assert (result["estimator"], result["also"]) == ("bound_marginal", list(also))
    assert metrics["nats_per_token"] == metrics["bound_marginal/nats_per_token"]
    assert metrics["bound_grouped/perplexity"] == pytest.approx(np.exp(metrics["bound_grouped/nats_per_token"]))
    assert not {"joint_ce/perplexity", "joint_ce/bits_per_byte"} & set(metrics)
    assert len({metrics[f"{name}/nats_per_token"] for name in ("bound_marginal", *also)}) == 4


def test_a_causal_network_of_digits_writes_scores_and_judges_tokens(config, folder, monkeypatch):
    """With weights of 0 all digits that lead to a token are as probable: 1/16, then 1/17, or 1/2 after the digit 15."""
    network = {"model__causal": True, "model__adaln": False, "objective__name": "autoregressive"}
    config = changed(config, **network, sample__prompt="the", checkpoint=str(folder / "causal"))
    shapes = jax.eval_shape(families.system(config, 257).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    save_weights(folder / "causal", params)
    nats = np.log(16) + np.log(17)

    run = prepare(job_of(config, "evaluate"), folder)
    result = evaluate.execute(run)
    (batch,) = evaluation_batches(run.dataset, "test", 8, limit=8)
    expected = np.where(batch["tokens"] < 255, nats, np.log(16) + np.log(2))
    assert result["estimator"] == "nll_autoregressive"
    assert result["metrics"]["nats_per_token"] == pytest.approx(expected.mean(), rel=1e-5)

    (drawn,), cost = token_sampling.generate(prepare(job_of(config, "sample"), folder), text.TASK)
    assert (drawn.tokens[:, :3] == list(b"the")).all() and drawn.tokens.shape == (COUNT, 32)
    assert (cost["evaluations"], cost["invalid_code_rate"]) == (64, 0)

    monkeypatch.setattr(Run, "load", lambda run, need: (config, run.system, params))
    judge = trained_judge(replace(run, job=replace(run.job, needs={"scorer": "train-x"})))
    np.testing.assert_allclose(
        judge.log_probs(drawn.tokens), np.where(drawn.tokens < 255, -nats, -np.log(32)), rtol=1e-5
    )
    assert judge.features(drawn.tokens).shape == (COUNT, 32, 32)


def test_samples_with_invalid_codes_are_counted_and_omitted(capsys):
    valid = token_sampling.decodable(np.array([0, 1, 0]))
    assert np.array_equal(valid, [True, False, True])
    assert "1 of 3 samples hold digits of no token" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"every one of 3 samples holds digits of no token \(sample\.digits_draw=tok"):
        token_sampling.decodable(np.array([1, 2, 1]))


def test_training_identity_depends_on_the_code_only_with_several_digits(config):
    single, shuffled = changed(config, codec__digits=1), changed(config, codec__digits=1, codec__shuffle=3)
    assert train_identity(single) == train_identity(shuffled)
    assert train_identity(config) != train_identity(changed(config, codec__shuffle=3))
    assert train_identity(config) == train_identity(changed(config, unet__channels=8))
