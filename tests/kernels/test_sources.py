"""Kernels on disk: whose files are loaded, and what becomes of damaged ones."""

import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys

import pytest

from nbnet.errors import BackendError
from nbnet.kernels import sources
from nbnet.kernels.sources import KernelFiles, check_folder, digest, kept_if_possible

pytestmark = pytest.mark.skipif(not sources.CHECKED, reason="Windows has no such owners and modes")
KEY = ("float32",)


def files(folder):
    return KernelFiles(str(folder), "add-1.py", "stamp", pickle.dumps)


@pytest.fixture
def folder(tmp_path):
    """A folder of kernels, with one kernel, in sources that are not open to others."""
    sources._checked.clear()
    sources.make_private.cache_clear()
    folder = tmp_path / "cache" / "add_1"
    folder.mkdir(parents=True)
    files(folder).save(KEY, "code")
    yield folder
    sources._checked.clear()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private(folder):
    assert mode(folder) == 0o700
    assert files(folder).load(KEY) == "code"


def test_a_folder_that_python_shares_keeps_its_mode(tmp_path):
    shared = tmp_path / "__pycache__"
    shared.mkdir(0o755)
    files(shared)
    assert mode(shared) == 0o755


@pytest.fixture
def closed_sources(monkeypatch):
    """nbnet's sources, which only their owner may change, whatever the umask of this checkout was."""
    real = os.stat

    def closed(path, *args, **options):
        found = real(path, *args, **options)
        own = str(path) == os.path.dirname(sources.__file__)
        return os.stat_result((found.st_mode & ~0o022, *found[1:])) if own else found

    monkeypatch.setattr(os, "stat", closed)


@pytest.mark.parametrize(
    ("bits", "who"), [(0o702, "everyone"), (0o770, "its group"), (0o777, "everyone"), (0o1777, "everyone"), (0o755, None), (0o750, None)]
)
def test_a_folder_that_others_can_write_to_is_refused(folder, closed_sources, bits, who):
    folder.chmod(bits)
    sources._checked.clear()
    if who is None:
        assert files(folder).load(KEY) == "code"
        return
    words = (
        rf"^the kernel cache {folder} can be written by {who}, .*: expected .*; set NUMBA_CACHE_DIR to another one, or chmod go-w {folder}$"
    )
    for action in (lambda: files(folder).load(KEY), lambda: files(folder).save(KEY, "code")):
        with pytest.raises(BackendError, match=words):
            action()


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o775])
def test_the_folder_above_may_be_like_tmp(folder, closed_sources, bits):
    """In a sticky folder, nobody can replace the folder of another user."""
    folder.parent.chmod(bits)
    sources._checked.clear()
    if bits == 0o777:
        with pytest.raises(BackendError, match=f"the kernel cache {folder.parent} can be written by everyone"):
            files(folder).load(KEY)
    else:
        assert files(folder).load(KEY) == "code"


def test_as_open_as_the_sources(folder, monkeypatch):
    """Where a group works on nbnet itself, it may share the kernels too."""
    real = os.stat

    def shared(path, *args, **options):
        found = real(path, *args, **options)
        own = str(path) == os.path.dirname(sources.__file__)
        return os.stat_result((found.st_mode | 0o020, *found[1:5], folder.stat().st_gid, *found[6:])) if own else found

    monkeypatch.setattr(os, "stat", shared)
    folder.chmod(0o770)
    sources._checked.clear()
    assert files(folder).load(KEY) == "code"


def test_a_folder_or_file_of_another_user_is_refused(folder, monkeypatch):
    monkeypatch.setattr(sources, "_trusted", lambda: (os.geteuid() + 1,))
    own = f"belongs to user {os.geteuid()}"
    with pytest.raises(BackendError, match=rf"^the kernel cache {files(folder).path(KEY)} {own}, .*, or remove it$"):
        files(folder).load(KEY)  # the folder has been checked
    sources._checked.clear()
    with pytest.raises(BackendError, match=rf"^the kernel cache {folder} {own}, .*NUMBA_CACHE_DIR to another one$"):
        files(folder).load(KEY)


@pytest.mark.skipif(not sources.CHECKED or os.geteuid() != 0, reason="only root can give files away")
def test_root_loads_nothing_of_others(folder, monkeypatch):
    monkeypatch.setattr(sources, "_trusted", lambda: (0,))
    os.chown(files(folder).path(KEY), 12345, 12345)
    with pytest.raises(BackendError, match="belongs to user 12345"):
        files(folder).load(KEY)
    os.chown(folder, 12345, 12345)
    sources._checked.clear()
    with pytest.raises(BackendError, match=f"{folder} belongs to user 12345"):
        files(folder).load(KEY)


