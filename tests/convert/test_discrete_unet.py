"""Converted U-Nets of MDM-Prime, compared with the logits of PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.convert import discrete_unet
from diffusion.nets.discrete_unet import UNet

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")

from tests.convert import unet_twin  # noqa: E402

IMAGES = {
    "2 digits": dict(colors=3, digits=2, rows=17, width=4, classes=256),
    "super-token": dict(colors=2, digits=1, rows=11, width=12, classes=11),
}
UNET = dict(widths=(12, 8), res_blocks=2, attends=(2,), head_channels=4, groups=4)


@pytest.mark.parametrize("kind", IMAGES)
def test_prime_on_images(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(discrete_unet, "HEAD_CHANNELS", 4)
    monkeypatch.setattr(discrete_unet, "GROUPS", 4)
    torch.manual_seed(0)
    model = unet_twin.Twin(**IMAGES[kind], **UNET).eval()
    state = {"model": model.state_dict(), "epoch": 3}
    if kind == "2 digits":  # the network's own tensors are not those that were averaged
        torch.manual_seed(1)
        state["model"] = unet_twin.Averaged(unet_twin.Twin(**IMAGES[kind], **UNET), model).state_dict()
    path = tmp_path / "checkpoint.pth"
    torch.save(state, path)
    sizes, params = discrete_unet.load_unet(path)
    assert sizes["digits"] == IMAGES[kind]["digits"] and sizes["classes"] == IMAGES[kind]["classes"]
    net = UNet(**sizes | {"shape": (8, 8, IMAGES[kind]["colors"])})
    noisy = np.random.default_rng(0).integers(0, sizes["base"] + 1, (2, 64 * net.shape[2] * net.digits))
    actual = jax.jit(net.apply)({"params": params}, jnp.asarray(noisy))
    with torch.no_grad():
        expected = model(torch.from_numpy(noisy), 8).numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(actual, expected, atol=2e-4)


# Digits, rows of the table, width, and the number of parameters.
PUBLISHED = {"pairs": (1, 4097, 144, 133_810_450), "3": (3, 8, 32, None), "4": (4, 5, 24, None), "8": (8, 3, 12, None)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_of_published_image_networks(name):
    digits, rows, width, count = PUBLISHED[name]
    colors, classes = (2, rows) if name == "pairs" else (3, 256)
    widths = dict(widths=(288, 384, 384), res_blocks=5, attends=(2,), head_channels=64, groups=32)
    with torch.device("meta"):
        model = unet_twin.Twin(colors, digits, rows, width, classes, **widths)
    state = {name: np.broadcast_to(np.float32(0), each.shape) for name, each in model.state_dict().items()}
    sizes = discrete_unet.sizes_of(state, name)
    published = dict(channels=96, multipliers=(3, 4, 4), res_blocks=5, attention_factors=(2,), head_size=3)
    assert sizes.items() >= (published | {"digits": digits, "embedding_channels": 144 if colors == 2 else 0}).items()
    assert count in (None, sum(each.numel() for each in model.parameters()))
