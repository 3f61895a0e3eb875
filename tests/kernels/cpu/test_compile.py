"""Machine code on disk: beside other processes, and when one is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbnet.kernels.cpu import compile as kernels

CODE = """
import numpy as np
from nbnet.kernels.array.cpu import add_serial as add
a = np.ones(5, np.{dtype})
y = np.zeros(5, np.{dtype})
add(a, a, y)
print((y == 2).all(), sum(add.stats.cache_hits.values()))
"""


def add(cache, dtype):
    """A process that adds: whether the sums are right, and how many kernels came from disk."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen([sys.executable, "-c", CODE.format(dtype=dtype)], env=env, stdout=subprocess.PIPE, text=True)


def said(process):
    return process.communicate(timeout=120)[0].split()


def test_processes_that_save_at_once(tmp_path):
    for process in [add(tmp_path, dtype) for dtype in ("float32", "float64", "float32", "float64")]:
        assert said(process)[0] == "True"
    for dtype in ("float32", "float64", "float32", "float64"):  # one of two entries may have been lost, and none mixed up
        assert said(add(tmp_path, dtype))[0] == "True"
    assert said(add(tmp_path, "float64")) == ["True", "1"]
    assert len(list(tmp_path.rglob("*add_serial*.nbc"))) == 2


class Index:
    """As Numba's, in memory, on a file that never comes where `killed`."""

    def __init__(self, folder, stamp):
        self._cache_path, self._index_name, self._source_stamp = str(folder), "add-1.py.nbi", stamp
        self.entries, self.killed = {}, False

    def _load_index(self):
        return dict(self.entries)

    def _save_index(self, entries):
        self.entries = entries

    def _save_data(self, name, data):
        if self.killed:
            raise KeyboardInterrupt
        (Path(self._cache_path) / name).write_text(data)

    def load(self, key):
        return (Path(self._cache_path) / self.entries[key]).read_text() if key in self.entries else None


def test_a_process_that_is_killed_leaves_no_entry_with_other_code(tmp_path):
    old, new = Index(tmp_path, "old sources"), Index(tmp_path, "new sources")
    kernels._save(old, ("float32",), "old code")
    new.killed = True
    with pytest.raises(KeyboardInterrupt):
        kernels._save(new, ("float32",), "new code")
    assert new.load(("float32",)) is None
    new.killed = False
    kernels._save(new, ("float32",), "new code")
    kernels._save(new, ("float64",), "new code for others")
    assert (new.load(("float32",)), new.load(("float64",))) == ("new code", "new code for others")
    assert len(list(tmp_path.iterdir())) == 2  # without the old one


def test_all_kernels_are_saved_so():
    from nbnet.kernels import load

    assert all(load("array.add", backend)._cache._cache_file.save.func is kernels._save for backend in ("serial", "parallel"))
