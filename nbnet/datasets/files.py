"""Files of data sets: find them, open them gzipped or not, and name them in errors."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from nbnet.errors import DataError

Split = tuple[np.ndarray, np.ndarray]
Dataset = tuple[Split, Split, list[str]]

GZIP_MAGIC = b"\x1f\x8b"
MAX_UNPACKED = 1 << 30  # bytes: a .gz file of 1 MB can hold 1 GB of zeros


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error while a file is read into a DataError that names the file."""
    try:
        yield
    except (EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is truncated or damaged: {error}; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}; download it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; one whose name ends in .gz is decompressed, up to MAX_UNPACKED bytes."""
    with reading(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or device may never end
            raise DataError(f"{path} is not a file: expected the data itself, or a link to it")
    with reading(path), open(path, "rb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with _unpacked(path, file) as stream:
            yield stream


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .zip archive for reading."""
    with opened(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (ValueError, RuntimeError) as error:  # names that are no text, or features that Python does not have
            raise DataError(f"{path} is a damaged zip file: {error}; download it again") from error
        with archive:
            yield archive


@contextmanager
def opened_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[BinaryIO]:
    """Open a .gz file in a .zip archive as `opened` does. path: what errors call it."""
    with reading(path), _opened_member(archive, member, path) as file, _unpacked(path, cast(BinaryIO, file)) as stream:
        yield stream


def _opened_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> IO[bytes]:
    try:
        return archive.open(member)
    except RuntimeError as error:  # it has a password, or a compression that Python does not have
        raise DataError(f"cannot read {path}: {error}; download it again") from error


@contextmanager
def _unpacked(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    magic = file.read(2)
    if magic != GZIP_MAGIC:
        raise DataError(
            f"{path} is not a gzip file: it starts with {magic.hex(' ') or 'nothing'}, expected {GZIP_MAGIC.hex(' ')}; "
            "download it again, or remove .gz from its name if it is already unpacked"
        )
    file.seek(0)
    with _Unpacked(path, file) as unpacked:
        yield cast(BinaryIO, unpacked)


class _Unpacked(gzip.GzipFile):
    """The contents of a .gz file; too many are an error."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(fileobj=file)
        self._path = path

    def read(self, size: int | None = -1) -> bytes:
        left = MAX_UNPACKED - self.tell()
        data = super().read(left + 1 if size is None or not 0 <= size <= left else size)
        if len(data) > left:
            raise DataError(f"{self._path} holds more than {MAX_UNPACKED:,} bytes: expected at most that; unpack it yourself with gunzip")
        return data


def read_into(stream: BinaryIO, out: np.ndarray) -> int:
    """Fill a contiguous uint8 array from a stream. Returns the number of bytes read, less than out.size if the stream ends early."""
    view = out.reshape(-1).data
    done = 0
    while done < len(view) and (count := stream.readinto(view[done:])):  # type: ignore[attr-defined]
        done += count
    return done


def listing(folder: Path, expected: str) -> list[str]:
    """The sorted names in a folder, without hidden ones.

    Raises:
        DataError: it is missing, not a folder, unreadable or empty; the message says what was expected.
    """
    with reading(folder):
        if not folder.exists():
            raise DataError(f"there is no folder {folder}: expected {expected}")
        if not folder.is_dir():
            raise DataError(f"{folder} is a file: expected {expected}")
        names = sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    if not names:
        raise DataError(f"{folder} is empty: expected {expected}")
    return names


def some(names: list[str], limit: int = 5) -> str:
    """A few names, for a message."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def missing(folder: Path, wanted: str, names: list[str], url: str) -> DataError:
    """The error for a file that a folder lacks, which has `names`; the file comes from `url`."""
    return DataError(f"{folder} has no {wanted}: expected it next to the files there ({some(names)}); it comes from {url}")
