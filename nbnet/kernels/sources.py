"""Machine code on disk and the sources it was compiled from, for the CPU and for CUDA.

Numba looks only at the file of the function itself. But code of other files is compiled into a kernel, and machine code that cuts an
array into chunks by an old rule writes past the end of scratch sized by a new one. So a kernel on disk is valid for one digest of all
sources in nbnet/kernels.
"""

import hashlib
import inspect
import os
import pickle
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

import numba

from nbnet.errors import BackendError
from nbnet.storage import replace_file

WRITABLE = stat.S_IWGRP | stat.S_IWOTH  # by others than the owner
CHECKSUM = 4  # bytes at the end of a file
CHECKED = hasattr(os, "geteuid")  # Windows has no such owners and modes


def digest(folder):
    """The digest of all Python sources in a folder and below it, without generated ones, which name what they were generated from."""
    sources = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.py")):
        if path.parent.name != "__pycache__":
            sources.update(path.read_bytes())
    return sources.hexdigest()


SOURCES = digest(Path(__file__).parent)


def _short(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@cache
def _trusted():
    """Whose files are loaded: this user's, root's, and those of the owner of nbnet's sources, whose code runs anyway."""
    return os.geteuid(), 0, os.stat(Path(__file__).parent).st_uid


def check_folder(folder):
    """Check, once in a process, that nobody else can put files into a folder: to load machine code is to run whatever is in its file.

    Those who can write to nbnet's own sources may. The folder above may be like /tmp, where nobody can replace another user's folder.

    Raises:
        BackendError: others can write to it.
    """
    if CHECKED and folder not in _checked and os.path.isdir(folder):
        _check_folder(folder)
        _checked.add(folder)


def _check_folder(folder):
    for path in (folder, os.path.dirname(folder)):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid in _trusted():
            found = os.stat(path)
        open_to = _open_to_others(found)
        if path != folder:  # who can only add to it cannot replace the folder; other users may own it
            open_to = 0 if found.st_mode & stat.S_ISVTX else open_to & stat.S_IWOTH
        elif found.st_uid not in _trusted():
            raise _foreign(path, f"belongs to user {found.st_uid}")
        if open_to:
            raise _foreign(path, f"can be written by {'everyone' if open_to & stat.S_IWOTH else 'its group'}", f", or chmod go-w {path}")


_checked: set[str] = set()  # folders that are safe


def _open_to_others(found):
    """The permission bits by which others than those who can write to nbnet's sources can write to a file or folder."""
    sources = os.stat(Path(__file__).parent)
    same = WRITABLE if found.st_gid == sources.st_gid else stat.S_IWOTH
    return found.st_mode & WRITABLE & ~(sources.st_mode & same)


def _foreign(path, how, hint=""):
    return BackendError(
        f"the kernel cache {path} {how}, who could run any code here: expected a folder that only you can write to; "
        f"set NUMBA_CACHE_DIR to another one{hint}"
    )


@contextmanager
def kept_if_possible() -> Iterator[None]:
    """What cannot be written in this block, for want of a folder or of room, is not kept: a warning, once in a process, says so."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # Numba raises RuntimeError if it finds no folder that it can write to
        if not _warned:
            _warned.append(error)
            warnings.warn(
                f"compiled kernels are not kept on disk, so each process compiles them again ({' '.join(str(error).split())}): "
                f"set NUMBA_CACHE_DIR to a folder that you can write to and that has room",
                RuntimeWarning,
                stacklevel=4,
            )


_warned: list[Exception] = []  # the first problem


def _checksum(code):
    return zlib.crc32(code).to_bytes(CHECKSUM, "little")


@cache
def make_private(folder):
    """Close a new folder to others, unless it is a __pycache__, which has Python's files too."""
    if CHECKED and os.path.basename(folder) != "__pycache__" and not os.listdir(folder) and os.stat(folder).st_uid == os.geteuid():
        os.chmod(folder, 0o700)


class KernelFiles:
    """The machine code of one function on disk: a file per signature, replacing Numba's numbered files and index.

    The name of a file says what is in it, so processes that save at the same time cannot mix up their entries.

    Args:
        folder, stem: where Numba keeps the function. stamp: Numba's, of the function's own file. dumps: Numba's pickler.
        prepare: called with the bytes of a file before they are loaded.
    """

    def __init__(
        self, folder: str, stem: str, stamp: Any, dumps: Callable[[Any], bytes], prepare: Callable[[bytes], None] = lambda data: None
    ):
        self.folder, self.stem, self.dumps, self.prepare = Path(folder).absolute(), stem, dumps, prepare
        self.stamp = _short(SOURCES, stamp, numba.__version__)
        make_private(str(self.folder))

    def path(self, key):
        return self.folder / f"{self.stem}.{self.stamp}.{_short(key)}.nbc"

    def load(self, key):
        """What was saved; None if it is missing or damaged. Raises BackendError where others could have written it."""
        try:
            check_folder(str(self.folder))
            with open(self.path(key), "rb") as file:
                found = os.fstat(file.fileno())
                data = file.read()
        except OSError:  # it is not there, or cannot be read
            return None
        if CHECKED and found.st_uid not in _trusted():
            raise _foreign(self.path(key), f"belongs to user {found.st_uid}", ", or remove it")
        if CHECKED and _open_to_others(found):
            raise _foreign(self.path(key), "can be written by others", ", or remove it")
        if _checksum(memoryview(data)[:-CHECKSUM]) != data[-CHECKSUM:]:
            return None
        self.prepare(data)
        try:
            return pickle.loads(data)
        except Exception:  # whatever damaged data raise
            return None

    def save(self, key, data):
        """Raises BackendError where others could replace the file, OSError where it cannot be written."""
        check_folder(str(self.folder))
        code = self.dumps(data)
        replace_file(self.path(key), code + _checksum(code))
        for path in self.folder.glob(f"{escape(self.stem)}.*.nbc"):
            if not path.name.startswith(f"{self.stem}.{self.stamp}."):  # compiled from other sources
                with suppress(OSError):
                    path.unlink()

    def flush(self):
        for path in self.folder.glob(f"{escape(self.stem)}.*.nbc"):
            path.unlink()


def define(name, text, formula, folder, scope):
    """Run Python text that was generated from a formula, from a file so that machine code on disk can belong to it; return the scope.

    The file's name follows from its text, and the text from the formula's source: a changed formula is another file.

    Args:
        folder: where the file is kept; None if nothing can be kept.
    """
    with suppress(OSError):  # not at an interactive prompt
        source = Path(inspect.getfile(formula)).read_bytes()
        cells = [cell.cell_contents for cell in formula.__closure__ or ()]
        text = f"# {formula.__module__}.{formula.__qualname__} {cells} of source {hashlib.sha256(source).hexdigest()[:16]}\n{text}\n"
    path = Path(folder or Path(__file__).parent) / f"{name}_{_short(text)}.py"
    with kept_if_possible():
        if folder is not None:
            check_folder(str(folder))
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, text.encode())
    scope["__name__"] = formula.__module__
    exec(compile(text, str(path), "exec"), scope)
    return scope
