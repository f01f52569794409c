"""Tensors of files of `torch.save`, read without PyTorch and without running code of the file.

Such a file is a zip archive with NAME/data.pkl, a pickle in which every storage of a tensor is a persistent id
("storage", type, key, device, size), and the bytes of the storages as NAME/data/KEY.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Storage(NamedTuple):
    """The storage of a tensor: where its values are in which file, how many there are, and of which type."""

    path: Path
    position: int
    values: int
    dtype: np.dtype


class StoredTensor(NamedTuple):
    """A tensor in a file: its storage, and its first element and strides there, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Return the values.

        Raises:
          ValueError: if the file does not hold all of them.
        """
        path, position, values, dtype = self.storage
        if 0 in self.shape:
            return np.zeros(self.shape, dtype)
        count = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        # Strides of 0 would let a small file stand for an array that no memory holds.
        exceeds = self.offset + count > values or math.prod(self.shape) > values
        if min(self.offset, *self.strides, 0) < 0 or exceeds:
            raise ValueError(f"checkpoint: '{path}' is damaged: a tensor exceeds the {values} values of its storage")
        start = position + self.offset * dtype.itemsize
        data = np.fromfile(path, np.uint8, count * dtype.itemsize, offset=start).view(dtype)
        steps = [step * dtype.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(data, self.shape, steps).copy()


class Inert:
    """A placeholder for an object of a class that is not loaded, which ignores its arguments, items and state."""

    def __init__(self, *args, **kwargs):
        pass

    __setstate__ = __setitem__ = append = extend = __init__


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any) -> StoredTensor:
    tensor = StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if not isinstance(storage, Storage) or len(tensor.shape) != len(tensor.strides) or min(tensor.shape, default=0) < 0:
        raise pickle.UnpicklingError("a tensor without a shape or a storage")
    return tensor


def _parameter(tensor: Any, *unused: Any) -> Any:
    return tensor


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    **{("torch", name): np.dtype(kind) for name, kind in STORAGES.items()},
    **{("builtins", kind.__name__): kind for kind in (dict, list, set, tuple, int, float, str, bool)},
}


class TensorUnpickler(pickle.Unpickler):
    """Reads tensors and plain containers only: other classes and functions are placeholders and never called."""

    def __init__(self, pickled: Any, storage: Callable[[str, np.dtype], Storage]):
        super().__init__(pickled)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        return ALLOWED.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("a tensor of an unknown type")
        return self.storage(key, dtype)


def is_zip(path: Path) -> bool:
    """Whether the file is one of `torch.save` since PyTorch 1.6, a zip archive."""
    return zipfile.is_zipfile(path)


def read_zip(path: Path) -> Any:
    """Return the object of a file of `torch.save`, with a `StoredTensor` for each tensor.

    Raises:
      ValueError: if the file is not readable.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise ValueError("not one data.pkl")
            if f"{roots[0]}/byteorder" in names and archive.read(f"{roots[0]}/byteorder") != b"little":
                raise ValueError("not little-endian")

            def storage(key: str, dtype: np.dtype) -> Storage:
                member = archive.getinfo(f"{roots[0]}/data/{key}")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("compressed")
                # The values follow the header of the member, of 30 bytes, its name, and padding.
                file.seek(member.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                position = member.header_offset + 30 + sum(lengths)
                return Storage(path, position, member.file_size // dtype.itemsize, dtype)

            return TensorUnpickler(io.BytesIO(archive.read(f"{roots[0]}/data.pkl")), storage).load()
    except Exception as error:  # a damaged pickle may raise any exception
        raise ValueError(f"checkpoint: '{path}' is not a readable PyTorch file ({first_line(error)})") from None


def read_legacy(path: Path) -> Any:
    """Return the object of a file of `torch.save` before PyTorch 1.6, read by PyTorch, with numpy arrays for tensors.

    Raises:
      ValueError: if PyTorch is not installed, or does not read the file as tensors and plain containers.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"checkpoint: '{path}' is damaged, or from before PyTorch 1.6 and needs it; pip install torch, or give a "
            ".safetensors file"
        ) from None

    def arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: arrays(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [arrays(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        if value.dtype == torch.bfloat16:
            return value.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return value.detach().numpy()

    try:
        return arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(f"checkpoint: '{path}' is not a readable PyTorch file ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """Return the start of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
