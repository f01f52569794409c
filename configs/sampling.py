"""Fields of `sample.gaussian`, `sample.uniform` and `sample.translation` with their defaults, for `configs.base`."""

from typing import Any

# Sampling of Gaussian diffusion: `sample.gaussian`.
GAUSSIAN: dict[str, Any] = dict(
    # plain, best_of, gradient (universal guidance), condition (DATE), steering (FK), lidar, lidar_steering; on the
    # mixture: plain, exact, gradient, lidar
    method="plain",
    solver="ddim",  # ddim, ddpm, euler, dpm_solver, consistency
    path="leading",  # time grid: leading, linspace, karras (chains), uniform
    eta=1.0,  # ddim: 0 deterministic, 1 ancestral
    guidance=3.0,  # scale of classifier-free guidance; 1: none
    images=4,  # per prompt
    split="test",  # of the prompts: train, validation, test
    per_task=6,  # prompts per task, of which there are six
    best_of=4,  # images drawn per image kept
    gradient=dict(scale=1.0, period=1),  # strength; applied at every `period`-th step
    condition=dict(rate=0.1, period=2),  # step size; applied at every `period`-th step
    steering=dict(potential="difference", strength=10.0, adaptive=False),  # potentials: difference, max, sum, reward
    lookahead=dict(
        particles=50,  # lookahead samples per prompt
        steps=5,
        solver="dpm_solver",
        path="linspace",
        strength=5000.0,  # of the reward (lambda)
        scale=12.5,  # of the guide (s)
        stop=0.2,  # the guide acts at later times only
        top=0,  # number of randomly chosen particles that are used; 0: all
    ),
    pool=192,  # picture_oracle: number of images in the finite model of a prompt
    pool_correct=0.35,  # picture_oracle: share of these images that fulfill the prompt
    deviation=0.05,  # picture_oracle: standard deviation of the noise on these images
)

# Sampling of uniform-state diffusion under a reward of its samples (molecules: their rings): `sample.uniform`.
UNIFORM: dict[str, Any] = dict(
    method="plain",  # plain, best_of, steering (FK), lidar
    best_of=4,  # samples drawn per sample kept
    # strength of the reward (lambda); potentials: difference, max, sum, reward
    steering=dict(particles=4, potential="difference", strength=1.5, adaptive=False),
    lookahead=dict(
        particles=1024,  # lookahead samples, which the samples of a set share
        steps=8,
        strength=1.5,  # of the reward (lambda)
        scale=1.0,  # of the guide (s)
        kernel="token",  # of a token given a lookahead sample: token (published), or with the others of its sequence
    ),
)

# Sampling of sequence-to-sequence models, with `sample.steps` evaluations of the network: `sample.translation`.
TRANSLATION = dict(
    memory="reuse",  # self-conditioning input: reuse (the last estimate), recompute (two evaluations per step), none
    factor=1.0,  # standard deviation of the initial noise, independent of process.factor
    solver="ddim",  # ddim, ancestral
    path="even",  # time grid: even, spaced (chains; Difformer), cedi (DINOISER: the network reads times from 1 to 0.99)
    length_beam=1,  # lengths per sentence, around the likeliest
    seeds=1,  # initial noises per length
    rerank="mbr",  # choice among several candidates: mbr (agreement by BLEU), judge (likelihood under judge.row)
    clamp=False,  # project every estimate onto the nearest embedding
    beam=5,  # causal: width of beam search; 1: greedy
    penalty=1.0,  # causal: exponent of the length that divides log p
    split="test",
    tokenize="13a",  # sacreBLEU's tokenizer: none, 13a, intl, ...
    rouge=False,  # also measure ROUGE (needs the optional package rouge-score)
    bertscore="",  # folder of the model for BERTScore; empty: not measured (needs the optional package bert-score)
    bertscore_layer=40,  # of its embeddings; published for microsoft/deberta-xlarge-mnli
    # record each step of the first batch: confidence, changed tokens, error of the self-conditioning input, BLEU
    diagnose=False,
)
