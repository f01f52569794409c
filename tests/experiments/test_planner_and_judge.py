"""Networks of other models beside a denoiser: masked planners, and GPT-2 as the judge of an error predictor."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from configs import gstar_code
from diffusion.nets.mlp import Mlp
from diffusion.objectives.error_labels import unlikely_tokens
from diffusion.processes.masking import MaskedDiffusion
from diffusion.schedules.masking import LogLinear
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from experiments import families
from experiments.convert import command as convert
from experiments.families import System, gpt2
from experiments.families.error_prediction import planned
from experiments.identity import train_identity
from experiments.plan import resolve
from tests.checks import refused
from tests.experiments.weight_files import gpt2_file


def test_a_planner_scores_tokens_by_their_probability_in_the_full_sequence():
    """log sigmoid(-logit) is log p of 1/2, 1/4, 1/4 and 1, whatever the mask has, also with the denoiser itself."""
    net, process = Mlp(1, 4, 3, 1, 4, 1), MaskedDiffusion(3, LogLinear())

    def denoiser(params, tokens, time, cond=None, memory=None, *, keys=None):
        assert not np.any(time) and cond is None
        alone = jnp.log(jnp.array([0.5, 0.25, 0.25, 9.0]))
        after = jnp.array([0.0, -200.0, -200.0, 5.0])  # after token 2, token 0 is certain
        return params + jnp.where((jnp.roll(tokens, 1, axis=1) == 2)[..., None], after[None, None], alone[None, None])

    base = System(net=net, process=process, denoiser=denoiser, init=lambda key: jnp.zeros(()), length=4)
    system = planned(base, base)
    params = system.init(jax.random.key(0))
    assert set(params) == {"denoiser", "errors"} and system.errors.base is base
    tokens, time = jnp.array([[0, 1, 2, 0]]), jnp.zeros(1)
    logits = system.errors.predict(params, tokens)
    expected = np.log([[0.5, 0.25, 0.25, 1.0]])
    np.testing.assert_allclose(jax.nn.log_sigmoid(-logits), expected, atol=1e-6)
    np.testing.assert_allclose(logits[0, :3], [0, np.log(3), np.log(3)], atol=1e-6)
    np.testing.assert_array_equal(system.denoiser(params, tokens, time), denoiser(0.0, tokens, time))


def test_gpt2_labels_tokens_by_their_probability_after_the_text(tmp_path):
    """Its label of token i is that of the token-by-token pass, the first one is no error, and padding reads as EOS."""
    gpt2_file(tmp_path / "model.safetensors", 12, 9)
    convert.run("gpt2", str(tmp_path), tmp_path / "gpt2")
    fields = {"tokenizer": "gpt2", "vocab_size": 12, "length": 9}
    config = gstar_code.get_config("debug")
    config.data.update(fields)
    config.predictor.update(kind="head", labels="likelihood", judge="gpt2", judge_checkpoint=str(tmp_path / "gpt2"))
    config.objective.name = "errors"
    gpt2.check_label_judge(config, 12)
    for changes, vocabulary, message in (
        ({"data.length": 11}, 12, "data.length: 11 tokens exceed the 9"),
        ({}, 13, "predictor.judge_checkpoint: .* has 12 tokens, the data have 13"),
        ({"data.tokenizer": "bytes"}, 0, "predictor.judge: gpt2 reads GPT-2's tokens, not data.tokenizer=bytes"),
        ({"predictor.judge_checkpoint": "/none"}, 0, "predictor.judge_checkpoint: '/none' holds no converted weights"),
        ({"predictor.judge_checkpoint": ""}, 0, "predictor.judge_checkpoint: '' holds no converted weights"),
    ):
        with refused(message):
            gpt2.check_label_judge(resolve(config, changes, 0), vocabulary)

    judge = families.system(config, 12).errors.judge
    weights = load_weights(tmp_path / "gpt2" / "weights", judge.init, make_mesh())
    tokens, threshold = jnp.array([[11, 3, 5, 3, 7, 0, 11, 13, 13]]), 2.75
    text = jnp.minimum(tokens, 11)
    log_probs = jax.nn.log_softmax(judge.net.apply({"params": weights}, text))[0]
    nats = np.array([0.0] + [-log_probs[place - 1, text[0, place]] for place in range(1, 9)])
    assert 0 < (nats[1:7] > threshold).sum() < 6
    labels = unlikely_tokens(partial(judge.denoiser, weights), tokens, 12, threshold)
    np.testing.assert_array_equal(labels[0, :7], nats[:7] > threshold)

    # The folder counts for the rows that read it, and for no other.
    paths = [config, resolve(config, {"predictor.judge_checkpoint": ""}, 0)]
    assert train_identity(paths[0]) != train_identity(paths[1])
    for each in paths:
        each.predictor.labels = "one_step"
    assert train_identity(paths[0]) == train_identity(paths[1])
