"""ImageReward as its specification says, in torch.nn, with the names of the public checkpoint."""

from itertools import pairwise


def twin(torch, net):
    """Return the specified architecture as a module of PyTorch with the names of the public checkpoint."""
    nn = torch.nn
    image, patch, vision_width, vision_layers, vision_heads = net.vision
    vocabulary, context, width, layers, heads = net.text

    def group(**modules):
        return nn.ModuleDict(modules)

    def block():
        return group(
            norm1=nn.LayerNorm(vision_width, eps=1e-6),
            attn=group(qkv=nn.Linear(vision_width, 3 * vision_width), proj=nn.Linear(vision_width, vision_width)),
            norm2=nn.LayerNorm(vision_width, eps=1e-6),
            mlp=group(fc1=nn.Linear(vision_width, 4 * vision_width), fc2=nn.Linear(4 * vision_width, vision_width)),
        )

    def output(inputs):
        return group(dense=nn.Linear(inputs, width), LayerNorm=nn.LayerNorm(width, eps=1e-12))

    def attention(memory):
        maps = group(query=nn.Linear(width, width), key=nn.Linear(memory, width), value=nn.Linear(memory, width))
        return group(self=maps, output=output(width))

    def layer():
        return group(
            attention=attention(width),
            crossattention=attention(vision_width),
            intermediate=group(dense=nn.Linear(width, 4 * width)),
            output=output(4 * width),
        )

    def mix(query, key, value, heads, mask=None):
        query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
        return nn.functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            patches = nn.Conv2d(3, vision_width, patch, stride=patch)
            visual = group(
                patch_embed=group(proj=patches),
                blocks=nn.ModuleList([block() for _ in range(vision_layers)]),
                norm=nn.LayerNorm(vision_width, eps=1e-6),
            )
            visual.register_parameter("cls_token", nn.Parameter(torch.zeros(1, 1, vision_width)))
            positions = torch.zeros(1, (image // patch) ** 2 + 1, vision_width)
            visual.register_parameter("pos_embed", nn.Parameter(positions))
            embeddings = group(
                word_embeddings=nn.Embedding(vocabulary, width),
                position_embeddings=nn.Embedding(context, width),
                LayerNorm=nn.LayerNorm(width, eps=1e-12),
            )
            embeddings.register_buffer("position_ids", torch.arange(context)[None])
            encoder = group(layer=nn.ModuleList([layer() for _ in range(layers)]))
            text = group(embeddings=embeddings, encoder=encoder)
            self.blip = group(
                visual_encoder=visual,
                text_encoder=text,
                vision_proj=nn.Linear(vision_width, 5),
                text_proj=nn.Linear(width, 5),
            )
            sizes = (width, *net.head, 1)
            first, second, third, fourth, fifth = (nn.Linear(*pair) for pair in pairwise(sizes))
            drop = nn.Dropout
            self.mlp = group(layers=nn.Sequential(first, drop(0.2), second, drop(0.2), third, drop(0.1), fourth, fifth))

        def image_tokens(self, pixels):
            visual = self.blip["visual_encoder"]
            x = visual["patch_embed"]["proj"](pixels).flatten(2).transpose(1, 2)
            x = torch.cat([visual.cls_token.expand(len(x), -1, -1), x], dim=1) + visual.pos_embed
            for block in visual["blocks"]:
                query, key, value = block["attn"]["qkv"](block["norm1"](x)).chunk(3, dim=-1)
                x = x + block["attn"]["proj"](mix(query, key, value, vision_heads))
                x = x + block["mlp"]["fc2"](nn.functional.gelu(block["mlp"]["fc1"](block["norm2"](x))))
            return visual["norm"](x)

        def forward(self, pixels, ids, mask):
            image, text = self.image_tokens(pixels), self.blip["text_encoder"]
            embeddings = text["embeddings"]
            places = embeddings["position_embeddings"](embeddings.position_ids[:, : ids.shape[1]])
            x = embeddings["LayerNorm"](embeddings["word_embeddings"](ids) + places)
            for layer in text["encoder"]["layer"]:
                for part, memory, allowed in (
                    (layer["attention"], x, mask[:, None, None].bool()),
                    (layer["crossattention"], image, None),
                ):
                    maps, out = part["self"], part["output"]
                    h = mix(maps["query"](x), maps["key"](memory), maps["value"](memory), heads, allowed)
                    x = out["LayerNorm"](x + out["dense"](h))
                h = nn.functional.gelu(layer["intermediate"]["dense"](x))
                x = layer["output"]["LayerNorm"](x + layer["output"]["dense"](h))
            return (self.mlp["layers"](x[:, 0])[:, 0] - 0.16717362830052426) / 1.0333394966054072

    return Twin().eval()
