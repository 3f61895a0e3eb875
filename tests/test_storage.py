"""Files: written whole or not at all, and read with their metadata."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet import storage
from nbnet.errors import ArgumentError, CheckpointError, DataError

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([7], np.int64)}


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"new"):
        storage.write_file(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("problem", "raised"), [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_after_an_error_the_old_file_is_there_and_no_other(problem, raised, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise problem

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised) as caught:
        storage.write_file(path, b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])
    if raised is DataError:
        expected = f"cannot write {path}: No space left on device; choose a folder that exists, is writable and has room"
        assert str(caught.value) == expected


BUSY = """
import sys, time
import numpy as np
from nbnet import storage

path, number, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
print(flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    storage.write(path, {"a": np.full(9000, number)}, {"number": str(number)})
"""


def busy(path, number, seconds):
    """A process that keeps saving to one path; it has started."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(path), str(number), str(seconds)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def check_whole(path):
    arrays, metadata = storage.read(path)
    assert (arrays["a"] == float(metadata["number"])).all()


def test_threads_and_processes_save_to_one_path(tmp_path):
    path = tmp_path / "run.safetensors"
    storage.write(path, {"a": np.zeros(9000)}, {"number": "0"})
    processes = [busy(path, number, 1.5) for number in (1, 2)]
    problems = []

    def repeat(action):
        try:
            while any(process.poll() is None for process in processes):
                action()
        except Exception as problem:
            problems.append(problem)

    saving = [lambda n=n: storage.write(path, {"a": np.full(9000, float(n))}, {"number": str(n)}) for n in range(3, 7)]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in [*saving, *[lambda: check_whole(path)] * 2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.communicate()
    assert problems == []
    assert [process.returncode for process in processes] == [0, 0]
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_a_killed_process_leaves_the_last_file_and_its_temporary_file_is_removed(tmp_path):
    path = tmp_path / "run.safetensors"
    storage.write(path, {"a": np.zeros(9000)}, {"number": "0"})
    for number in range(1, 4):
        with busy(path, number, 60) as process:
            while not list(tmp_path.glob(storage.TEMPORARY)):
                pass
            process.kill()
        check_whole(path)
    abandoned = tmp_path / storage.TEMPORARY.replace("*", "0")
    abandoned.write_bytes(b"half")
    storage.write_file(tmp_path / "other", b"")
    assert sorted(os.listdir(tmp_path)) == ["other", "run.safetensors"]


def test_the_temporary_file_of_a_living_writer_is_left_alone(tmp_path):
    with storage.replacing(tmp_path / "slow") as file:
        file.write(b"slow")
        storage.write_file(tmp_path / "quick", b"quick")
    assert (tmp_path / "slow").read_bytes() == b"slow"
    assert sorted(os.listdir(tmp_path)) == ["quick", "slow"]


def test_a_temporary_file_that_was_removed_is_written_again(tmp_path, monkeypatch):
    """On a network folder without locks, another machine cannot know that somebody writes it."""
    fsync, removed = os.fsync, []

    def remove(number):
        fsync(number)
        if not removed:
            removed.extend(tmp_path.glob(storage.TEMPORARY))
            removed[0].unlink()

    monkeypatch.setattr(os, "fsync", remove)
    storage.write_file(tmp_path / "file", b"new")
    assert removed
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(storage.fcntl is None, reason="Windows has no fcntl")
def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    other = tmp_path / storage.TEMPORARY.replace("*", "0")
    other.write_bytes(b"perhaps somebody writes it")
    storage.write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert other.exists()


def test_windows_waits_for_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "fcntl", None)
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    path, replace, refusals = tmp_path / "file", os.replace, [3]
    path.write_bytes(b"old")

    def refuse(source, target):
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    storage.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    refusals[0] = 10**6
    with pytest.raises(DataError, match=r"cannot write .*file: Access is denied \(is it open in another program\?\); choose a folder"):
        storage.write_file(path, b"newer")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["file"])


