"""Data sets: the embedded digits, IDX, CIFAR-10, downloads from a server on loopback, folders of images."""

import contextlib
import gzip
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbnet import datasets
from nbnet.datasets import cifar, digits, download
from nbnet.errors import ArgumentError, DataError

# ------------------------------------------------------------------------------------------------------------ digits


def test_digits():
    (x, y), (x_test, y_test), names = datasets.load("digits")
    assert x.shape == (1438, 8, 8, 1)
    assert x_test.shape == (359, 8, 8, 1)
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert (y.shape, y_test.shape) == ((1438,), (359,))
    assert names == list("0123456789")
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's page
    assert np.bincount(y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_digits_are_the_published_images():
    with np.load(Path(digits.__file__).parent / "digits.npz", allow_pickle=False) as arrays:
        first, label = arrays["images"][0], arrays["labels"][0]
        is_test = arrays["is_test"]
    assert label == 0  # the first line of optdigits.tes
    assert first.reshape(-1)[:24].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0]
    (x, _), (x_test, _), _ = datasets.load("digits")
    image = x_test[0] if is_test[0] else x[0]
    assert image[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # round(v * 255 / 16)
    assert x.max() == 255
    assert len(np.unique(x)) == 17


def test_digits_do_not_change():
    (x, y), (x_test, y_test), _ = datasets.load("digits")
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (x, y.astype("<i8"), x_test, y_test.astype("<i8")))).hexdigest()
    assert digest == DIGITS_SHA256


DIGITS_SHA256 = "caab4143e6900256409822b15abad7aab7130cae21b876b2b7366c6397b03e10"


def test_digits_name_their_makers():
    text = (Path(digits.__file__).parent / "digits-attribution.txt").read_text()
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "Changes:"):
        assert word in text


def test_unknown_names(tmp_path):
    with pytest.raises(ArgumentError, match="unknown data set 'fashon-mnist': did you mean 'fashion-mnist'"):
        datasets.load("fashon-mnist")
    with pytest.raises(ArgumentError, match=r"for a folder of images use from_folder\(path\)"):
        datasets.load(str(tmp_path))
    with pytest.raises(ArgumentError, match=r"digits come with nbnet and read no folder, got data_dir='here': leave data_dir out"):
        datasets.load("digits", "here")


# ------------------------------------------------------------------------------------------------------- MNIST (IDX)


def idx_bytes(array):
    array = np.ascontiguousarray(array, np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES, LABELS = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4), np.array([3, 0, 9, 1, 1, 7], np.uint8)
TEST_IMAGES, TEST_LABELS = IMAGES[:2] + 100, np.array([8, 2], np.uint8)
MNIST = {
    "train-images-idx3-ubyte": idx_bytes(IMAGES),
    "train-labels-idx1-ubyte": idx_bytes(LABELS),
    "t10k-images-idx3-ubyte": idx_bytes(TEST_IMAGES),
    "t10k-labels-idx1-ubyte": idx_bytes(TEST_LABELS),
}


def write(folder, files, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (name + ".gz" if gz else name)).write_bytes(gzip.compress(data) if gz else data)
    return folder


def check_mnist(data):
    (x, y), (x_test, y_test), names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(x, IMAGES[..., None])
    assert np.array_equal(x_test, TEST_IMAGES[..., None])
    assert (y.tolist(), y_test.tolist()) == (LABELS.tolist(), TEST_LABELS.tolist())
    return names


@pytest.mark.parametrize("gz", [True, False])
def test_mnist_from_a_folder(tmp_path, gz):
    write(tmp_path, MNIST, gz)
    assert check_mnist(datasets.load("mnist", tmp_path)) == list("0123456789")
    assert check_mnist(datasets.load("fashion-mnist", str(tmp_path)))[9] == "Ankle boot"


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


def flip(data):
    """A gzip file with one bit of its checksum turned."""
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


X, Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (corrupt(X, lambda d: d[:-1]), rf"{X} is truncated: its header promises 120 bytes of images, it has 119; download it again"),
        (corrupt(X, lambda d: d[:9]), rf"{X} is truncated: 9 bytes, wanted a header of 16"),
        (corrupt(X, lambda d: b""), rf"{X} starts with nothing, wanted the magic number 00 00 08 03 of IDX images"),
        (corrupt(X, lambda d: d + b"!"), rf"{X} goes on after the 120 bytes of images that its header promises: wanted none"),
        (corrupt(X, lambda d: idx_bytes(LABELS)), rf"{X} starts with 00 00 08 01: a file of labels, wanted the magic number 00 00 08 03"),
        (corrupt(Y, lambda d: idx_bytes(IMAGES)), rf"{Y} starts with 00 00 08 03: a file of images, wanted the magic number 00 00 08 01"),
        (corrupt(X, gzip.compress), rf"{X} starts with 1f 8b 08 00: gzip, so its name must end in .gz, wanted"),
        (corrupt(X, lambda d: b"\0\0\x0d\x03" + d[4:]), rf"{X} starts with 00 00 0d 03, wanted the magic number"),
        (corrupt(X, lambda d: d[:4] + b"\xff" * 12), rf"{X} is truncated: its header promises 4294967295x4294967295x4294967295 bytes"),
        (corrupt(X, lambda d: idx_bytes(IMAGES[:0])), rf"{X} says it holds 0x5x4 bytes of images: wanted at least one"),
        (corrupt(Y, lambda d: idx_bytes(LABELS[:5])), rf"{X} has 6 images but .*{Y} has 5 labels: wanted as many"),
        (corrupt(Y, lambda d: idx_bytes(LABELS + 1)), rf"{Y}: label 2 is 10, wanted 0 to 9"),
        (
            corrupt("t10k-images-idx3-ubyte", lambda d: idx_bytes(TEST_IMAGES[:, :3])),
            "train-images-idx3-ubyte has images of 5x4 but .*t10k-images-idx3-ubyte of 3x4",
        ),
        (
            corrupt(X, lambda d: MNIST[X], gz=True),
            rf"{X}.gz is not a gzip file: it starts with 00 00, wanted 1f 8b; .* take .gz off its name",
        ),
        (corrupt(X, lambda d: b"", gz=True), rf"{X}.gz is not a gzip file: it starts with nothing"),
        (corrupt(X, lambda d: d[:-20], gz=True), rf"{X}.gz is truncated or damaged: .*; download it again"),
        (corrupt(X, flip, gz=True), rf"{X}.gz is a damaged gzip file: CRC check failed"),
        (corrupt(X, lambda d: d[:10] + b"\xff" * 40, gz=True), rf"{X}.gz is a damaged gzip file: .*invalid"),
        ({X: MNIST[X]}, rf"has no {Y} or {Y}.gz: wanted it beside what is there \({X}\)"),
        ({"a.txt": b"", "b.txt": b""}, rf"has no {X} or {X}.gz: wanted it beside what is there \(a.txt, b.txt\)"),
    ],
)
def test_bad_mnist_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("mnist", write(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_missing_and_empty_folders(tmp_path, name):
    with pytest.raises(DataError, match=rf"there is no folder {re.escape(str(tmp_path))}/nothing: wanted a folder with"):
        datasets.load(name, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is empty: wanted a folder with"):
        datasets.load(name, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="file is a file: wanted a folder with"):
        datasets.load(name, tmp_path / "file")


def test_a_folder_in_place_of_a_file(tmp_path):
    write(tmp_path, MNIST)
    (tmp_path / X).unlink()
    (tmp_path / X).mkdir()
    with pytest.raises(DataError, match=rf"cannot read .*{X}: Is a directory"):
        datasets.load("mnist", tmp_path)


# ---------------------------------------------------------------------------------------------------------- CIFAR-10

RNG = np.random.Generator(np.random.Philox(7))
CIFAR_X = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8)  # two images a file
CIFAR_Y = np.array([0, 9, 5, 4, 3, 3, 2, 1, 8, 7, 6, 0], np.uint8)
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def records(x, y):
    return b"".join(bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3)) for image, label in zip(x, y))


CIFAR = {name: records(CIFAR_X[2 * i : 2 * i + 2], CIFAR_Y[2 * i : 2 * i + 2]) for i, name in enumerate([*cifar.TRAIN, *cifar.TEST])}


