"""What downloads need."""

import pytest

from nbnet.datasets import download

from .serving import serving


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NBNET_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "MIRRORS", {})  # whatever a test forgets to set fails instead of reaching the network
    monkeypatch.setattr(download, "SHA256", {})
    return tmp_path / "cache"
