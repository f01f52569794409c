"""Remasking samplers with their settings, and error predictors.

Loop samplers draft down to a mask level of 0.1, revise the text at that level for half of their steps, and finish. Plus
samplers ("+") draft until time 0.3 and revise until the end (arXiv 2510.08369).
"""

BASE = "MDLM"
LOOP = {
    "sample.remask.schedule": "loop",
    "sample.remask.on": 0.55,
    "sample.remask.off": 0.05,
    "sample.remask.level": 0.1,
}
LATE = {"sample.remask.on": 0.3}


# Mask levels and steps as in the public code of ReMDM.
PUBLIC = {"sample.remask.public": True}


def remdm(rule: str, eta: float = 0.0) -> dict:
    """ReMDM under one of its rules."""
    return {"sample.policy": "remdm", "sample.remask.rule": rule, "sample.remask.eta": eta}


# Samplers that need the denoiser alone, with the published settings. "exact" ones follow the equations of the paper
# where the public code, whose rows have the published names, leaves them.
PLAIN = {
    "ancestral": {},
    "confidence": {"sample.policy": "confidence", "sample.noise": 1.0},
    "ReMDM-cap": remdm("cap", 0.008),
    "ReMDM-cap, eta 0.04": remdm("cap", 0.04),
    "ReMDM-rescale": remdm("rescale", 0.015),
    "ReMDM-switch": remdm("cap", 0.04) | LATE,
    "ReMDM-conf": {"sample.policy": "remdm_conf"},
    "ReMDM-loop": remdm("cap", 0.02) | LOOP | PUBLIC,
    "ReMDM-loop exact": remdm("cap", 0.02) | LOOP,
    "ReMDM-loop exact, eta 0.05": remdm("cap", 0.05) | LOOP,
    "forward-backward": remdm("forward_backward") | PUBLIC,
    "forward-backward exact": remdm("forward_backward"),
    "DFM corrector": remdm("discrete_flow") | PUBLIC,
    "DFM corrector exact": remdm("discrete_flow"),
    "P2": {"sample.policy": "p2", "sample.remask.eta": 1.0},
    "Star": {"sample.policy": "star"},
    "Star+": {"sample.policy": "star"} | LATE,
    "Star-loop": {"sample.policy": "star"} | LOOP,
    "Star-loop, coins": remdm("star") | LOOP,
    "confidence-star-loop": {"sample.policy": "confidence_star"} | LOOP,
}
# Scores and shares of known positions over time that the public code of P2 has beside those of "P2".
P2 = {
    **{f"P2, {scores} scores": PLAIN["P2"] | {"sample.remask.scores": scores} for scores in ("random", "top2")},
    **{
        f"P2, {kappa} kappa": PLAIN["P2"] | {"sample.remask.kappa": kappa}
        for kappa in ("sine", "geometric", "log", "poly2", "poly05")
    },
}
# P2 with a masked denoiser as its planner, the base itself, which scores known tokens among the proposed ones.
PLANNED = {"P2, MDLM as planner": PLAIN["P2"] | {"sample.remask.planner_row": BASE}}
# Samplers that evaluate the error predictor.
GUIDED = {
    "G-Star+": {"sample.policy": "gstar"} | LATE,
    "G-Star-loop": {"sample.policy": "gstar"} | LOOP,
    "P2, planner": {"sample.policy": "p2", "sample.remask.planner": True, "sample.remask.eta": 1.0},
}
# Share of a sampler's steps that evaluate the predictor.
PREDICTOR_SHARE = {"G-Star+": 0.3, "G-Star-loop": 0.5, "P2, planner": 1.0}
# Measured when a predictor is trained: shares of tokens of validation data, where p > 1/2 predicts an error.
PREDICTOR_COLUMNS = (
    ("validation_error_rate", "predictor: errors", ".3f"),
    ("validation_accuracy", "predictor: accuracy", ".3f"),
    ("validation_precision", "predictor: precision", ".3f"),
    ("validation_recall", "predictor: recall", ".3f"),
)
NOTES = (
    'NFE counts the denoiser\'s evaluations, the last fill too, "predictor" those of the error predictor, and GFLOP '
    "both, counted analytically per sample. "
)


def predictor(config, kind: str, base: str = BASE, **fields) -> dict:
    """Overrides of an error predictor that starts from the row `base`, without the overrides of that row."""
    training = {
        "paper": {"train.steps": 50_000, "optimizer.learning_rate": 1e-4},
        "gpu": {"train.steps": 2000, "optimizer.learning_rate": 3e-4, "optimizer.warmup": 100},
        "local": {"train.steps": 1000, "train.batch": 16, "optimizer.learning_rate": 1e-3, "optimizer.warmup": 30},
        "debug": {"train.steps": 4},
    }[config.variant]
    named = {f"predictor.{name}": value for name, value in fields.items()}
    return {"start": base, "objective.name": "errors", "predictor.kind": kind} | training | named


def predictor_cost(config, kind: str) -> float:
    """Cost of one evaluation of a predictor, in passes of the denoiser's blocks."""
    return 1 / config.model.blocks if kind == "block" else 1.0


def equal_steps(budget: int, method: str, share: float) -> int:
    """Steps of a sampler that costs `budget` denoiser evaluations, where its predictor costs `share` of one."""
    return round(budget / (1 + PREDICTOR_SHARE.get(method, 0.0) * share))
