"""PyTorch's sides of the benchmark: training steps and samplers of MDLM with the same network.

"reference" does no more than is needed with whole arrays: one cross-entropy, fused AdamW, and one race of exponentials
per token. "public" passes over [B, L, V] as the public code of MDLM does (arXiv 2406.07524): logits are normalized, the
rows of known positions are replaced, and the sampler forms the probabilities of the next state with its mask and copies
known tokens. "compiled" is "reference" under `torch.compile`, with the optimizer outside of it.
"""

import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from experiments.benchmarks.torch_reference import DiT

PEERS = ("reference", "public", "compiled")


def matmul_seconds(size: int, repeats: int) -> list[float]:
    """Seconds of float32 products of two square matrices."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    left, right, seconds = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def masked_loss(logits: Any, noisy: Any, tokens: Any, mask_id: int) -> Any:
    """-log p of every token at masked positions, 0 at others, in nats."""
    logits = logits.float()
    logits[..., mask_id] = -1e6
    nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
    return nats * (noisy == mask_id)


def substituted(logits: Any, noisy: Any, mask_id: int) -> Any:
    """log p of every token at every position, in which a known position has its own token (SUBS)."""
    logits = logits.float()
    logits[..., mask_id] = -1e6
    logits = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    known = noisy != mask_id
    logits[known] = -1e6
    logits[known, noisy[known]] = 0
    return logits


def tasks(
    peer: str, shape: dict[str, int], steps: int, sampler_steps: int, *, dropout: float, dtype: str
) -> dict[str, Callable[[], None]]:
    """Training of `steps` steps and sampling of `sampler_steps` steps by a peer."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    batch, length, mask_id = shape["batch"], shape["length"], shape["vocab_size"] - 1
    sizes: dict[str, Any] = {name: shape[name] for name in ("vocab_size", "hidden", "blocks", "heads")}
    net = DiT(**sizes, dropout=dropout).to(device)
    average = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-4, fused=True)
    tokens = torch.randint(0, mask_id, (batch, length), device=device)
    sigma = torch.zeros(batch, device=device)
    low = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
    public = peer == "public"

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def loss_of(noisy: Any, times: Any) -> Any:
        with low:
            logits = net(noisy, sigma)
        if public:
            log_p = substituted(logits, noisy, mask_id)
            nats = -torch.gather(log_p, -1, tokens[:, :, None])[..., 0]
        else:
            nats = masked_loss(logits, noisy, tokens, mask_id)
        return (nats / times[:, None]).sum() / tokens.numel()

    def probabilities(noisy: Any) -> Any:
        with low:
            logits = net(noisy, sigma)
        logits = logits.float()
        logits[..., mask_id] = -1e6
        return logits.softmax(-1)

    if peer == "compiled":
        loss_of, probabilities = torch.compile(loss_of), torch.compile(probabilities)

    def training() -> None:
        net.train()
        for _ in range(steps):
            uniform = (torch.rand(1, device=device) + torch.arange(batch, device=device) / batch) % 1
            times = 1e-3 + (1 - 1e-3) * uniform
            masked = torch.rand(batch, length, device=device) < times[:, None]
            optimizer.zero_grad()
            loss_of(torch.where(masked, mask_id, tokens), times).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, list(net.parameters()), 1e-4)
        wait()

    def drawn_by_public(noisy: Any, now: float, then: float) -> Any:
        with low:
            logits = net(noisy, sigma)
        masses = substituted(logits, noisy, mask_id).exp() * (now - then)
        masses[..., mask_id] = then
        noise = 1e-10 - (torch.rand_like(masses) + 1e-10).log()
        drawn = (masses / noise).argmax(-1)
        return torch.where(noisy == mask_id, drawn, noisy)

    def drawn_by_reference(noisy: Any, now: float, then: float) -> Any:
        masses = probabilities(noisy)
        # Faster than exponential_(), which draws one number at a time.
        drawn = (masses / torch.rand_like(masses).log_().neg_()).argmax(-1)
        reveal = (noisy == mask_id) & (torch.rand(batch, length, device=device) >= then / now)
        return torch.where(reveal, drawn, noisy)

    @torch.inference_mode()
    def sampling() -> None:
        net.eval()
        noisy = torch.full((batch, length), mask_id, device=device)
        times = torch.linspace(1, 1e-5, sampler_steps + 1).tolist()
        for now, then in pairwise(times):
            noisy = (drawn_by_public if public else drawn_by_reference)(noisy, now, then)
        wait()

    return {"training": training, "sampling": sampling}
