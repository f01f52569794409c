"""Named tensors of safetensors and PyTorch files, with checks that each is used exactly once."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

Tensors = dict[str, np.ndarray]


def read_tensors(path: str | Path) -> Tensors:
    """Return the tensors of a .safetensors, .pt, .pth, .ckpt or .bin file, or of a folder with one, as float32.

    From a Lightning checkpoint the exponential moving average is read if it is present.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not readable.
    """
    path = Path(path)
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        files = [path / name for name in names if (path / name).is_file()]
        if not files:
            raise FileNotFoundError(f"checkpoint: '{path}' holds neither {' nor '.join(names)}; name the file itself")
        path = files[0]
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: '{path}' does not exist; pass --checkpoint=FILE")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return _state(_read_torch(path), path)
    raise ValueError(f"checkpoint: '{path}' has an unknown ending; use .safetensors, .pt, .pth, .ckpt or .bin")


def _read_safetensors(path: Path) -> Tensors:
    import ml_dtypes  # noqa: F401  (lets numpy hold bfloat16)
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"checkpoint: '{path}' is not a readable safetensors file ({error})") from None
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}


def _read_torch(path: Path) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"checkpoint: reading '{path}' needs PyTorch; pip install torch, or give a .safetensors file"
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle, or one of other objects than tensors, may raise any exception
        pass
    try:
        # Training checkpoints also contain configuration objects, which are read as inert placeholders.
        module = SimpleNamespace(Unpickler=_TensorUnpickler, __name__="pickle")
        module.load = lambda file, **options: _TensorUnpickler(file, **options).load()
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"checkpoint: '{path}' is not a readable PyTorch file ({reason})") from None


class _Inert:
    """A placeholder for an object of a class that is not loaded, which ignores its arguments, items and state."""

    def __init__(self, *args, **kwargs):
        pass

    __setstate__ = __setitem__ = append = extend = __init__


class _TensorUnpickler(pickle.Unpickler):
    """Reads tensors and plain containers only, so that a checkpoint cannot run code."""

    allowed = frozenset(
        {("collections", "OrderedDict"), ("torch", "Size"), ("torch.nn.parameter", "Parameter")}
        | {("torch._utils", name) for name in ("_rebuild_tensor_v2", "_rebuild_parameter")}
        | {("torch", name) for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")}
        | {("builtins", name) for name in ("dict", "list", "set", "tuple", "int", "float", "str", "bool")}
    )

    def find_class(self, module, name):
        return super().find_class(module, name) if (module, name) in self.allowed else _Inert


def _state(loaded: Any, path: Path) -> Tensors:
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint: '{path}' is not a mapping of names to tensors; save a state_dict")
    state = dict(loaded.get("state_dict", loaded))
    shadow = loaded["ema"]["shadow_params"] if "state_dict" in loaded and loaded.get("ema") else None
    if shadow is not None:
        # The average is a list in the order of the module's parameters; buffers have no entry in it.
        names = [name for name in state if not is_buffer(name)]
        if [tuple(state[name].shape) for name in names] != [tuple(value.shape) for value in shadow]:
            raise ValueError(
                f"checkpoint: the {len(shadow)} averaged tensors of '{path}' do not match its {len(names)} parameters"
            )
        state = dict(zip(names, shadow, strict=True))
    return {name: value.detach().float().numpy() for name, value in state.items() if hasattr(value, "detach")}


def is_buffer(name: str) -> bool:
    """Whether a public checkpoint's entry is a constant that the network recomputes."""
    return name.endswith(("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"))


class TensorSource:
    """Named tensors, each taken exactly once, without buffers and without `prefix` in their names.

    Its methods raise ValueError for a tensor that is missing.
    """

    def __init__(self, tensors: Tensors, prefix: str):
        self.tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if not is_buffer(name)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which is not taken."""
        if name not in self.tensors:
            raise ValueError(f"checkpoint: tensor '{name}' is missing; is this the right kind of checkpoint?")
        return self.tensors[name].shape

    def take(self, name: str, *, transpose: bool = False) -> np.ndarray:
        """Remove and return a tensor."""
        self.shape(name)
        value = self.tensors.pop(name)
        return value.T if transpose else value

    def count(self, pattern: str) -> int:
        """Return the number of consecutive tensors pattern.format(0), pattern.format(1), ..."""
        number = 0
        while pattern.format(number) in self.tensors:
            number += 1
        return number

    def stack(self, pattern: str, number: int, *, transpose: bool = False) -> np.ndarray:
        """Take the tensors pattern.format(0 .. number - 1), and stack them along a new leading axis."""
        values = [self.take(pattern.format(index), transpose=transpose) for index in range(number)]
        if len({value.shape for value in values}) != 1:
            raise ValueError(f"checkpoint: the tensors '{pattern}' differ in shape: {[v.shape for v in values]}")
        return np.stack(values)

    def finish(self) -> None:
        """Raise ValueError if tensors remain."""
        if self.tensors:
            examples = ", ".join(sorted(self.tensors)[:3])
            raise ValueError(
                f"checkpoint: {len(self.tensors)} tensors were not used ({examples}); is this the right kind?"
            )


def check_params(net: nn.Module, params: Any) -> None:
    """Raise ValueError unless the parameters have the names and shapes of the network's."""
    expected = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 1), np.int32))
    found, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, expected)
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(f"checkpoint: {name} has shape {found.get(name)} where the network has {wanted.get(name)}")