def tar_bytes(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def check_cifar(data, names=NAMES):
    (x, y), (x_test, y_test), class_names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(x, CIFAR_X[:10])
    assert np.array_equal(x_test, CIFAR_X[10:])
    assert (y.tolist(), y_test.tolist()) == (CIFAR_Y[:10].tolist(), CIFAR_Y[10:].tolist())
    assert x.flags.c_contiguous
    assert class_names == names


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


ARCHIVE = "cifar-10-binary.tar.gz"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            CIFAR | {"data_batch_2.bin": CIFAR["data_batch_2.bin"][:-1]},
            "data_batch_2.bin is truncated or something else: it has 6,145 bytes",
        ),
        (CIFAR | {"test_batch.bin": b""}, "test_batch.bin is truncated or something else: it has 0 bytes, wanted records of 3,073"),
        (CIFAR | {"test_batch.bin": records(CIFAR_X[:2], [9, 10])}, "test_batch.bin: record 1 has label 10, wanted 0 to 9"),
        ({k: v for k, v in CIFAR.items() if k != "data_batch_4.bin"}, r"has no data_batch_4.bin: wanted it beside what is there"),
        (CIFAR | {"batches.meta.txt": b"\n"}, "batches.meta.txt is empty: wanted a class name a line"),
        (CIFAR | {"batches.meta.txt": b"\xff\xfe"}, "batches.meta.txt is not text: .* at byte 0; wanted a class name a line"),
        (CIFAR | {"batches.meta.txt": b"a\nb\nc\n"}, "data_batch_1.bin: record 1 has label 9, wanted 0 to 2"),
        ({"data_batch_1": b"\x80"}, r"has the Python \(pickle\) version of CIFAR-10: wanted the binary version, cifar-10-binary.tar.gz"),
        ({"a": b""}, r"has no data_batch_1.bin: wanted it beside what is there \(a\)"),
        ({ARCHIVE: b"hello"}, f"{ARCHIVE} is not a gzip file: it starts with 68 65"),
        ({ARCHIVE: gzip.compress(b"hello" * 1000)}, f"{ARCHIVE} is truncated or damaged: .*; download it again"),
        ({ARCHIVE: tar_bytes(CIFAR)[:9000]}, f"{ARCHIVE} is truncated or damaged: .*; download it again"),
        ({ARCHIVE: flip(tar_bytes(CIFAR))}, f"{ARCHIVE} is a damaged gzip file: CRC check failed.*; download it again"),
        (
            {ARCHIVE: tar_bytes({"test_batch.bin": CIFAR["test_batch.bin"]})},
            f"{ARCHIVE} has no data_batch_1.bin: wanted data_batch_1.bin, ",
        ),
        (
            {ARCHIVE: tar_bytes(CIFAR | {"data_batch_5.bin": b"123"})},
            f"{ARCHIVE}/cifar-10-batches-bin/data_batch_5.bin is truncated or something else: it has 3 bytes",
        ),
    ],
)
def test_bad_cifar_files(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("cifar10", write(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------------------------- downloads


class Server(ThreadingHTTPServer):
    """Serves the bytes in `files`; a file in `short` breaks off halfway. `asked` lists the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.short, self.asked = {}, set(), []
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        name = self.path.lstrip("/")
        if name not in server.files:
            self.send_error(404)
            return
        data = server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if name in server.short else data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NBNET_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "MIRRORS", {})  # whatever a test forgets to set fails instead of reaching the network
    monkeypatch.setattr(download, "MD5", {})
    return tmp_path / "cache"


def publish(monkeypatch, server, name, files, mirrors=None):
    """Let nbnet download `name` from the server: these files with their right checksums."""
    server.files |= files
    monkeypatch.setitem(download.MD5, name, {file: hashlib.md5(data).hexdigest() for file, data in files.items()})
    monkeypatch.setitem(download.MIRRORS, name, mirrors or [server.url])


MNIST_GZ = {name + ".gz": gzip.compress(data) for name, data in MNIST.items()}


@pytest.mark.parametrize("progress", [True, False, None])
def test_download_once(cache, server, monkeypatch, progress, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    check_mnist(datasets.load("mnist", progress=progress))
    assert sorted(server.asked) == sorted("/" + name for name in MNIST_GZ)
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(MNIST_GZ)
    drawn = capsys.readouterr().err
    for name in MNIST_GZ:
        assert bool(re.search(f"{name} +━", drawn)) == (progress is True)
    check_mnist(datasets.load("mnist", progress=progress))
    assert len(server.asked) == 4
    assert capsys.readouterr().err == ""


def test_data_sets_with_the_same_file_names_do_not_mix(cache, server, monkeypatch):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    datasets.load("mnist")
    fashion = dict(MNIST_GZ) | {"train-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(LABELS[::-1]))}
    publish(monkeypatch, server, "fashion-mnist", fashion)
    assert datasets.load("fashion-mnist")[0][1].tolist() == LABELS[::-1].tolist()
    check_mnist(datasets.load("mnist"))


def test_download_cifar(cache, server, monkeypatch):
    publish(monkeypatch, server, "cifar10", {ARCHIVE: tar_bytes(CIFAR)})
    check_cifar(datasets.load("cifar10"))
    check_cifar(datasets.load("cifar10", cache / "cifar10"))  # the cache folder is a data_dir too


def test_a_damaged_file_in_the_cache_is_downloaded_again(cache, server, monkeypatch):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    write(cache / "mnist", {"t10k-labels-idx1-ubyte.gz": b"half a fi"})
    check_mnist(datasets.load("mnist"))


def test_wrong_checksum(cache, server, monkeypatch):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    server.files[X + ".gz"] = b"a page that says: please log in"
    wanted = hashlib.md5(MNIST_GZ[X + ".gz"]).hexdigest()
    with pytest.raises(
        DataError, match=rf"cannot download mnist: {server.url}{X}.gz: its checksum is wrong, wanted md5 {wanted}; .*data_dir"
    ):
        datasets.load("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_a_broken_transfer_leaves_nothing(cache, server, monkeypatch):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    server.short.add(X + ".gz")
    with pytest.raises(DataError, match=rf"cannot download mnist: {server.url}{X}.gz: (the transfer broke off|its checksum is wrong)"):
        datasets.load("mnist")
    assert list((cache / "mnist").iterdir()) == []
    server.short.clear()
    check_mnist(datasets.load("mnist"))


def test_server_down(cache, monkeypatch):
    with serving() as server:
        publish(monkeypatch, server, "mnist", MNIST_GZ)
    words = (
        rf"cannot download mnist: {server.url}{X}.gz: no connection; try again, or get the files yourself and give their folder as data_dir"
    )
    with pytest.raises(DataError, match=words):
        datasets.load("mnist")


def test_missing_file_on_the_server(cache, server, monkeypatch):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    del server.files[Y + ".gz"]
    with pytest.raises(DataError, match=f"{server.url}{Y}.gz: the server answers 404"):
        datasets.load("mnist")


def test_a_silent_server(cache, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: release.wait(10))
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    try:
        with pytest.raises(DataError, match=f"{server.url}{X}.gz: no answer within 0.05 s"):
            datasets.load("mnist")
    finally:
        release.set()


def test_the_next_mirror_is_tried(cache, server, monkeypatch):
    with serving() as down:
        dead = down.url
    with serving() as wrong:
        wrong.files = dict.fromkeys(MNIST_GZ, b"old")
        publish(monkeypatch, server, "mnist", MNIST_GZ, [dead, wrong.url, server.url])
        check_mnist(datasets.load("mnist", progress=True))
        assert len(wrong.asked) == len(server.asked) == 4
        server.files.clear()
        (cache / "mnist" / (X + ".gz")).unlink()
        with pytest.raises(DataError, match=f"{dead}.*no connection; {wrong.url}.*checksum is wrong.*; {server.url}.*answers 404"):
            datasets.load("mnist")


def test_a_cache_that_cannot_be_written(tmp_path, server, monkeypatch, cache):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NBNET_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write to .*/file/mnist: .*; set NBNET_DATA_DIR to a folder that is writable"):
        datasets.load("mnist")


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("NBNET_DATA_DIR", "/some/where")
    assert str(download.cache_folder()) == "/some/where"
    monkeypatch.delenv("NBNET_DATA_DIR")
    assert "nbnet" in str(download.cache_folder())


def test_every_download_has_a_mirror_and_a_checksum():
    assert download.MIRRORS.keys() == download.MD5.keys() == set(datasets.NAMES) - {"digits"}
    for name, files in download.MD5.items():
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in files.values())
        assert all(re.fullmatch("https?://.*/", url) for url in download.MIRRORS[name])


def test_pooch_rich_and_pillow_are_imported_when_needed_only():
    code = (
        "import sys, nbnet.datasets as d; d.load('digits'); print(*[m for m in ('pooch', 'rich', 'requests', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


# --------------------------------------------------------------------------------------------------- folders of images


def paint(path, value, size=(4, 6), mode="RGB", **options):
    """An image file of one colour; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value).save(path, **options)
    return path


def pets(root, cats=5, dogs=10):
    for i in reversed(range(dogs)):
        paint(root / "dog" / f"{i:02}.png", (i, 100, 200))
    for i in range(cats):
        paint(root / "cat" / f"{i:02}.PNG", (i, 50, 250))
    return root


def test_folder(tmp_path):
    root = pets(tmp_path)
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "notes.txt").write_text("hello")
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "cat" / ".hidden.png").write_text("hello")
    (x, y), (x_test, y_test), names = datasets.from_folder(root)
    assert names == ["cat", "dog"]
    assert x.shape == (12, 4, 6, 3)
    assert x_test.shape == (3, 4, 6, 3)
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert y_test.tolist() == [0, 1, 1]
    seen = []
    for image, label in zip(np.concatenate([x, x_test]), np.concatenate([y, y_test])):
        assert (image == image[0, 0]).all()
        assert image[0, 0, 1:].tolist() == [[50, 250], [100, 200]][label]
        seen.append((int(label), int(image[0, 0, 0])))
    assert sorted(seen) == [(0, i) for i in range(5)] + [(1, i) for i in range(10)]


