"""Files of data sets that cannot be reached, and how much of a packed one is read."""

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest

from nbnet.cli import runs
from nbnet.datasets import files
from nbnet.errors import CheckpointError, DataError


@pytest.fixture
def closed(tmp_path):
    """A path in a folder that this user may not look into."""
    folder = tmp_path / "closed"
    folder.mkdir(0o600)
    root = os.geteuid() == 0
    if root:  # who may look into any folder
        os.seteuid(65534)
    yield folder / "inside"
    if root:
        os.seteuid(0)
    folder.chmod(0o700)


def _open(path: Path) -> None:
    with files.opened(path):
        pass


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("read", "error"), [(_open, DataError), (lambda path: files.listing(path, "images"), DataError), (runs.read_config, CheckpointError)]
)
def test_a_folder_that_may_not_be_looked_into(closed, read, error):
    with pytest.raises(error, match=f"^cannot read {closed}.*: Permission denied$"):
        read(closed)


@pytest.mark.parametrize("sizes", [[-1], [None], [10], [11], [4, 6], [4, -1], [4, 99], [10, 1]])
def test_a_packed_file_may_hold_so_much(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(files, "MAX_UNPACKED", 10)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"0123456789"))
    with files.opened(path) as stream:
        assert stream.read() == b"0123456789"
    with files.opened(path) as stream:
        assert b"".join(stream.read(size) for size in sizes) == b"0123456789"
        assert stream.read() == b""
    path.write_bytes(gzip.compress(b"0123456789a"))
    with pytest.raises(DataError, match="holds more than 10 bytes"), files.opened(path) as stream:
        list(map(stream.read, [*sizes, -1]))


def test_reading_into_an_array():
    class Slow(io.BytesIO):
        def readinto(self, view):
            return super().readinto(view[:3])

    for length, done in ((8, 8), (10, 10), (12, 10)):
        out = np.zeros(length, np.uint8)
        assert files.read_into(Slow(bytes(range(1, 11))), out) == done
        assert out.tolist() == [*range(1, done + 1), *[0] * (length - done)]


def test_a_few_names():
    names = [f"a{i}" for i in range(6)]
    assert files.some(names[:5]) == "a0, a1, a2, a3, a4"
    assert files.some(names) == "a0, a1, a2, a3, a4 and 1 more"
    assert files.some(names, 2) == "a0, a1 and 4 more"
