"""safetensors files: with the package's own PyTorch functions, mapped, sharded, and what hostile headers come to."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import TensorgradError
from tensorgrad.io import safetensors as st
from tensorgrad.io.sharded import load_sharded, save_sharded

HERE = str(Path(tg.__file__).parent.parent)
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")


def every(namespace):
    return {name: namespace.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(namespace, name)) for name in DTYPES}


def test_both_ways_with_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    path = tmp_path / "f.safetensors"
    given = {**every(torch), "empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    theirs.save_file(given, path, {"epoch": "3"})
    got = st.load_file(path)
    assert got.keys() == given.keys() and st.load_metadata(path) == {"epoch": "3"}
    for name, x in given.items():
        assert (str(x.dtype)[6:], tuple(x.shape), x.tolist()) == (
            got[name].dtype.name, tuple(got[name].shape), got[name].tolist())  # fmt: skip
    st.save_file({**every(tg), "columns": tg.arange(6.0).reshape(2, 3).t()}, path)
    back = theirs.load_file(path)
    assert all(back[name].tolist() == x.tolist() for name, x in every(tg).items())
    assert back["columns"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert all(x.tolist() == every(tg)[name].tolist() for name, x in st.load(st.save(every(tg))).items())


class Tied(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = tg.nn.Embedding(4, 3)
        self.head = tg.nn.Linear(3, 4)
        self.head.weight = self.embedding.weight


def test_models_with_tied_weights(tmp_path):
    model, other = Tied(), Tied()
    st.save_model(model, tmp_path / "m.safetensors", {"by": "us"})
    assert sorted(st.load_file(tmp_path / "m.safetensors")) == ["embedding.weight", "head.bias"]
    assert st.load_metadata(tmp_path / "m.safetensors") == {"by": "us", "head.weight": "embedding.weight"}
    assert st.load_model(other, tmp_path / "m.safetensors") == ([], [])
    assert other.head.weight is other.embedding.weight
    assert other.head.weight.tolist() == model.head.weight.tolist()
    st.save_file({"head.weight": model.head.weight.detach() * 2}, tmp_path / "m.safetensors")
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        st.load_model(other, tmp_path / "m.safetensors")
    assert st.load_model(other, tmp_path / "m.safetensors", strict=False)[0] == ["head.bias"]
    assert other.embedding.weight.tolist() == (model.head.weight * 2).tolist()


def test_mapped_until_written(tmp_path):
    path = tmp_path / "f.safetensors"
    st.save_file({"a": tg.arange(10000.0), "b": tg.ones(3)}, path)
    content = path.read_bytes()
    a = st.load_file(path)["a"]
    assert not isinstance(a._data.base, type(None)) and a.detach().numpy().flags.writeable
    a.mul_(2)
    assert path.read_bytes() == content and st.load_file(path)["a"][3] == 3
    with st.safe_open(path, framework="pt") as file:
        assert (file.keys(), file.metadata(), list(file)) == (["a", "b"], None, ["a", "b"])
        assert sorted(file.offset_keys()) == ["a", "b"]
        assert file.get_tensor("b").tolist() == [1.0, 1.0, 1.0]
        with pytest.raises(st.FileError, match="no tensor 'c'"):
            file.get_tensor("c")
    with pytest.raises(ValueError, match="framework"):
        st.safe_open(path, framework="tf")
    st.save_file({"a": tg.zeros(1)}, path)  # a new file: what was mapped stays as it was
    assert a[3] == 6 and st.load_file(path, mmap=False)["a"].tolist() == [0.0]


def test_sharded(tmp_path):
    given = {f"layer.{i}": tg.full((10,), float(i)) for i in range(5)}
    files = save_sharded(given, tmp_path, max_shard_size=90)
    assert [f.name for f in files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [
        "model.safetensors.index.json"]  # fmt: skip
    index = json.loads(files[-1].read_text())
    assert index["metadata"]["total_size"] == 200 and len(index["weight_map"]) == 5
    for source in (tmp_path, files[-1]):
        got = load_sharded(source)
        assert {name: x.tolist() for name, x in got.items()} == {name: x.tolist() for name, x in given.items()}
    for change, words in (
        ({"weight_map": {"layer.0": "../x.safetensors"}}, "beside it"),
        ({"weight_map": {"layer.0": "a\\b.safetensors"}}, "beside it"),
        ({"weight_map": {"layer.0": "model.bin"}}, "no safetensors file"),
        ({"weight_map": {"layer.9": "model-00001-of-00003.safetensors"}}, "no tensor 'layer.9'"),
        ({"weight_map": []}, "no weight_map"),
        ([], "no weight_map"),
    ):
        files[-1].write_text(json.dumps(change))
        with pytest.raises(st.FileError, match=words):
            load_sharded(tmp_path)
    files[-1].write_text("[" * 100000)
    with pytest.raises(st.FileError, match="not a readable index"):
        load_sharded(tmp_path)
    files[-1].unlink()
    with pytest.raises(FileNotFoundError):
        load_sharded(tmp_path)
    save_sharded(given, tmp_path, "5GB")
    assert len(load_sharded(tmp_path)) == 5
    with pytest.raises(ValueError, match="max_shard_size"):
        save_sharded(given, tmp_path, "5 parsecs")


def raw(header, data=b"\0" * 16, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


HOSTILE = {
    "nothing": b"",
    "a length beyond the file": raw(entry(), size=2**40),
    "the largest length": raw(entry(), size=2**64 - 1),
    "no JSON": raw(b"{hello"),
    "no UTF-8": raw(b"\xff\xfe{}"),
    "an array": raw([]),
    "offsets beyond": raw(entry(offsets=(0, 32))),
    "offsets reversed": raw(entry(offsets=(16, 0))),
    "offsets negative": raw(entry(offsets=(-16, 0))),
    "a hole": raw(entry(offsets=(4, 20)), b"\0" * 20),
    "bytes left over": raw(entry(), b"\0" * 20),
    "another shape": raw(entry(shape=(5,))),
    "a product that wraps": raw(entry(shape=(2**33, 2**33))),
    "a negative size": raw(entry(shape=(-4,))),
    "an overlap": raw({**entry(), "b": entry()["a"]}),
    "8-bit floats": raw(entry("F8_E4M3", (16,))),
    "unsigned integers": raw(entry("U32")),
    "an unknown dtype": raw(entry("X32")),
    "metadata that is no text": raw({**entry(), "__metadata__": {"a": 1}}),
    "bools that are none": raw(entry("BOOL", (16,)), b"\x05" * 16),
    "cut off": raw(entry())[:-1],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_raise(name, tmp_path):
    path = tmp_path / "f.safetensors"
    path.write_bytes(HOSTILE[name])
    words = {"8-bit floats": "F8_E4M3", "unsigned integers": "U32"}.get(name, "safetensors|bools")
    for read in (st.load_file, lambda p: st.load(p.read_bytes())):
        with pytest.raises(st.FileError, match=words):
            read(path)


def test_unaligned_elements_are_copied(tmp_path):
    path = tmp_path / "f.safetensors"
    path.write_bytes(raw(json.dumps(entry()).encode() + b" " * 1, np.arange(4, dtype="<f4").tobytes()))
    assert st.load_file(path)["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_damaged_at_random(tmp_path):
    rng = random.Random(5)
    path = tmp_path / "f.safetensors"
    seed = st.save({"a": tg.ones(2, 3), "b": tg.arange(3), "c": tg.ones(2, dtype=tg.bool)}, {"k": "v"})
    raised = 0
    for _ in range(300):
        changed = bytearray(seed)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(bytes(changed[: rng.choice((None, None, rng.randrange(len(changed))))]))
        try:
            st.load_file(path)
        except TensorgradError:
            raised += 1
    assert raised > 100


def test_what_is_no_tensor():
    with pytest.raises(TypeError, match="Tensors"):
        st.save({"a": 3})
    with pytest.raises(TypeError, match="metadata"):
        st.save({"a": tg.ones(1)}, {"k": 3})
    with pytest.raises(st.FileError, match="complex128"):
        st.save({"a": tg.ones(1, dtype=tg.complex128)})


SCRIPT = """
import sys, torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
model = torch.nn.Linear(2, 2)
save_file(model.state_dict(), sys.argv[1])
assert load_file(sys.argv[1])["weight"].tolist() == model.weight.tolist()
save_model(model, sys.argv[1])
print(load_model(model, sys.argv[1]))
with safe_open(sys.argv[1], framework="pt") as file:
    assert file.get_tensor("bias").tolist() == model.bias.tolist()
"""


def test_the_packages_own_functions_under_the_name_of_torch(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "tensorgrad", "run", "script.py", "f.safetensors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": HERE})
    assert (done.returncode, done.stdout) == (0, "(set(), [])\n"), done.stderr


def test_storages_of_files(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(np.arange(4, dtype="<f4").tobytes())
    storage = tg.UntypedStorage.from_file(path, shared=False, nbytes=16)
    part = storage.untyped()[4:12]
    assert tg.asarray(part, dtype=tg.uint8).view(tg.float32).tolist() == [1.0, 2.0]
    assert (len(storage), storage[0], storage[7]) == (16, 0, 63)
    tg.UntypedStorage.from_file(path, shared=True, nbytes=4).tensor.fill_(1)
    assert path.read_bytes()[:5] == b"\1\1\1\1\0"
    with pytest.raises(RuntimeError, match="16 bytes"):
        tg.UntypedStorage.from_file(path, nbytes=17)
