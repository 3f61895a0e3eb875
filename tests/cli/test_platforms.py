"""Systems that this one is not: the commands run without what Windows and macOS lack, and on terminals that are not UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbnet import cli
from nbnet.bench import worker
from nbnet.cli import runs

# Runs at the start of every Python process: modules and names that Windows' standard library does not have.
WITHOUT = """
import mmap, os, platformdirs, signal, sys  # platformdirs has code for this system, which uses them
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog"):
    sys.modules[name] = None
GONE = {
    os: "fork forkpty register_at_fork sched_getaffinity sched_setaffinity sched_yield sysconf getuid geteuid getgid getegid getpgid "
        "setsid killpg nice getloadavg statvfs chown mkfifo wait3 wait4 pread pwrite",
    mmap: "MAP_PRIVATE MAP_SHARED MAP_ANONYMOUS MAP_ANON PROT_READ PROT_WRITE " + " ".join(n for n in dir(mmap) if n.startswith("MADV_")),
    signal: "SIGHUP SIGQUIT SIGPIPE SIGUSR1 SIGUSR2 SIGALRM SIGCHLD alarm setitimer pause pthread_kill pthread_sigmask sigwait",
}
for module, names in GONE.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""


@pytest.fixture
def stripped(tmp_path):
    """The environment of processes that start without those names."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    paths = [str(tmp_path / "start"), str(Path(cli.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(words, folder, environment):
    done = subprocess.run(
        [sys.executable, "-m", "nbnet", *words.split()], cwd=folder, env=environment, capture_output=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout


def test_commands_without_what_windows_lacks(stripped, pictures, tmp_path):
    code = "import resource"
    assert b"ModuleNotFoundError" in subprocess.run([sys.executable, "-c", code], env=stripped, capture_output=True, check=False).stderr
    assert b"memory pool" in run("info", tmp_path, stripped)
    assert b"test accuracy" in run(f"train --data {pictures} --size 8 --epochs 1 --batch-size 8 --out run", tmp_path, stripped)
    assert b"probability" in run("predict run pictures/*/0.png", tmp_path, stripped)
    assert b"softmax" in run("bench --quick --ops softmax --shapes 8x4 --backends parallel --peers none --out bench", tmp_path, stripped)


def test_peak_memory_without_the_system_s_help(monkeypatch):
    found = object.__new__(worker.Worker)
    assert 2e7 < found.peak_memory() < 1e11
    monkeypatch.setattr(worker, "Path", lambda name: Path("nowhere"))  # no /proc: macOS
    assert 2e7 < found.peak_memory() < 1e11
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows
    assert found.peak_memory() == 0


@pytest.mark.parametrize(("system", "word"), [("linux", "'my runs/a'"), ("darwin", "'my runs/a'"), ("win32", '"my runs/a"')])
def test_commands_to_paste(system, word, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    assert runs.quoted(Path("my runs/a")).replace("\\", "/") == word


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_terminals_that_are_not_utf8(encoding, pictures, tmp_path, monkeypatch):
    """Every command works, and prints names that the terminal cannot show as escapes."""
    monkeypatch.chdir(tmp_path)
    (pictures / "left").rename(pictures / "łódź→²")
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(screen, encoding))
    image = str(pictures / "łódź→²" / "0.png")
    for words in (
        ["train", "--data", str(pictures), "--size", "8", "--backend", "serial", "--epochs", "1", "--batch-size", "8", "--out", "ł"],
        ["predict", "ł", image],
        ["demo"],
        ["demo", "convergence", "--quick", "--seeds", "1", "--backend", "serial", "--out", "ü"],
        ["info"],
        ["warmup", "--backend", "serial"],
        ["bench", "--quick", "--ops", "softmax", "--shapes", "8x4", "--backends", "serial", "--peers", "none", "--out", "→"],
    ):
        assert cli.main(words) == 0, words
    assert cli.main(["predict", "nowhere→", image]) == 2
    sys.stdout.flush()
    sys.stderr.flush()
    out = screen.getvalue().decode(encoding)
    assert "\\u0142" in out
    assert "nbnet: error: there is no run nowhere\\u2192" in out


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_file_names_that_are_not_text(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = os.fsdecode(b"caf\xe9")
    (pictures / "left").rename(pictures / bad)
    words = ["train", "--data", str(pictures), "--size", "8", "--backend", "serial", "--epochs", "1", "--batch-size", "8", "--out", bad]
    assert cli.main(words) == 0
    assert cli.main(["predict", bad, str(pictures / bad / "0.png")]) == 0
    assert "caf\\udce9" in capsys.readouterr().out
    for picture in ("curves", "confusion", "mistakes"):
        with Image.open(tmp_path / bad / f"{picture}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 8
