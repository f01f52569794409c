"""Times, mask levels and rules as in the public code of ReMDM, where they differ from the paper's equations.

Its survival probability at time t is 1 - t, without the schedule's epsilon; a step of ReMDM-loop continues the phase in
which it begins; the corrector of discrete flow matching takes shorter and more steps; and the last step of
forward-backward masks more than its posterior can. `grid` takes times and levels from here.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from diffusion.sampling.masked.remasking import Rates, StepAlphas, divide_or_one
from diffusion.schedules.masking import Loop

# Mask levels at the beginning and the end of each of N steps, from their T = N + 1 times.
StepLevels = Callable[[Float[np.ndarray, " T"]], tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]]


def raw_levels(times: Float[np.ndarray, " T"]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return the mask levels 1 - alpha = t at both ends of each step."""
    return times[:-1], times[1:]


def loop_levels(loop: Loop) -> StepLevels:
    """Return the levels of ReMDM-loop, where both ends of a step have the formula of the phase in which it begins.

    For t > t_on it is 1 - (1 - level)(1 - x) / (1 - t_on), for t <= t_off it is level x / t_off, and `level` between
    them. The step into the plateau therefore ends below its level, and the step out of it ends at the level.
    """

    def levels(times):
        phase = [times[:-1] > loop.t_on, times[:-1] <= loop.t_off]

        def at(time):
            above = 1 - (1 - loop.level) * (1 - time) / (1 - loop.t_on)
            return np.select(phase, [above, loop.level * time / loop.t_off], loop.level)

        return at(times[:-1]), at(times[1:])

    return levels


def discrete_flow_times(steps: int, end: float) -> Float[np.ndarray, " T"]:
    """Return the times of the corrector of discrete flow matching, which are more than `steps` + 1.

    With A = 10 t^(1/4) (1 - t)^(1/4) + 1 and B = A - 1, a step from t is min(1 / steps, 1 / (A / t + B / (1 - t)))
    long, so that its two probabilities sum to 1 at most. The last time is the first one of at most (1 - end) / steps.
    """
    times = [1.0]
    while times[-1] > (1 - end) / steps:
        time = times[-1]
        width = 1 / steps
        if time < 1:
            forward = 10 * (time * (1 - time)) ** 0.25 + 1
            width = min(width, 1 / (forward / time + (forward - 1) / (1 - time)))
        times.append(time - width)
    return np.array(times)


def forward_backward(levels: StepAlphas) -> Rates:
    """Return sigma = (alpha_s - alpha_t) / alpha_t without the limit sigma_max, which it exceeds in the last step."""
    sigma = divide_or_one(levels.next_alpha - levels.alpha, levels.alpha)
    sigma = np.where(levels.window, np.minimum(sigma, 1), 0)
    keep = (1 - levels.next_alpha - sigma * levels.alpha) / (1 - levels.alpha)
    return Rates(np.clip(keep, 0, 1), sigma)