def test_the_split_depends_on_names_and_seed_alone(tmp_path, monkeypatch):
    root = pets(tmp_path)
    first = datasets.from_folder(root, seed=1)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), key=lambda name: hashlib.md5(name.encode()).digest()))
    again = datasets.from_folder(root, seed=1)
    other = datasets.from_folder(root, seed=2)
    for a, b in zip(first[:2], again[:2]):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
    assert not np.array_equal(first[1][0], other[1][0])
    assert len(datasets.from_folder(root, test_fraction=0.4)[1][1]) == 6


def test_train_and_test_folders(tmp_path):
    pets(tmp_path / "train", 2, 3)
    for i in range(2):
        paint(tmp_path / "test" / "dog" / f"{i}.png", (i + 7, 100, 200))
    (x, y), (x_test, y_test), names = datasets.from_folder(tmp_path)
    assert names == ["cat", "dog"]
    assert y.tolist() == [0, 0, 1, 1, 1]
    assert y_test.tolist() == [1, 1]  # the class of the training folder, though it is the only one here
    assert x[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert x_test[:, 0, 0, 0].tolist() == [7, 8]
    paint(tmp_path / "test" / "bird" / "0.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"test has the class 'bird', which .*train has not: wanted cat, dog"):
        datasets.from_folder(tmp_path)


def test_train_and_test_may_be_classes(tmp_path):
    for i in range(5):
        paint(tmp_path / "train" / f"{i}.png", (i, 0, 0))
        paint(tmp_path / "test" / f"{i}.png", (i, 9, 0))
    assert datasets.from_folder(tmp_path)[2] == ["test", "train"]


def test_grey_is_found_in_the_data(tmp_path):
    paint(tmp_path / "a.png", 10, mode="L")
    paint(tmp_path / "b.png", 1, mode="1")
    paint(tmp_path / "c.png", (30, 30, 30))
    colour = paint(tmp_path / "d.png", (30, 30, 31))
    grey = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert datasets.read_images(grey[:2])[:, 0, 0].tolist() == [[10], [255]]
    x = datasets.read_images(grey)
    assert x.shape == (3, 4, 6, 1)
    assert x[:, 0, 0, 0].tolist() == [10, 255, 30]
    assert x.flags.c_contiguous
    assert datasets.read_images([*grey, colour])[:, 0, 0].tolist() == [[10] * 3, [255] * 3, [30] * 3, [30, 30, 31]]
    assert datasets.read_images(grey, channels=3).shape == (3, 4, 6, 3)
    assert datasets.read_images([colour], channels=1)[0, 0, 0].tolist() == [30]
    red = paint(tmp_path / "red.png", (255, 0, 0))
    assert datasets.read_images([red], channels=1)[0, 0, 0].tolist() == [76]  # 0.299 * 255


def test_resizing_takes_the_whole_image(tmp_path):
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 4:] = (200, 100, 50)
    Image.fromarray(picture).save(tmp_path / "a.png")
    x = datasets.read_images([tmp_path / "a.png"], size=(2, 2))
    half = datasets.read_images([tmp_path / "a.png"], size=(4, 8))
    assert np.array_equal(half[0], picture)
    assert x.shape == (1, 2, 2, 3)
    assert (x[0, :, 0, 0] < x[0, :, 1, 0]).all()
    assert np.array_equal(x[0, 0], x[0, 1])
    assert x[0, :, :, 0].sum() == 2 * 200  # the mean of the whole image stays
    assert datasets.read_images([tmp_path / "a.png"], size=3).shape == (1, 3, 3, 3)


def test_transparent_parts_become_white(tmp_path):
    paint(tmp_path / "a.png", (0, 0, 0, 0), mode="RGBA")
    paint(tmp_path / "b.png", (0, 255), mode="LA")
    paint(tmp_path / "c.png", (9, 9, 9), transparency=(9, 9, 9))
    assert datasets.read_images([tmp_path / name for name in ("a.png", "b.png", "c.png")])[:, 0, 0, 0].tolist() == [255, 0, 255]


def test_a_turned_photograph_is_turned_back(tmp_path):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, 8:] = 255
    turned = Image.fromarray(np.rot90(picture))  # as a camera held upright stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(datasets.read_images([tmp_path / "a.png"], channels=3)[0], picture)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "RGB"), ("jpeg", "L"), ("bmp", "RGB"), ("gif", "P"), ("tiff", "CMYK"), ("webp", "RGB")]
)
def test_formats(tmp_path, suffix, mode):
    root = tmp_path
    for kind in ("a", "b"):
        for i in range(2):
            paint(root / kind / f"{i}.{suffix}", 0, (8, 8), mode)
    (x, _), _, _ = datasets.from_folder(root)
    assert x.shape == (2, 8, 8, 1)


