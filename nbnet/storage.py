"""Files: an atomic writer for all of nbnet, and named arrays in the safetensors format."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, CheckpointError, DataError, NbnetError, unknown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".nbnet-*.tmp"  # names of files that are being written
PART = ".part"  # how names of files end whose download is not finished
NOT_OF_THE_MODEL = "optimizer.", "average.", "best."  # how names of arrays in a checkpoint begin that are not the model's
TRIES = 3
PATIENCE = 2.0  # seconds in which Windows may refuse to replace a file that somebody reads
ABANDONED = 3600.0  # seconds after which Windows, where no lock tells, takes a temporary file for abandoned


def replace_file(path: Path, data: bytes) -> None:
    """Write a file with `replacing`.

    Raises:
        OSError: it cannot be written; an older file at `path` is unchanged.
    """
    for left in reversed(range(TRIES)):
        try:
            with replacing(path) as file:
                file.write(data)
        except FileNotFoundError:  # noqa: PERF203 - on a network folder, another machine that sees no locks removed it
            if not left or not path.parent.is_dir():
                raise
        else:
            return


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces `path` at the end of the block, unless the block raises.

    Any number of threads and processes may write and read one path: each reader gets a whole file, the old or the new one. The data is
    on disk before the file gets its name; if the machine stops just then, the old file may be there. A process that is killed leaves a
    temporary file, which the next call for the same folder removes. If `path` is a link, the file that it leads to is replaced.

    Raises:
        OSError: it cannot be written; an older file at `path` is unchanged.
    """
    path = Path(os.path.realpath(path))
    _remove_abandoned(path.parent)
    file, temporary = _create(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # while the lock is held
                os.replace(temporary, path)
        if fcntl is None:  # an open file cannot be renamed
            _replace_patiently(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # after an error or Ctrl-C; otherwise it has been renamed
            temporary.unlink()


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    """A new temporary file, locked as long as it is open."""
    while True:
        temporary = folder / TEMPORARY.replace("*", uuid.uuid4().hex)
        file = open(temporary, "xb")  # noqa: SIM115
        _lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return file, temporary
        file.close()  # another process removed it before it was locked


@contextlib.contextmanager
def continuing(path: Path) -> Iterator[BinaryIO]:
    """A file that is written over several calls: `path` with .part after its name, opened to append.

    At the end of the block it replaces `path`, or is removed if it is empty. If the block raises, what it has is kept, and the next call
    goes on with it. Other processes that call this for the same path wait, except on Windows, which has no such locks.

    Raises:
        OSError: it cannot be written; an older file at `path` is unchanged.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(path.name + PART)
    written = False
    try:
        with _open_part(part) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                written = part.stat().st_size > 0
                if written and fcntl is not None:  # while the lock is held
                    os.replace(part, path)
            finally:
                if fcntl is not None:
                    _remove_empty(part, file)
    finally:
        if fcntl is None:  # an open file can be neither removed nor renamed
            _remove_empty(part)
    if written and fcntl is None:
        _replace_patiently(part, path)


def _remove_empty(part: Path, file: BinaryIO | None = None) -> None:
    with contextlib.suppress(OSError):
        if file is not None:
            file.flush()
            if not os.path.samestat(os.stat(part), os.fstat(file.fileno())):
                return  # ours has replaced `path`, and another process has begun the next one
        if part.stat().st_size == 0:
            part.unlink()


def _open_part(part: Path) -> BinaryIO:
    """The file, locked as long as it is open."""
    while True:
        file = open(part, "a+b")  # noqa: SIM115
        _lock(file)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(part), os.fstat(file.fileno())):
                return file
        file.close()  # another process renamed or removed it before it was locked


def _lock(file: BinaryIO) -> None:
    """Wait until no other process has locked the file."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that were killed: nobody holds their locks."""
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):  # it is locked, gone, or another user's
            if fcntl is None:
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
                continue
            with open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _replace_patiently(temporary: Path, path: Path) -> None:
    """os.replace on Windows, which refuses while somebody has the file open."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return os.replace(temporary, path)
        except PermissionError as error:  # noqa: PERF203
            if time.monotonic() > last:
                raise PermissionError(error.errno, f"{error.strerror} (is it open in another program?)") from error
            time.sleep(0.01)


def write_file(path: str | Path, data: bytes, error: type[NbnetError] = DataError) -> None:
    """replace_file, with an error of nbnet.

    Raises:
        the given error: the folder is missing or read-only, or the disk is full; an older file at `path` is unchanged.
    """
    try:
        replace_file(Path(path), data)
    except (OSError, ValueError) as problem:  # a ValueError: the path contains a zero byte
        raise error(
            f"cannot write {path}: {getattr(problem, 'strerror', None) or problem}; choose a folder that exists, is writable and has room"
        ) from problem


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON with write_file. Numbers must be finite, since JSON has no NaN."""
    write_file(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata with write_file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.numpy import save

    write_file(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata)), CheckpointError)


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file.

    Raises:
        CheckpointError: there is no such file, or it is truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        try:
            size = Path(path).stat().st_size
        except ValueError as error:  # the path contains a zero byte
            raise CheckpointError(f"cannot read {str(path)!r}: {error}") from error
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except CheckpointError:  # it is an OSError too
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({size:,} bytes): {error}") from error


