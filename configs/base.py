"""Every field that a config may set, with its default; table configs change what they need.

Fields are documented where they stand. Unknown fields on the command line are refused.
"""

import copy
from typing import Any

from ml_collections import ConfigDict

VARIANTS = ("paper", "gpu", "local", "debug")

# Sampling of Gaussian diffusion: `sample.gaussian`.
GAUSSIAN: dict[str, Any] = dict(
    # plain, best_of, gradient (universal guidance), condition (DATE), steering (FK), lidar, lidar_steering; on the
    # mixture plain, exact, gradient, lidar
    method="plain",
    solver="ddim",  # ddim, ddpm, euler, dpm_solver, consistency
    path="leading",  # points in time: leading, linspace, karras (chains), uniform
    eta=1.0,  # ddim: 0 deterministic, 1 ancestral
    guidance=3.0,  # classifier-free; 1: none
    images=4,  # pictures a prompt
    split="test",  # of the prompts: train, validation, test
    per_task=6,  # prompts of each of the six tasks
    best_of=4,  # pictures drawn for each that is kept
    gradient=dict(scale=1.0, period=1),  # strength; every how many steps
    condition=dict(rate=0.1, period=2),  # length of a step; every how many steps
    steering=dict(potential="difference", strength=10.0, adaptive=False),  # potentials: difference, max, sum, reward
    lookahead=dict(
        particles=50,  # cheap samples a prompt
        steps=5,
        solver="dpm_solver",
        path="linspace",
        strength=5000.0,  # of the reward (lambda)
        scale=12.5,  # of the guide (s)
        stop=0.2,  # the guide acts at later times alone
        top=0,  # so many of the particles, at random, are used; 0: all
    ),
    pool=192,  # picture_oracle: pictures that the model of a prompt consists of,
    pool_correct=0.35,  # the share that fulfills it,
    deviation=0.05,  # and the noise on them
)

# Sampling of sequence-to-sequence models, in `sample.steps` calls of the network: `sample.translation`.
TRANSLATION = dict(
    memory="reuse",  # what the network reads as its last estimate: reuse, recompute (two calls a step), none
    factor=1.0,  # deviation of the noise at the start, whatever process.factor was in training
    solver="ddim",  # ddim, ancestral
    path="even",  # even, spaced (chains; Difformer), cedi (DINOISER: the network is told times from 1 to 0.99)
    lengths="around",  # about the likeliest (around), the likeliest (likeliest), drawn from the head (drawn), known
    length_beam=1,  # lengths of a sentence
    seeds=1,  # noises of each length
    rerank="mbr",  # which of several candidates is kept: mbr (agreement by BLEU), judge (likelihood under judge.row)
    role="reference",  # mbr: what a candidate is to the others, reference (Difformer) or hypothesis (DINOISER)
    clamp=False,  # put every estimate on the nearest embedding
    beam=5,  # causal: hypotheses of beam search; 1: greedy
    penalty=1.0,  # causal: power of the length by which log p is divided
    split="test",
    tokenize="13a",  # sacreBLEU's tokenizer: none, 13a, intl, ...
    rouge=False,  # measure ROUGE too (needs the optional package rouge-score)
    bertscore="",  # folder of a model, by which BERTScore is measured too (needs the optional package bert-score)
    bertscore_layer=40,  # of its embeddings; published for microsoft/deberta-xlarge-mnli
    diagnose=False,  # write down every step of the first batch: confidence, tokens changed, error of the memory, BLEU
)


