"""Downloads that were interrupted, from a server on loopback."""

import gzip
import threading

import pytest
import requests

from nbnet import datasets, storage
from nbnet.datasets import download
from nbnet.errors import DataError

from .samples import EMNIST, SVHN, X, check_mnist, zip_bytes
from .serving import MNIST_GZ, Handler, publish, serving

FILE = X + ".gz"
DATA = MNIST_GZ[FILE]
HALF = len(DATA) // 2


@pytest.fixture
def mnist(cache, server, monkeypatch):
    """A server of mnist, and the folder where it goes."""
    publish(monkeypatch, server, "mnist", MNIST_GZ)
    monkeypatch.setattr(download, "CHUNK", 1)  # what is lost of a chunk that breaks off is not counted here
    (cache / "mnist").mkdir(parents=True)
    return server, cache / "mnist"


def begun(folder, data):
    (folder / (FILE + storage.PART)).write_bytes(data)


def check(folder):
    check_mnist(datasets.load("mnist"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(MNIST_GZ)


def test_an_interrupted_download_continues_where_it_stopped(mnist):
    server, folder = mnist
    server.short.add(FILE)
    with pytest.raises(DataError, match=rf"cannot download mnist: {server.url}{FILE}: the connection was lost; try again"):
        datasets.load("mnist")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(FILE + ".part", DATA[:HALF])]
    with pytest.raises(DataError, match="the connection was lost"):  # half of what is left
        datasets.load("mnist")
    server.short.clear()
    check(folder)
    assert server.sent[FILE] == len(DATA)
    assert server.asked.count("/" + FILE) == 3


def test_ctrl_c_in_a_download(mnist, monkeypatch):
    server, folder = mnist
    monkeypatch.setattr(download, "CHUNK", 16)

    def stop(bar, done, *args):
        if done >= 32:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.Bar, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("mnist")
    assert (folder / (FILE + ".part")).read_bytes() == DATA[:32]
    server.sent.clear()
    check(folder)
    assert server.sent[FILE] == len(DATA) - 32


def test_a_server_without_ranges_sends_all_again(mnist):
    server, folder = mnist
    server.ranges = False
    begun(folder, DATA[:HALF])
    check(folder)
    assert server.sent[FILE] == len(DATA)
    assert server.asked.count("/" + FILE) == 1


@pytest.mark.parametrize("part", ["damaged", "another", "too long", "as long"])
def test_a_wrong_part_is_downloaded_once_from_its_start(mnist, part):
    server, folder = mnist
    length = {"damaged": HALF, "another": 10, "too long": len(DATA) + 9, "as long": len(DATA)}[part]
    begun(folder, b"?" * length)
    check(folder)
    assert server.sent[FILE] == max(0, len(DATA) - length) + len(DATA)
    assert server.asked.count("/" + FILE) == 2


def test_a_part_that_was_whole_but_had_not_its_name(mnist):
    server, folder = mnist
    begun(folder, DATA)
    check(folder)
    assert server.sent[FILE] == 0


def test_a_file_that_has_changed_since(mnist):
    """Neither the rest of it nor the whole is right: both were asked for once, and nothing is kept."""
    server, folder = mnist
    begun(folder, DATA[:HALF])
    server.files[FILE] = b"!" * len(DATA)
    with pytest.raises(DataError, match=rf"{server.url}{FILE}: wrong checksum, expected sha256"):
        datasets.load("mnist")
    assert server.asked == ["/" + FILE] * 2
    assert list(folder.iterdir()) == []


def test_the_next_mirror_sends_the_rest(mnist, monkeypatch):
    server, folder = mnist
    with serving() as down:
        dead = down.url
    with serving() as weak:
        weak.files, weak.short = dict(MNIST_GZ), {FILE}
        monkeypatch.setitem(download.MIRRORS, "mnist", [dead, weak.url, server.url])
        check(folder)
    assert weak.sent[FILE] == HALF
    assert server.sent == {FILE: len(DATA) - HALF}


def test_a_web_page_in_place_of_the_file_takes_nothing_away(mnist, monkeypatch):
    server, folder = mnist
    begun(folder, DATA[:HALF])
    with serving() as moved:
        moved.files, moved.kind, moved.ranges = dict.fromkeys(MNIST_GZ, b"<html>we have moved"), "text/html; charset=utf-8", False
        monkeypatch.setitem(download.MIRRORS, "mnist", [moved.url])
        with pytest.raises(DataError, match=rf"{moved.url}{FILE}: the server answers with a web page, expected the file; try again"):
            datasets.load("mnist")
        assert (folder / (FILE + ".part")).read_bytes() == DATA[:HALF]
        monkeypatch.setitem(download.MIRRORS, "mnist", [moved.url, server.url])
        check(folder)
    assert server.sent[FILE] == len(DATA) - HALF


def test_a_server_that_does_not_say_how_long_a_file_is(mnist, monkeypatch):
    _, folder = mnist
    real = Handler.send_header
    monkeypatch.setattr(Handler, "send_header", lambda self, name, value: name != "Content-Length" and real(self, name, value))
    check(folder)


def test_an_older_requests_does_not_notice_that_a_file_is_short(mnist, monkeypatch):
    server, _ = mnist
    monkeypatch.setattr(requests.Response, "iter_content", lambda self, size: [self.raw.read()[:10]])
    with pytest.raises(DataError, match=rf"{server.url}{FILE}: the connection was lost; try again"):
        datasets.load("mnist")


def test_a_range_that_nobody_asked_for(mnist, monkeypatch):
    """Some other bytes, as if they were those: the checksum tells, and the whole file is asked for."""
    server, folder = mnist
    begun(folder, DATA[:HALF])
    real = Handler.do_GET

    def shifted(self):
        if "Range" in self.headers:
            self.headers.replace_header("Range", "bytes=3-")
        real(self)

    monkeypatch.setattr(Handler, "do_GET", shifted)
    check(folder)
    assert server.sent[FILE] == len(DATA) - 3 + len(DATA)


def test_the_bar_begins_where_the_download_does(mnist, monkeypatch):
    _, folder = mnist
    begun(folder, DATA[:HALF])
    bars = []

    class Bar:
        def __init__(self, total, columns, name, **options):
            bars.append((total, columns.split(), name, options["show"], []))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, done):
            bars[-1][4].append(done)

    monkeypatch.setattr(download, "Bar", Bar)
    datasets.load("mnist", progress=True)
    total, columns, name, show, done = bars[0]
    assert (total, name, show) == (len(DATA), FILE, True)
    assert {"bar", "bytes"} < set(columns)
    assert (done[0], done[-1]) == (HALF, len(DATA))
    assert [(bar[0], bar[4][0], bar[4][-1]) for bar in bars[1:]] == [(len(data), 0, len(data)) for data in list(MNIST_GZ.values())[1:]]