class LoadReport(NamedTuple):
    """What load_weights did, by names of arrays in the model; str() lists them."""

    loaded: list[str]
    missing: list[str]  # of the model; the file does not have them
    unexpected: list[str]  # of the file; the model does not have them
    mismatched: list[str]  # of both, in other shapes or dtypes: not loaded

    def __str__(self) -> str:
        others = [("not in the file", self.missing), ("not in the model", self.unexpected), ("of another shape or dtype", self.mismatched)]
        lines = [f"{len(names)} {what}: {', '.join(names)}" for what, names in others if names]
        return "\n".join([f"{len(self.loaded)} of {len(self.loaded + self.missing + self.mismatched)} arrays loaded", *lines])


def renamed(found: Mapping[str, np.ndarray], rename: Mapping[str, str] | None, path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file under the names of a model.

    Args:
        rename: by the name of an array in the file, or of a layer there, that in the model; the longest that fits counts.
    Raises:
        ArgumentError: rename is no dict of names, has one that is not in the file, or gives two arrays one name.
    """
    rename = {} if rename is None else rename
    if not isinstance(rename, Mapping) or not all(isinstance(text, str) for pair in rename.items() for text in pair):
        raise ArgumentError(f"rename={rename!r}: expected a dict from names in the file to names in the model, {{'0.dense': '2.dense'}}")
    layers = {name[:i] for name in found for i in range(len(name) + 1) if f"{name}."[i] == "."}
    for old in rename:
        if old not in layers:
            raise ArgumentError(f"rename: {unknown(f'name in {path}', old, found)}")
    arrays: dict[str, np.ndarray] = {}
    for name, array in found.items():
        old = max((old for old in rename if f"{name}.".startswith(f"{old}.")), key=len, default="")
        new = rename[old] + name[len(old) :] if old else name
        if new in arrays:
            raise ArgumentError(f"rename gives two arrays of {path} the name {new!r}: expected another name for each")
        arrays[new] = array
    return arrays


def compare(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> LoadReport:
    """Which arrays of a file fit those of a model."""
    both = [name for name in expected if name in found]
    fits = [name for name in both if (found[name].shape, found[name].dtype) == (expected[name].shape, expected[name].dtype)]
    other = [name for name in both if name not in fits]
    return LoadReport(fits, [name for name in expected if name not in found], [name for name in found if name not in expected], other)


def check_finite(found: Mapping[str, np.ndarray], names: Iterable[str], path: str | Path) -> None:
    """Check parameters that were read from a file.

    Raises:
        CheckpointError: one of them contains NaN or infinity.
    """
    for name in names:
        if name in found and not np.isfinite(found[name]).all():
            raise CheckpointError(f"{path}: {name!r} contains NaN or infinity, expected trained weights: use an older file")


def check_match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Check that two sets of arrays have the same names, shapes and dtypes, so that loading cannot stop halfway.

    Raises:
        CheckpointError: they differ; the message names the first difference.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"{path} has no {name!r}: it belongs to another model, or was saved with another optimizer")
        if name not in expected:
            raise CheckpointError(f"{path} has {name!r}, which this model and optimizer do not have: it belongs to another model")
        a, b = found[name], expected[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise CheckpointError(
                f"{path}: {name!r} has shape {a.shape} and dtype {a.dtype}, expected {b.shape} and {b.dtype}: another model?"
            )
