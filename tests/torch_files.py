"""Files in the format of `torch.save`, written opcode by opcode without PyTorch."""

import struct
import zipfile

import numpy as np


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def numbers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(key, kind, shape, strides, offset=0):
    """Return the pickle of a tensor whose storage is the member data/KEY, of a class such as "FloatStorage"."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + b"J\0\0\0\0tQ"
    arguments = storage + b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(strides) + b"\x89}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def call(module, name, *arguments):
    """Return the pickle of the result of a function of texts."""
    return f"c{module}\n{name}\n(".encode() + b"".join(map(text, arguments)) + b"tR"


def mapping(items):
    """Return the pickle of a dict with these pickled values."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def write(path, items, storages, byteorder=b"little"):
    """Write pickled values by name, and the storages (arrays or bytes) by key."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + mapping(items) + b".")
        archive.writestr("archive/byteorder", byteorder)
        for key, values in storages.items():
            archive.writestr(f"archive/data/{key}", values if isinstance(values, bytes) else values.tobytes())
    return path


def write_arrays(path, arrays):
    """Write float32 arrays by name."""
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    items = {
        name: tensor(name, "FloatStorage", value.shape, [step // 4 for step in value.strides])
        for name, value in arrays.items()
    }
    return write(path, items, arrays)
