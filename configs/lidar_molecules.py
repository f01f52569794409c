"""LiDAR on discrete diffusion (arXiv 2602.03211, Table 4): a UDLM of QM9's molecules, guided toward many rings.

`paper` is UDLM's recipe on QM9 (arXiv 2412.10193; needs --config.data.path=FOLDER with QM9_smiles.txt), 32 steps for
samples and 8 for lookahead samples. Rings need RDKit. `gpu` and `local` are the same data at smaller sizes; `debug`
draws its molecules.
"""

from configs.base import defaults
from configs.recipes.molecules import qm9
from configs.recipes.table import columns, evaluated, held_out, sampled

PARTICLES = {"paper": (16, 1024, 4096), "gpu": (16, 1024, 4096), "local": (16, 256, 1024), "debug": (4, 8)}
COUNTS = sorted({count for counts in PARTICLES.values() for count in counts})
BASE, FIELDS = "UDLM", "sample.uniform"

TABLE = dict(
    title="Lookahead reward guidance of discrete diffusion on molecules (QM9), by the number of rings",
    columns=columns(
        ("novel", "new molecules of a set", ".1f"),
        ("rings", "rings of new ones", ".3f"),
        ("valid_rings", "rings of valid ones", ".3f"),
        ("valid", "valid", ".1f"),
        ("unique", "different molecules", ".1f"),
        ("novel_strings", "new strings", ".1f"),
        "samples",
        ("lookahead_reward", "rings of lookahead samples (invalid: 0)", ".3f"),
        ("nats_per_token", "NELBO (nats/token)", ".4f"),
        "evaluations",
        ("seconds_per_sample", "s/sample", ".4f"),
    ),
    published={
        BASE: {"novel": 130, "rings": 2.192, "valid_rings": 1.753},
        "LiDAR 16": {"novel": 205, "rings": 3.034, "valid_rings": 2.601},
        "LiDAR 1024": {"novel": 251, "rings": 3.948, "valid_rings": 3.393},
        "LiDAR 4096": {"novel": 257, "rings": 4.128, "valid_rings": 3.067},
    },
    comparable=("paper",),
    tolerance={"novel": 30, "rings": 0.3, "valid_rings": 0.3},
    plots=(
        dict(
            name="rings",
            title="Rings by the number of lookahead samples",
            xlabel="lookahead samples n",
            ylabel="rings of a molecule",
            series=tuple(
                (label, key, tuple((f"LiDAR {count}", count) for count in COUNTS))
                for label, key in (("valid molecules", "valid_rings"), ("new molecules", "rings"))
            ),
            references=tuple((name, "valid_rings", name) for name in (BASE, "best of 4", "FK 4")),
        ),
    ),
    notes=(
        "The target of every method is p(x) exp(1.5 r(x)) with the number of rings r. LiDAR n draws n lookahead "
        "samples in 8 steps for each set of samples; their rewards are RDKit's, and 0 for an invalid string, which "
        "is inferred. Its guide is the published one, which weighs a token by the rewards of the lookahead samples "
        "that have it at its position; `by sequence`, which is inferred, also weighs how well they agree with the "
        "other tokens. `best of 4` keeps the one of four samples with the most rings. FK steers groups of four "
        "particles, whose copies count as samples, by the pairs of ring labels in an estimate of the molecule, which "
        "needs no valid one. Rings are RDKit's symmetrized smallest set of smallest rings; pairs of labels are as "
        "many as the set itself, without more rings of bridges and cages. New molecules are not in the training split. "
        "Published counts are out of a number of samples that is not stated (UDLM's is 1,024), and may compare "
        "spellings instead of molecules; published rings of all are taken to be of all valid ones. NFE and seconds "
        "include lookahead samples and rewards, shared out over a set, and all samples of which the best is kept."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("lidar_molecules", variant)
    qm9(config)
    config.process.name, config.objective.name, config.model.time_conditioning = "uniform", "nelbo", True
    config.sample.steps = 4 if variant == "debug" else 32
    if variant == "local":
        config.seeds, config.data.length = (0, 1, 2), 28
        config.train.update(steps=900, batch=64, evaluate_every=300, checkpoint_every=300)
        config.sample.update(count=256, repeats=1, batch=256)
    return config


def rows(config):
    counts = PARTICLES[config.variant]
    yield held_out("Held-out molecules", seeds=1)
    yield evaluated(BASE) | {"verbs": ("evaluate", "sample")}
    yield sampled("best of 4", {f"{FIELDS}.method": "best_of", f"{FIELDS}.best_of": 4}, pictured=False)
    yield sampled("FK 4", {f"{FIELDS}.method": "steering", f"{FIELDS}.steering.particles": 4}, pictured=False)
    for count in counts:
        lidar = {f"{FIELDS}.method": "lidar", f"{FIELDS}.lookahead.particles": count}
        yield sampled(f"LiDAR {count}", lidar, pictured=count == counts[-1])
        if count == counts[-1]:
            sequence = lidar | {f"{FIELDS}.lookahead.kernel": "sequence"}
            yield sampled(f"LiDAR {count}, by sequence", sequence, pictured=False)
