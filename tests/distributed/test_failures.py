"""A rank that fails is named in one line, and all ranks end."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from nbnet import cli, storage
from nbnet.cli import runs

from . import running

RANK = r"rank 1 of 2 \(process \d+ on \S+\)"


@pytest.fixture(autouse=True)
def _mpi():
    running.needs_mpi()


def fails(way, folder):
    return running.run(2, running.HERE / "failures.py", way, folder)


@pytest.mark.skipif(sys.platform != "linux", reason="the watcher is for Linux")
@pytest.mark.parametrize("way", ["SIGKILL", "first SIGKILL", "SIGSEGV", "exit"])
def test_a_rank_that_is_killed(way, tmp_path):
    code, _, err = fails(way, tmp_path)
    assert code != 0
    rank = RANK.replace("1", "0", 1) if way.startswith("first") else RANK
    assert len(re.findall(rf"nbnet: error: {rank} was killed or has crashed; all ranks end", err)) == 1


def test_sixteen_ranks_end(tmp_path):
    """Each says so to the watcher, whose queue takes ten messages."""
    code, _, err = running.run(16, running.HERE / "failures.py", "many", tmp_path)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("raise", "OSError: a disk is full"),
        ("raise outside", "OSError: a disk is full"),
        ("leave", "the program has ended there"),
    ],
)
def test_a_rank_that_raises_or_leaves(way, message, tmp_path):
    code, _, err = fails(way, tmp_path)
    assert code == 1
    assert len(re.findall(rf"RankError: {RANK}: {message}", err)) == 1
    assert "killed" not in err


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("seed", "has another configuration: got seed 1, expected 0 as on the others"),
        ("data", r"has another data set: got data checksum \d+, expected \d+ as on the others"),
        ("validation", "has another data set: got validation rows 301, expected None as on the others"),
        ("slices", "has another configuration: got slices 4, expected 8 as on the others"),
        ("version", r"has another configuration: got nbnet 0\.0, expected 1\.0 as on the others"),
    ],
)
def test_a_rank_that_differs(way, message, tmp_path):
    code, _, err = fails(way, tmp_path)
    assert code == 1
    assert 1 <= len(re.findall(rf"RankError: {RANK} {message}", err)) <= 2  # each rank says it; mpiexec may mix their lines


def test_a_loss_that_is_not_finite_on_one_rank(tmp_path):
    code, out, err = fails("nan", tmp_path)
    assert (code, err) == (0, "")
    for rank in range(2):  # mpiexec may join lines of two ranks
        assert out.count(f"{rank}: the loss is nan at step 1 on rank 1 of 2: layer 0.conv2d gives NaN or infinity") == 1


def test_a_failure_that_the_program_catches(tmp_path):
    code, out, err = fails("caught", tmp_path)
    assert (code, err) == (0, "")
    assert len(re.findall(rf"0: RankError: {RANK}: OSError: a disk is full", out)) == 3  # mpiexec may join lines of two ranks
    assert out.count("1: OSError: a disk is full") == 3
    digests = re.findall(r"([01]): ([0-9a-f]{16})", out)
    assert {rank for rank, _ in digests} == {"0", "1"}
    assert len({digest for _, digest in digests}) == 1


# --------------------------------------------------------------------------------------------- nbnet train --mpi


def train(ranks, folder, *words, wait_for=None, kill=None):
    """nbnet train --mpi; kill: a signal, once the text wait_for is printed."""
    process = running.start(ranks, "-m", "nbnet", "train", "--mpi", *words, cwd=folder)
    printed = []
    if kill is not None:
        for line in process.stdout:
            printed.append(line)
            if wait_for in line:
                process.send_signal(kill)
                break
    out, err = process.communicate(timeout=running.LONGEST)
    return process.returncode, "".join(printed) + out, err


def test_train(tmp_path):
    code, out, err = train(2, tmp_path, "--epochs", "2", "--out", "run")
    assert (code, err) == (0, "")
    assert re.match(r"mpi: 2 ranks, 1 thread each \(\d+ processors? for 2 ranks on this node\)\n", out)
    assert out.count("test accuracy: ") == 1
    assert (tmp_path / "run" / "report.html").exists()
    code, again, err = train(4, tmp_path, "--resume", "run", "--epochs", "3")
    assert (code, err) == (0, "")
    assert "from epoch 3 of 3" in again


def test_train_with_rounded_gradients(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = train(2, tmp_path, "--epochs", "1", "--out", "run", "--wire", "float16")
    assert (code, err) == (0, "")
    assert runs.read_config(tmp_path / "run").wire == "float16"
    assert cli.main(["train", "--epochs", "1", "--out", "exact", "--slices", "8"]) == 0
    found, exact = (storage.read(tmp_path / name / runs.MODEL)[0]["0.conv2d.weight"] for name in ("run", "exact"))
    assert 0 < np.abs(found - exact).max() < 0.05
    assert cli.main(["train", "--resume", "run", "--epochs", "2"]) == 0  # one process sends nothing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_all_ranks(number, tmp_path):
    code, out, err = train(2, tmp_path, "--epochs", "5000", "--out", "run", wait_for=" 1/5000 ", kill=number)
    assert code == 128 + number
    assert err.count("stopping after this batch") == 1
    assert out.count("the run is saved. To continue:") == 1
    code, out, _ = train(1, tmp_path, "--resume", "run", "--epochs", "1")
    assert code == 0
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("ranks", "words", "message"),
    [
        (2, ["--epochs", "0"], "--epochs 0: expected a whole number, at least 1"),
        (2, ["--slices", "1"], "slices=1 on 2 ranks, expected at least one slice for each rank: slices=2, or fewer ranks"),
        (3, [], "got 3 ranks, expected a power of two, since sums follow a binary tree: mpiexec -n 2"),
    ],
)
def test_one_line_for_all_ranks(ranks, words, message, tmp_path):
    code, _, err = train(ranks, tmp_path, *words)
    assert (code, err) == (2, f"nbnet: error: {message}\n")


def test_bench_counts_messages(tmp_path):
    code, out, err = running.run(2, "-m", "nbnet", "bench", "--mpi", cwd=tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("mpi: 2 ranks, threads of each: 1 (")
    found = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    # five batch norms: two messages each; the counted rows and the losses; the gradients in two halves, and back
    assert found["five-conv"][0] == "14"
    parameters = 9 * (3 * 64 + 64 * 64 + 64 * 32 + 32 * 16 + 16 * 10) + 2 * (64 + 64 + 32 + 16 + 10)
    assert int(found["five-conv"][1].replace(",", "")) >= 4 * parameters
    assert not list(tmp_path.iterdir())
    code, _, err = running.run(2, "-m", "nbnet", "bench", "--mpi", "--quick", cwd=tmp_path)
    assert code == 2
    assert "got --quick with --mpi, expected --mpi alone: leave --quick out" in err


def test_the_batch_script_of_slurm():
    script = running.HERE.parents[1] / "examples" / "slurm" / "train.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "nbnet train --mpi" in script.read_text(encoding="utf-8")
