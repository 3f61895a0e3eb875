"""Files of Keras that are damaged, hostile, or of other models: one line each, and nothing changes."""

import contextlib
import io
import zipfile

import numpy as np
import pytest

import nbnet as nb
from convert.twins import GOLDEN, built, everything, of_keras
from nbnet.errors import ArgumentError, CheckpointError, NbnetError

h5py = pytest.importorskip("h5py")
ENDINGS = ("keras", "weights.h5", "h5")
ARRAYS = "layers/dense/vars"


def refused(path, kind=CheckpointError, message="cannot read"):
    model = of_keras()
    before = everything(model)
    with pytest.raises(kind, match=message) as raised:
        nb.convert.from_keras(path, model)
    assert "\n" not in str(raised.value)
    assert everything(model) == before


def edited(tmp_path, edit, ending="weights.h5"):
    """A file of Keras after an edit of its open HDF5."""
    path = tmp_path / f"edited.{ending}"
    if ending != "keras":
        path.write_bytes((GOLDEN / f"keras.{ending}").read_bytes())
        with h5py.File(path, "r+") as file:
            edit(file)
        return path
    with zipfile.ZipFile(GOLDEN / "keras.keras") as old, zipfile.ZipFile(path, "w") as new:
        data = io.BytesIO(old.read("model.weights.h5"))
        with h5py.File(data, "r+") as file:
            edit(file)
        new.writestr("config.json", old.read("config.json"))
        new.writestr("model.weights.h5", data.getvalue())
    return path