def damage(root):
    path = root / "dog" / "03.png"
    path.write_bytes(path.read_bytes()[:-30])


def sixteen_bits(root):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(root / "dog" / "03.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda root: paint(root / "dog" / "03.png", (1, 2, 3), (5, 6)),
            r"dog/03.png has 5x6 pixels but .*/cat/0\d.PNG has 4x6: wanted one size; give size=\(height, width\), such as size=\(4, 6\)",
        ),
        (damage, "cannot read the image .*dog/03.png: .*; replace or remove it"),
        (
            lambda root: (root / "dog" / "03.png").write_bytes(b""),
            "dog/03.png is not an image that Pillow can read: wanted png, jpg or the like",
        ),
        (lambda root: (root / "dog" / "03.png").write_bytes(b"hello"), "dog/03.png is not an image that Pillow can read"),
        (sixteen_bits, r"dog/03.png has more than 8 bits a channel \(Pillow's mode I.*\): wanted 8; save it as 8-bit grey or RGB"),
        (lambda root: (root / "emu").mkdir(), "emu is empty: wanted images"),
        (lambda root: write(root / "emu", {"a.txt": b""}), r"emu has no image \(.png, .jpg, .*\): it holds a.txt"),
    ],
)
def test_bad_folders(tmp_path, spoil, words):
    spoil(pets(tmp_path))
    with pytest.raises(DataError, match=words) as error:
        datasets.from_folder(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_something_else(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nothing: wanted a folder with one sub-folder of images a class"):
        datasets.from_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="is empty: wanted a folder with one sub-folder of images a class"):
        datasets.from_folder(tmp_path)
    paint(tmp_path / "loose.png", 0)
    with pytest.raises(DataError, match=r"has no sub-folder, only loose.png: wanted a sub-folder of images for each class, at least 2"):
        datasets.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"loose.png is a file: wanted a folder"):
        datasets.from_folder(tmp_path / "loose.png")
    paint(tmp_path / "cat" / "1.png", 0)
    with pytest.raises(DataError, match="has the sub-folder cat alone: wanted a sub-folder of images for each class, at least 2"):
        datasets.from_folder(tmp_path)
    paint(tmp_path / "dog" / "1.png", 0)
    with pytest.raises(DataError, match="has one image a class, so nothing is left to test"):
        datasets.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"these look like the files of mnist: use load\('mnist', data_dir=...\)"):
        datasets.from_folder(write(tmp_path / "m", MNIST, gz=True))
    with pytest.raises(DataError, match=r"these look like the files of cifar10"):
        datasets.from_folder(write(tmp_path / "c", CIFAR))
    with pytest.raises(DataError, match="there is no image: wanted at least one file"):
        datasets.read_images([])
    with pytest.raises(DataError, match=r"cannot read the image .*gone.png: No such file or directory"):
        datasets.read_images([tmp_path / "gone.png"])


