"""CIFAR-10 and CIFAR-100: the binary format, in files and in their archives."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from nbnet import datasets
from nbnet.datasets import cifar
from nbnet.datasets import files as reader
from nbnet.errors import DataError

from .samples import ARCHIVE, CIFAR, CIFAR_100, CIFAR_X, CIFAR_Y, NAMES, check_cifar, flip, records, tar_bytes, write


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
        (CIFAR | {"batches.meta.txt": b"a\0b\nc\n"}, r"batches.meta.txt is damaged: it\[0\] is 'a\\x00b', expected a line of text"),
        (CIFAR | {"batches.meta.txt": b"a\n" * 999}, r"batches.meta.txt is damaged: .*, expected a list of 1 to 256 values"),
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


@pytest.mark.parametrize("data", [gzip.compress(b"hello" * 1000), tar_bytes(CIFAR)[:9000], flip(tar_bytes(CIFAR))])
def test_downloading_it_again_helps(tmp_path, data):
    with pytest.raises(DataError, match=r"; download it again$"):
        datasets.load("cifar10", write(tmp_path, {ARCHIVE: data}))
    (tmp_path / ARCHIVE).write_bytes(tar_bytes(CIFAR))
    check_cifar(datasets.load("cifar10", tmp_path))


def archive(members):
    """A .tar.gz of (name, type, contents or target of a link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            member.linkname = "" if kind == tarfile.REGTYPE else data.decode()
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("../data_batch_1.bin", tarfile.REGTYPE, CIFAR["data_batch_1.bin"]), "has the member '../data_batch_1.bin', which leaves"),
        (("a/../../b", tarfile.REGTYPE, b"x"), "has the member 'a/../../b', which leaves the archive: download it again"),
        (("/etc/data_batch_1.bin", tarfile.REGTYPE, b"x"), "has the member '/etc/data_batch_1.bin', which leaves the archive"),
        (("data_batch_1.bin", tarfile.SYMTYPE, b"/etc/passwd"), "has no data_batch_1.bin"),
        (("data_batch_1.bin", tarfile.LNKTYPE, b"test_batch.bin"), "has no data_batch_1.bin"),
    ],
)
def test_members_that_leave_the_archive(tmp_path, member, words):
    rest = [(f"cifar-10-batches-bin/{name}", tarfile.REGTYPE, data) for name, data in CIFAR.items() if name != "data_batch_1.bin"]
    write(tmp_path, {ARCHIVE: archive([*rest, member])})
    with pytest.raises(DataError, match=f"{ARCHIVE} {words}"):
        datasets.load("cifar10", tmp_path)
    assert os.listdir(tmp_path) == [ARCHIVE]


def test_an_archive_that_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_UNPACKED", 1 << 20)
    write(tmp_path, {ARCHIVE: tar_bytes(CIFAR | {"data_batch_2.bin": bytes(1 << 24)})})
    with pytest.raises(DataError, match=f"{ARCHIVE} holds more than 1,048,576 bytes: expected at most that; unpack it yourself"):
        datasets.load("cifar10", tmp_path)


def test_cifar_100(tmp_path):
    """Its labels are the fine ones, the second of each record."""
    plain = datasets.load("cifar100", write(tmp_path / "plain" / "cifar-100-binary", CIFAR_100).parent)
    names = b"\n".join(b"class %d" % i for i in range(100))
    packed = tar_bytes(CIFAR_100 | {"fine_label_names.txt": names, "coarse_label_names.txt": b"a\nb\n"}, folder="cifar-100-binary")
    archived = datasets.load("cifar100", write(tmp_path / "tar", {"cifar-100-binary.tar.gz": packed}))
    for (x, y), (x_test, y_test), _ in (plain, archived):
        assert np.array_equal(x, CIFAR_X[:10])
        assert np.array_equal(x_test, CIFAR_X[10:])
        assert (y.tolist(), y_test.tolist()) == ((CIFAR_Y[:10] * 11).tolist(), (CIFAR_Y[10:] * 11).tolist())
        assert x.dtype == np.uint8
        assert y.dtype == np.int64
    assert (len(plain[2]), len(set(plain[2])), plain[2][0], plain[2][1], plain[2][99]) == (100, 100, "apple", "aquarium_fish", "worm")
    assert plain[2] == sorted(plain[2])
    assert archived[2][99] == "class 99"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (CIFAR_100 | {"train.bin": CIFAR_100["train.bin"][:-1]}, "train.bin is truncated or of another kind: .* expected records of 3,074"),
        (CIFAR_100 | {"train.bin": CIFAR["data_batch_1.bin"]}, "train.bin is truncated or of another kind: it has 6,146 bytes"),
        (CIFAR_100 | {"test.bin": records(CIFAR_X[:2], [9, 100], b"\3")}, "test.bin: record 1 has label 100, expected 0 to 99"),
        (
            {"test.bin": CIFAR_100["test.bin"]},
            "has no train.bin: .*; it comes from https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        ),
        (
            {"meta": b"\x80", "train": b"\x80"},
            r"has the Python \(pickle\) version of CIFAR-100: expected the binary version, cifar-100-binary",
        ),
        (
            {"cifar-100-binary.tar.gz": tar_bytes({"train.bin": CIFAR_100["train.bin"]})},
            "cifar-100-binary.tar.gz has no test.bin: expected train.bin, test.bin; download it again",
        ),
    ],
)
def test_bad_cifar_100_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("cifar100", write(tmp_path, files))
    assert "\n" not in str(error.value)