def replaced(name, make):
    def edit(file):
        group, _, last = name.rpartition("/")
        del file[name]
        make(file[group], last)

    return edit


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_files(ending, tmp_path, rng):
    path, data = tmp_path / f"bad.{ending}", (GOLDEN / f"keras.{ending}").read_bytes()
    for content in (b"", rng.bytes(2000), data[: len(data) // 2], data[:600], b"\x89HDF\r\n\x1a\n" + rng.bytes(500)):
        path.write_bytes(content)
        refused(path, message=r"(cannot read .*|: )expected a whole \.keras, \.weights\.h5 or \.h5 file, written by Keras")
    refused(tmp_path / f"none.{ending}", message="there is no such file")
    refused(tmp_path, message="there is no such file")


@pytest.mark.parametrize("ending", ENDINGS)
def test_bytes_that_are_changed_raise_nothing_else(ending, tmp_path, rng):
    """A changed byte of an array is another number; elsewhere it is an error of nbnet."""
    path, data = tmp_path / f"bad.{ending}", (GOLDEN / f"keras.{ending}").read_bytes()
    model = of_keras()
    for _ in range(60):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 20):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        before = everything(model)
        with contextlib.suppress(NbnetError):
            nb.convert.from_keras(path, model)
            continue
        assert everything(model) == before


def test_zips_of_something_else(tmp_path):
    path = tmp_path / "a.keras"
    config, weights = (zipfile.ZipFile(GOLDEN / "keras.keras").read(name) for name in ("config.json", "model.weights.h5"))
    cases = [
        ({"readme.txt": b"hello"}, r"the zip has no config\.json: expected a whole"),
        ({"config.json": config}, r"the zip has no model\.weights\.h5"),
        ({"config.json": b"{", "model.weights.h5": weights}, "JSONDecodeError"),
        ({"config.json": b"[1]", "model.weights.h5": weights}, "TypeError"),
        ({"config.json": b'{"config": {"layers": [{"class_name": 3}]}}', "model.weights.h5": weights}, "cannot read"),
        ({"config.json": config, "model.weights.h5": b"hello"}, "OSError"),
        ({"config.json": config, "model.weights.h5": bytes(1 << 26)}, r"model\.weights\.h5 has 67,108,864 bytes, far more than the model"),
    ]
    for members, message in cases:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        refused(path, message=message)
    text = '{"class_name": "Sequential", "config": {"name": "a", "layers": [' * 3000 + config.decode() + "]}}" * 3000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", weights)
    refused(path)


@pytest.mark.parametrize("ending", ["keras", "weights.h5"])
def test_hostile_hdf5(ending, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.zeros((96, 3), np.float32)
    (tmp_path / "raw").write_bytes(bytes(96 * 3 * 4))
    layout = h5py.VirtualLayout((96, 3), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (96, 3))
    kernel = f"{ARRAYS}/0"
    outside = [(str(tmp_path / "raw"), 0, 96 * 3 * 4)]
    cases = [
        (
            kernel,
            lambda g, n: g.__setitem__(n, h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")),
            "'0' is a ExternalLink, expected",
        ),
        (kernel, lambda g, n: g.__setitem__(n, h5py.SoftLink("/layers/conv2d/vars/0")), "'0' is a SoftLink"),
        ("layers/dense", lambda g, n: g.__setitem__(n, h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")), "is a ExternalLink"),
        (kernel, lambda g, n: g.create_virtual_dataset(n, layout), "'0' is not a plain array of numbers"),
        (kernel, lambda g, n: g.create_dataset(n, (96, 3), "f4", external=outside), "'0' is not a plain array of numbers"),
        (
            kernel,
            lambda g, n: g.create_dataset(n, (10**7, 10**7), "f4", chunks=(1000, 1000)),
            r"'0' has shape \(10000000, 10000000\), and all",
        ),
        (kernel, lambda g, n: g.create_dataset(n, data=["a", "b"]), "'0' is not a plain array of numbers"),
        (kernel, lambda g, n: g.create_group(n), "'0' is not a plain array of numbers"),
        (kernel, lambda g, n: g.create_dataset(n, (2,), h5py.ref_dtype), "'0' is not a plain array of numbers"),
    ]
    for name, make, message in cases:
        refused(edited(tmp_path, replaced(name, make), ending), message=message)


def test_groups_in_circles(tmp_path):
    def edit(file):
        file["layers/dense/again"] = file["layers"]

    refused(edited(tmp_path, edit), message="more than 32 groups in groups")

    def many(file):  # 2^29 paths
        group = file["layers/dense"]
        for _ in range(29):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner

    refused(edited(tmp_path, many), message="there are more than 100,000 groups")


def test_files_of_other_models(tmp_path):
    def without_bias(file):
        del file[f"{ARRAYS}/1"]

    def with_more(file):
        file[f"{ARRAYS}/2"] = np.zeros(3)

    def with_nan(file):
        file[f"{ARRAYS}/0"][3, 1] = np.nan

    for edit in (without_bias, with_more):
        refused(edited(tmp_path, edit), ArgumentError, r"'layers/dense' \(Dense, 0 .* does not fit layer head \(Dense\)")
        refused(edited(tmp_path, edit, "keras"), CheckpointError, r"layer 'head' has . arrays, expected kernel, bias")
    for ending in ("weights.h5", "keras"):
        refused(edited(tmp_path, with_nan, ending), NbnetError, "has NaN, infinity")
        other = built([nb.Conv2D(4, 3).named("stem"), nb.Flatten(), nb.Dense(3)], (8, 6, 1))
        with pytest.raises(ArgumentError, match=r"does not fit layer|no partner for"):
            nb.convert.from_keras(GOLDEN / f"keras.{ending}", other)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["data"] = np.zeros(3)
    refused(tmp_path / "empty.h5", message=r"there are no weights of layers: expected a whole \.keras")


def test_names_for_a_file_without_an_order():
    model, groups = of_keras(), ["conv2d", "batch_normalization", "separable_conv2d", "conv2d_transpose", "dense"]
    paths = ["stem", "1.batchnorm", "2.separableconv2d", "4.convtranspose2d", "head"]
    names = {f"layers/{group}": path for group, path in zip(groups, paths)}
    nb.convert.from_keras(GOLDEN / "keras.weights.h5", model, names=names)
    twin = of_keras()
    nb.convert.from_keras(GOLDEN / "keras.keras", twin)
    assert everything(model) == everything(twin)


def test_a_chunk_larger_than_its_array(tmp_path):
    """HDF5 reads a chunk whole: gigabytes of zeros, packed into a small file."""

    def make(group, name):
        group.create_dataset(name, (3,), "f4", maxshape=(None,), chunks=(1 << 28,), compression="gzip")

    path = edited(tmp_path, replaced(f"{ARRAYS}/1", make))
    assert path.stat().st_size < 1 << 20
    refused(path, message=r"'1' has chunks of shape \(268435456,\), far more than the model needs")
