"""Weight files: PyTorch's format without PyTorch, safetensors, several files with an index, and variants."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusion.convert.files import open_tensors, read_permutation, read_tensors
from tests.checks import refused
from tests.torch_files import call, mapping, tensor, write, write_arrays

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=12).astype(np.float32)


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value)


def test_pytorch_files_are_read_without_pytorch(tmp_path):
    half = VALUES.astype(ml_dtypes.bfloat16)
    items = {
        "plain": tensor("0", "FloatStorage", (3, 4), (4, 1)),
        "transposed": tensor("0", "FloatStorage", (4, 3), (1, 4)),
        "part": tensor("0", "FloatStorage", (2, 2), (4, 1), offset=5),
        "scalar": tensor("0", "FloatStorage", (), (), offset=7),
        "empty": tensor("0", "FloatStorage", (0, 4), (4, 1)),
        "broadcast": tensor("0", "FloatStorage", (2, 3), (0, 1)),
        "half": tensor("1", "BFloat16Storage", (12,), (1,)),
        "count": tensor("2", "LongStorage", (2,), (1,)),
        "note": call("somewhere", "Configuration", "ignored"),
    }
    file = write(tmp_path / "a.bin", items, {"0": VALUES, "1": half, "2": np.array([3, 2**40])})
    matrix = VALUES.reshape(3, 4)
    expected = {
        "plain": matrix,
        "transposed": matrix.T,
        "part": matrix[1:, 1:3],
        "scalar": VALUES[7],
        "empty": matrix[:0],
        "broadcast": np.stack([VALUES[:3]] * 2),
        "half": half,
        "count": np.array([3, 2**40]),
    }
    assert_equal(open_tensors(file), expected)
    assert_equal(read_tensors(file), {name: np.asarray(value, np.float32) for name, value in expected.items()})


def test_tensors_are_read_when_asked_for(tmp_path):
    items = {"good": tensor("0", "FloatStorage", (12,), (1,)), "bad": tensor("1", "FloatStorage", (12,), (1,))}
    file = write(tmp_path / "a.pt", items, {"0": VALUES, "1": VALUES[:11]})
    tensors = open_tensors(file)
    assert sorted(tensors) == ["bad", "good"] and len(tensors) == 2
    np.testing.assert_array_equal(tensors["good"], VALUES)
    with refused("a.pt' is damaged"):
        tensors["bad"]


def test_pytorch_files_run_no_code(tmp_path):
    tensors = {"x": tensor("0", "FloatStorage", (12,), (1,))}
    for module, name in (("builtins", "exec"), ("__builtin__", "eval"), ("os", "system"), ("builtins", "getattr")):
        evil = call(module, name, "raise SystemExit('code ran')")
        file = write(tmp_path / "a.ckpt", {"state_dict": mapping(tensors), "hyper_parameters": evil}, {"0": VALUES})
        assert_equal(open_tensors(file), {"x": VALUES})


def test_lightning_files_have_the_average(tmp_path):
    names = {"w": "0", "rotary_emb.inv_freq": "0", "v": "0"}
    state = {name: tensor(key, "FloatStorage", (3,), (1,)) for name, key in names.items()}
    average = b"](" + tensor("1", "FloatStorage", (3,), (1,)) + tensor("1", "FloatStorage", (3,), (1,), 3) + b"e"
    items = {"state_dict": mapping(state), "ema": mapping({"shadow_params": average})}
    file = write(tmp_path / "a.ckpt", items, {"0": VALUES, "1": VALUES + 1})
    average = {"w": VALUES[:3] + 1, "v": VALUES[3:6] + 1}
    assert_equal(open_tensors(file), average | {"rotary_emb.inv_freq": VALUES[:3]})
    items["ema"] = mapping({"shadow_params": b"](" + tensor("1", "FloatStorage", (3,), (1,)) + b"e"})
    with refused("1 averaged tensors"):
        open_tensors(write(tmp_path / "a.ckpt", items, {"0": VALUES, "1": VALUES}))


def test_files_of_torch_save(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    state = {kind: (base % 5).to(getattr(torch, kind)) for kind in kinds}
    state |= {"transposed": base.T, "part": base[1:, ::2], "scalar": torch.tensor(3.5)}
    state |= {"parameter": torch.nn.Parameter(base), "expanded": base[:1].expand(3, 6)}
    expected = {name: value.detach().numpy() for name, value in state.items() if name != "bfloat16"}
    expected["bfloat16"] = state["bfloat16"].float().numpy().astype(ml_dtypes.bfloat16)
    for legacy in (False, True):
        torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=not legacy)
        assert_equal(open_tensors(tmp_path / "a.bin"), expected)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(module.state_dict(), tmp_path / "a.bin")
    assert_equal(open_tensors(tmp_path / "a.bin"), {name: value.numpy() for name, value in module.state_dict().items()})


def test_safetensors_keep_their_types(tmp_path):
    kinds = (np.float32, np.float16, ml_dtypes.bfloat16, np.int64)
    expected = {np.dtype(kind).name: (10 * VALUES).astype(kind) for kind in kinds}
    save_file(expected, tmp_path / "a.safetensors")
    assert_equal(open_tensors(tmp_path / "a.safetensors"), expected)
    floats = {name: np.asarray(value, np.float32) for name, value in expected.items()}
    assert_equal(read_tensors(tmp_path / "a.safetensors"), floats)


def write_index(path, files):
    path.write_text(json.dumps({"metadata": {}, "weight_map": files}))


def test_the_files_of_a_folder_have_an_order(tmp_path):
    """Safetensors come before PyTorch files, and full precision before half; a named variant is the only one."""
    names = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors",
        "diffusion_pytorch_model.bin",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "model.safetensors.index.fp16.json",
        "pytorch_model.fp16.bin",
    ]

    def put(number):
        path, arrays = tmp_path / names[number], {"number": np.array([number], np.float32)}
        if path.suffix == ".json":
            stem = "shard-of-binaries.bin" if "bin" in path.name else f"shard-{number}.safetensors"
            write_index(path, {"number": stem})
            path = tmp_path / stem
        (save_file if path.suffix == ".safetensors" else lambda arrays, file: write_arrays(file, arrays))(arrays, path)

    for number in range(len(names) - 1, -1, -1):
        put(number)
        assert open_tensors(tmp_path)["number"] == [number]
        if number < 7:
            assert open_tensors(tmp_path, "fp16")["number"] == [6]
    with refused("neither .* of the variant 'ema'", FileNotFoundError):
        open_tensors(tmp_path, "ema")


def test_several_files_with_an_index(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    parts = {"model-1-of-2.safetensors": {"a": VALUES, "b": VALUES[:2]}, "model-2-of-2.safetensors": {"c": VALUES[2:5]}}
    for name, arrays in parts.items():
        save_file(arrays, tmp_path / name)
    places = {tensor: file for file, arrays in parts.items() for tensor in arrays}
    write_index(index, places)
    expected = {"a": VALUES, "b": VALUES[:2], "c": VALUES[2:5]}
    assert_equal(open_tensors(tmp_path), expected)
    assert_equal(open_tensors(index), expected)
    write_index(index, places | {"d": "model-2-of-2.safetensors"})
    with refused("has no tensor 'd'"):
        open_tensors(index)
    write_index(index, places | {"d": "../secret.safetensors"})
    with refused("a file outside of the folder"):
        open_tensors(index)
    write_index(index, places | {"d": "model-3-of-3.safetensors"})
    with refused("names 'model-3-of-3.safetensors', which does not exist", FileNotFoundError):
        open_tensors(index)
    index.write_text("{}")
    with refused("not a readable index"):
        open_tensors(index)


def test_unreadable_files_are_named(tmp_path):
    x = tensor("0", "FloatStorage", (12,), (1,))
    cases = {
        "short.bin": (write, {"x": x}, {"0": VALUES[:11]}),
        "odd.bin": (write, {"x": x}, {"0": b"123"}),
        "missing.bin": (write, {"x": x}, {"1": VALUES}),
        "negative.bin": (write, {"x": tensor("0", "FloatStorage", (2,), (1,), -3)}, {"0": VALUES}),
        "complex.bin": (write, {"x": tensor("0", "ComplexFloatStorage", (2,), (1,))}, {"0": VALUES}),
        "expanded.bin": (write, {"x": tensor("0", "FloatStorage", (2**31 - 1, 2**31 - 1), (0, 0))}, {"0": VALUES}),
        "unequal.bin": (write, {"x": tensor("0", "FloatStorage", (2, 2), (1,))}, {"0": VALUES}),
        "less.bin": (write, {"x": tensor("0", "FloatStorage", (-1,), (1,))}, {"0": VALUES}),
        "call.bin": (write, {"ema": call("os", "mkdir", "executed"), "state_dict": mapping({})}, {}),
        "big.bin": (write, {"x": x}, {"0": VALUES}, b"big"),
    }
    for name, (function, *arguments) in cases.items():
        function(tmp_path / name, *arguments)
        with refused(f"checkpoint: .*{name}' is "):
            dict(open_tensors(tmp_path / name))
    for name in ("junk.safetensors", "junk.bin", "junk.h5"):
        (tmp_path / name).write_bytes(b"\x80\x04junk")
        with refused(f"checkpoint: .*{name}'"):
            open_tensors(tmp_path / name)
    with refused("does not exist", FileNotFoundError):
        open_tensors(tmp_path / "none.bin")


ORDER = np.array([3, 1, 0, 2])


def test_permutations_of_every_kind_of_file(tmp_path):
    np.save(tmp_path / "a.npy", ORDER)
    (tmp_path / "a.json").write_text(json.dumps(ORDER.tolist()))
    pickled = b"\x80\x02" + tensor("0", "LongStorage", (4,), (1,)) + b"."
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # of one tensor, as `torch.save` writes it
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", ORDER.tobytes())
    for name in ("a.npy", "a.json", "a.pt"):
        found = read_permutation(tmp_path / name)
        np.testing.assert_array_equal(found, ORDER)
        assert found.dtype == np.int64
    np.save(tmp_path / "half.npy", ORDER / 2)
    (tmp_path / "list.json").write_text("[[1, 0]]")
    (tmp_path / "text.json").write_text("{")
    for name, message in (
        ("none.npy", r"codec\.permutation: '.*' does not exist; pass a .npy, .json or .pt file"),
        ("half.npy", "holds float64 of shape"),
        ("list.json", r"of shape \(1, 2\); pass one list of integers"),
        ("text.json", "is not readable"),
    ):
        with refused(message):
            read_permutation(tmp_path / name)
