"""Exact denoisers of known distributions: a Gaussian mixture on a line, and sets of images with a little noise."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion.data.synthetic import MIXTURE
from diffusion.oracles import mixture as oracle
from diffusion.sampling.gaussian.sampler import Predict


class ExactModel(nn.Module):
    """Stands for the network of a model without parameters."""


def no_denoiser(params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
    """Stands for the denoiser of an exact model, whose distribution predicts; raises NotImplementedError."""
    raise NotImplementedError("an exact model has no network")


def reference_mixture() -> oracle.Mixture:
    """The distribution that `data.source=gaussian_mixture` draws from."""
    weights, means, deviations = MIXTURE
    return oracle.mixture(weights, means, [each**2 for each in deviations])


def exact_prediction(mixture: oracle.Mixture) -> Predict:
    """The exact denoiser of a mixture."""
    return lambda x, row, carry: (oracle.clean(mixture, x, row.alpha, row.sigma), carry)


def exact_images(pools: Any, deviation: float) -> Predict:
    """Exact denoisers of P sets of M images [P, M, D] with noise of `deviation`; consecutive states share one."""

    def predict(x, row, carry):
        groups = x.reshape(len(pools), -1, pools.shape[-1])
        weights, variances = jnp.zeros(pools.shape[1]), jnp.full(pools.shape[1], deviation**2)

        def one(means, x):
            return oracle.clean(oracle.Mixture(weights, means, variances), x, row.alpha, row.sigma)

        return jax.vmap(one)(pools, groups).reshape(x.shape), carry

    return predict
