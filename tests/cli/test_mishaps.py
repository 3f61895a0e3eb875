"""Training that goes wrong: what is kept."""

import os
import re

import numpy as np
import pytest

from nbnet import storage

from .running import TINY, nbnet, one_line_error


def test_nan_keeps_the_last_good_checkpoint(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--lr", "1e30", "--schedule", "step", "--optimizer", "sgd") == 2
    error = one_line_error(capsys)
    assert re.match(r"the loss is nan at step 1: .*layer \d+\.\w+ .*lower the learning rate.*; run has the run as last saved", error)
    assert error.endswith("after epoch 0")
    values, _ = storage.read(here / "run" / "model.safetensors")
    assert all(np.isfinite(value).all() for value in values.values())
    assert nbnet("predict", "run", pictures / "left" / "0.png") == 0


def test_a_full_disk(pictures, here, capsys, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 2
    assert one_line_error(capsys).startswith("cannot write run/config.json: No space left on device; choose a folder")


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made(pictures, here, capsys, out):
    (here / "file").write_text("", encoding="utf-8")
    assert nbnet("train", "--data", pictures, "--out", out, *TINY) == 2
    error = one_line_error(capsys)
    assert error in (
        "--out file exists already: choose another folder",
        f"cannot create the run folder {out}: Not a directory; choose a writable one with --out",
    )


def test_a_run_is_never_overwritten(pictures, here, capsys):
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("ten years of work", encoding="utf-8")
    assert nbnet("train", "--data", pictures, "--out", "full", *TINY) == 2
    assert one_line_error(capsys) == "--out full exists already and is not empty: choose another folder"
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    capsys.readouterr()
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 2
    assert one_line_error(capsys).endswith(", or continue that run: nbnet train --resume run")
    assert [path.name for path in (here / "full").iterdir()] == ["thesis.txt"]
