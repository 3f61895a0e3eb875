"""EMNIST: IDX files by columns, in a folder or in a zip archive."""

import gzip
import io
import string
import struct
import zipfile

import pytest

from nbnet import datasets
from nbnet.datasets import files as reader
from nbnet.errors import DataError

from .samples import EMNIST, check_mnist, emnist, flip, idx_bytes, write, zip_bytes

X, Y = "emnist-balanced-train-images-idx3-ubyte", "emnist-balanced-train-labels-idx1-ubyte"
URL = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"


def balanced(name, data):
    return emnist("balanced") | {name: data}


@pytest.mark.parametrize("gz", [True, False])
def test_emnist_from_a_folder(tmp_path, gz):
    write(tmp_path / "gzip", EMNIST, gz)
    for folder in (tmp_path, tmp_path / "gzip"):
        names = check_mnist(datasets.load("emnist", folder))
        assert len(names) == 47
        assert (names[9], names[10], names[35], names[36], names[46]) == ("9", "A", "Z", "a", "t")
        assert check_mnist(datasets.load("emnist-letters", folder)) == list(string.ascii_uppercase)


def test_emnist_from_its_archive(tmp_path):
    write(tmp_path, {"gzip.zip": zip_bytes(EMNIST)})
    x = datasets.load("emnist", tmp_path)[0][0]
    assert x.flags.c_contiguous
    check_mnist(datasets.load("emnist", tmp_path))
    check_mnist(datasets.load("emnist-letters", tmp_path))


def test_images_are_turned_upright(tmp_path):
    """The top left pixel stays; the next in the file is below it, not beside it."""
    write(tmp_path, EMNIST)
    image = datasets.load("emnist", tmp_path)[0][0][0, :, :, 0]
    stored = EMNIST[X][16:20]
    assert image.shape == (5, 4)
    assert bytes(image[:4, 0]) == stored


def zipped(name, data, **options):
    """An archive of EMNIST with one of its files as given."""
    buffer = io.BytesIO(zip_bytes({key: value for key, value in EMNIST.items() if key != name}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"gzip/{name}.gz", data, **options)
    return buffer.getvalue()


def marked(offset, value, data=zip_bytes(EMNIST)):  # noqa: B008 - it is not changed
    """The archive, with a byte of the header of each member changed; offset: in the central directory."""
    for mark, shift in ((b"PK\1\2", 0), (b"PK\3\4", -2)):
        at = data.find(mark)
        while at >= 0:
            data = data[: at + offset + shift] + bytes([value]) + data[at + offset + shift + 1 :]
            at = data.find(mark, at + 4)
    return data


PASSWORD, NEW_VERSION, UTF8 = marked(8, 1), marked(6, 99), marked(9, 8)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (balanced(X, EMNIST[X][:-1]), f"{X} is truncated: its header announces 120 bytes of images, it has 119; download it again"),
        (balanced(X, idx_bytes([[[1, 2]]])), f"{X} has 1 images but .*{Y} has 6 labels"),
        (balanced(Y, EMNIST[Y][:-1] + b"\x2f"), f"{Y}: label 5 is 47, expected 0 to 46"),
        ({k: v for k, v in EMNIST.items() if k != Y}, rf"has no {Y} or {Y}.gz: expected it next to .*; it comes from {URL}$"),
        ({"other.zip": b""}, rf"has no {X} or {X}.gz: expected it next to the files there \(other.zip\); it comes from {URL}$"),
        ({"gzip.zip": b"hello"}, r"gzip.zip is truncated or damaged: File is not a zip file; download it again"),
        ({"gzip.zip": zip_bytes(EMNIST)[:-50]}, r"gzip.zip is truncated or damaged: .*; download it again"),
        ({"gzip.zip": zip_bytes({"a": b""})}, rf"gzip.zip has no {X}.gz: expected it next to the files there \(a.gz\); download it again"),
        ({"gzip.zip": zipped(X, b"hello")}, rf"gzip.zip/{X}.gz is not a gzip file: it starts with 68 65"),
        ({"gzip.zip": zipped(X, flip(gzip.compress(EMNIST[X])))}, rf"gzip.zip/{X}.gz is a damaged gzip file: CRC check failed"),
        ({"gzip.zip": zipped(X, gzip.compress(EMNIST[X])[:-30])}, rf"gzip.zip/{X}.gz is truncated or damaged: .*; download it again"),
        ({"gzip.zip": zipped(X, gzip.compress(EMNIST[X][:9]))}, rf"gzip.zip/{X}.gz is truncated: 9 bytes, expected a header of 16"),
        (
            {"gzip.zip": zip_bytes(EMNIST).replace(b"\x1f\x8b", b"\x1f\x8c")},
            r"gzip.zip/.* is truncated or damaged: Bad CRC-32 for file .*; download it again",
        ),
        ({"gzip.zip": NEW_VERSION}, r"gzip.zip is a damaged zip file: zip file version 9.9; download it again"),
        (
            {"gzip.zip": UTF8.replace(b"gzip/emnist", b"gzip/\xffmnist")},
            r"gzip.zip is a damaged zip file: 'utf-8' codec .*; download it again",
        ),
        ({"gzip.zip": PASSWORD}, r"cannot read .*gzip.zip/.*: .*password required.*; download it again"),
    ],
)
def test_bad_emnist_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("emnist", write(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [0, 27])
def test_letters_are_numbered_from_1(tmp_path, label):
    files = emnist("letters", 1)
    files["emnist-letters-test-labels-idx1-ubyte"] = idx_bytes([label, 5])
    with pytest.raises(DataError, match=rf"test-labels-idx1-ubyte: label 0 is {label}, expected 1 to 26"):
        datasets.load("emnist-letters", write(tmp_path, files))


def test_a_bomb_in_the_archive(tmp_path, monkeypatch):
    """A header of 3 GB is refused before anything is unpacked, whatever size the archive says the file has."""
    read = []
    real = reader._Unpacked.read
    monkeypatch.setattr(reader._Unpacked, "read", lambda self, size=-1: (read.append(size), real(self, size))[1])
    header = b"\0\0\x08\x03" + struct.pack(">III", 3 << 30, 1, 1)
    write(tmp_path, {"gzip.zip": zipped(X, gzip.compress(header + bytes(8 << 20)))})
    with pytest.raises(DataError, match=r"its header announces 3221225472x1x1 bytes of images"):
        datasets.load("emnist", tmp_path)
    assert sum(read) < 1000
