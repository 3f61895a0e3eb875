"""Downloads of data sets through pooch: each file is checked, cached, and never downloaded twice."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from nbnet import storage
from nbnet.errors import DataError
from nbnet.progress import Bar

TIMEOUT = 30  # seconds
CHUNK = 1 << 16  # bytes

MIRRORS: dict[str, list[str]] = {
    "mnist": ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"],
    "fashion-mnist": ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
    "cifar10": ["https://www.cs.toronto.edu/~kriz/"],
}

MD5: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
}


def cache_folder() -> Path:
    """The folder of downloads: the environment variable NBNET_DATA_DIR, or the user's cache folder."""
    if os.environ.get("NBNET_DATA_DIR"):
        return Path(os.path.expanduser(os.environ["NBNET_DATA_DIR"]))
    import pooch

    return Path(pooch.os_cache("nbnet"))


def fetch(name: str, progress: bool | None = None) -> Path:
    """The folder with the files of a data set. Missing or damaged files are downloaded.

    Args:
        progress: whether to draw a progress bar; None draws one on a terminal.
    Raises:
        DataError: no mirror has the right file, or the folder cannot be written.
    """
    folder = cache_folder() / name
    show = sys.stderr.isatty() if progress is None else progress
    for file, md5 in MD5[name].items():
        _fetch_file(name, file, md5, folder, show)
    return folder


def _fetch_file(name: str, file: str, md5: str, folder: Path, show: bool) -> None:
    import pooch
    from requests.exceptions import RequestException

    path = folder / file
    failures = []
    for mirror in MIRRORS[name]:
        url = mirror + file
        bar = _Bar(file)
        downloader = pooch.HTTPDownloader(progressbar=bar if show else False, chunk_size=CHUNK, timeout=TIMEOUT)
        try:
            if path.exists() and pooch.file_hash(str(path), "md5") == md5:
                return
            folder.mkdir(parents=True, exist_ok=True)
            if not show:
                pooch.get_logger().info("downloading %s to %s", url, folder)
            with closing(bar), storage.replacing(path) as stream:
                downloader(url, stream, None)
                stream.flush()
                if pooch.file_hash(stream.name, "md5") != md5:
                    raise DataError(f"{url}: wrong checksum, expected md5 {md5}")
            return
        except RequestException as error:
            failures.append(f"{url}: {_reason(error)}")
        except DataError as error:
            failures.append(str(error))
        except OSError as error:
            raise DataError(
                f"cannot write to {folder}: {error.strerror or error}; set NBNET_DATA_DIR to a writable folder with enough room"
            ) from error
    raise DataError(
        f"cannot download {name}: {'; '.join(failures)}; try again, or download the files yourself and pass their folder as data_dir "
        f"(nbnet train: --data-dir)"
    )


def _reason(error: Exception) -> str:
    """The cause in a few words; requests' own messages are much longer."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, exceptions.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the connection was lost"
    if isinstance(error, exceptions.ConnectionError):
        return "no connection"
    return type(error).__name__


class _Bar:
    """What pooch expects of a progress bar. It appears when pooch sets `total`: for a file in the cache it never does."""

    def __init__(self, file: str) -> None:
        self._file, self._done, self._total = file, 0, 0
        self._bars = ExitStack()

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._bar = self._bars.enter_context(Bar(size or None, "name bar bytes speed remaining", self._file, show=True, keep=True))

    def update(self, size: int) -> None:
        self._done += size
        self._bar.update(self._done)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        self._bars.close()