def test_windows_removes_old_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "fcntl", None)
    old, young = (tmp_path / storage.TEMPORARY.replace("*", name) for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * storage.ABANDONED))
    storage.write_file(tmp_path / "file", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([young.name, "file"])


@pytest.mark.parametrize("path", ["missing/file", "", ".", "zero\0byte"])
def test_paths_that_cannot_be_written(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="cannot write"):
        storage.write(path, ARRAYS, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metadata", [{}, {"key": "value", "other": "{}"}])
def test_arrays_and_metadata_come_back(metadata, tmp_path):
    storage.write(tmp_path / "file", ARRAYS, metadata)
    arrays, found = storage.read(tmp_path / "file")
    assert found == metadata
    assert {name: (array.dtype, array.tolist()) for name, array in arrays.items()} == {
        name: (array.dtype, array.tolist()) for name, array in ARRAYS.items()
    }
    arrays["a"][0] = 1  # a copy, which may be changed


def test_files_that_are_none(tmp_path):
    path = tmp_path / "file"
    storage.write(path, ARRAYS, {"key": "value"})
    whole = path.read_bytes()
    for data in (b"", whole[:5], whole[:40], whole[:-1], whole + b"0", b"PK" + whole, b"\xff" * 100):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="is truncated or not a safetensors file") as caught:
            storage.read(path)
        assert "\n" not in str(caught.value)
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="cannot read") as caught:
            storage.read(wrong)
        assert "\n" not in str(caught.value)


def test_json_has_no_nan(tmp_path):
    storage.write_json(tmp_path / "file", {"a": [1, None]})
    assert (tmp_path / "file").read_text(encoding="utf-8") == '{\n "a": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "file", float("nan"))


def test_a_path_with_a_zero_byte():
    for path in ("a\0b", Path("a\0b")):
        with pytest.raises(CheckpointError, match=r"^cannot read 'a\\x00b': embedded null byte$"):
            storage.read(path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "last"
    target.write_bytes(b"old")
    link.symlink_to("real/file")
    storage.write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["last", "real"]
    assert os.listdir(tmp_path / "real") == ["file"]
    dead = tmp_path / "dead"
    dead.symlink_to("missing")
    storage.write_file(dead, b"new")
    assert dead.is_symlink()
    assert (tmp_path / "missing").read_bytes() == b"new"


def test_a_name_of_255_characters(tmp_path):
    path = tmp_path / ("n" * 255)
    storage.write_file(path, b"data")
    assert path.read_bytes() == b"data"


def model(classes, channels=4):
    model = nb.Sequential([nb.Conv2D(channels, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dense(classes)])
    model.build((4, 4, 1), backend="serial", seed=classes)
    return model


def test_loading_what_fits(tmp_path):
    saved, head = model(10), model(2)
    saved.buffers["1.batchnorm.moving_mean"][:] = 7
    saved.save_weights(tmp_path / "weights")
    own = {name: array.copy() for name, array in head.state().items()}
    with pytest.raises(CheckpointError, match="another model"):
        head.load_weights(tmp_path / "weights")
    assert all(np.array_equal(own[name], array) for name, array in head.state().items())
    report = head.load_weights(tmp_path / "weights", strict=False)
    other = ["4.dense.weight", "4.dense.bias"]
    loaded = [name for name in head.state() if name not in other]
    assert report == (loaded, [], [], other)
    for name, array in head.state().items():
        assert np.array_equal(array, own[name] if name in other else saved.state()[name])
    shorter = nb.Sequential([*model(3).layers[:2], nb.Flatten(), nb.Dropout(0.5)])
    shorter.build((4, 4, 1), backend="serial")
    report = shorter.load_weights(tmp_path / "weights", strict=False)
    assert (report.missing, sorted(report.unexpected)) == (["3.dropout.seed", "3.dropout.step"], sorted(other))
    assert model(10).load_weights(tmp_path / "weights") == (list(saved.state()), [], [], [])


def test_loading_under_other_names(tmp_path):
    saved = model(10)
    saved.buffers["1.batchnorm.moving_mean"][:] = 7
    saved.save_weights(tmp_path / "weights")
    deeper = nb.Sequential([nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU(), nb.Dropout(0.5), nb.Flatten(), nb.Dense(10).named("head")])
    deeper.build((4, 4, 1), backend="serial", seed=3)
    own = {name: array.copy() for name, array in deeper.state().items()}
    report = deeper.load_weights(tmp_path / "weights", strict=False, rename={"4.dense": "head", "0.conv2d.bias": "gone"})
    assert report.missing == ["0.conv2d.bias", "3.dropout.seed", "3.dropout.step"]
    assert (report.unexpected, report.mismatched) == (["gone"], [])
    for name, array in deeper.state().items():
        assert np.array_equal(array, own[name] if name in report.missing else saved.state()[name.replace("head", "4.dense")]), name
    assert str(report) == (
        f"{len(report.loaded)} of {len(own)} arrays loaded\n3 not in the file: 0.conv2d.bias, 3.dropout.seed, 3.dropout.step\n"
        "1 not in the model: gone"
    )
    exact = nb.Sequential([*model(5).layers[:4], nb.Dense(10).named("head")])
    exact.build((4, 4, 1), backend="serial", seed=3)
    with pytest.raises(CheckpointError, match="another model"):
        exact.load_weights(tmp_path / "weights")
    assert str(exact.load_weights(tmp_path / "weights", rename={"4.dense": "head"})) == "9 of 9 arrays loaded"
    assert all(np.array_equal(a, b) for a, b in zip(exact.state().values(), saved.state().values()))


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"4.dence": "head"}, r"rename: unknown name in .*weights '4\.dence': did you mean '4\.dense"),
        ({"4.den": "head"}, "rename: unknown name in"),
        ({"": "head"}, "rename: unknown name in"),
        ({"0.conv2d.bias": "4.dense.bias"}, r"rename gives two arrays of .* the name '4\.dense\.bias'"),
        ({"4.dense": 3}, "expected a dict from names in the file to names in the model"),
        ("4.dense", "expected a dict from names"),
    ],
)
def test_renaming_that_is_wrong_changes_nothing(rename, message, tmp_path):
    model(10).save_weights(tmp_path / "weights")
    other = model(2)
    own = {name: array.copy() for name, array in other.state().items()}
    for strict in (True, False):
        with pytest.raises(ArgumentError, match=message):
            other.load_weights(tmp_path / "weights", strict, rename)
    assert all(np.array_equal(own[name], array) for name, array in other.state().items())


