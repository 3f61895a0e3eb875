"""MNIST, Fashion-MNIST and KMNIST: the IDX format."""

import gzip
import re
from pathlib import Path

import pytest

from nbnet import datasets
from nbnet.datasets import download, idx
from nbnet.datasets import files as reader
from nbnet.errors import DataError

from .samples import IMAGES, LABELS, MNIST, TEST_IMAGES, X, Y, check_mnist, flip, idx_bytes, write


@pytest.mark.parametrize("gz", [True, False])
def test_mnist_from_a_folder(tmp_path, gz):
    write(tmp_path, MNIST, gz)
    assert check_mnist(datasets.load("mnist", tmp_path)) == list("0123456789")
    assert check_mnist(datasets.load("fashion-mnist", str(tmp_path)))[9] == "Ankle boot"
    assert check_mnist(datasets.load("kmnist", tmp_path))[5] == "ha"


def test_mnist_names_with_a_dot(tmp_path):
    check_mnist(datasets.load("mnist", write(tmp_path, {name.replace("-idx", ".idx"): data for name, data in MNIST.items()})))


def test_class_names_are_a_fresh_list(tmp_path):
    write(tmp_path, MNIST)
    datasets.load("fashion-mnist", tmp_path)[2].clear()
    assert len(datasets.load("fashion-mnist", tmp_path)[2]) == 10


