"""CIFAR-10: the binary format, in files and in its archive."""

import gzip

import pytest

from nbnet import datasets
from nbnet.datasets import cifar
from nbnet.errors import DataError

from .samples import ARCHIVE, CIFAR, CIFAR_X, NAMES, check_cifar, flip, records, tar_bytes, write


def test_cifar_from_files(tmp_path):
    check_cifar(datasets.load("cifar10", write(tmp_path / "plain", CIFAR)))
    check_cifar(datasets.load("cifar10", write(tmp_path / "packed", CIFAR, gz=True)))
    check_cifar(datasets.load("cifar10", write(tmp_path / "parent" / "cifar-10-batches-bin", CIFAR).parent))


def test_cifar_from_its_archive(tmp_path):
    shuffled = {"readme.html": b"hello"} | dict(reversed(CIFAR.items()))
    check_cifar(datasets.load("cifar10", write(tmp_path, {"cifar-10-binary.tar.gz": tar_bytes(shuffled)})))


def test_cifar_class_names_come_from_its_file(tmp_path):
    names = [name.upper() for name in NAMES]
    files = CIFAR | {"batches.meta.txt": "\n".join(names).encode() + b"\n\n"}
    check_cifar(datasets.load("cifar10", write(tmp_path / "files", files)), names)
    check_cifar(datasets.load("cifar10", write(tmp_path / "tar", {"cifar-10-binary.tar.gz": tar_bytes(files)})), names)


def test_cifar_reads_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "BLOCK", 1)
    check_cifar(datasets.load("cifar10", write(tmp_path, CIFAR)))
    bad = CIFAR | {"data_batch_3.bin": records(CIFAR_X[:2], [1, 77])}
    with pytest.raises(DataError, match=r"data_batch_3.bin: record 1 has label 77"):
        datasets.load("cifar10", write(tmp_path, bad))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            CIFAR | {"data_batch_2.bin": CIFAR["data_batch_2.bin"][:-1]},
            "data_batch_2.bin is truncated or of another kind: it has 6,145 bytes",
        ),
        (CIFAR | {"test_batch.bin": b""}, "test_batch.bin is truncated or of another kind: it has 0 bytes, expected records of 3,073"),
        (CIFAR | {"test_batch.bin": records(CIFAR_X[:2], [9, 10])}, "test_batch.bin: record 1 has label 10, expected 0 to 9"),
        ({k: v for k, v in CIFAR.items() if k != "data_batch_4.bin"}, r"has no data_batch_4.bin: expected it next to the files there"),
        (CIFAR | {"batches.meta.txt": b"\n"}, "batches.meta.txt is empty: expected one class name per line"),
        (CIFAR | {"batches.meta.txt": b"\xff\xfe"}, "batches.meta.txt is not text: .* at byte 0; expected one class name per line"),
        (CIFAR | {"batches.meta.txt": b"a\nb\nc\n"}, "data_batch_1.bin: record 1 has label 9, expected 0 to 2"),
        ({"data_batch_1": b"\x80"}, r"has the Python \(pickle\) version of CIFAR-10: expected the binary version, cifar-10-binary.tar.gz"),
        ({"a": b""}, r"has no data_batch_1.bin: expected it next to the files there \(a\)"),
        ({ARCHIVE: b"hello"}, f"{ARCHIVE} is not a gzip file: it starts with 68 65"),
        ({ARCHIVE: gzip.compress(b"hello" * 1000)}, f"{ARCHIVE} is truncated or damaged: .*; download it again"),
        ({ARCHIVE: tar_bytes(CIFAR)[:9000]}, f"{ARCHIVE} is truncated or damaged: .*; download it again"),
        ({ARCHIVE: flip(tar_bytes(CIFAR))}, f"{ARCHIVE} is a damaged gzip file: CRC check failed.*; download it again"),
        (
            {ARCHIVE: tar_bytes({"test_batch.bin": CIFAR["test_batch.bin"]})},
            f"{ARCHIVE} has no data_batch_1.bin: expected data_batch_1.bin, ",
        ),
        (
            {ARCHIVE: tar_bytes(CIFAR | {"data_batch_5.bin": b"123"})},
            f"{ARCHIVE}/cifar-10-batches-bin/data_batch_5.bin is truncated or of another kind: it has 3 bytes",
        ),
    ],
)
def test_bad_cifar_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("cifar10", write(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
