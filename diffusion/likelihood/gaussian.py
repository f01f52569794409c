"""The variational bound of Gaussian diffusion, for continuous data and for discrete pixel values, in nats."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.codecs.subtokens import PixelCodec
from diffusion.processes.gaussian import Data, GaussianDiffusion
from diffusion.rng import Draws, fold, normal, uniform
from diffusion.sampling.gaussian.sampler import Carry, Predict, flat
from diffusion.sampling.gaussian.solvers import TimeGrid, ddim, gaussian_grid
from diffusion.types import Keys, LossMask, Times, Tokens


def gaussian_bound(
    predict: Predict, keys: Keys, clean: Data, path: TimeGrid, carry: Carry = None
) -> Float[Array, " B"]:
    """Draw a bound on -log p(x_0), with p the density of ancestral sampling along `path`, in nats per example.

    The bound is KL(q(x_1 | x_0) || N(0, I)) + sum_k (SNR_{k+1} - SNR_k) / 2 ||x_0 - x_0(x_k)||^2 - log N(x_0; x_0(x_N),
    sigma_N^2 / alpha_N^2 I) with SNR = alpha^2 / sigma^2 (Kingma et al., arXiv 2107.00630, Eq. 13). The noise of the
    terms is independent. In expectation this is a bound for every prediction; for the exact one it is tight in the
    limit of many points and a small last noise level. The last point of the path is clean, and is not used.
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


@dataclass(frozen=True)
class PixelBound:
    """An estimator that draws a bound on -log P(tokens) of Gaussian diffusion, in nats per example.

    -log P(x) <= E_u[-log p(x + w u)] - L log w, where P is the mass of the density on the cells of width w around the
    values of the tokens, and u is uniform in [-1/2, 1/2]^L (Theis et al., arXiv 1511.01844). The bound is valid for
    every network, and loose if the last noise of the path is wider than a cell: in Stable Diffusion's chain it covers
    7 of 256 values.
    """

    codec: PixelCodec
    path: TimeGrid

    def __call__(
        self,
        denoise: Callable[[Data, Times], Data],
        process: GaussianDiffusion,
        tokens: Tokens,
        weights: LossMask,
        draws: Draws,
    ) -> Float[Array, " B"]:
        """Draw the bound; all tokens count, whatever their weights."""
        del weights

        def predict(x: Data, row, carry: Carry) -> tuple[Data, Carry]:
            prediction = denoise(x, jnp.full(len(x), row.time))
            return process.clean(prediction, x, row.alpha, row.sigma), carry

        clean = self.codec.encode(tokens)
        offsets = uniform(fold(draws.keys, "cell"), clean.shape[1:], -0.5, 0.5)
        dequantized = clean + self.codec.step * offsets
        return gaussian_bound(predict, draws.keys, dequantized, self.path) - tokens.shape[1] * np.log(self.codec.step)
