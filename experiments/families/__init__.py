"""ConfigDict to objects: the only place that maps names to functions."""

from experiments.families.error_prediction import judge_system, system
from experiments.families.flops import forward_flops, training_flops
from experiments.families.masked import NETS, SCHEDULES, System
from experiments.families.masked_sampling import POLICIES, questions, sampler, sampling_steps
from experiments.families.training import OBJECTIVES, estimate, estimators, objective, optimizer, settings

__all__ = [
    "NETS",
    "OBJECTIVES",
    "POLICIES",
    "SCHEDULES",
    "System",
    "estimate",
    "estimators",
    "forward_flops",
    "judge_system",
    "objective",
    "optimizer",
    "questions",
    "sampler",
    "sampling_steps",
    "settings",
    "system",
    "training_flops",
]
