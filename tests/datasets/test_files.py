"""Files of data sets that cannot be reached."""

import os
from pathlib import Path

import pytest

from nbnet.cli import runs
from nbnet.datasets import files
from nbnet.errors import CheckpointError, DataError


@pytest.fixture
def closed(tmp_path):
    """A path in a folder that this user may not look into."""
    folder = tmp_path / "closed"
    folder.mkdir(0o600)
    root = os.geteuid() == 0
    if root:  # who may look into any folder
        os.seteuid(65534)
    yield folder / "inside"
    if root:
        os.seteuid(0)
    folder.chmod(0o700)


def _open(path: Path) -> None:
    with files.opened(path):
        pass


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("read", "error"), [(_open, DataError), (lambda path: files.listing(path, "images"), DataError), (runs.read_config, CheckpointError)]
)
def test_a_folder_that_may_not_be_looked_into(closed, read, error):
    with pytest.raises(error, match=f"^cannot read {closed}.*: Permission denied$"):
        read(closed)
