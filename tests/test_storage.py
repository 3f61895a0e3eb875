"""Files: written whole or not at all, and read with their metadata."""

import os

import numpy as np
import pytest

from nbnet import storage
from nbnet.errors import CheckpointError, DataError

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([7], np.int64)}


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"new"):
        storage.write_file(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("problem", "raised"), [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_after_an_error_the_old_file_is_there_and_no_other(problem, raised, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise problem

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised) as caught:
        storage.write_file(path, b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])
    if raised is DataError:
        expected = f"cannot write {path}: No space left on device; choose a folder that exists, is writable and has room"
        assert str(caught.value) == expected


@pytest.mark.parametrize("path", ["missing/file", "", "."])
def test_paths_that_cannot_be_written(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="cannot write"):
        storage.write(path, ARRAYS, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metadata", [{}, {"key": "value", "other": "{}"}])
def test_arrays_and_metadata_come_back(metadata, tmp_path):
    storage.write(tmp_path / "file", ARRAYS, metadata)
    arrays, found = storage.read(tmp_path / "file")
    assert found == metadata
    assert {name: (array.dtype, array.tolist()) for name, array in arrays.items()} == {
        name: (array.dtype, array.tolist()) for name, array in ARRAYS.items()
    }
    arrays["a"][0] = 1  # a copy, which may be changed


def test_files_that_are_none(tmp_path):
    path = tmp_path / "file"
    storage.write(path, ARRAYS, {"key": "value"})
    whole = path.read_bytes()
    for data in (b"", whole[:5], whole[:40], whole[:-1], whole + b"0", b"PK" + whole, b"\xff" * 100):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="is truncated or not a safetensors file") as caught:
            storage.read(path)
        assert "\n" not in str(caught.value)
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="cannot read") as caught:
            storage.read(wrong)
        assert "\n" not in str(caught.value)


def test_json_has_no_nan(tmp_path):
    storage.write_json(tmp_path / "file", {"a": [1, None]})
    assert (tmp_path / "file").read_text(encoding="utf-8") == '{\n "a": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "file", float("nan"))
