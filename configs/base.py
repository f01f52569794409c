"""Every field of a config, with its meaning, default and values; a table changes the fields that it needs.

Names of functions are checked by what holds the functions.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.data import DATA
from configs.sampling import GAUSSIAN, GENEVAL, TEXT_TO_IMAGE, TRANSLATION, UNIFORM
from configs.schema import (
    at_least,
    below_one,
    choice,
    count,
    default_values,
    not_negative,
    positive,
    share,
    tuple_of,
    up_to_one,
)

VARIANTS = ("paper", "gpu", "local", "debug")
FIELDS: dict[str, Any] = dict(
    seeds=not_negative((0,)),  # each row is trained and sampled once per seed
    seed=not_negative(0),  # of one job; set by the plan
    start="",  # row of the same table whose weights initialize training
    weights="",  # text_to_image: folder of published weights, below which its files and folders are
    checkpoint="",  # folder of converted or trained weights that train starts from, and evaluate and sample use
    data=DATA,
    codec=dict(
        # sub-tokens per token, the unit of masking; 1: MDLM, more: MDM-Prime. model.causal: one per position
        digits=count(1),
        shuffle=not_negative(0),  # seed of a random permutation of token ids before encoding; 0: none
        shuffle_codes=False,  # permute all base^digits codes, not only those of tokens
        permutation="",  # .npy, .json or .pt file of a permutation of token ids or of all codes, instead of shuffle
        # give tokens that contradict a known sub-token probability 0; model.causal: sub-tokens that lead to no token
        carry_over=True,
        chunk_point=share(1.0),  # training noise: for t above it the sub-tokens of a token share one draw; 1: never
        merge=choice("concat", "sum"),  # of the embedded sub-tokens
        shared=True,  # one embedding table for all places
    ),
    memory=dict(
        adapter=choice("none", "linear"),  # of the self-conditioning input (SCMDM)
        rate=share(1.0),  # probability that training reads the prediction of a first pass
    ),
    predictor=dict(
        # G-Star's error predictor: none, full (a copy of the denoiser's network), block (its first block), head
        # (a head on its frozen blocks). It is trained with objective.name=errors by a row that starts from the
        # weights of the denoiser's row.
        kind=choice("none", "full", "block", "head"),
        # per token: one_step (the denoiser's fill differs from the data), corruption (replaced at random),
        # likelihood (unlikely under the row `judge`), consistency (differs from a fill in `steps`)
        labels=choice("one_step", "corruption", "likelihood", "consistency"),
        loss=choice("bce", "balanced", "ranknet"),
        scope=choice("all", "filled"),  # positions in the loss: all, or those that were just filled
        own_masks=False,  # train on states whose masks the predictor itself chose, as in sampling
        time=share(0.0),  # of the masked texts to learn from; 0: uniform
        corruption=share(0.1),  # share of replaced tokens
        judge="",  # likelihood: a causal row of the same table, or gpt2 with the weights of judge_checkpoint
        judge_checkpoint="",  # gpt2: folder of converted weights; data.tokenizer is GPT-2's
        threshold=not_negative(3.0),  # likelihood: nats from which a token counts as an error
        steps=count(4),  # consistency
    ),
    model=dict(
        # dit, mlp (few positions); unet and classifier (images) have sizes of their own below. Gaussian noise:
        # captioned_unet, reward, text_to_image (Stable Diffusion with published weights); picture_oracle and
        # mixture_oracle are exact and need no training. Pairs: encoder_decoder
        net="dit",
        hidden=count(768),
        blocks=count(12),
        heads=count(12),
        cond_dim=count(128),
        mlp_ratio=count(4),
        dropout=below_one(0.1),
        causal=False,
        # causal: the first input is the mask, or the first token of a window, which is given (public checkpoints)
        start=choice("mask", "window"),
        adaln=True,
        time_conditioning=False,
        dtype=choice("float32", "bfloat16"),  # of matrix products; parameters, softmax and loss stay float32
        remat=choice("none", "dots", "full"),
        attention="auto",  # auto, plain, blocked, xla, cudnn, splash
        labels=not_negative(0),  # number of classes for class conditioning; 0: none
        unroll=count(1),  # blocks per iteration of the loop over blocks
    ),
    unet=dict(
        channels=count(96),  # a level has this many times its multiplier
        multipliers=count((3, 4, 4)),
        res_blocks=count(5),
        attention_factors=count((2,)),  # levels with attention, by their downsampling factor
        head_channels=count(64),
        dropout=below_one(0.4),
        groups=count(32),  # of group norms
        constant_init=not_negative(0.0),  # half-width of the initial scales and shifts of blocks; published: 19.6
        head_size=count(3),  # kernel of the last convolution
        embedding_channels=not_negative(0),  # of the embedding of one color; 0: channels
        norm_epsilon=positive(1e-6),  # of group norms; public checkpoints: 1e-5
    ),
    classifier=dict(channels=count((16, 32)), hidden=count(64), dropout=below_one(0.25)),
    captioned_unet=dict(
        channels=count((32, 64, 96)),  # per level; each level halves the resolution
        transformer_layers=not_negative((0, 1, 1)),  # per level; they attend to the prompt
        heads=count((4, 4, 4)),
        layers=count(1),  # residual blocks per level
        middle_layers=not_negative(1),
        groups=count(8),  # of group norms
        context_width=count(64),
        time_width=count(96),
    ),
    text_to_image=TEXT_TO_IMAGE,
    geneval=GENEVAL,
    encoder_decoder=dict(
        # decoder: the denoiser; joint: one sequence of source and target (DiffuSeq); causal: autoregressive
        kind="decoder",
        latent=count(16),  # width of an embedding
        hidden=count(64),
        encoder_blocks=count(1),
        decoder_blocks=count(2),
        heads=count(4),
        feed_forward=count(256),
        dropout=below_one(0.0),
        positions=count(64),  # largest number of tokens of a source or a target
        scale=choice("unit", "scaled"),  # embeddings of length sqrt(d), or sqrt(d) times the table
        table_std=positive(1.0),  # initial standard deviation of the table
        form=choice("difformer", "dinoiser"),  # of input, time and readout
        input_norm=True,  # normalize the decoder's input
        norm_first=True,  # norm before each part of a block; False: after it
        activation=choice("gelu", "relu"),
        length_classes=not_negative(256),  # of target length - source length; 0: no head
        length_gradient=True,  # let the gradient of the length loss reach the encoder
    ),
    reward=dict(
        stem=count(32), channels=count(64), blocks=count(3), hidden=count(128), word_width=count(32), groups=count(8)
    ),
    process=dict(
        name="masked",  # noise on tokens: masked, uniform (UDLM), blocks (BD3-LM: masked inside of blocks)
        block=count(4),  # blocks: tokens per block, which divide data.length
        # log_linear, linear, cosine, polynomial, geometric; Gaussian noise: scaled_linear (Stable Diffusion's),
        # cosine, sqrt_chain, sigma_is_time
        schedule="log_linear",
        epsilon=share(1e-3),  # log_linear
        power=positive(3.0),  # polynomial
        low=positive(1e-3),  # geometric
        high=positive(20.0),
        prediction=choice("epsilon", "clean", "velocity", "flow"),  # Gaussian noise
        factor=positive(1.0),  # pairs: F, which multiplies the noise of training
    ),
    objective=dict(
        # nelbo (MDLM), nelbo_reveal (the same bound with less variance), autoregressive, cross_entropy (images,
        # as published), classification (labels), errors (a predictor's); denoising (Gaussian noise), reward;
        # pairs: embedding (text too), next_target (encoder_decoder.kind=causal)
        name="nelbo",
        minimum_time=share(1e-3),
        levels=share((0.0, 1.0)),  # blocks with nelbo: range of the mask levels; narrower ranges are not a bound
        target=choice("marginal", "joint"),  # digits: marginal (a bound) or joint (the MDM-Prime paper's; not a bound)
        prompt_dropout=share(0.1),  # denoising: share of examples without their prompt
        noise=share(0.5),  # reward: largest noise on its images, whose values lie in [-1, 1]
        label_smoothing=share(0.0),  # embedding, next_target
        pieces=not_negative(0),  # of the tokens, of which one at a time has logits in memory; 0: all that are read
    ),
    embedding=dict(
        memory_rate=share(0.5),  # share of examples that read an estimate
        # with or without an estimate: one draw per example (flip), or both (sum; DINOISER)
        alternate=choice("flip", "sum"),
        rounding=choice("anchor", "round"),  # cross-entropy of the estimate (anchor) or of the clean embedding (round)
        floor=choice("none", "clipped", "clipped_s"),  # lowest time; clipped_s: DINOISER
        length_weight=not_negative(0.1),
        estimate_dropout=False,  # dropout in the pass that makes the estimate too
        fill=False,  # generate padding like tokens (DiffuSeq); without it the length is given
        # Self-conditioning perturbation. Its gap and coupling are inferred: the equations are not available.
        scp=dict(
            gap=choice("off", "fixed", "randk", "uniform", "uniform_gap"),
            size=share(0.2),  # fixed: the gap; uniform_gap: the largest
            steps=count((2, 3, 5, 10, 20)),  # randk: the gap is 1 / one of these
            probability=share(1.0),  # share of perturbed examples
            couple=choice("independent", "markov", "shared"),  # noise of the later state; shared leaks the data
        ),
        # Model-aware noise scaling. Its map is inferred. random and shuffled are controls.
        mans=dict(
            map=choice("off", "shift", "scale", "random", "shuffled"),
            strength=share(0.5),  # shift, random, shuffled
            largest=count(3.0),  # scale: noise over signal of a token with confidence 1
            aware=True,  # give the network the time of each token
            off_probability=share(0.0),  # share of examples whose tokens keep one time
        ),
    ),
    optimizer=dict(
        learning_rate=positive(3e-4),
        warmup=not_negative(2500),
        decay=choice("constant", "cosine", "inverse_sqrt"),
        floor=not_negative(0.0),
        warmup_first=share(1.0),  # rate of the first step over peak / warmup; 0 in public codes
        decayed=choice("matrices", "all"),  # what weight decay acts on; all: biases and scales too
        blocks=choice("adam", "muon"),  # the direction of the kernels of transformer blocks
        momentum=below_one(0.95),  # muon
    )
    | dict(
        beta1=below_one(0.9),
        beta2=below_one(0.999),
        epsilon=positive(1e-8),
        weight_decay=not_negative(0.0),
        clip=positive(1.0),
    ),
    train=dict(steps=count(1_000_000), batch=count(512), accumulate=count(1), ema=share(0.9999), log_every=count(100))
    | dict(evaluate_every=count(10_000), evaluate_batches=count(32), checkpoint_every=count(10_000), keep=count(2)),
    mesh=dict(data=-1, fsdp=1, model=1),
    cpu_devices=count(1),  # number of devices that a CPU is split into; one per core speeds up small convolutions
    evaluate=dict(
        estimator="auto",  # bound_continuous, bound_marginal for digits, bound_uniform, nll_autoregressive
        also=tuple_of(str),  # names of further estimators
        split=choice("test", "train", "validation"),
        batches=not_negative(0),  # 0: the whole split
        batch=count(64),
        draws=count(1),  # Monte Carlo draws per sequence
        points=count(100),  # captioned_unet: noise levels of the bound
        zero_shot={},  # other data to score: name -> the fields of `data` that differ (source, path, ...)
        zero_shot_required=False,  # a missing set is an error; False: an empty cell
    ),
    sample=dict(
        # ancestral, random_order, confidence, first_hitting; with remasking remdm, remdm_conf, star, gstar,
        # confidence_star, p2; embedding: encoder_decoder on text; data: held-out text itself
        policy="ancestral",
        steps=count(128),
        count=count(64),
        # images, molecules, genomes: sets of `count` samples, each measured by itself; the table has mean and interval
        repeats=count(1),
        batch=count(32),
        length=not_negative(0),  # 0: data.length; longer texts are made window by window
        stride=not_negative(0),  # window by window: how far each window advances; 0: half a window
        temperature=not_negative(1.0),
        nucleus=up_to_one(1.0),
        nucleus_rule=choice("off", "inclusive", "standard"),  # inclusive: MDLM; standard: top-p
        precision=choice("exact", "mdlm_float32"),
        noise=not_negative(0.0),  # confidence: scale of the Gumbel noise on the score
        end=below_one(1e-5),  # last time of the grid
        final=choice("argmax", "draw", "none"),  # how remaining masks are filled
        digits_draw=choice("token", "marginal"),  # digits: those of one token, or each from its marginal
        temperature_ramp=(0.0, 1.0),  # (a, p): a step that begins at 1 - t = tau has temperature + a tau^p
        warp=tuple_of(float),  # (a, p, c): steps at 1 - a (1 - tau)^p + c; empty: equal steps
        corrector=not_negative(()),  # (scale, power) of the rate corrector; empty: none
        remask=dict(
            rule="cap",  # remdm: cap, rescale, star, forward_backward, discrete_flow
            eta=not_negative(0.008),  # cap, rescale: how much; p2: weight of known positions, 0 never remasks
            schedule=choice("process", "loop"),  # mask levels over time; loop: a plateau in the window
            on=share(1.0),  # the window in time, off <= t <= on, in which known positions may be masked again
            off=share(0.0),
            level=share(0.1),  # loop: mask level of the plateau
            temperature=not_negative(1.0),  # gstar, confidence_star: of the choice of positions
            adaptive=False,  # gstar: mask every position predicted to be an error, not a scheduled number
            planner=False,  # p2: the error predictor scores known positions
            planner_row="",  # p2: a masked denoiser of the same table scores known positions
            # p2: share of known positions over time, and score of a position (top2: the two largest log-probabilities'
            # difference, with which a larger eta masks fewer known positions)
            kappa=choice("linear", "sine", "geometric", "log", "poly2", "poly05"),
            scores=choice("log_prob", "random", "top2"),
            # mask levels, times and rules as in the public code of ReMDM, with more steps for discrete_flow
            public=False,
        ),
        memory=choice("reuse", "null"),  # for a network with memory.adapter
        # with model.labels: class of every sample; -1: frequencies of the training data; -2: in turn
        label=at_least(-2, -1),
        prompt="",  # text at the start
        suffix="",  # text at the end; the text between is filled in
        infill=not_negative(0),  # fill in a span of this many tokens in each held-out window; 0: none
        prefix=not_negative(0),  # continue this many first tokens of held-out windows; 0: none
        gaussian=GAUSSIAN,
        uniform=UNIFORM,
        source="",  # pairs: a file of sources, one per line, to translate instead of the split
        translation=TRANSLATION,
    ),
    judge=dict(
        # text: row (a causal row of this table) or gpt2; images: classifier (a row) or inception
        name=choice("none", "row", "gpt2", "classifier", "inception"),
        row="",
        reference=choice("test", "train", "validation"),  # images: the split of the reference images
        checkpoint="",  # gpt2: folder or file of weights; inception: file
        tokenizer_path="",  # gpt2: folder of vocab.json and merges.txt
        batch=count(32),
    ),
    # parse: share of samples that ast.parse accepts (Python text)
    quality=dict(parse=False, mauve=False, self_bleu=False),
)


def defaults(table: str, variant: str) -> ConfigDict:
    """MDLM's recipe (arXiv 2406.07524) for the small network, on the sources of the standard library.

    `table` and `variant` name the table and its files.

    Raises:
      ValueError: for an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"--config: {table} has no variant {variant!r}; known: {', '.join(VARIANTS)}")
    return ConfigDict(dict(table=table, variant=variant) | default_values(FIELDS))
