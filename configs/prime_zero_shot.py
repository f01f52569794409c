"""Zero-shot perplexity of the models of prime_text on seven other corpora, by valid bounds.

The trainings are those of prime_text and are shared with it. `paper` needs --config.data.path,
--config.data.tokenizer_path and the path of each set, such as --config.evaluate.zero_shot.ptb.path=FOLDER; at other
scales a missing set is an empty column.
"""

from configs.base import defaults
from configs.recipes.prime import DIGITS, FIGURES, at_prime_scale, baseline, models
from configs.recipes.table import evaluated
from configs.recipes.zero_shot import AR, COLUMNS, MDLM, TOLERANCE, figures, score_zero_shot

TABLE = dict(
    title="MDM-Prime, zero-shot perplexity (valid bounds)",
    figures=FIGURES,
    columns=(("perplexity", "perplexity (ours, valid bound)", ".2f"), *COLUMNS),
    published={"AR": figures(17.54, AR), "MDLM": figures(22.98, MDLM)},
    comparable=("paper",),
    tolerance=TOLERANCE,
    notes=(
        "The first two columns are OpenWebText's, see prime_text. The MDM-Prime paper prints zero-shot perplexities "
        "too; those of Prime are exp(joint_ce), which is not a perplexity, and its authors have withdrawn the "
        "table. The "
        "numbers were not found, and corrected ones have not been published, so the cells are empty. AR's and MDLM's "
        "zero-shot figures are those of MDLM's paper (arXiv 2406.07524), as recalled, not checked; 17.54 and 22.98 on "
        "OpenWebText are the MDM-Prime paper's own baselines. Each set is scored on the split that the public MDLM "
        "code uses, detokenized, wrapped with BOS and EOS."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("prime_zero_shot", variant)
    at_prime_scale(config)
    score_zero_shot(config, required=variant == "paper")
    return config


def rows(config):
    yield evaluated("AR", baseline(config))
    for name, _, overrides, _ in models(DIGITS[config.variant]):
        yield evaluated(name, overrides)
