"""What rows refuse before anything is computed or written: one line that names the field."""

import importlib
import re

import pytest

from configs import lidar_shapes, quickstart
from configs.recipes.gstar import BASE
from experiments import families, run
from experiments.plan import resolve
from tests.checks import refused

HEAD, FULL = "predictor, head", "SCMDM, lambda 1"
CAUSAL = {"model.causal": True, "model.adaln": False}
SELF_CONDITIONED = {"memory.adapter": "linear"}
METHOD = "sample.uniform.method"
LIKELIHOOD = {"predictor.labels": "likelihood"}
PLANNED = {"sample.policy": "p2", "sample.remask.planner_row": BASE}
TEXT = ("quickstart", "sample", "MDLM, ancestral, 4 steps")
IMAGES = ("scmdm_images", "sample", "MDLM, same tokens, 4 steps")
GENOMES = ("scmdm_genomes", "sample", "MDLM, 2 steps")
PREDICTOR = ("gstar_code", "train", HEAD)
SHAPES = ("lidar_shapes", "sample", "exact: LiDAR 8")
MOLECULES = ("lidar_molecules", "sample", "UDLM")
PAIRS = ("fastdiss_translation", "sample", "MANS and SCP, 3 steps, 3 x 2, MBR")
PRIME = "Prime, 2 digits, marginal"
# Fields whose names stand for functions, by table, verb and row; tests/experiments/test_schema.py has all others.
UNKNOWN = {
    ("quickstart", "train", "MDLM"): "data.source data.tokenizer objective.name process.schedule start",
    TEXT: "sample.policy",
    ("gstar_code", "sample", "G-Star-loop, 8"): "sample.remask.schedule",
    ("udlm", "sample", "UDLM, 2 steps"): "process.name",
    MOLECULES: f"{METHOD} sample.uniform.lookahead.kernel",
    SHAPES: "process.schedule sample.gaussian.method sample.gaussian.solver",
    PAIRS: "encoder_decoder.kind sample.translation.solver",
}
# Other overrides and their messages.
REFUSED = {
    ("quickstart", "train", "MDLM"): [
        ({"objective.name": "autoregressive"}, "objective.name: autoregressive goes with model.causal=True"),
        ({"seeds": ()}, "seeds: empty; pass at least one"),
        ({"seed": 7}, 'seed: the plan sets it, one job for each of seeds; pass --config.seeds="(7,)"'),
        ({"train.accumulate": 3}, "train.accumulate: 3 does not divide train.batch="),
        ({"checkpoint": "/no/weights"}, "checkpoint: /no/weights holds no weights"),
        ({"model.labels": 3}, "'text_files' has no labels"),
    ],
    ("quickstart", "evaluate", "MDLM"): [
        ({"evaluate.also": ("bound_continuous_passes_2",)}, "evaluate.estimator: bound_continuous_passes_2 is for"),
        (SELF_CONDITIONED | {"evaluate.also": ("bound_continuous_passes_0",)}, "evaluate.estimator: unknown name"),
    ],
    TEXT: [
        ({"sample.corrector": (1.0,)}, "sample.corrector: must be (scale, power)"),
        ({"sample.corrector": (1.0, 1.0), "sample.policy": "first_hitting"}, "sample.corrector: "),
        ({"sample.prompt": "x" * 20, "sample.suffix": "é" * 6}, "sample.prompt: 20 + 12 tokens leave nothing of 32"),
        ({"sample.length": 48, "sample.stride": 5}, "sample.stride: 5 must divide"),
        ({"sample.infill": 32}, "sample.infill: a span of 32 tokens"),
        ({"sample.repeats": 2}, "sample.repeats: text is measured as one set; set it to 1"),
        ({"sample.source": "file"}, "sample.source: text has no sources"),
        ({"judge.name": "gpt2", "judge.checkpoint": "/none"}, "judge.checkpoint: '/none' holds no converted weights; "),
    ],
    ("quickstart", "sample", "AR"): [
        ({"sample.length": 64}, "sample.length: an autoregressive model writes data.length = 32 tokens or less"),
        ({"sample.suffix": "y"}, "sample.suffix: an autoregressive model cannot read what follows"),
        ({"sample.infill": 6}, "sample.infill: an autoregressive model"),
    ],
    ("prime_text", "train", PRIME): [
        (
            {"codec.permutation": "/none.npy"},
            "codec.permutation: '/none.npy' does not exist; pass a .npy, .json or .pt",
        ),
        ({"codec.permutation": "x", "codec.shuffle": 1}, "codec.shuffle: goes without codec.permutation; set it to 0"),
        ({"codec.permutation": "x", "codec.digits": 1}, "codec.permutation: goes with more than one of codec.digits"),
        ({"codec.digits": 40}, "needs at most 10"),
        ({"codec.digits": 3}, "codec.digits: 3 digits do not divide model.hidden=32; set codec.merge=sum"),
        ({"data.packing": "padded"}, "codec.digits: more than one goes with "),
    ],
    ("prime_text", "train", "AR, 2 digits"): [
        ({"model.start": "window"}, "model.start: window is a whole token; set it to mask"),
        ({"model.net": "mlp"}, "model.causal: mlp reads what follows; use model.net=dit"),
    ],
    ("prime_text", "evaluate", PRIME): [
        ({"evaluate.also": ("nll_autoregressive",)}, "nll_autoregressive does not fit model.causal=False"),
    ],
    ("prime_text", "sample", f"{PRIME}, 4 steps"): [
        ({"sample.precision": "mdlm_float32"}, "sample.precision: mdlm_float32 is a rule for whole tokens"),
        ({"sample.warp": (2.0, 1.0, 0.0)}, "must make times fall within [0, 1]"),
    ],
    ("scmdm_text", "train", FULL): [
        ({"start": FULL}, f"start: row '{FULL}' starts from itself"),
        ({"start": "", "objective.name": "autoregressive"} | CAUSAL, "memory.adapter: goes with model.net=dit or unet"),
    ],
    IMAGES: [
        ({"sample.prompt": "x"}, "sample.prompt: values of ready-made arrays have no text form"),
        ({"judge.name": "gpt2"}, "judge.name: 'gpt2' cannot judge images"),
    ],
    GENOMES: [
        ({"sample.label": 3}, "sample.label: 3 must be -1 (as in the data), -2 (each in turn) or 0 .. 2"),
        ({"sample.label": 0, "model.labels": 0}, "sample.label: 0 is for a class-conditional network; set model"),
        ({"judge.name": "gpt2"}, "judge.name: 'gpt2' cannot judge genomes"),
        ({"data.length": 128}, "data.length: 128 is too short; pass --config.data.length=142, or more"),
        ({"data.source": "splice_sites"}, "data.path: splice_sites expects eie.at.txt"),
    ],
    ("gstar_code", "train", BASE): [
        ({"objective.name": "errors"}, "objective.name: "),
        ({"model.start": "window"}, "model.start: window goes with model.causal=True"),
    ],
    PREDICTOR: [
        ({"start": "", "predictor.kind": "tail"}, "predictor.kind: unknown 'tail'"),
        ({"predictor.kind": "full"}, f"'full' applies to every row, and '{BASE}' does not train a predictor; omit it"),
        ({"start": ""} | CAUSAL, "predictor.kind: "),
        ({"model.net": "mlp"}, "predictor.kind: "),
        ({"objective.name": "nelbo"}, "predictor.kind: "),
        ({"start": ""}, "start: "),
        (
            {"predictor.labels": "likelihood", "predictor.judge": "AR", "model.start": "window"},
            "model.start: row 'AR' judges tokens after a mask",
        ),
        (LIKELIHOOD | {"predictor.judge": "AR", "codec.digits": 2}, "predictor.judge: row 'AR' reads sub-tokens"),
        (LIKELIHOOD, "predictor.judge: "),
        (LIKELIHOOD | {"predictor.judge": "gpt2"}, "predictor.judge: gpt2 reads GPT-2's tokens, not data.tokenizer="),
        ({"predictor.labels": "corruption", "predictor.time": 0.5}, "predictor.time: with predictor.labels=corruption"),
        (LIKELIHOOD | {"predictor.judge": BASE}, f"predictor.judge: row '{BASE}' is not autoregressive"),
    ],
    ("gstar_code", "sample", "G-Star-loop, 8"): [
        ({"sample.remask.on": 0.2, "sample.remask.off": 0.5}, "sample.remask: "),
        ({"sample.remask.level": 1.0}, "sample.remask: "),
    ],
    ("gstar_code", "sample", "ancestral, 8"): [
        ({"sample.policy": "gstar"}, "sample.policy: "),
        ({"sample.policy": "p2", "sample.remask.planner": True}, "sample.policy: "),
        ({"sample.remask.planner_row": BASE}, "sample.remask.planner_row: goes with sample.policy=p2"),
        (PLANNED | {"sample.remask.planner_row": "none"}, "sample.remask.planner_row: unknown 'none'"),
        (PLANNED | {"sample.remask.planner_row": "AR"}, "sample.remask.planner_row: 'AR' is not a masked denoiser of"),
        (PLANNED | {"sample.remask.scores": "top2"}, "sample.remask.scores: top2 goes with codec.digits=1 and without"),
        ({"sample.policy": "remdm", "sample.remask.rule": "some"}, "sample.remask.rule: unknown 'some'"),
        ({"sample.policy": "remdm", "sample.remask.eta": 1.5}, "sample.remask.eta: must lie in [0, 1]"),
        ({"sample.policy": "first_hitting", "sample.remask.schedule": "loop"}, "sample.remask.schedule: "),
        ({"sample.infill": 6, "sample.prompt": "the"}, "sample.infill: "),
        ({"sample.prefix": 6, "sample.infill": 6}, "sample.prefix: goes without"),
        ({"sample.prefix": 6, "sample.suffix": "the"}, "sample.prefix: goes without"),
        ({"sample.prefix": 32}, "sample.prefix: 32 + 0 tokens leave nothing"),
        ({"sample.infill": 6, "sample.count": 100_000}, "sample.count: "),
    ],
    ("prime_toy", "train", "1 digit"): [
        ({"optimizer.blocks": "muon"}, "optimizer.blocks: muon is for networks of"),
        ({"objective.pieces": 4}, "objective.pieces: mlp computes all logits at once; set it to 0"),
    ],
    ("lidar_shapes", "train", "base"): [({"objective.pieces": 4}, "objective.pieces: denoising reads no logits")],
    ("udlm", "evaluate", "MDLM"): [({"evaluate.estimator": "bound_uniform"}, "evaluate.estimator: ")],
    ("udlm", "evaluate", "UDLM"): [({"evaluate.estimator": "bound_continuous"}, "evaluate.estimator: ")],
    ("udlm", "sample", "UDLM, 2 steps"): [
        ({"model.net": "mlp"}, "model.net: "),
        ({"model.net": "captioned_unet"}, "process.name: "),
        ({"codec.digits": 2}, "process.name: "),
        (SELF_CONDITIONED, "process.name: "),
        ({"data.packing": "padded"}, "process.name: "),
        ({"objective.name": "nelbo_reveal"}, "objective.name: nelbo_reveal does not train"),
        ({"sample.policy": "confidence"}, "sample.policy: "),
        ({"sample.nucleus": 0.9}, "sample.nucleus: "),
        ({"sample.corrector": (2.0, 0.5)}, "sample.corrector: "),
        ({"sample.length": 16}, "sample.length: "),
        ({"sample.final": "none"}, "sample.final: "),
    ],
    ("bd3lm", "evaluate", "BD3-LM, blocks of 4"): [
        ({"evaluate.estimator": "bound_continuous"}, "known: bound_blocks"),
    ],
    ("bd3lm", "sample", "BD3-LM, blocks of 4, 2 steps per block"): [
        ({"process.block": 3}, "process.block: must divide data.length = 32, not 3"),
        ({"model.net": "mlp"}, "model.net: "),
        ({"codec.digits": 2}, "process.name: "),
        (SELF_CONDITIONED, "process.name: "),
        ({"model.time_conditioning": True}, "model.time_conditioning: "),
        ({"objective.name": "cross_entropy"}, "objective.name: cross_entropy does not train"),
        ({"objective.name": "nelbo", "objective.levels": (0.9, 0.3)}, "objective.levels: needs 0 <= low < high"),
        ({"sample.suffix": "x"}, "sample.suffix: block diffusion cannot read what follows"),
        ({"sample.infill": 2}, "sample.infill: "),
        ({"sample.length": 10}, "sample.length: 10 must be a multiple of process.block = 4"),
        ({"sample.policy": "none"}, "sample.policy: "),
    ],
    MOLECULES: [
        ({METHOD: "steering", "sample.uniform.steering.particles": 3}, "3 do not divide sample.batch=8"),
        ({"sample.uniform.steering.potential": "sigmoid"}, "potential: unknown 'sigmoid'"),
    ],
    ("lidar_shapes", "evaluate", "base"): [
        ({"evaluate.points": 1}, "evaluate.points: must lie in 2 .. 1000, not 1"),
        ({"process.schedule": "cosine"}, "process.schedule: bound_gaussian is for chains"),
        ({"evaluate.estimator": "nll_any_order"}, "evaluate.estimator: images have bound_gaussian alone"),
    ],
    ("lidar_shapes", "evaluate", "exact: base"): [({}, "is an exact model (model.net=picture_oracle)")],
    ("lidar_shapes", "sample", "exact: base"): [
        ({"sample.gaussian.method": "gradient"}, "needs a reward with a gradient"),
    ],
    SHAPES: [
        ({"sample.prompt": "a red circl"}, "sample.prompt: 'a red circl' is outside the grammar"),
        ({"process.schedule": "cosine"}, "sample.gaussian.path: leading is for schedules that are chains"),
        ({"sample.batch": 3}, "sample.batch: 3 is not a multiple of 2 devices"),
    ],
    ("fastdiss_text", "sample", "standard, 2 steps"): [
        ({"sample.policy": "ancestral"}, "sample.policy: ancestral is for masked tokens; encoder_decoder samples"),
        ({"sample.length": 16}, "sample.length: embedding diffusion writes data.length = 32 tokens"),
        ({"sample.translation.path": "spaced"}, "sample.translation.path: spaced is for schedules that are"),
        (
            {"encoder_decoder.kind": "joint", "embedding.fill": True},
            "encoder_decoder.kind: joint reads sources, and text_files has none",
        ),
        ({"data.packing": "padded"}, "data.packing: embedding diffusion writes whole windows"),
    ],
    ("fastdiss_translation", "evaluate", "MANS and SCP, 5 steps"): [
        ({}, "sequence-to-sequence models are measured by what they write"),
    ],
    PAIRS: [
        ({"sample.source": "/none.txt"}, "sample.source: '/none.txt' is not a file"),
        ({"sample.repeats": 2}, "sample.repeats: translations are measured as one set"),
        ({"sample.prompt": "s1"}, "pass --config.sample.source=FILE"),
        ({"sample.length": 99}, "encoder_decoder.positions: 99 tokens of a target exceed 32"),
        ({"sample.translation.path": "spaced"}, "spaced is for schedules that are chains"),
        ({"embedding.fill": True, "sample.translation.length_beam": 2}, "targets have one length"),
        ({"sample.translation.rerank": "judge"}, "sample.translation.rerank: judge needs judge.name=row"),
        ({"sample.translation.tokenize": "moses"}, "sacreBLEU knows no 'moses'"),
        ({"sample.batch": 3}, "sample.batch: 3 is not a multiple of 2 devices"),
        ({"encoder_decoder.length_classes": 0}, "encoder_decoder.length_classes: 0 is no length head"),
        ({"encoder_decoder.kind": "causal"}, "embedding does not train encoder_decoder.kind=causal"),
        ({"encoder_decoder.kind": "joint"}, "embedding.fill: one sequence of source and target has no length"),
        ({"process.prediction": "epsilon"}, "process.prediction: embedding diffusion predicts the clean"),
        ({"data.source": "python_stdlib"}, "data.tokenizer: unknown 'words'"),
        ({"model.net": "dit"}, "model.net: dit does not read data.source=dialects (pairs); use encoder_decoder"),
        ({"data.reverse": True}, "data.reverse: dialects are translated one way"),
    ],
}
CASES = [(*place, {field: "x"}, f"{field}: unknown 'x'") for place in UNKNOWN for field in UNKNOWN[place].split()]
CASES += [(*place, *case) for place, cases in REFUSED.items() for case in cases]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder for the data of all cases."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("table", "verb", "row", "overrides", "message"),
    CASES,
    ids=[f"{table} {verb} {row}: {overrides}" for table, verb, row, overrides, _ in CASES],
)
def test_invalid_rows_are_one_line_that_names_the_field(
    table, verb, row, overrides, message, fields, cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "execute", lambda job: pytest.fail("a job has started"))
    module = importlib.import_module(f"configs.{table}")
    config = module.get_config("debug")
    small = fields if config.data.source == "python_stdlib" else {"data.cache_dir": str(cache)}
    config.update_from_flattened_dict(small | overrides)
    with pytest.raises(ValueError) as caught:
        run.run_row(module, config, verb, row, small | overrides, tmp_path)
    line = str(caught.value)
    assert message in line and re.match(r"[a-z_., ]+: ", line) and "\n" not in line
    assert not list(tmp_path.iterdir())


def test_training_without_validation_data_raises(fields, tmp_path):
    (tmp_path / "short.txt").write_text("a line of a text\n" * 6)
    overrides = fields | {"data.path": str(tmp_path / "short.txt"), "data.document": "file"}
    config = resolve(quickstart.get_config("debug"), overrides, 0)
    with refused(r"^data\.source: text_files has no 'validation' examples.*data\.length"):
        run.run_row(quickstart, config, "train", "MDLM", overrides, tmp_path / "runs")


def test_exact_models_have_no_estimators():
    config = resolve(lidar_shapes.get_config("debug"), {"model.net": "picture_oracle"}, 0)
    with refused("model.net: picture_oracle is an exact model"):
        families.estimators(config)
