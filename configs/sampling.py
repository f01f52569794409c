"""Fields of sections of `sample`, and of images from text, with their defaults, for `configs.base`."""

from typing import Any

from configs.schema import at_least, choice, count, not_negative, positive, share

# Sampling of Gaussian diffusion: `sample.gaussian`.
GAUSSIAN: dict[str, Any] = dict(
    # plain, best_of, gradient (universal guidance), condition (DATE), steering (FK), lidar and their combinations
    # steering_best_of, lidar_best_of, lidar_steering, lidar_steering_best_of; from the worst lookahead samples:
    # safe_denoiser, repellency; on the mixture: plain, exact, gradient, lidar
    method="plain",
    solver="ddim",  # ddim, ddpm, euler, dpm_solver, consistency
    path="leading",  # time grid: leading, linspace, karras, lcm, trailing (chains), uniform
    eta=share(1.0),  # ddim: 0 deterministic, 1 ancestral
    guidance=not_negative(3.0),  # scale of classifier-free guidance; 1: none
    images=count(4),  # per prompt
    split=choice("test", "train", "validation"),  # of the prompts
    per_task=count(6),  # prompts per task, of which there are six
    prompts=not_negative(0),  # text_to_image: prompts to draw, spread evenly over those of the data; 0: all
    best_of=count(4),  # images drawn per image kept
    chunk=not_negative(0),  # samples of a prompt that are drawn at a time, where they do not interact; 0: all
    gradient=dict(scale=not_negative(1.0), period=count(1)),  # strength; applied at every `period`-th step
    condition=dict(rate=not_negative(0.1), period=count(2)),  # step size; applied at every `period`-th step
    steering=dict(
        potential=choice("difference", "max", "sum", "reward"),
        strength=not_negative(10.0),
        adaptive=False,
    ),
    lookahead=dict(
        particles=count(50),  # lookahead samples per prompt
        steps=count(5),
        solver="dpm_solver",
        path="linspace",  # that of the sampler, or indices
        indices=not_negative(()),  # path indices: the steps of the chain at which the network is read, such as (399,)
        guidance=at_least(-1, -1.0),  # scale of classifier-free guidance; 1: none; -1: that of the sampler
        weights="",  # text_to_image: another U-Net, a file or folder below `weights`; empty: that of the sampler
        lora="",  # text_to_image: a LoRA on the U-Net, a file below `weights`
        lora_scale=not_negative(1.0),
        strength=not_negative(5000.0),  # of the reward (lambda)
        scale=not_negative(12.5),  # of the guide (s)
        stop=share(0.2),  # the guide acts at later times only
        top=not_negative(0),  # number of randomly chosen particles that are used; 0: all
    ),
    negatives=dict(
        count=count(15),  # safe_denoiser, repellency: lookahead samples of the lowest rewards
        scale=not_negative(1.0),
        reach=not_negative(0.05),  # safe_denoiser: beta; repellency: rho, the distance at which it begins
    ),
    pool=count(192),  # picture_oracle: number of images in the finite model of a prompt
    pool_correct=share(0.35),  # picture_oracle: share of these images that fulfill the prompt
    deviation=positive(0.05),  # picture_oracle: standard deviation of the noise on these images
)

# Sampling of uniform-state diffusion under a reward of its samples (molecules: their rings): `sample.uniform`.
UNIFORM: dict[str, Any] = dict(
    method="plain",  # plain, best_of, steering (FK), lidar
    best_of=count(4),  # samples drawn per sample kept
    steering=dict(
        particles=count(4),
        potential=choice("difference", "max", "sum", "reward"),
        strength=not_negative(1.5),  # of the reward (lambda)
        adaptive=False,
    ),
    lookahead=dict(
        particles=count(1024),  # lookahead samples, which the samples of a set share
        steps=count(8),
        strength=not_negative(1.5),  # of the reward (lambda)
        scale=not_negative(1.0),  # of the guide (s)
        kernel="token",  # of a token given a lookahead sample: token (published), or with the others of its sequence
    ),
)

# Sampling of sequence-to-sequence models, with `sample.steps` evaluations of the network: `sample.translation`.
TRANSLATION = dict(
    # self-conditioning input: reuse (the last estimate), recompute (two evaluations per step), none
    memory=choice("reuse", "recompute", "none"),
    factor=positive(1.0),  # standard deviation of the initial noise, independent of process.factor
    solver="ddim",  # ddim, ancestral
    path="even",  # time grid: even, spaced (chains; Difformer), cedi (DINOISER: the network reads times from 1 to 0.99)
    length_beam=count(1),  # lengths per sentence, around the likeliest
    seeds=count(1),  # initial noises per length
    # choice among several candidates: mbr (agreement by BLEU), judge (likelihood under judge.row)
    rerank=choice("mbr", "judge"),
    clamp=False,  # project every estimate onto the nearest embedding
    beam=count(5),  # causal: width of beam search; 1: greedy
    penalty=not_negative(1.0),  # causal: exponent of the length that divides log p
    split=choice("test", "train", "validation"),
    tokenize="13a",  # sacreBLEU's tokenizer: none, 13a, intl, ...
    rouge=False,  # also measure ROUGE (needs the optional package rouge-score)
    bertscore="",  # folder of the model for BERTScore; empty: not measured (needs the optional package bert-score)
    bertscore_layer=count(40),  # of its embeddings; published for microsoft/deberta-xlarge-mnli
    # record each step of the first batch: confidence, changed tokens, error of the self-conditioning input, BLEU
    diagnose=False,
)

# Published networks of images from text: `text_to_image`; names are of files and folders below `weights`.
TEXT_TO_IMAGE: dict[str, Any] = dict(
    backbone=choice("sd15", "sdxl", "tiny", "tiny_xl"),  # sizes; tiny: for tests, of the kinds of sd15 and sdxl
    random=False,  # random weights, for tests and timings: their images show nothing
    pipeline="stable-diffusion-v1-5",  # folder of U-Net, VAE, text encoders and tokenizers
    unet="",  # another U-Net, a file or folder; empty: that of the pipeline
    rewards=("image_reward",),  # of guides and lookahead samples: image_reward, clip, hps, aesthetic
    # weights of the rewards; those of lookahead samples are z-scores over the samples of a prompt if several count
    mix=(1.0,),
    measures=("image_reward", "clip", "hps"),  # of finished images
    images=count(8),  # images that are decoded at a time
    image_reward="ImageReward/ImageReward.pt",
    bert="bert-base-uncased",  # folder of vocab.txt, for image_reward
    clip="clip-vit-large-patch14",
    hps="HPSv2/HPS_v2.1_compressed.pt",
    aesthetic="sac+logos+ava1-l14-linearMSE.pth",
)

# GenEval's scores of sampled images: `geneval`.
GENEVAL: dict[str, Any] = dict(
    detector="none",  # folder of a Mask2Former below `weights`, random (for tests), or none
    clip="clip-vit-large-patch14",  # of colors: folder below `weights`
)
