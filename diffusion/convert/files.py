"""Named tensors of safetensors and PyTorch files, and permutations of codes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.convert.torch_files import StoredTensor, first_line, is_zip, read_legacy, read_zip

Tensors = dict[str, np.ndarray]
TORCH = (".pt", ".pth", ".ckpt", ".bin")
# The names of weights in the folder of a model, those of diffusers before those of transformers.
SAFETENSORS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
BINARIES = ("diffusion_pytorch_model.bin", "pytorch_model.bin")
# Where a folder has no weights in full precision, those of this name are read.
HALF = "fp16"


class LazyTensors(Mapping):
    """Named tensors that are read from their files when they are asked for, in the type that they are stored in."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]):
        self.readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


def open_tensors(path: str | Path, variant: str = "") -> LazyTensors:
    """Return the tensors of a .safetensors, .pt, .pth, .ckpt or .bin file, or of the folder of a model, by name.

    They are read when they are asked for, in the type that they are stored in. In a folder safetensors come before
    PyTorch files, also if they are split into several files with an index, and full precision before a "fp16" variant;
    with `variant`, such as "fp16", only the files of this variant are read. Of a training checkpoint the exponential
    moving average is read if it is present.

    Raises:
      FileNotFoundError: if there is no such file, or no weights in the folder.
      ValueError: if the file is not readable.
    """
    path = Path(path)
    path = weights_of_folder(path, variant) if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: '{path}' does not exist; pass --checkpoint=FILE")
    if path.suffix == ".json":
        return LazyTensors(_of_index(path))
    if path.suffix != ".safetensors" and path.suffix not in TORCH:
        raise ValueError(f"checkpoint: '{path}' has an unknown ending; use .safetensors, .pt, .pth, .ckpt or .bin")
    return LazyTensors(_of_file(path))


def read_tensors(path: str | Path, variant: str = "") -> Tensors:
    """Return the tensors of `open_tensors` as float32.

    Raises:
      FileNotFoundError: if there is no such file, or no weights in the folder.
      ValueError: if the file is not readable.
    """
    return {name: np.asarray(value, np.float32) for name, value in open_tensors(path, variant).items()}


def read_permutation(path: str | Path) -> np.ndarray:
    """Return the numbers of a .npy or .json file, or of a tensor that `torch.save` wrote (.pt, .pth), as int64.

    Raises:
      ValueError: if there is no such file, or it is not readable or has other content than one list of integers.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"codec.permutation: '{path}' does not exist; pass a .npy, .json or .pt file")
    try:
        if path.suffix == ".npy":
            values = np.asarray(np.load(path, allow_pickle=False))  # of an archive of arrays, an array of objects
        elif path.suffix == ".json":
            values = np.array(json.loads(path.read_text()))
        else:
            loaded = read_zip(path) if is_zip(path) else read_legacy(path)
            values = loaded.read() if isinstance(loaded, StoredTensor) else np.asarray(loaded)
    except (ValueError, EOFError, OSError, RecursionError, OverflowError) as error:
        raise ValueError(f"codec.permutation: '{path}' is not readable ({first_line(error)})") from None
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"codec.permutation: '{path}' holds {values.dtype} of shape {values.shape}; pass one list of integers"
        )
    return values.astype(np.int64)


def weights_of_folder(folder: Path, variant: str = "") -> Path:
    """Return the file with the weights in the folder of a model, or the index of several files.

    Raises:
      FileNotFoundError: if there is none.
    """
    for suffix in (variant,) if variant else ("", HALF):
        infix = f".{suffix}" if suffix else ""
        for names in (SAFETENSORS, BINARIES):
            for name in names:
                stem, ending = name.rsplit(".", 1)
                for file in (f"{stem}{infix}.{ending}", f"{name}.index{infix}.json"):
                    if (folder / file).is_file():
                        return folder / file
    wanted = f" of the variant '{variant}'" if variant else ""
    names = " nor ".join(name for group in (SAFETENSORS, BINARIES) for name in group)
    raise FileNotFoundError(f"checkpoint: '{folder}' holds neither {names}{wanted}; name the file itself")


def _of_index(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    try:
        places = json.loads(path.read_text())["weight_map"]
        if any(Path(file).name != file for file in places.values()):
            raise ValueError("a file outside of the folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"checkpoint: '{path}' is not a readable index of weights ({first_line(error)})") from None
    files = {}
    for file in sorted(set(places.values())):
        if not (path.parent / file).is_file():
            raise FileNotFoundError(f"checkpoint: '{path}' names '{file}', which does not exist; copy all of its files")
        files[file] = _of_file(path.parent / file)
    for name, file in places.items():
        if name not in files[file]:
            raise ValueError(f"checkpoint: '{file}' has no tensor '{name}' of the index '{path}'; copy its files again")
    return {name: files[file][name] for name, file in places.items()}


def _of_file(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    return _of_safetensors(path) if path.suffix == ".safetensors" else _of_torch(path)


def _of_safetensors(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    import safetensors

    def refused(error: Exception) -> ValueError:
        return ValueError(f"checkpoint: '{path}' is not a readable safetensors file ({first_line(error)})")

    def read(name: str) -> np.ndarray:
        try:
            return file.get_tensor(name)
        except (safetensors.SafetensorError, TypeError, ValueError, AttributeError) as error:  # of a type NumPy lacks
            raise refused(error) from None

    try:
        file = safetensors.safe_open(path, framework="numpy")
        return {name: partial(read, name) for name in file.keys()}
    except (safetensors.SafetensorError, UnicodeDecodeError) as error:
        raise refused(error) from None


def _of_torch(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    loaded = read_zip(path) if is_zip(path) else read_legacy(path)
    try:
        state = _state(loaded, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint: '{path}' is no state_dict of tensors ({first_line(error)}); save one") from None
    readers = {}
    for name, value in state.items():
        if isinstance(value, StoredTensor):
            readers[name] = value.read
        elif isinstance(value, np.ndarray):
            readers[name] = lambda value=value: value
    return readers


def _state(loaded: Any, path: Path) -> dict[str, Any]:
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint: '{path}' is not a mapping of names to tensors; save a state_dict")
    state = loaded.get("state_dict", loaded.get("model", loaded))
    state = dict(state if isinstance(state, Mapping) else loaded)
    if "state_dict" in loaded and loaded.get("ema"):
        return averaged(state, loaded["ema"]["shadow_params"], path)
    # A module that wraps the network has the average among its own tensors.
    count = sum(name.startswith("shadow_params.") for name in state)
    if count:
        shadow = [state[f"shadow_params.{number}"] for number in range(count)]
        network = {name.removeprefix("model."): each for name, each in state.items() if name.startswith("model.")}
        return averaged(network, shadow, path)
    return state


def averaged(state: dict[str, Any], shadow: Sequence[Any], path: Path) -> dict[str, Any]:
    """Return a state with the average, a list in the order of the module's parameters, in place of the parameters.

    Raises:
      ValueError: if the average is not one of these parameters.
    """
    # Buffers have no entry in the list.
    names = [name for name in state if not is_buffer(name)]
    if [tuple(state[name].shape) for name in names] != [tuple(value.shape) for value in shadow]:
        raise ValueError(
            f"checkpoint: the {len(shadow)} averaged tensors of '{path}' do not match its {len(names)} parameters"
        )
    return state | dict(zip(names, shadow, strict=True))


def is_buffer(name: str) -> bool:
    """Whether a public checkpoint's entry is a constant that the network recomputes."""
    codec = name.startswith("wrapped_encoder.")  # MDM-Prime's sub-tokens
    return codec or name.endswith(("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"))
