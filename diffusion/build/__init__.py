"""ConfigDict to objects: the only place that maps names to functions."""

from diffusion.build.flops import forward_flops, training_flops
from diffusion.build.predictors import judge_system, system
from diffusion.build.samplers import POLICIES, questions, sampler, sampling_steps
from diffusion.build.systems import NETS, SCHEDULES, System
from diffusion.build.training import OBJECTIVES, estimate, estimators, objective, optimizer, settings

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