@pytest.mark.parametrize("size", [0, (0, 4), (4,), (4, 5, 6), 2.5, "32", (4.0, 4)])
def test_bad_size(tmp_path, size):
    with pytest.raises(ArgumentError, match=r"size=.*: wanted \(height, width\) in pixels, such as \(32, 32\)"):
        datasets.from_folder(pets(tmp_path), size=size)


def test_bad_channels_and_fraction(tmp_path):
    pets(tmp_path)
    with pytest.raises(ArgumentError, match=r"channels=4: wanted 1 \(grey\), 3 \(RGB\) or None"):
        datasets.from_folder(tmp_path, channels=4)
    with pytest.raises(ArgumentError, match=r"test_fraction=1.5: wanted a number between 0 and 1"):
        datasets.from_folder(tmp_path, test_fraction=1.5)


def test_open(tmp_path, monkeypatch):
    assert len(datasets.open("digits")[0][0]) == 1438
    check_mnist(datasets.open("mnist", write(tmp_path / "m", MNIST)))
    pets(tmp_path / "pets")
    (x, _), _, names = datasets.open(tmp_path / "pets", size=(2, 3), test_fraction=0.4)
    assert x.shape == (9, 2, 3, 3)
    assert names == ["cat", "dog"]
    monkeypatch.chdir(tmp_path)
    assert len(datasets.open("pets")[0][0]) == 12
    with pytest.raises(ArgumentError, match=r"unknown data set 'minst': did you mean 'mnist'.*or the path of a folder of images"):
        datasets.open("minst")
    with pytest.raises(ArgumentError, match="unknown data set 5"):
        datasets.open(5)
    with pytest.raises(DataError, match=r"there is no folder ./minst: wanted a folder of images, or one of digits, mnist"):
        datasets.open("./minst")
    with pytest.raises(ArgumentError, match="size and channels are for folders of images, not for 'digits'"):
        datasets.open("digits", size=8)
    with pytest.raises(ArgumentError, match="data_dir is for mnist, fashion-mnist, cifar10, and pets is a folder of images"):
        datasets.open("pets", "here")


# ---------------------------------------------------------------------------------- the real files, where there are any

if "NBNET_TEST_DATA" in os.environ:  # a folder with mnist and cifar-10-batches-bin

    @pytest.mark.parametrize(
        ("name", "folder", "shape"), [("mnist", "mnist", (28, 28, 1)), ("cifar10", "cifar-10-batches-bin", (32, 32, 3))]
    )
    def test_real_files(name, folder, shape):
        (x, y), (x_test, y_test), names = datasets.load(name, os.path.join(os.environ["NBNET_TEST_DATA"], folder))
        assert x.shape == (len(y), *shape)
        assert x_test.shape == (len(y_test), *shape)
        assert len(names) == 10
        for labels in (y, y_test):
            assert (np.bincount(labels, minlength=10) > 0).all()
