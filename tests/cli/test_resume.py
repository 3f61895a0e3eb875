"""Stopping and resuming, bit for bit."""

import json
import os
import re
import shlex
import signal
import sys

import numpy as np
import pytest

from nbnet.cli import display

from .running import FILES, TINY, arrays, nbnet, one_line_error, save


def interrupt_at(monkeypatch, step, times=1, number=signal.SIGINT):
    """Press Ctrl-C, or send another signal, while this step is shown."""
    shown = display.Display.on_batch_end

    def on_batch_end(self, trainer):
        shown(self, trainer)
        if trainer.step == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(display.Display, "on_batch_end", on_batch_end)


@pytest.mark.parametrize("step", [1, 7, 10])  # 5 batches an epoch: the very first, within an epoch, the last of one
def test_ctrl_c_saves_and_the_command_it_prints_resumes(pictures, here, capsys, monkeypatch, step):
    assert nbnet("train", "--data", pictures, "--out", "whole", *TINY) == 0
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        capsys.readouterr()
        assert nbnet("train", "--data", pictures, "--out", "a run", *TINY) == 130
    out = capsys.readouterr().out
    assert f"stopped in epoch {step // 5 + 1} of 3; the run is saved. To continue:" in out
    assert signal.getsignal(signal.SIGINT) is before
    assert arrays(here / "a run")[1]["step"] == step
    command = shlex.split(out.splitlines()[-1])
    assert command == ["nbnet", "train", "--resume", "a run"]
    assert nbnet(*command[1:]) == 0
    assert arrays(here / "a run") == arrays(here / "whole")
    assert {path.name for path in (here / "a run").iterdir()} == FILES


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_save_too(pictures, here, capfd, monkeypatch, name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # tests may run with nohup
    assert nbnet("train", "--data", pictures, "--out", "whole", *TINY) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7, number=number)
        assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 128 + number
    out, err = capfd.readouterr()
    assert "stopped in epoch 2 of 3; the run is saved" in out
    assert f"stopping after this batch; {name} again stops at once" in err
    assert signal.getsignal(number) is signal.SIG_DFL
    assert arrays(here / "run")[1]["step"] == 7
    assert nbnet("train", "--resume", "run") == 0
    assert arrays(here / "run") == arrays(here / "whole")
    signal.signal(number, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
def test_a_signal_that_is_ignored_stays_so(pictures, here, monkeypatch):
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt_at(monkeypatch, 7, number=signal.SIGHUP)
        assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no terminals of this kind here")
def test_a_terminal_that_is_closed(here):
    """The run is saved, and nothing fails because it cannot print any more."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run with nohup
        os.execv(sys.executable, [sys.executable, "-m", "nbnet", "train", "--epochs", "100000", "--backend", "serial", "--out", "run"])
    seen = b""
    while b"epoch 2" not in seen and b"2/100000" not in seen:
        seen += os.read(terminal, 4096)
        assert len(seen) < 1_000_000, seen[-500:]
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 128 + signal.SIGHUP
    run = arrays(here / "run")[1]
    assert run["epoch"] >= 1
    assert nbnet("train", "--resume", "run", "--epochs", str(run["epoch"] + 1)) == 0


def test_a_second_ctrl_c_ends_at_once(pictures, here, capsys, monkeypatch):
    assert nbnet("train", "--data", pictures, "--out", "whole", *TINY) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8, times=2)
        assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 130
    err = capsys.readouterr().err
    assert "run has the run as last saved, after epoch 1\nnbnet: interrupted" in err
    assert "Traceback" not in err
    assert arrays(here / "run")[1]["step"] == 5
    assert nbnet("train", "--resume", "run") == 0
    assert arrays(here / "run") == arrays(here / "whole")


def test_ctrl_c_in_the_last_batch_is_a_finished_run(pictures, here, capsys, monkeypatch):
    interrupt_at(monkeypatch, 15)
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_resume_to_more_epochs_from_elsewhere(pictures, here, capsys, monkeypatch):
    assert nbnet("train", "--data", "pictures", "--out", "run", *TINY) == 0
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    assert nbnet("train", "--resume", here / "run", "--epochs", 5) == 0
    out = capsys.readouterr().out
    assert re.search(r"note: the learning rate jumps from \S+ to 0\.\S+: nb\.schedules\.one_cycle\(\) now spans 5 epochs", out)
    assert "from epoch 4 of 5" in out
    state = arrays(here / "run")[1]
    assert (state["epoch"], state["step"]) == (5, 25)
    assert json.loads((here / "run" / "config.json").read_text(encoding="utf-8"))["epochs"] == 5
    assert not list((here / "other").iterdir())


def test_resume_draws_what_is_missing(pictures, here):
    """Killed between the last epoch and the pictures."""
    assert nbnet("train", "--data", "pictures", "--out", "run", *TINY) == 0
    before = arrays(here / "run")
    for path in (here / "run").glob("*.png"):
        path.unlink()
    assert nbnet("train", "--resume", "run") == 0
    assert {path.name for path in (here / "run").iterdir()} == FILES
    assert arrays(here / "run") == before


NASTY = [
    ("seed", str(10**40), " is 1000"),
    ("lr", "1e400", " is inf, expected a finite number above 0"),
    ("weight_decay", '"inf"', " is 'inf', expected a finite number, at least 0"),
    ("epochs", "1.5", " is 1.5, expected a whole number, at least 1"),
    ("dtype", '""', " is '', expected one of float32, float64"),
    ("dtype", '"float31"', " is 'float31', expected one of float32, float64"),
    ("optimizer", '"one_cycle"', " is 'one_cycle', expected one of sgd"),
    ("schedule", '"adamw"', " is 'adamw', expected one of constant"),
    ("augment", '["zoom"]', "[0] is 'zoom', expected one of flip, crop"),
    ("backend", "[]", " is [], expected one of numpy"),
    ("image_shape", "[1000000, 1000000, 3]", "[0] is 1000000, expected a whole number, 1 to 65535"),
    ("image_shape", "[65535, 65535, 3]", " is [65535, 65535, 3], expected an image of at most 16,777,216 numbers"),
    ("class_names", '[["a"], "b", "c"]', "[0] is ['a'], expected a line of text"),
    ("class_names", '["a"]', " is ['a'], expected a list of 2 to 10,000 values"),
    ("size", "8", " is 8, expected a list of 2 values"),
    ("data", "null", " is None, expected text, at most"),
]


def test_resume_what_cannot_be_resumed(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    model, config = here / "run" / "model.safetensors", here / "run" / "config.json"
    good, text = model.read_bytes(), config.read_text(encoding="utf-8")
    capsys.readouterr()

    def refused(*words):
        assert nbnet("train", "--resume", *words) == 2
        return one_line_error(capsys)

    assert refused("nowhere").startswith("there is no run nowhere: expected a folder written by nbnet train, with config.json")
    assert refused(pictures).startswith(f"{pictures} is not a run folder: expected")
    assert refused("run") == "the run run is complete after 3 epochs; to continue, give a larger --epochs"
    assert refused("run", "--epochs", 2) == "the run run is complete after 3 epochs; to continue, give a larger --epochs"
    assert refused("run", "--epochs", 9, "--lr", 1) == "--lr cannot change when a run is resumed: give only --resume and --epochs"
    model.write_bytes(good[:-9])
    assert "model.safetensors is truncated or not a safetensors file" in refused("run", "--epochs", 9)
    model.unlink()
    assert refused("run", "--epochs", 9).startswith("run has no model.safetensors: there is nothing to resume")
    model.write_bytes(good)
    for broken in (text[:-20], text.replace('"seed"', '"sead"'), text.replace("[\n  8,\n  8,\n  1\n ]", "[8, 8]"), "[]"):
        config.write_text(broken)
        assert refused("run", "--epochs", 9).startswith("run/config.json is damaged: ")
    for key, value, words in NASTY:
        config.write_text(json.dumps(json.loads(text) | {key: "@"}).replace('"@"', value))
        assert refused("run", "--epochs", 9).startswith(f"run/config.json is damaged: {key}{words}")
    config.write_text(text.replace('"digits"', '"lenet"'))
    assert "'0.conv2d.weight' has shape (3, 3, 1, 16) and dtype float32, expected (3, 3, 1, 32)" in refused("run", "--epochs", 9)
    config.write_text(text)
    save(pictures / "left" / "0.png", np.zeros((8, 8), np.uint8))
    assert "pictures has other images or labels than when run was started" in refused("run", "--epochs", 9)
    assert model.read_bytes() == good