def corrupt(name, change, gz=False):
    """MNIST's files with one of them changed after packing."""
    files = {key + ".gz" if gz else key: gzip.compress(data) if gz else data for key, data in MNIST.items()}
    key = name + ".gz" if gz else name
    files[key] = change(files[key])
    return files


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (corrupt(X, lambda d: d[:-1]), rf"{X} is truncated: its header announces 120 bytes of images, it has 119; download it again"),
        (corrupt(X, lambda d: d[:9]), rf"{X} is truncated: 9 bytes, expected a header of 16"),
        (corrupt(X, lambda d: b""), rf"{X} starts with nothing, expected the magic number 00 00 08 03 of IDX images"),
        (corrupt(X, lambda d: d + b"!"), rf"{X} has more bytes than the 120 of images that its header announces: expected no more"),
        (corrupt(X, lambda d: idx_bytes(LABELS)), rf"{X} starts with 00 00 08 01: a file of labels, expected the magic number 00 00 08 03"),
        (corrupt(Y, lambda d: idx_bytes(IMAGES)), rf"{Y} starts with 00 00 08 03: a file of images, expected the magic number 00 00 08 01"),
        (corrupt(X, gzip.compress), rf"{X} starts with 1f 8b 08 00: gzip, so its name must end in .gz, expected"),
        (corrupt(X, lambda d: b"\0\0\x0d\x03" + d[4:]), rf"{X} starts with 00 00 0d 03, expected the magic number"),
        (corrupt(X, lambda d: d[:4] + b"\xff" * 12), rf"{X} is truncated: its header announces 4294967295x4294967295x4294967295 bytes"),
        (corrupt(X, lambda d: idx_bytes(IMAGES[:0])), rf"{X} has 0x5x4 bytes of images: expected at least one"),
        (corrupt(Y, lambda d: idx_bytes(LABELS[:5])), rf"{X} has 6 images but .*{Y} has 5 labels: expected equal counts"),
        (corrupt(Y, lambda d: idx_bytes(LABELS + 1)), rf"{Y}: label 2 is 10, expected 0 to 9"),
        (
            corrupt("t10k-images-idx3-ubyte", lambda d: idx_bytes(TEST_IMAGES[:, :3])),
            "train-images-idx3-ubyte has images of 5x4 but .*t10k-images-idx3-ubyte of 3x4",
        ),
        (
            corrupt(X, lambda d: MNIST[X], gz=True),
            rf"{X}.gz is not a gzip file: it starts with 00 00, expected 1f 8b; .* remove .gz from its name",
        ),
        (corrupt(X, lambda d: b"", gz=True), rf"{X}.gz is not a gzip file: it starts with nothing"),
        (corrupt(X, lambda d: d[:-20], gz=True), rf"{X}.gz is truncated or damaged: .*; download it again"),
        (corrupt(X, flip, gz=True), rf"{X}.gz is a damaged gzip file: CRC check failed"),
        (corrupt(X, lambda d: d[:10] + b"\xff" * 40, gz=True), rf"{X}.gz is a damaged gzip file: .*invalid"),
        ({X: MNIST[X]}, rf"has no {Y} or {Y}.gz: expected it next to the files there \({X}\)"),
        ({"a.txt": b"", "b.txt": b""}, rf"has no {X} or {X}.gz: expected it next to the files there \(a.txt, b.txt\)"),
    ],
)
def test_bad_mnist_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("mnist", write(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


DAMAGED = {
    "short": corrupt(X, lambda d: d[:-1]),
    "no header": corrupt(X, lambda d: d[:9]),
    "long": corrupt(X, lambda d: d + b"!"),
    "huge": corrupt(X, lambda d: d[:4] + b"\xff" * 12),
    "short gzip": corrupt(X, lambda d: d[:-20], gz=True),
    "damaged gzip": corrupt(X, flip, gz=True),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_downloading_it_again_helps(tmp_path, kind):
    with pytest.raises(DataError, match=r"^(.*) (is|has) .*; download it again$") as error:
        datasets.load("mnist", write(tmp_path, DAMAGED[kind]))
    path = Path(str(error.value).partition(" ")[0])
    path.write_bytes(gzip.compress(MNIST[X]) if path.suffix == ".gz" else MNIST[X])
    check_mnist(datasets.load("mnist", tmp_path))


def test_gunzip_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_UNPACKED", 100)
    with pytest.raises(DataError, match=r"expected at most 100 in a .gz file; unpack it yourself with gunzip$"):
        datasets.load("mnist", write(tmp_path, MNIST, gz=True))
    for path in tmp_path.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    check_mnist(datasets.load("mnist", tmp_path))


@pytest.mark.parametrize(
    ("wrong", "right", "words"), [(f"{X}.gz", X, "remove .gz from its name"), (X, f"{X}.gz", "its name must end in .gz")]
)
def test_another_name_helps(tmp_path, wrong, right, words):
    write(tmp_path, MNIST)
    (tmp_path / X).unlink()
    (tmp_path / wrong).write_bytes(MNIST[X] if right == X else gzip.compress(MNIST[X]))
    with pytest.raises(DataError, match=words):
        datasets.load("mnist", tmp_path)
    (tmp_path / wrong).rename(tmp_path / right)
    check_mnist(datasets.load("mnist", tmp_path))


@pytest.mark.parametrize("name", datasets.NAMES[1:])
def test_missing_and_empty_folders(tmp_path, name):
    url = re.escape(download.MIRRORS[datasets.SAME_FILES.get(name, name)][0])
    with pytest.raises(DataError, match=rf"there is no folder {re.escape(str(tmp_path))}/nothing: expected a folder with .*, from {url}$"):
        datasets.load(name, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is empty: expected a folder with"):
        datasets.load(name, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="file is a file: expected a folder with"):
        datasets.load(name, tmp_path / "file")


@pytest.mark.parametrize("name", datasets.NAMES[1:])
def test_a_missing_file_is_named_with_its_address(tmp_path, name):
    source = datasets.SAME_FILES.get(name, name)
    first = next(iter(download.SHA256[source]))
    words = rf"has no (\S+).*: expected it next to the files there \(notes.txt\); it comes from {download.MIRRORS[source][0]}{first}$"
    with pytest.raises(DataError, match=words):
        datasets.load(name, write(tmp_path, {"notes.txt": b""}))


def test_a_folder_in_place_of_a_file(tmp_path):
    write(tmp_path, MNIST)
    (tmp_path / X).unlink()
    (tmp_path / X).mkdir()
    with pytest.raises(DataError, match=rf"cannot read .*{X}: Is a directory"):
        datasets.load("mnist", tmp_path)


def bomb(size, announced):
    """An IDX file of images in .gz that holds `size` zeros: 1 MB for 1 GB."""
    unit = gzip.compress(bytes(1 << 20))
    return gzip.compress(b"\0\0\x08\x03" + announced.to_bytes(4, "big") + (1).to_bytes(4, "big") * 2) + unit * (size >> 20)


@pytest.mark.parametrize(
    ("announced", "words"),
    [
        (3 << 30, r"its header announces 3221225472x1x1 bytes of images, expected at most 1,073,741,824 in a .gz file; unpack it yourself"),
        (1000, "has more bytes than the 1,000 of images that its header announces"),
    ],
)
def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch, announced, words):
    """Neither memory nor time is spent on what the header does not announce, or on what is too much."""
    read = []
    real = reader._Unpacked.read
    monkeypatch.setattr(reader._Unpacked, "read", lambda self, size=-1: (read.append(size), real(self, size))[1])
    write(tmp_path, MNIST)
    (tmp_path / X).unlink()
    (tmp_path / (X + ".gz")).write_bytes(bomb(3 << 30, announced))
    with pytest.raises(DataError, match=words):
        datasets.load("mnist", tmp_path)
    assert sum(size for size in read if size > 0) < 1 << 20
    assert min(read) > 0


def test_what_a_gz_file_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_UNPACKED", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1000)))
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(1001)))

    def contents(name, size):
        with reader.opened(tmp_path / name) as stream:
            return b"".join(iter(lambda: stream.read(size), b""))

    for size in (-1, 100, 1000, 5000):
        assert contents("a.gz", size) == bytes(1000)
        with pytest.raises(DataError, match=r"b.gz holds more than 1,000 bytes"):
            contents("b.gz", size)