@pytest.mark.skipif(storage.fcntl is None, reason="Windows has no fcntl")
def test_two_at_once_download_it_once(mnist):
    server, folder = mnist
    failures = []

    def load():
        try:
            check_mnist(datasets.load("mnist"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {name: len(data) for name, data in MNIST_GZ.items()} == server.sent
    check(folder)


def test_other_data_sets(cache, server, monkeypatch):
    publish(monkeypatch, server, "emnist", {"gzip.zip": zip_bytes(EMNIST)})
    check_mnist(datasets.load("emnist"))
    check_mnist(datasets.load("emnist-letters"))
    assert server.asked == ["/gzip.zip"]
    publish(monkeypatch, server, "kmnist", MNIST_GZ)
    assert check_mnist(datasets.load("kmnist"))[1] == "ki"
    publish(monkeypatch, server, "svhn", SVHN)
    assert len(datasets.load("svhn")[0][1]) == 10


def test_a_packed_file_arrives_as_it_is(mnist, monkeypatch):
    """A server that calls a .gz file an encoding must not have it unpacked on the way."""
    _, folder = mnist
    asked = []
    real = Handler.do_GET
    monkeypatch.setattr(Handler, "do_GET", lambda self: (asked.append(self.headers["Accept-Encoding"]), real(self)))
    check(folder)
    assert set(asked) == {"identity"}
    assert gzip.decompress((folder / FILE).read_bytes())


@pytest.mark.parametrize("says", [True, False])
def test_a_server_that_never_ends(mnist, monkeypatch, says):
    _, folder = mnist
    monkeypatch.setattr(download, "MOST", HALF)
    real = Handler.send_header
    monkeypatch.setattr(Handler, "send_header", lambda self, *header: (says or header[0] != "Content-Length") and real(self, *header))
    with pytest.raises(DataError, match=rf"the server sends more than {HALF:,} bytes, expected a smaller file"):
        datasets.load("mnist")
    assert list(folder.iterdir()) == []


def test_a_server_that_packs_what_it_sends(mnist, monkeypatch):
    """The length is that of the packed file then."""
    server, folder = mnist
    original = Handler.send_header
    monkeypatch.setitem(server.files, FILE, gzip.compress(DATA, 0))

    def header(self, name, value):
        original(self, name, value)
        if name == "Content-Length" and self.path == "/" + FILE:
            original(self, "Content-Encoding", "gzip")

    monkeypatch.setattr(Handler, "send_header", header)
    check(folder)
