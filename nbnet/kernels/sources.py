"""Machine code on disk and the sources it was compiled from, for the CPU and for CUDA.

Numba looks only at the file of the function itself. But code of other files is compiled into a kernel, and machine code that cuts an
array into chunks by an old rule writes past the end of scratch sized by a new one. So a kernel on disk is valid for one digest of all
sources in nbnet/kernels.
"""

import hashlib
import inspect
import pickle
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import numba

from nbnet.storage import replace_file


def digest(folder):
    """The digest of all Python sources in a folder and below it."""
    sources = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()


SOURCES = digest(Path(__file__).parent)


def _short(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


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
        self.folder, self.stem, self.dumps, self.prepare = Path(folder), stem, dumps, prepare
        self.stamp = _short(SOURCES, stamp, numba.__version__)

    def path(self, key):
        return self.folder / f"{self.stem}.{self.stamp}.{_short(key)}.nbc"

    def load(self, key):
        try:
            data = self.path(key).read_bytes()
        except OSError:  # it is not there, or cannot be read
            return None
        self.prepare(data)
        return pickle.loads(data)

    def save(self, key, data):
        replace_file(self.path(key), self.dumps(data))
        for path in self.folder.glob(f"{escape(self.stem)}.*.nbc"):
            if not path.name.startswith(f"{self.stem}.{self.stamp}."):  # compiled from other sources
                with suppress(OSError):
                    path.unlink()

    def flush(self):
        for path in self.folder.glob(f"{escape(self.stem)}.*.nbc"):
            path.unlink()


def generated(name, text, formula, folder, scope):
    """A function that was generated as Python text from a formula, compiled from a file so that machine code on disk can belong to it.

    The file's name follows from its text, and the text from the formula's source: a changed formula is another file.
    """
    with suppress(OSError):  # not at an interactive prompt
        source = Path(inspect.getfile(formula)).read_bytes()
        cells = [cell.cell_contents for cell in formula.__closure__ or ()]
        text = f"# {formula.__module__}.{formula.__qualname__} {cells} of source {hashlib.sha256(source).hexdigest()[:16]}\n{text}\n"
    path = Path(folder) / f"{name}_{_short(text)}.py"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    scope["__name__"] = formula.__module__
    exec(compile(text, str(path), "exec"), scope)
    return scope[name]
