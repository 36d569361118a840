"""save and load: both ways with PyTorch, what is refused, and what damaged or hostile files come to."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.errors import TensorgradError
from tensorgrad.io.storage import STORAGE_NAMES
from tensorgrad.serialization import CheckpointError, TruncatedError, safe_globals

FORMATS = {"zip": {}, "stream": {"_use_new_zipfile_serialization": False}}
PLAIN = [1, 2.5, "ä", None, True, (1, 2), {3}, b"\0\xff", 1 + 2j, 2**70, [], {}, (), {(1, "a"): [2]}]


def tensors(torch):
    """Every dtype and layout, from one namespace or the other."""
    x = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    made = {name: x.to(getattr(torch, name)) for name in STORAGE_NAMES if name != "bfloat16"}
    shared = {"row": x[1], "columns": x.t(), "every": x.reshape(-1)[::2], "expanded": x[:1].expand(4, 3)}
    return {**made, "bfloat16": x.bfloat16(), "x": x, **shared, "scalar": torch.tensor(3), "empty": torch.empty(0, 3),
            "leaf": torch.ones(2, requires_grad=True), "parameter": torch.nn.Parameter(x.double())}  # fmt: skip


def compare(a, b):
    assert tuple(a.shape) == tuple(b.shape)
    assert str(a.dtype).rpartition(".")[2] == str(b.dtype).rpartition(".")[2]
    assert a.requires_grad == b.requires_grad
    assert type(a).__name__ == type(b).__name__
    assert a.stride() == b.stride() or 0 in a.shape
    assert a.detach().tolist() == b.detach().tolist()


def through(write, read, obj, write_how, **read_how):
    file = io.BytesIO()
    write(obj, file, **write_how)
    file.seek(0)
    return read(file, **read_how)


# --- with PyTorch


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_files_of_pytorch(how):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    given = {
        **tensors(torch), "conj": torch.tensor([1 + 2j]).conj(), "neg": torch.tensor([1 + 2j]).conj().imag,
        "plain": PLAIN, "dtype": torch.float16, "device": torch.device("cuda:1"), "size": torch.Size([2, 3]),
        "counter": Counter("aab"), "default": defaultdict(list, {1: [2]}), "state": model.state_dict(),
        "buffer": torch.nn.Buffer(torch.ones(2)), "numpy": np.arange(3.0), "number": np.float64(3),
        "names": np.array(["a", "bc"]), "old order": np.arange(3, dtype=">i4"),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        got = through(torch.save, tg.load, given, {**how, "pickle_protocol": protocol})
        for name in tensors(torch):
            compare(given[name], got[name])
        assert got["conj"].tolist() == [1 - 2j]
        assert got["neg"].tolist() == [-2.0]
        assert got["plain"] == PLAIN
        assert (got["dtype"], got["device"], got["size"]) == (tg.float16, tg.device("cuda:1"), tg.Size([2, 3]))
        assert (got["counter"], got["default"]) == (Counter("aab"), {1: [2]})
        assert got["state"]._metadata == model.state_dict()._metadata
        assert isinstance(got["buffer"], tg.nn.Buffer)
        for name in ("numpy", "number", "names", "old order"):
            assert np.array_equal(given[name], got[name]) and got[name].dtype.kind == given[name].dtype.kind
        got["row"].zero_()
        assert got["x"].tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]] == got["columns"].t().tolist()


@pytest.mark.parametrize("weights_only", (True, False))
@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_files_for_pytorch(how, weights_only, tmp_path):
    torch = pytest.importorskip("torch")
    model = tg.nn.Sequential(tg.nn.Linear(3, 2), tg.nn.BatchNorm1d(2))
    optimizer = tg.optim.AdamW(model.parameters())
    model(tg.randn(4, 3)).sum().backward()
    optimizer.step()
    given = {**tensors(tg), "plain": PLAIN, "dtype": tg.float16, "device": tg.device("cuda:1"), "size": tg.Size([2, 3]),
             "state": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": tg.get_rng_state(),
             "flipped": tg.arange(3.0).flip(0), "buffer": tg.nn.Buffer(tg.ones(2))}  # fmt: skip
    tg.save(given, tmp_path / "f.pt", **how)
    got = torch.load(tmp_path / "f.pt", weights_only=weights_only)
    for name in (*tensors(tg), "flipped", "rng"):
        compare(given[name], got[name])
    assert got["plain"] == PLAIN
    assert (got["dtype"], got["device"], got["size"]) == (torch.float16, torch.device("cuda:1"), torch.Size([2, 3]))
    assert isinstance(got["buffer"], torch.nn.Buffer)
    twin = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    assert not any(twin.load_state_dict(got["state"]))
    assert got["state"]._metadata == twin.state_dict()._metadata
    torch.optim.AdamW(twin.parameters()).load_state_dict(got["optimizer"])
    got["row"].zero_()
    assert got["x"].tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]
    if not how:
        assert torch.load(tmp_path / "f.pt", mmap=True)["x"].tolist() == given["x"].tolist()


MODULES = {
    "linear": (lambda nn: nn.Linear(4, 3, bias=False), (2, 4)),
    "conv": (lambda nn: nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), (2, 3, 5, 5)),
    "transposed": (lambda nn: nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
    "batch norm": (lambda nn: nn.BatchNorm2d(3).eval(), (2, 3, 4, 4)),
    "lstm": (lambda nn: nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True), (2, 5, 4)),
    "many": (lambda nn: nn.Sequential(nn.Linear(4, 3), nn.GELU("tanh"), nn.LayerNorm(3), nn.Dropout(0.5), nn.PReLU(),
                                      nn.ModuleList([nn.Flatten(), nn.Softmax(dim=1)])[1]).eval(), (2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_whole_modules_of_pytorch(name):
    torch = pytest.importorskip("torch")
    make, shape = MODULES[name]
    theirs = make(torch.nn)
    ours = through(torch.save, tg.load, theirs, {}, weights_only=False)
    x = torch.randn(shape)
    want, got = theirs(x), ours(tg.tensor(x.numpy()))
    if isinstance(want, tuple):
        want, got = want[0], got[0]
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), atol=1e-5)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_optimizers_of_pytorch_continue():
    torch = pytest.importorskip("torch")

    def step(model, optimizer, schedule, x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        schedule.step()

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    theirs = model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)
    step(*theirs, torch.ones(2, 3))
    ours = through(torch.save, tg.load, theirs, {}, weights_only=False)
    step(*theirs, torch.ones(2, 3))
    step(*ours, tg.ones(2, 3))
    np.testing.assert_allclose(ours[0].weight.detach().numpy(), model.weight.detach().numpy(), rtol=1e-6)
    assert ours[1].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


# --- by ourselves


class Net(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = tg.nn.Linear(2, 2)
        self.register_buffer("seen", tg.zeros(1))
        self.tied = self.layer

    def forward(self, x):
        return self.tied(self.layer(x))


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_whole_modules_need_trust_or_permission(how):
    net = Net()
    with pytest.raises(pickle.UnpicklingError, match=r"Net.*add_safe_globals"):
        through(tg.save, tg.load, net, how)
    back = through(tg.save, tg.load, net, how, weights_only=False)
    assert back.tied is back.layer
    assert back(tg.ones(2)).tolist() == net(tg.ones(2)).tolist()
    with safe_globals([Net, tg.nn.Linear, (getattr, "builtins.never")]):
        again = through(tg.save, tg.load, net, how)
        assert again.layer.weight.tolist() == net.layer.weight.tolist()
        assert len(tg.serialization.get_safe_globals()) == 3
    assert tg.serialization.get_safe_globals() == []


def test_the_environment_says_whom_to_trust(monkeypatch):
    # a call without weights_only, one with False, one with True, as in PyTorch
    def loaded():
        for said in ({}, {"weights_only": False}, {"weights_only": True}):
            try:
                yield type(through(tg.save, tg.load, Net(), {}, **said)) is Net
            except CheckpointError:
                yield False

    assert [*loaded()] == [False, True, False]
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert [*loaded()] == [True, True, False]
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "yes")
    with pytest.raises(RuntimeError, match="only one of"):
        through(tg.save, tg.load, 1, {})
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    assert [*loaded()] == [False, False, False]


def test_objects_of_ours():
    generator = tg.Generator().manual_seed(3)
    tg.rand(2, generator=generator)
    x = tg.ones(2)
    x.note = "mine"
    got = through(tg.save, tg.load, {"g": generator, "x": x, "twice": [x, x]}, {})
    assert tg.rand(2, generator=got["g"]).tolist() == tg.rand(2, generator=generator).tolist()
    assert got["x"].note == "mine" and got["twice"][0] is got["x"]
    for copied in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert copied.note == "mine" and copied.tolist() == [1.0, 1.0] and copied is not x


def test_map_location():
    for how in FORMATS.values():
        file = io.BytesIO()
        tg.save(tg.ones(2), file, **how)
        moved = file.getvalue().replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0")
        if not how:  # the record of the pickle has a checksum: write the archive anew
            moved = rewritten(file.getvalue(), lambda raw: raw.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0"))
        seen = []

        def remember(storage, location, seen=seen):
            seen.append((location, storage.size(), storage.nbytes()))
            return storage

        for place in ("cpu", tg.device("cpu"), {"cuda:0": "cpu"}, remember, lambda storage, where: storage.cpu()):
            assert tg.load(io.BytesIO(moved), map_location=place).tolist() == [1.0, 1.0]
        assert seen == [("cuda:0", 2, 8)]
        with pytest.raises(TypeError, match="map_location"):
            tg.load(io.BytesIO(moved), map_location=lambda storage, where: 3)
        with pytest.raises(RuntimeError, match=r"map_location='cpu'|not available"):
            tg.load(io.BytesIO(moved), map_location="cuda:99")


def test_memory_mapped(tmp_path):
    path = tmp_path / "f.pt"
    tg.save({"a": tg.arange(1000.0)}, path)
    before = path.read_bytes()
    a = tg.load(path, mmap=True)["a"]
    a.zero_()
    assert path.read_bytes() == before and not a.any()
    with pytest.raises(ValueError, match="path"):
        tg.load(io.BytesIO(before), mmap=True)
    tg.save(1, tmp_path / "old.pt", **FORMATS["stream"])
    with pytest.raises(CheckpointError, match="mmap"):
        tg.load(tmp_path / "old.pt", mmap=True)


def test_files_and_arguments(tmp_path):
    with pytest.raises(RuntimeError, match="does not exist"):
        tg.save(1, tmp_path / "no" / "f.pt")
    with pytest.raises(FileNotFoundError):
        tg.load(tmp_path / "no.pt")
    with pytest.raises(AttributeError, match="BytesIO"):
        tg.load(3)
    for arguments in ({"pickle_module": random}, {"pickle_protocol": 1}):
        with pytest.raises(ValueError, match="pickle"):
            tg.save(1, io.BytesIO(), **arguments)
    tg.save(tg.ones(2), tmp_path / "f.pt")
    os.symlink(tmp_path / "f.pt", tmp_path / "link.pt")
    tg.save(tg.zeros(2), tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink() and not tg.load(str(tmp_path / "f.pt")).any()
    with pytest.raises((pickle.PicklingError, AttributeError)):  # nothing is left of what can't be written
        tg.save(lambda: 1, tmp_path / "f.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.pt", "link.pt"]
    with zipfile.ZipFile(tmp_path / "f.pt") as archive:
        for info in archive.infolist():
            extra = struct.unpack_from("<H", (tmp_path / "f.pt").read_bytes(), info.header_offset + 28)[0]
            assert (info.header_offset + 30 + len(info.filename) + extra) % 64 == 0


# --- what files must not do


def rewritten(raw, change, compress=zipfile.ZIP_STORED, records=None):
    """An archive with another pickle, or other records."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(file, "w", compress) as new:
        for info in old.infolist():
            content = old.read(info)
            name = info.filename.removeprefix("archive/")
            if records and name in records:
                content = records[name]
            new.writestr(info.filename, change(content) if name == "data.pkl" else content)
    return file.getvalue()


