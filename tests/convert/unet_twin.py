"""The U-Net of MDM-Prime in plain PyTorch, with the names of the public checkpoints, by appendix C of ADM's paper."""

import torch
import torch.nn.functional as F
from torch import nn


class Constant(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding_table = nn.Parameter(torch.randn(1, width))


class Block(nn.Module):
    def __init__(self, inputs, outputs, groups):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, inputs), nn.SiLU(), conv)
        self.emb_layers = Constant(2 * outputs)
        conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(groups, outputs), nn.SiLU(), nn.Dropout(0.4), conv)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        scale, shift = self.emb_layers.embedding_table[..., None, None].chunk(2, dim=1)
        h = self.out_layers[0](self.in_layers(x)) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class Attention(nn.Module):
    def __init__(self, channels, head_channels, groups):
        super().__init__()
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        batch, channels = x.shape[:2]
        flat = x.flatten(2)
        parts = self.qkv(self.norm(flat)).chunk(3, dim=1)
        query, key, value = (part.reshape(batch, self.heads, -1, flat.shape[-1]).mT for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value).mT.reshape(batch, channels, -1)
        return (flat + self.proj_out(mixed)).view_as(x)


class UNet(nn.Module):
    """`widths` per level, attention where the feature maps are smaller by a factor among `attends`."""

    def __init__(self, first, widths, res_blocks, attends, outputs, head_channels, groups):
        super().__init__()

        def blocks(inputs, outputs, factor, *more):
            attention = [Attention(outputs, head_channels, groups)] if factor in attends else []
            return nn.Sequential(Block(inputs, outputs, groups), *attention, *more)

        self.input_blocks, stored, width = nn.ModuleList([nn.Sequential(nn.Identity())]), [first], first
        for level, wide in enumerate(widths):
            for _ in range(res_blocks):
                self.input_blocks.append(blocks(width, wide, 2**level))
                width = wide
                stored.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.Sequential(nn.AvgPool2d(2)))
                stored.append(width)
        attention = Attention(width, head_channels, groups)
        self.middle_block = nn.Sequential(Block(width, width, groups), attention, Block(width, width, groups))
        self.output_blocks = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            for number in range(res_blocks + 1):
                rise = [nn.Upsample(scale_factor=2)] if level and number == res_blocks else []
                self.output_blocks.append(blocks(width + stored.pop(), wide, 2**level, *rise))
                width = wide
        self.out = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x):
        stored = []
        for block in self.input_blocks:
            x = block(x)
            stored.append(x)
        x = self.middle_block(x)
        for block in self.output_blocks:
            x = block(torch.cat([x, stored.pop()], dim=1))
        return self.out(x)


class Pixels(nn.Module):
    def __init__(self, rows, width):
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)


class Twin(nn.Module):
    """Logits [B, (c h w), K] for sub-tokens [B, (c h w l)], by way of the published layout of planes (c l), h, w."""

    def __init__(self, colors, digits, rows, width, classes, **sizes):
        super().__init__()
        self.colors, self.digits = colors, digits
        self.pixel_embedding = Pixels(rows, width)
        self.unet = UNet(colors * digits * width, outputs=colors * classes, **sizes)

    def forward(self, state, side):
        planes = state.view(-1, self.colors, side, side, self.digits).permute(0, 1, 4, 2, 3).flatten(1, 2)
        embedded = self.pixel_embedding.embedding_table(planes).permute(0, 1, 4, 2, 3).flatten(1, 2)
        logits = self.unet(embedded)
        return logits.view(len(state), self.colors, -1, side * side).mT.flatten(1, 2)


class Averaged(nn.Module):
    """The state of the published training code: the network, and the average of its parameters."""

    def __init__(self, model, average):
        super().__init__()
        self.model = model
        self.register_buffer("num_updates", torch.tensor(3))
        self.shadow_params = nn.ParameterList([each.detach().clone() for each in average.parameters()])
