"""What token sequences are sampled with: a denoiser, and maybe a masked planner beside it (P2)."""

from typing import NamedTuple

from ml_collections import ConfigDict

from diffusion.types import Params
from experiments.families import System
from experiments.families.error_prediction import planned
from experiments.run_context import Run


class Sampled(NamedTuple):
    """The network of a sampler, its parameters, and the config of the planner that is part of both, if any."""

    system: System
    params: Params
    planner: ConfigDict | None


def opened(run: Run) -> Sampled:
    """The trained denoiser of a run, with the planner of `sample.remask.planner_row`.

    With a checkpoint of which both rows have the network, the planner is this checkpoint too.
    """
    params = run.weights()
    if not run.config.sample.remask.planner_row:
        return Sampled(run.system, params, None)
    config, planner, weights = run.load("planner") if "planner" in run.job.needs else (run.config, run.system, params)
    return Sampled(planned(run.system, planner), {"denoiser": params, "errors": weights}, config)
