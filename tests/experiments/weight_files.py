"""Files of random weights with the names and shapes of public checkpoints."""

import json

import numpy as np
import safetensors.numpy

from diffusion.data.subword import byte_alphabet

VOCAB, HIDDEN, BLOCKS, COND = 23, 64, 2, 16


def write(path, shapes, scale=1.0, more=()):
    """Write tensors from N(0, scale^2), and more by name, as safetensors, and return them by name."""
    random = np.random.default_rng(0)
    tensors = {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors := tensors | dict(more), path)
    return tensors


def mdlm_file(path, adaln=True, vocabulary=VOCAB, scale=1.0, table=None):
    """Write a file like that of the public MDLM, its autoregressive baseline, or MDM-Prime (with its `table`)."""
    shapes = {
        "vocab_embed.embedding": table or (vocabulary, HIDDEN),
        "output_layer.norm_final.weight": (HIDDEN,),
        "output_layer.linear.weight": (vocabulary, HIDDEN),
        "output_layer.linear.bias": (vocabulary,),
    }
    if adaln:
        shapes |= {
            "sigma_map.mlp.0.weight": (COND, 256),
            "sigma_map.mlp.0.bias": (COND,),
            "sigma_map.mlp.2.weight": (COND, COND),
            "sigma_map.mlp.2.bias": (COND,),
            "output_layer.adaLN_modulation.weight": (2 * HIDDEN, COND),
            "output_layer.adaLN_modulation.bias": (2 * HIDDEN,),
        }
    for number in range(BLOCKS):
        block = {
            "norm1.weight": (HIDDEN,),
            "norm2.weight": (HIDDEN,),
            "attn_qkv.weight": (3 * HIDDEN, HIDDEN),
            "attn_out.weight": (HIDDEN, HIDDEN),
            "mlp.0.weight": (4 * HIDDEN, HIDDEN),
            "mlp.0.bias": (4 * HIDDEN,),
            "mlp.2.weight": (HIDDEN, 4 * HIDDEN),
            "mlp.2.bias": (HIDDEN,),
        }
        if adaln:
            block |= {"adaLN_modulation.weight": (6 * HIDDEN, COND), "adaLN_modulation.bias": (6 * HIDDEN,)}
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    frequencies = {"backbone.rotary_emb.inv_freq": (10_000.0 ** -(np.arange(8) / 8)).astype(np.float32)}
    return write(path, {f"backbone.{name}": shape for name, shape in shapes.items()}, scale, frequencies)


def gpt2_file(path, vocabulary=VOCAB, context=9):
    """Write a file like that of GPT-2, with one block."""
    shapes = {"wte.weight": (vocabulary, HIDDEN), "wpe.weight": (context, HIDDEN)}
    linears = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for name, (inputs, outputs) in linears.items():
        shapes |= {f"h.0.{name}.weight": (inputs * HIDDEN, outputs * HIDDEN), f"h.0.{name}.bias": (outputs * HIDDEN,)}
    for name in ("ln_f", "h.0.ln_1", "h.0.ln_2"):
        shapes |= {f"{name}.weight": (HIDDEN,), f"{name}.bias": (HIDDEN,)}
    return write(path, shapes, 0.2)


def gpt2_vocabulary(folder):
    """Write GPT-2's files of a vocabulary of the bytes and the end of a text."""
    folder.mkdir(exist_ok=True)
    tokens = [*sorted(byte_alphabet()), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
