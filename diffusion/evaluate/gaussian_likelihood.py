"""The variational bound of Gaussian diffusion on continuous data, in nats an example."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.corrupt.gaussian import Data, normal
from diffusion.randomness import fold
from diffusion.sampling.gaussian import Carry, Predict, flat
from diffusion.sampling.solvers import Path, ddim, gaussian_grid
from diffusion.types import Keys


def gaussian_bound(predict: Predict, keys: Keys, clean: Data, path: Path, carry: Carry = None) -> Float[Array, "B"]:
    """One draw of a bound on -log p(x_0), a density, by ancestral sampling over the path's noisy points.

    KL(q(x_1 | x_0) || N(0, I)) + sum_k (SNR_{k+1} - SNR_k) / 2 ||x_0 - x_0(x_k)||^2 - log N(x_0; x_0(x_N), sigma_N^2 /
    alpha_N^2 I) with SNR = alpha^2 / sigma^2 (Kingma et al., arXiv 2107.00630, Eq. 13). Each term has noise of its own;
    in expectation it is a bound for every prediction, and tight for the exact one as points become many and the last
    noise small. The path's last point, which is clean, is not used.
    """
    alpha, sigma = path.alpha[:-1], path.sigma[:-1]
    ratio = (alpha / sigma) ** 2
    gains = np.append(np.diff(ratio) / 2, ratio[-1] / 2)
    grid, data = gaussian_grid(path, ddim(0.0)), flat(clean)
    size = data.shape[1]
    first = alpha[0] ** 2 * jnp.sum(data**2, axis=1) + size * (sigma[0] ** 2 - 1 - 2 * np.log(sigma[0]))

    def add(total, step):
        row, gain = step
        noisy = row.alpha * clean + row.sigma * normal(fold(fold(keys, "bound"), row.index), clean.shape[1:])
        error = jnp.sum((data - flat(predict(noisy, row, carry)[0])) ** 2, axis=1)
        return total + gain * error, None

    total, _ = jax.lax.scan(add, first / 2, (grid, jnp.asarray(gains, jnp.float32)))
    return total + size / 2 * np.log(2 * np.pi / ratio[-1])