@pytest.mark.parametrize("bits", [0o666, 0o602])
def test_a_file_that_others_can_write_to_is_refused(folder, closed_sources, bits):
    path = files(folder).path(KEY)
    path.chmod(bits)
    with pytest.raises(BackendError, match=f"^the kernel cache {path} can be written by others, .*, or remove it$"):
        files(folder).load(KEY)
    path.chmod(0o644)
    assert files(folder).load(KEY) == "code"


def test_a_folder_that_is_made_later_is_checked(tmp_path, closed_sources):
    later = tmp_path / "later"
    check_folder(str(later))
    later.mkdir()
    later.chmod(0o777)
    with pytest.raises(BackendError, match=f"{later} can be written by everyone"):
        check_folder(str(later))


def test_links(folder, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(folder)
    check_folder(str(link))  # one's own link
    folder.chmod(0o777)
    sources._checked.clear()
    with pytest.raises(BackendError, match=f"{link} can be written by everyone"):
        check_folder(str(link))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-9],
        lambda data: data[:9] + b"!" + data[10:],
        lambda data: b"\0" * 99,
        lambda data: b"\0" * sources.CHECKSUM,  # with the right checksum, but no pickle
        lambda data: data[:3] + sources._checksum(data[:3]),
        lambda data: b"cno_module\nname\n." + sources._checksum(b"cno_module\nname\n."),
    ],
)
def test_a_damaged_file_is_not_there(folder, damage):
    path = files(folder).path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert files(folder).load(KEY) is None
    files(folder).save(KEY, "code")
    assert files(folder).load(KEY) == "code"


def test_what_cannot_be_written_is_not_kept(folder, monkeypatch):
    """One warning in a process says so; a folder that others can write to stays an error."""

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def save():
        with kept_if_possible():
            files(folder).save(KEY, "other code")

    monkeypatch.setattr(sources, "_warned", [])
    monkeypatch.setattr(sources, "replace_file", full)
    words = (
        r"^compiled kernels are not kept on disk, so each process compiles them again \(\[Errno 28\] No space left on device\): "
        r"set NUMBA_CACHE_DIR to a folder that you can write to and that has room$"
    )
    with pytest.warns(RuntimeWarning, match=words):
        save()
    save()  # a second warning would be an error
    assert files(folder).load(KEY) == "code"
    monkeypatch.setattr(sources, "_trusted", lambda: (os.geteuid() + 1,))
    sources._checked.clear()
    with pytest.raises(BackendError, match="belongs to user"):
        save()


ADD = """
import numpy as np, nbnet as nb
try:
    y, _ = nb.functional.dense_forward(np.ones((2, 3)), np.ones((3, 4)), backend="serial")
    print((y == 3).all())
except nb.errors.NbnetError as error:
    print(error)
"""


def test_a_call_with_a_foreign_or_damaged_cache(tmp_path):
    """From the beginning: the folder is made, damaged files are compiled again, and an open folder is one line of error."""

    def said(cache="cache"):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / cache)}
        return subprocess.run([sys.executable, "-c", ADD], env=env, capture_output=True, text=True, check=True).stdout

    assert said() == "True\n"
    kernels = list(tmp_path.rglob("*.nbc"))
    assert {mode(path.parent) for path in kernels} == {0o700}
    for path in kernels:
        path.write_bytes(path.read_bytes()[:-100])
    assert said() == "True\n"
    folder = next(path.parent for path in kernels if path.parent.name.startswith("dense"))
    folder.chmod(0o707)
    assert said().startswith(f"the kernel cache {folder} can be written by everyone")
    shutil.copytree(tmp_path / "cache", tmp_path / "another one")
    (tmp_path / "another one" / folder.relative_to(tmp_path / "cache")).chmod(0o700)
    assert said("another one") == "True\n"


def test_generated_sources_do_not_make_other_kernels_invalid(tmp_path):
    """Without NUMBA_CACHE_DIR they are kept in __pycache__, among the sources that the digest is of."""
    (tmp_path / "kernel.py").write_text("x = 1\n", encoding="utf-8")
    before = digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "sgd_1234.py").write_text("x = 2\n", encoding="utf-8")
    assert digest(tmp_path) == before
    (tmp_path / "kernel.py").write_text("x = 3\n", encoding="utf-8")
    assert digest(tmp_path) != before
