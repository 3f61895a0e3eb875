"""A server of files on loopback."""

import contextlib
import gzip
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nbnet.datasets import download

from .samples import MNIST

MNIST_GZ = {name + ".gz": gzip.compress(data) for name, data in MNIST.items()}


class Server(ThreadingHTTPServer):
    """Serves the bytes in `files`, from where a request says if `ranges`; what is left of a file in `short` breaks off halfway.

    `asked` lists the requests; `sent` has the bytes of each file that were sent.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.short, self.asked, self.sent = {}, set(), [], {}
        self.ranges, self.kind = True, "application/gzip"
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
        data, size = server.files[name], len(server.files[name])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if server.ranges else None
        start = int(wanted[1]) if wanted else 0
        self.send_response(416 if start >= size else 206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}" if start < size else f"bytes */{size}")
        left = data[start:]
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(left)))
        self.end_headers()
        left = left[: len(left) // 2] if name in server.short else left
        server.sent[name] = server.sent.get(name, 0) + len(left)
        self.wfile.write(left)

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


def publish(monkeypatch, server, name, files, mirrors=None):
    """Let nbnet download `name` from the server: these files with their right checksums."""
    server.files |= files
    monkeypatch.setitem(download.SHA256, name, {file: hashlib.sha256(data).hexdigest() for file, data in files.items()})
    monkeypatch.setitem(download.MIRRORS, name, mirrors or [server.url])