def archived(pickled, *records):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, record in enumerate(records):
            archive.writestr(f"archive/data/{i}", record)
    return file.getvalue()


class Run:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def written(obj):
    file = io.BytesIO()
    tg.save(obj, file)
    return file.getvalue()


ONE = written({"a": tg.ones(2, 3)})


def view(offset, size, stride, count=4, dtype="FloatStorage", key="0", grad="\x89"):
    """The pickle of a tensor on a storage of four floats."""

    def number(n):
        raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + text("storage") + b"ctorch\n" + dtype.encode() + b"\n" + text(key) + text("cpu") + number(count)
    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + number(offset) + numbers(size)
            + numbers(stride) + grad.encode("latin1") + b"ccollections\nOrderedDict\n)RtR.")  # fmt: skip


FOUR = np.arange(4, dtype="<f4").tobytes()
HOSTILE = {
    "a call": (archived(pickle.dumps(Run(os.system, "touch x"), 2)), "system.*not data on the allow-list"),
    "eval": (archived(pickle.dumps(Run(eval, "1"), 2)), "eval"),
    "a call at protocol 4": (archived(pickle.dumps(Run(os.system, "true"), 4)), "system"),
    "getattr": (archived(b"\x80\x02cbuiltins\ngetattr\n)R."), "getattr"),
    "an attribute of the allowed": (archived(b"\x80\x02ctorch\nnn.Module\n)R."), "nn.Module"),
    "an int that is called": (archived(b"\x80\x02cbuiltins\nint\nX\x01\0\0\x001\x85R."), "builds no data"),
    "bytes by their number": (archived(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."), "bytearray is made"),
    "a set of a text": (archived(b"\x80\x02cbuiltins\nset\nU\x02ab\x85R."), "set is made of a str"),
    "state of a list": (archived(b"\x80\x02]}b."), "sets the state of a list"),
    "attributes over methods": (archived(b"\x80\x02ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb."), "names"),
    "items of a tensor": (archived(view(0, [4], [1])[:-1] + b"K\0K\0s.", FOUR), "sets items of a Tensor"),
    "outside, by offset": (archived(view(1, [4], [1]), FOUR), "outside of its storage"),
    "outside, by stride": (archived(view(0, [2, 2], [3, 1]), FOUR), "outside of its storage"),
    "outside, by overflow": (archived(view(0, [2**62, 2], [4, 1]), FOUR), "outside of its storage"),
    "a wrapping product": (archived(view(0, [2**32, 2**32], [0, 0]), FOUR), "outside of its storage"),
    "a huge size": (archived(view(0, [2**80, 0], [0, 0]), FOUR), "outside of its storage"),
    "negative": (archived(view(3, [4], [-1]), FOUR), "negative"),
    "an offset below": (archived(view(-1, [2], [1]), FOUR), "negative"),
    "too many dims": (archived(view(0, [1] * 70, [1] * 70), FOUR), "70 sizes"),
    "sizes without strides": (archived(view(0, [2, 2], [1]), FOUR), "2 sizes and 1 strides"),
    "a storage too large": (archived(view(0, [4], [1], count=2**40), FOUR), "its record has 16"),
    "a negative storage": (archived(view(0, [4], [1], count=-4), FOUR), "number of elements"),
    "a missing record": (archived(view(0, [4], [1], key="7"), FOUR), "lacks the record"),
    "another folder's record": (archived(view(0, [4], [1], key="../../x"), FOUR), "lacks the record"),
    "a foreign storage": (archived(view(0, [4], [1], dtype="QInt8Storage"), FOUR), "QInt8Storage"),
    "no bool": (archived(view(0, [4], [1], grad="K\x02"), FOUR), "requires_grad"),
    "gradients of integers": (archived(view(0, [2], [1], count=2, dtype="LongStorage", grad="\x88"), FOUR), "gradient"),
    "no storage": (archived(b"\x80\x02U\x05a.txtQ."), "only storages"),
    "a bare storage": (archived(b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ.", FOUR),
                       "bare storage"),
    "a sparse tensor": (archived(b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R."), "sparse"),
    "foreign dtypes": (archived(b"\x80\x02ctorch\nfloat8_e5m2\n."), "float8_e5m2"),
    "two things left": (archived(b"\x80\x02K\x01K\x02."), "other than one object"),
    "nothing left": (archived(b"\x80\x02."), "other than one object"),
    "no stop": (archived(b"\x80\x02K\x01"), "ends before its STOP"),
    "a longer text than the file": (archived(b"\x80\x02X\xff\xff\xff\x7fab."), "asks for 2147483647 bytes"),
    "bytes of 8 byte length": (archived(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f."), "asks for"),
    "protocol 9": (archived(b"\x80\x09N."), "protocol 9"),
    "old opcodes": (archived(b"I1\n."), "opcode 0x49"),
    "a stack that is empty": (archived(b"\x80\x02R."), "damaged"),
    "unhashable": (archived(b"\x80\x02}]Ns."), "unhashable"),
    "an odd dict": (archived(b"\x80\x02}(NNNu."), "key without a value"),
    "copies of copies": (
        archived(b"\x80\x02(" + b"N" * 5000 + b"lq\0cbuiltins\nset\nq\x01" + b"h\x01h\0\x85R0" * 5000 + b"."),
        "copies its containers",
    ),
    "a deep key": (archived(b"\x80\x02)" + b"\x85" * 100000 + b"q\0}h\0Ns."), "key of more than"),
    "a doubling key": (archived(b"\x80\x02)" + b"q\0h\0\x86" * 60 + b"q\x01}h\x01Ns."), "key of more than"),
    "a huge integer as key": (archived(b"\x80\x02}\x8a\x20" + b"\x7f" * 32 + b"Ns."), "64 bits"),
    "objects in arrays": (archived(pickle.dumps(np.array([None]), 2)), "dtype 'O8'"),
    "two records of a name": (None, "two records"),
    "byteorder": (rewritten(ONE, bytes, records={"byteorder": b"middle"}), "byte order"),
    "a longer record": (rewritten(ONE, bytes, records={"data/0": bytes(25)}), "its record has 25"),
    "a bomb": (rewritten(ONE, bytes, zipfile.ZIP_DEFLATED, {"data/0": bytes(2**28 + 1)}), "would expand"),
    "a pickle that expands": (
        rewritten(ONE, lambda raw: b"\x80\x02" + b"]0" * 2**22 + b"N.", zipfile.ZIP_DEFLATED), "more than one needs",
    ),
    "marks in marks": (archived(b"\x80\x02" + b"(" * 20000 + b"N."), "deep"),
    "no checkpoint": (None, "no checkpoint"),
    "TorchScript": (None, "TorchScript"),
    "a wrong checksum": (ONE.replace(np.ones(6, "<f4").tobytes(), np.full(6, 2, "<f4").tobytes()), "CRC"),
    "half": (ONE[: len(ONE) // 2], "zip archive"),
    "empty": (b"", "empty"),
    "a text": (b"hello world, this is no checkpoint at all", "neither"),
    "a pickle": (pickle.dumps([1], 2), "neither a zip archive nor"),
    "a tar": (bytes(257) + b"ustar" + bytes(250), "tar archive"),
}  # fmt: skip


def made(name):
    content = HOSTILE[name][0]
    if content is not None:
        return content
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        if name == "TorchScript":
            archive.writestr("a/constants.pkl", b"")
        elif name == "no checkpoint":
            archive.writestr("b/data.pkl", b"")
    content = file.getvalue()
    if name == "two records of a name":
        with pytest.warns(UserWarning), zipfile.ZipFile(file, "a") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02K\x01.")
        content = file.getvalue()
    return content


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_raise(name):
    with pytest.raises(TensorgradError, match=HOSTILE[name][1]) as caught:
        tg.load(io.BytesIO(made(name)))
    assert isinstance(caught.value, RuntimeError)
    if not isinstance(caught.value, tg.errors.DTypeError):
        assert isinstance(caught.value, pickle.UnpicklingError)


def test_the_same_view_within_bounds_loads():
    assert tg.load(io.BytesIO(archived(view(1, [3], [1]), FOUR))).tolist() == [1.0, 2.0, 3.0]
    assert tg.load(io.BytesIO(archived(view(0, [0, 5], [9, 9]), FOUR))).tolist() == []


def test_overlapping_records():
    raw = bytearray(archived(b"\x80\x02N.", b"abcd", b"abcd"))
    with zipfile.ZipFile(io.BytesIO(bytes(raw))) as archive:
        infos = archive.infolist()
        central = archive.start_dir
    # the third entry of the directory points to the second one's place
    third = raw.index(b"archive/data/1", central) - 46
    raw[third + 42 : third + 46] = struct.pack("<I", infos[1].header_offset)
    with pytest.raises(CheckpointError, match="overlap"):
        tg.load(io.BytesIO(bytes(raw)))


def test_byte_order_and_compression():
    little = written({n: tg.arange(1, 4).to(n) for n in ("int16", "float64", "complex64", "uint8", "bfloat16")})
    with zipfile.ZipFile(io.BytesIO(little)) as archive:
        records = {}
        for i, unit in enumerate(("i2", "f8", "f4", "u1", "u2")):
            raw = archive.read(f"archive/data/{i}")
            records[f"data/{i}"] = np.frombuffer(raw, unit).byteswap().tobytes()
    big = rewritten(little, bytes, records={**records, "byteorder": b"big"})
    for content in (little, big, rewritten(little, bytes, zipfile.ZIP_DEFLATED)):
        assert all(
            x.float().tolist() == [1.0, 2.0, 3.0] for n, x in tg.load(io.BytesIO(content)).items() if n[0] != "c"
        )


def test_streams_that_lie():
    file = io.BytesIO()
    tg.save({"a": tg.ones(4)}, file, **FORMATS["stream"])
    raw = file.getvalue()
    assert tg.load(io.BytesIO(raw))["a"].tolist() == [1.0] * 4
    elements = struct.pack("<q", 4) + np.ones(4, "<f4").tobytes()
    for change, error, words in (
        (lambda r: r[:-3], TruncatedError, "ends before the elements"),
        (lambda r: r.replace(elements, struct.pack("<q", 5) + elements[8:]), CheckpointError, "5 elements"),
        (lambda r: r.replace(b"cpuq\x06K\x04", b"cpuq\x06J\xff\xff\xff\x7f"), TruncatedError, "more than the file"),
        (lambda r: r.replace(b"M\xe9\x03.", b"M\xea\x03."), CheckpointError, "version"),
        (lambda r: r.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"), CheckpointError, "big-endian"),
    ):
        changed = change(raw)
        assert changed != raw
        with pytest.raises(error, match=words):
            tg.load(io.BytesIO(changed))


def test_damaged_at_random():
    """Whatever happens to a file's bytes, loading it gives an object or one of our errors."""
    rng = random.Random(7)
    whole = {**tensors(tg), "plain": PLAIN, "n": np.arange(3), "od": OrderedDict(a=1), "c": Counter("ab")}
    seeds = [written(whole)]
    for protocol in (2, 4, 5):
        for how in FORMATS.values():
            file = io.BytesIO()
            tg.save(whole, file, pickle_protocol=protocol, **how)
            seeds.append(file.getvalue())

    def damage(raw):
        raw = bytearray(raw)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(raw))
            if rng.random() < 0.5:
                raw[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                raw[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
            else:
                del raw[at : at + rng.randrange(1, 9)]
        return bytes(raw)

    outcomes = Counter()
    for _ in range(400):
        raw = rng.choice(seeds)
        changed = rewritten(raw, damage) if raw[:2] == b"PK" and rng.random() < 0.8 else damage(raw)
        try:
            tg.load(io.BytesIO(changed))
            outcomes["loaded"] += 1
        except TensorgradError:
            outcomes["raised"] += 1
    assert outcomes["raised"] > 100 and outcomes["loaded"] > 10


def test_hub_says_what_works():
    for name in ("load", "list", "help", "load_state_dict_from_url", "download_url_to_file"):
        with pytest.raises(RuntimeError, match=r"tensorgrad\.load"):
            getattr(tg.hub, name)("https://example.org/x.pth", "model")
    for call in (tg.hub.get_dir, lambda: tg.hub.set_dir("x")):
        with pytest.raises(RuntimeError, match="path of a file"):
            call()


def test_loading_imports_no_pytorch():
    assert "torch" not in tg.serialization.__dict__
    assert sys.modules["tensorgrad.serialization"] is tg.serialization


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_devices(how, tmp_path):
    """Tensors of device cuda are saved as such, go back there, and where map_location says."""
    from tensorgrad.io import safetensors
    from tensorgrad.testing.strict_backend import strict_cuda

    with strict_cuda():
        x = tg.arange(6.0).reshape(2, 3).to("cuda")
        given = {"x": x, "t": x.t(), "p": tg.nn.Parameter(x), "c": tg.ones(2), "again": x,
                 "conj": tg.tensor([1 + 2j])}  # fmt: skip
        back = through(tg.save, tg.load, given, how)
        assert [str(back[name].device) for name in ("x", "t", "p", "c")] == ["cuda:0"] * 3 + ["cpu"]
        assert back["again"] is back["x"] and isinstance(back["p"], tg.nn.Parameter)
        assert back["t"].cpu().tolist() == x.t().cpu().tolist()
        here = through(tg.save, tg.load, given, how, map_location="cpu")
        assert str(here["p"].device) == "cpu" and here["p"].tolist() == x.cpu().tolist()
        there = through(tg.save, tg.load, {"c": tg.arange(4.0)[1:]}, how, map_location=lambda s, where: s.cuda(0))
        assert str(there["c"].device) == "cuda:0" and there["c"].cpu().tolist() == [1.0, 2.0, 3.0]
        path = tmp_path / "f.safetensors"
        safetensors.save_file({"x": x}, path)
        loaded = safetensors.load_file(path, device="cuda")["x"]
        assert str(loaded.device) == "cuda:0" and loaded.cpu().tolist() == x.cpu().tolist()


def test_plain_pickles_of_pytorch():
    """``pickle.dumps`` of PyTorch's tensors names private functions of torch; under an alias they are found here."""
    torch = pytest.importorskip("torch")

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if module.partition(".")[0] != "torch":
                return super().find_class(module, name)
            __import__(module.replace("torch", "tensorgrad", 1))
            return getattr(sys.modules[module.replace("torch", "tensorgrad", 1)], name)

    x = torch.arange(6.0).reshape(2, 3)
    a, b = Reader(io.BytesIO(pickle.dumps((x, torch.nn.Parameter(x.t().double()))))).load()
    assert a.tolist() == x.tolist() and b.tolist() == x.t().tolist() and isinstance(b, tg.nn.Parameter)


def test_what_a_file_would_need():
    found = tg.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(written(Net())))
    assert "tensorgrad.nn.linear.Linear" in found and any(name.endswith(".Net") for name in found)
    assert tg.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(ONE)) == []
    with pytest.raises(CheckpointError):
        tg.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(b"hello"))
    with pytest.raises(AttributeError, match=r"torch\.serialization\.register_package"):
        _ = tg.serialization.register_package
