"""The runtime in C, built once, and memory that it watches."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import weakref
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("runtime.c")
FOLDER = Path(__file__).parents[3] / ".numba_cache" / "executor"
KINDS = GLOBAL, SHARED, CONSTANTS = range(3)
READABLE, UNWRITTEN = 15, 0  # what is known of the four bytes of a word


def missing():
    """What the executor needs and this machine lacks, in words; None if there is nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the executor switches the stacks of Linux on x86-64"
    return None if shutil.which("cc") else "the executor's runtime is compiled with cc, which is not there"


def keep(path, data):
    """Write a file that other processes see whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)


@cache
def path():
    """The compiled runtime."""
    built = FOLDER / f"runtime-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:20]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "runtime.so")
            subprocess.run(["cc", "-O3", "-fno-semantic-interposition", "-fPIC", "-shared", "-o", target, SOURCE], check=True)
            keep(built, target.read_bytes())
    return built


class Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("at", "size", "alignment", "shadow", "kind")]


class Report(ctypes.Structure):
    """The runtime's `report`."""

    _fields_ = [
        *((n, ctypes.c_int32) for n in ("kind", "thread", "site", "access", "other_thread", "other_site", "other_access", "region")),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("block", ctypes.c_int32 * 3),
    ]


@cache
def library():
    lib = ctypes.CDLL(str(path()))
    lib.gpu_allocate.restype = ctypes.c_void_p
    lib.gpu_allocate.argtypes = [ctypes.c_int64]
    lib.gpu_release.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    lib.gpu_shadow_size.restype = ctypes.c_int64
    lib.gpu_shadow_size.argtypes = [ctypes.c_int64]
    lib.gpu_mark.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    lib.gpu_launch.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int, ctypes.c_int, ctypes.c_uint32]
    return lib


def report():
    return Report.in_dll(library(), "fault")


class Memory:
    """Bytes with a shadow. `at` is None for memory of its own; else its address."""

    def __init__(self, size, at=None):
        lib, self.size = library(), size
        self._word, self._shadow_size = lib.gpu_shadow_size(4), lib.gpu_shadow_size(size)
        self.at = lib.gpu_allocate(size) if at is None else at
        self.shadow = lib.gpu_allocate(self._shadow_size)
        if not self.at or not self.shadow:
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")
        for where, count in ((self.shadow, self._shadow_size), *([(self.at, size)] if at is None else [])):
            weakref.finalize(self, lib.gpu_release, where, count).atexit = False

    def region(self, offset=0, size=None, kind=GLOBAL, alignment=None):
        """These bytes of it, for a launch; an address is as well aligned as it happens to be, if nothing else is known."""
        at, size = self.at + offset, self.size - offset if size is None else size
        return Region(at, size, at & -at if alignment is None else alignment, self.shadow + offset // 4 * self._word, kind)

    def mark(self, offset, size, known):
        """Say that these bytes may be read, or that nothing has been written to them."""
        library().gpu_mark(self.shadow + offset // 4 * self._word, (offset % 4 + size + 3) // 4, known)
