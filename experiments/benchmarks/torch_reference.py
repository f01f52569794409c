"""Networks in plain PyTorch with the parameter names of the public checkpoints, for tests and the benchmark.

The code follows the descriptions in the papers; PyTorch is an optional dependency.
"""

import math

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]


class ScaleNorm(nn.Module):
    """Layer norm in float32 with a scale and without a bias."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.layer_norm(x.float(), (x.shape[-1],), self.weight)


class Embedding(nn.Module):
    def __init__(self, rows: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width)))

    def forward(self, tokens):
        return F.embedding(tokens, self.embedding)


class TimeEmbedder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, sigma):
        frequencies = torch.exp(-math.log(10000.0) / 128 * torch.arange(128, device=sigma.device))
        angles = sigma[:, None].float() * frequencies[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class Rotary(nn.Module):
    def __init__(self, head_dim: int):
        super().__init__()
        self.register_buffer("inv_freq", 10000.0 ** (-torch.arange(0, head_dim, 2).float() / head_dim))

    def forward(self, length: int):
        angles = torch.arange(length, device=self.inv_freq.device).float()[:, None] * self.inv_freq[None]
        return angles.cos(), angles.sin()


def rotate(x, cosine, sine):
    """Half-split rotation of [B, H, L, D]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def zero_linear(inputs: int, outputs: int):
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int, cond_dim: int, dropout: float, causal: bool, adaln: bool):
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.norm1 = ScaleNorm(hidden)
        self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = ScaleNorm(hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden)
        )
        self.adaLN_modulation = zero_linear(cond_dim, 6 * hidden) if adaln else None

    def forward(self, x, condition, cosine, sine):
        batch, length, hidden = x.shape
        shift1 = scale1 = shift2 = scale2 = 0.0
        gate1 = gate2 = 1.0
        if self.adaLN_modulation is not None:
            modulation = self.adaLN_modulation(condition)[:, None]
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        h = self.norm1(x) * (1 + scale1) + shift1 if self.adaLN_modulation is not None else self.norm1(x)
        qkv = self.attn_qkv(h).view(batch, length, 3, self.heads, hidden // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        h = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        h = self.attn_out(h.transpose(1, 2).reshape(batch, length, hidden))
        x = x + gate1 * F.dropout(h, self.dropout, self.training)
        h = self.norm2(x) * (1 + scale2) + shift2 if self.adaLN_modulation is not None else self.norm2(x)
        return x + gate2 * F.dropout(self.mlp(h), self.dropout, self.training)


class Head(nn.Module):
    def __init__(self, hidden: int, vocab_size: int, cond_dim: int, adaln: bool):
        super().__init__()
        self.norm_final = ScaleNorm(hidden)
        self.linear = zero_linear(hidden, vocab_size)
        self.adaLN_modulation = zero_linear(cond_dim, 2 * hidden) if adaln else None

    def forward(self, x, condition):
        h = self.norm_final(x)
        if self.adaLN_modulation is not None:
            shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
            h = h * (1 + scale) + shift
        return self.linear(h)


class DiT(nn.Module):
    """Transformer of MDLM; with causal=True and adaln=False its autoregressive baseline."""

    def __init__(
        self,
        vocab_size: int,
        hidden: int,
        blocks: int,
        heads: int,
        cond_dim: int = 128,
        dropout: float = 0.1,
        causal: bool = False,
        adaln: bool = True,
    ):
        super().__init__()
        self.vocab_embed = Embedding(vocab_size, hidden)
        self.sigma_map = TimeEmbedder(cond_dim) if adaln else None
        self.rotary_emb = Rotary(hidden // heads)
        self.blocks = nn.ModuleList(Block(hidden, heads, cond_dim, dropout, causal, adaln) for _ in range(blocks))
        self.output_layer = Head(hidden, vocab_size, cond_dim, adaln)

    def forward(self, tokens, sigma=None):
        x = self.vocab_embed(tokens)
        condition = F.silu(self.sigma_map(sigma)) if self.sigma_map is not None else None
        cosine, sine = self.rotary_emb(tokens.shape[1])
        for block in self.blocks:
            x = block(x, condition, cosine, sine)
        return self.output_layer(x, condition)


class Conv1D(nn.Module):
    """Linear layer of GPT-2, whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class GPT2Block(nn.Module):
    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attn = nn.ModuleDict({"c_attn": Conv1D(hidden, 3 * hidden), "c_proj": Conv1D(hidden, hidden)})
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(hidden, 4 * hidden), "c_proj": Conv1D(4 * hidden, hidden)})

    def forward(self, x):
        batch, length, hidden = x.shape
        qkv = self.attn["c_attn"](self.ln_1(x)).view(batch, length, 3, self.heads, -1)
        h = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.attn["c_proj"](h.transpose(1, 2).reshape(batch, length, hidden))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, vocab_size: int, context: int, hidden: int, blocks: int, heads: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, hidden), nn.Embedding(context, hidden)
        self.h = nn.ModuleList(GPT2Block(hidden, heads) for _ in range(blocks))
        self.ln_f = nn.LayerNorm(hidden)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))[None]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def perturb(model: nn.Module, seed: int = 0, scale: float = 0.1) -> nn.Module:
    """Add noise to every parameter, so that a zero-initialized tensor does not hide an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model
