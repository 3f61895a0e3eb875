"""Downloads, from a server on loopback."""

import gzip
import hashlib
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pooch
import pytest
from requests import exceptions

from nbnet import datasets
from nbnet.datasets import download
from nbnet.errors import DataError

from .samples import ARCHIVE, CIFAR, LABELS, X, Y, check_cifar, check_mnist, idx_bytes, tar_bytes, write
from .serving import MNIST_GZ, Handler, publish, serving


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
    expected = hashlib.sha256(MNIST_GZ[X + ".gz"]).hexdigest()
    with pytest.raises(DataError, match=rf"mnist: {server.url}{X}.gz: wrong checksum, expected sha256 {expected}; .*data_dir"):
        datasets.load("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_server_down(cache, monkeypatch):
    with serving() as server:
        publish(monkeypatch, server, "mnist", MNIST_GZ)
    words = rf"cannot download mnist: {server.url}{X}.gz: no connection; try again, or download the files yourself and pass .* data_dir"
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
        with pytest.raises(DataError, match=f"{dead}.*no connection; {wrong.url}.*wrong checksum.*; {server.url}.*answers 404"):
            datasets.load("mnist")


def test_a_cache_that_cannot_be_written(tmp_path, server, monkeypatch, cache):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NBNET_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write to .*/file/mnist: .*; set NBNET_DATA_DIR to a writable folder"):
        datasets.load("mnist")
    monkeypatch.setenv("NBNET_DATA_DIR", str(tmp_path / "folder"))
    check_mnist(datasets.load("mnist"))


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("NBNET_DATA_DIR", "/some/where")
    assert str(download.cache_folder()) == "/some/where"
    monkeypatch.delenv("NBNET_DATA_DIR")
    assert "nbnet" in str(download.cache_folder())


def test_every_download_has_a_mirror_and_a_checksum():
    assert download.MIRRORS.keys() == download.SHA256.keys() == set(datasets.NAMES) - {"digits", *datasets.SAME_FILES}
    assert set(datasets.SAME_FILES.values()) < download.MIRRORS.keys()
    for name, files in download.SHA256.items():
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in files.values())
        assert all(re.fullmatch("https?://.*/", url) for url in download.MIRRORS[name])


def test_pooch_rich_and_pillow_are_imported_when_needed_only():
    code = (
        "import sys, nbnet.datasets as d; d.load('digits'); print(*[m for m in ('pooch', 'rich', 'requests', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("progress", [True, False])
def test_without_a_bar_a_download_is_a_line_in_the_log(cache, server, monkeypatch, progress):
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    said = []
    monkeypatch.setattr(pooch, "get_logger", lambda: SimpleNamespace(info=lambda text, *values: said.append(text % values)))
    datasets.load("mnist", progress=progress)
    lines = [f"downloading {server.url}{name} to {cache / 'mnist'}" for name in MNIST_GZ]
    assert sorted(line for line in said if line.startswith("downloading")) == ([] if progress else sorted(lines))


def test_causes_in_a_few_words():
    response = SimpleNamespace(status_code=404, reason="Not Found")
    cases = {
        exceptions.HTTPError(response=response): "the server answers 404 Not Found",
        exceptions.HTTPError(): "HTTPError",
        exceptions.ConnectTimeout(): f"no answer within {download.TIMEOUT} s",
        exceptions.ReadTimeout(): f"no answer within {download.TIMEOUT} s",
        exceptions.ChunkedEncodingError(): "the connection was lost",
        exceptions.ConnectionError(): "no connection",
        exceptions.ConnectionError(response=response): "no connection",
        exceptions.InvalidURL(): "InvalidURL",
    }
    assert [download._reason(error) for error in cases] == list(cases.values())
