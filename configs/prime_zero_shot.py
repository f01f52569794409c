"""Zero-shot perplexity of the models of prime_text on seven other corpora, by valid bounds.

The trainings are those of prime_text, and are shared with it. `paper` needs --config.data.path,
--config.data.tokenizer_path and each set's own path, such as --config.evaluate.zero_shot.ptb.path=FOLDER; elsewhere a
set that is not there leaves an empty column.
"""

from configs import mdlm_owt
from configs.base import defaults
from configs.mdlm_owt import TITLES, ZERO_SHOT, ZERO_SHOT_AR, ZERO_SHOT_MDLM, figures, zero_shot
from configs.prime_text import DIGITS, FIGURES, baseline, models, recipe

TABLE = dict(
    title="MDM-Prime, zero-shot perplexity (valid bounds)",
    figures=FIGURES,
    columns=(
        ("perplexity", "perplexity (ours, valid bound)", ".2f"),
        *((f"{name}_perplexity", title, ".2f") for name, title in zip(ZERO_SHOT, TITLES, strict=True)),
    ),
    published={"AR": figures(17.54, ZERO_SHOT_AR), "MDLM": figures(22.98, ZERO_SHOT_MDLM)},
    comparable=("paper",),
    tolerance=mdlm_owt.TABLE["tolerance"],
    notes=(
        "The first two columns are OpenWebText's, see prime_text. The MDM-Prime paper prints zero-shot perplexities "
        "too; those of Prime are exp(joint_ce), which is no perplexity, and its authors have withdrawn the table. The "
        "numbers were not found, and corrected ones have not been published, so the cells are empty. AR's and MDLM's "
        "zero-shot figures are those of MDLM's paper (arXiv 2406.07524), as recalled, not checked; 17.54 and 22.98 on "
        "OpenWebText are the MDM-Prime paper's own baselines. Each set is scored on the split that the public MDLM "
        "code uses, detokenized, wrapped with BOS and EOS."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("prime_zero_shot", variant)
    recipe(config)
    zero_shot(config, required=variant == "paper")
    return config


def rows(config):
    yield dict(name="AR", overrides=baseline(config), verbs=("evaluate",))
    for name, _, overrides, _ in models(DIGITS[config.variant]):
        yield dict(name=name, overrides=overrides, verbs=("evaluate",))