def defaults(table: str, variant: str) -> ConfigDict:
    """MDLM's recipe (arXiv 2406.07524) at small size, on the standard library's own sources.

    Raises:
      ValueError: for an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"--config: {table} has no variant {variant!r}; known: {', '.join(VARIANTS)}")
    return ConfigDict(
        dict(
            table=table,  # name of the table, and of its files
            variant=variant,
            seeds=(0,),  # each row is trained and sampled once a seed
            seed=0,  # of one job; set by the plan
            start="",  # row of the same table whose weights training starts from
            checkpoint="",  # folder of converted or trained weights to start from (train) or to use (evaluate, sample)
            data=dict(
                source="python_stdlib",  # see README, "Data"
                path="",  # file or folder of the source; python_stdlib needs none
                # bytes, characters, bpe (trained on the source), gpt2, wordpiece, file; values for images, smiles for
                # qm9, nucleotides for splice_sites, genomes_small and ten_species
                tokenizer="bpe",
                tokenizer_path="",  # vocabulary file or folder
                vocab_size=1024,  # of a trained bpe, and what `compile` assumes without reading data
                alphabet="",
                length=128,  # tokens an example
                packing="wrapped",  # wrapped or padded
                bos_eos=False,  # wrapped: put BOS and EOS around every example, as MDLM does
                symbols27=False,
                document="file",
                detokenize=True,
                validation_documents=100_000,
                validation_images=5000,  # mnist, cifar10: last training images; 0: none, validation is the test split
                flip=False,  # images: mirror half of the training examples left to right
                cache_dir="",  # empty: the work directory's cache
                # Pairs of a source and a target, whose tokenizers are words, bpe (of both sides), bytes and file;
                # `length` is the target's:
                source_length=16,  # tokens of a source, its end included; longer ones are left out of training
                reverse=False,  # swap source and target
                lower=False,  # lower-case both sides
                seed=0,  # of the made-up sources: dialects, dialects_reversed, number_words
            ),
            codec=dict(
                digits=1,  # symbols that a token is written with and masked by; 1: MDLM, more: MDM-Prime
                shuffle=0,  # seed of a random permutation of token ids before they are written; 0: none
                shuffle_codes=False,  # permute all base^digits codes, not the tokens' alone
                carry_over=True,  # whether tokens that contradict a known digit have probability 0
                chunk_point=1.0,  # training noise: for t above it the digits of a token share one coin; 1: nowhere
                merge="concat",  # of the embedded digits: concat or sum
                shared=True,  # one embedding table for all digit places
            ),
            memory=dict(
                adapter="none",  # SCMDM: linear, norm_linear, table, concat, direct; none: no memory
                rows="masked",  # of the last prediction that are read: masked, recarry, raw
                rate=1.0,  # probability that training reads a first pass's prediction
            ),
            predictor=dict(
                # G-Star's error predictor: none, full (a copy of the denoiser's network), block (its first block), head
                # (a head on its frozen blocks); trained with objective.name=errors by a row that starts from the
                # denoiser's
                kind="none",
                # of a token: one_step (the denoiser's fill differs from the data), corruption (it was replaced at
                # random), likelihood (unlikely under the row `judge`), consistency (differs from a fill in `steps`)
                labels="one_step",
                loss="bce",  # bce, balanced, ranknet
                scope="all",  # positions in the loss: all, or those that were just filled
                own_masks=False,  # train on states whose masks the predictor itself chose, as in sampling
                corruption=0.1,  # share of tokens that are replaced
                judge="",  # likelihood: a causal row of the same table
                threshold=3.0,  # likelihood: nats from which on a token counts as an error
                steps=4,  # consistency
                augment=dict(uniform=0.0, unigram=0.0, semantic=0.0, shuffle=0.0),  # shares of tokens changed
            ),
            model=dict(
                # dit, mlp (few positions); unet and classifier (images) have sizes of their own below. With Gaussian
                # noise: captioned_unet, reward; picture_oracle and mixture_oracle are exact, need no training. Pairs:
                # encoder_decoder
                net="dit",
                hidden=768,
                blocks=12,
                heads=12,
                cond_dim=128,
                mlp_ratio=4,
                dropout=0.1,
                causal=False,
                adaln=True,
                time_conditioning=False,
                dtype="float32",  # of matrix products; parameters, softmax and loss stay float32
                remat="none",  # none, dots, full
                attention="auto",  # auto, plain, xla, cudnn, splash
                labels=0,  # classes of which the network is told an example's; 0: none
                unroll=1,  # blocks compiled into each turn of the loop over blocks
            ),
            unet=dict(
                channels=96,  # of one color's embedding; times a multiplier: of a level
                multipliers=(3, 4, 4),
                res_blocks=5,
                attention_factors=(2,),  # levels that attend, by how many times smaller their pictures are
                head_channels=64,
                dropout=0.4,
                groups=32,  # of group norms
                constant_init=0.0,  # half-width of the start of blocks' scales and shifts; published: 19.6
                head_size=3,  # of the last convolution
            ),
            classifier=dict(channels=(16, 32), hidden=64, dropout=0.25),
            captioned_unet=dict(
                channels=(32, 64, 96),  # of the levels, each half as large as the one before
                transformer_layers=(0, 1, 1),  # of each level; they read the prompt
                heads=(4, 4, 4),
                layers=1,  # residual blocks of a level
                middle_layers=1,
                groups=8,  # of group norms
                context_width=64,
                time_width=96,
            ),
            encoder_decoder=dict(
                # decoder: the denoiser; joint: one sequence of source and target (DiffuSeq); causal: autoregressive
                kind="decoder",
                latent=16,  # width of an embedding
                hidden=64,
                encoder_blocks=1,
                decoder_blocks=2,
                heads=4,
                feed_forward=256,
                dropout=0.0,
                positions=64,  # the most tokens of a source, and of a target
                scale="unit",  # embeddings: unit (of length sqrt(d)) or scaled (sqrt(d) times the table)
                table_std=1.0,  # deviation of the table at the start
                form="difformer",  # input, time and readout: difformer or dinoiser
                input_norm=True,  # normalize the decoder's input
                norm_first=True,  # norms before each part of a block; False: behind
                activation="gelu",  # gelu or relu
                length_classes=256,  # of target length - source length; 0: no head
                length_gradient=True,  # whether the head's loss reaches the encoder
            ),
            reward=dict(stem=32, channels=64, blocks=3, hidden=128, word_width=32, groups=8),
            process=dict(
                # log_linear, linear, cosine, polynomial, geometric; Gaussian noise: scaled_linear (Stable Diffusion's),
                # cosine, sqrt, sqrt_chain, sigma_is_time
                schedule="log_linear",
                epsilon=1e-3,  # log_linear
                power=3.0,  # polynomial
                low=1e-3,  # geometric
                high=20.0,
                prediction="epsilon",  # Gaussian noise: epsilon, clean, velocity, flow
                factor=1.0,  # pairs: F, by which the noise of training is multiplied
            ),
            objective=dict(
                # nelbo (MDLM), nelbo_reveal (the same bound with less variance), autoregressive, cross_entropy (images,
                # as published), classification (labels), errors (a predictor's); denoising (Gaussian noise), reward;
                # pairs: embedding (text too), next_target (encoder_decoder.kind=causal)
                name="nelbo",
                minimum_time=1e-3,
                target="marginal",  # digits: marginal (a bound) or joint (the MDM-Prime paper's; not a bound)
                prompt_dropout=0.1,  # denoising: share of examples whose prompt is left out
                noise=0.5,  # reward: largest noise on its pictures, whose values lie in [-1, 1]
                label_smoothing=0.0,  # embedding, next_target
            ),
            embedding=dict(
                memory_rate=0.5,  # share of examples that read an estimate
                alternate="flip",  # with or without: a coin an example (flip), or both losses (sum; DINOISER)
                rounding="anchor",  # cross-entropy of the estimate (anchor), of the clean embedding (round), both, none
                floor="none",  # lowest time: none, clipped, clipped_s (DINOISER)
                length_weight=0.1,
                estimate_dropout=False,  # dropout also where estimates are made
                fill=False,  # padding is generated like tokens (DiffuSeq); without it a length is given
                # Self-conditioning perturbation. Its gap and coupling are inferred: no equations were to be had.
                scp=dict(
                    gap="off",  # off, fixed, randk, uniform, uniform_gap
                    size=0.2,  # fixed: the gap; uniform_gap: the largest
                    steps=(2, 3, 5, 10, 20),  # randk: the gap is 1 / one of these
                    probability=1.0,  # share of examples that are perturbed
                    couple="independent",  # noise of the later state: independent, markov, shared (gives data away)
                ),
                # Model-aware noise scaling. Its map and measure are inferred. random and shuffled are controls.
                mans=dict(
                    map="off",  # off, shift, scale, table, random, shuffled
                    measure="likelihood",  # of confidence: likelihood, distance
                    strength=0.5,  # shift, random, shuffled
                    largest=3.0,  # scale: noise over signal of a sure token
                    anchors=((0.0, 1.0), (0.5, 1.5), (1.0, 3.0)),  # table: (confidence, scale)
                    temperature=1.0,  # distance
                    aware=True,  # whether the network is told the times of tokens
                    off_probability=0.0,  # share of examples whose tokens keep one time
                ),
            ),
            optimizer=dict(
                learning_rate=3e-4,
                warmup=2500,
                decay="constant",  # constant, cosine, inverse_sqrt
                floor=0.0,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8,
                weight_decay=0.0,
                clip=1.0,
            ),
            train=dict(
                steps=1_000_000,
                batch=512,
                accumulate=1,
                ema=0.9999,
                log_every=100,
                evaluate_every=10_000,
                evaluate_batches=32,
                checkpoint_every=10_000,
                keep=2,
            ),
            mesh=dict(data=-1, fsdp=1, model=1),
            cpu_devices=1,  # a CPU as so many devices: one a core pays where threads do not, as for small convolutions
            evaluate=dict(
                estimator="auto",  # bound_continuous, bound_marginal for digits, nll_autoregressive for a causal model
                also=(),  # names of further estimators
                split="test",
                batches=0,  # 0: the whole split
                batch=64,
                draws=1,  # Monte Carlo draws a sequence
                points=100,  # captioned_unet: noise levels of the bound
                zero_shot={},  # other data to score: name -> the fields of `data` that differ (source, path, ...)
                zero_shot_required=False,  # whether a set that is not there is an error, or an empty cell
            ),
            sample=dict(
                # ancestral, random_order, confidence, first_hitting; with remasking remdm, remdm_conf, star, gstar,
                # confidence_star, p2; embedding: encoder_decoder on text; data: held-out text itself
                policy="ancestral",
                steps=128,
                count=64,
                # images, molecules and genomes: so many sets of `count` are drawn, each is measured by itself, and the
                # means are reported with 95 % intervals
                repeats=1,
                batch=32,
                length=0,  # 0: data.length; longer texts are made window by window
                stride=0,  # window by window: how far each window advances; 0: half a window
                temperature=1.0,
                nucleus=1.0,
                nucleus_rule="off",  # off, inclusive (MDLM), standard (top-p)
                precision="exact",  # exact or mdlm_float32
                noise=0.0,  # confidence: scale of the Gumbel noise on the score
                end=1e-5,  # last time of the grid
                final="argmax",  # argmax, draw or none: how remaining masks are filled
                digits_draw="token",  # digits: those of one token (token), or each from its marginal (marginal)
                chunk_point=1.0,  # digits: for t above it those of a token are revealed together
                temperature_ramp=(0.0, 1.0),  # (a, p): a step that begins at 1 - t = tau has temperature + a tau^p
                warp=(),  # (a, p, c): steps at 1 - a (1 - tau)^p + c; empty: equal steps
                corrector=(),  # (scale, power) of the rate corrector; empty: none
                remask=dict(
                    rule="cap",  # remdm: cap, rescale, star, forward_backward, discrete_flow
                    eta=0.008,  # cap, rescale: how much; p2: weight of known positions, 0 never remasks
                    schedule="process",  # mask levels over time: the process's, or loop (a plateau in the window)
                    on=1.0,  # the window in time, off <= t <= on, in which known positions may be masked again
                    off=0.0,
                    level=0.1,  # loop: mask level of the plateau
                    temperature=1.0,  # gstar, confidence_star: of the choice of positions
                    adaptive=False,  # gstar: mask every position that is suspicious, not as many as scheduled
                    planner=False,  # p2: known positions are scored by the error predictor
                ),
                memory="reuse",  # for a network with memory.adapter: reuse or null
                cache=False,  # answer steps in which nothing changed by the logits of the step before
                label=-1,  # with model.labels: of every sample; -1: as often each as in the training data; -2: in turn
                planes=(),  # digits: places that are given, from held-out data, and not drawn
                prompt="",  # text at the start
                suffix="",  # text at the end: what lies between is filled in
                infill=0,  # held-out windows, each without a span of so many tokens that is to be filled in; 0: none
                gaussian=copy.deepcopy(GAUSSIAN),
                source="",  # pairs: a file of sources, one a line, to translate in place of the split
                translation=copy.deepcopy(TRANSLATION),
            ),
            judge=dict(
                name="none",  # none, row (a causal row of this table) or gpt2; images: classifier (a row) or inception
                row="",
                reference="test",  # images: the split of real ones
                checkpoint="",  # gpt2: folder or file of weights; inception: file
                tokenizer_path="",  # gpt2: folder of vocab.json and merges.txt
                batch=32,
            ),
            quality=dict(
                parse=False,  # share of samples that ast.parse accepts (Python text)
                mauve=False,
            ),
        )
    )


def small(config: ConfigDict) -> ConfigDict:
    """The local scale: minutes on two CPU cores. Tables that ask for it share its trainings.

    Tuned on the standard library's sources: a large trained vocabulary, small batches, the low-variance bound, a high
    and falling rate; blocks unrolled, which XLA's CPU compiler makes a third faster.
    """
    config.data.vocab_size = 4096
    config.model.update(hidden=128, blocks=4, heads=4, cond_dim=64, dropout=0.0, unroll=4)
    config.objective.name = "nelbo_reveal"
    config.optimizer.update(learning_rate=3e-3, warmup=50, decay="cosine", beta2=0.98, weight_decay=0.01)
    config.train.update(steps=2400, batch=16, ema=0.99, log_every=20, checkpoint_every=300)
    config.train.update(evaluate_every=300, evaluate_batches=16)
    config.sample.update(count=64, batch=64)
    config.judge.batch = 64
    return config


def python_bytes(config: ConfigDict) -> ConfigDict:
    """The local base of SCMDM's and G-Star's tables: bytes of the standard library's sources, longer trained."""
    small(config)
    config.data.update(tokenizer="bytes", vocab_size=257)
    config.train.update(steps=3000, evaluate_every=500, checkpoint_every=500)
    config.evaluate.update(batches=12, draws=4)
    return config


def left_to_right(config: ConfigDict) -> dict:
    """Overrides of an autoregressive row; at local scale it learns in a third of the steps."""
    steps = {"train.steps": -(-config.train.steps // 3)} if config.variant == "local" else {}
    return {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False, **steps}


def tiny(config: ConfigDict) -> ConfigDict:
    """The debug scale: everything small enough for a test, through the same code."""
    config.model.update(hidden=32, blocks=2, heads=2, cond_dim=16, dropout=0.1)
    config.data.update(tokenizer="bytes", length=32)
    config.optimizer.update(learning_rate=3e-3, warmup=2)
    config.train.update(
        steps=6, batch=8, log_every=2, evaluate_every=3, evaluate_batches=2, checkpoint_every=3, ema=0.9
    )
    config.evaluate.update(batches=2, batch=8)
    config.sample.update(count=8, batch=8, steps=4)
    config.judge.update(batch=8)
    config.seeds = (0,)
    return config