def test_loading_when_nothing_fits(tmp_path):
    model(10).save_weights(tmp_path / "weights")
    other = nb.Sequential([nb.Dense(3)])
    other.build((2,), backend="serial")
    with pytest.raises(CheckpointError, match=r"has no array that fits this model: it has 0\.conv2d\.bias, "):
        other.load_weights(tmp_path / "weights", strict=False)


@pytest.fixture(params=["here", "as on Windows"])
def system(request, monkeypatch):
    if request.param == "as on Windows":
        monkeypatch.setattr(storage, "fcntl", None)


def test_a_file_that_is_written_over_several_calls(tmp_path, system):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def go_on(data, error=None):
        with storage.continuing(path) as part:
            part.write(data)
            if error:
                raise error

    for error in (OSError("lost"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            go_on(b"ab", error)
        assert path.read_bytes() == b"old"
    assert (tmp_path / "file.part").read_bytes() == b"abab"
    go_on(b"c")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"ababc", ["file"])


def test_a_file_of_several_calls_that_has_nothing(tmp_path, system):
    path = tmp_path / "file"
    with storage.continuing(path):
        pass
    with pytest.raises(OSError, match="lost"), storage.continuing(path):
        raise OSError("lost")
    with storage.continuing(path) as part:
        part.write(b"wrong")
        part.truncate(0)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(storage.fcntl is None, reason="Windows has no fcntl")
def test_the_part_that_another_process_begins_at_once_is_not_removed(tmp_path, monkeypatch):
    path, replace = tmp_path / "file", os.replace

    def replaced(source, target):
        replace(source, target)
        Path(source).touch()  # what another process does next, still without the lock

    monkeypatch.setattr(os, "replace", replaced)
    with storage.continuing(path) as part:
        part.write(b"all")
    assert (path.read_bytes(), sorted(os.listdir(tmp_path))) == (b"all", ["file", f"file{storage.PART}"])


@pytest.mark.skipif(storage.fcntl is None, reason="Windows has no fcntl")
def test_who_waits_for_a_file_of_several_calls_gets_a_new_one(tmp_path):
    """Not the one that has got its name, or has been removed, in the meantime."""
    path, order = tmp_path / "file", []

    def other():
        with storage.continuing(path) as part:
            order.append(part.seek(0, os.SEEK_END))
            part.write(b"second")

    for data in (b"first", b""):
        with storage.continuing(path) as part:
            thread = threading.Thread(target=other)
            thread.start()
            time.sleep(0.1)
            part.write(data)
            order.append(data)
        thread.join()
        assert (path.read_bytes(), os.listdir(tmp_path)) == (b"second", ["file"])
    assert order == [b"first", 0, b"", 0]
