"""Training that goes wrong: what is kept."""

import os
import re

import numpy as np
import pytest

from nbnet import storage

from .running import FILES, TINY, arrays, nbnet, one_line_error


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
    assert nbnet("train", "--data", pictures, "--out", "writable/run", *TINY, "--epochs", "1") == 0


def test_a_run_that_was_killed_before_its_first_save(pictures, here, capsys):
    """What it left is used again: a temporary file, or settings without a model."""
    assert nbnet("train", "--data", pictures, "--out", "other", *TINY) == 0
    for left in ({}, {"config.json": (here / "other" / "config.json").read_bytes()}):
        run = here / f"run{len(left)}"
        run.mkdir()
        for name, data in {**left, storage.TEMPORARY.replace("*", "0"): b"half"}.items():
            (run / name).write_bytes(data)
        if left:
            capsys.readouterr()
            assert nbnet("train", "--resume", run) == 2
            assert one_line_error(capsys).endswith(f"there is nothing to resume; start it again with nbnet train --out {run}")
        assert nbnet("train", "--data", pictures, "--out", run, *TINY) == 0
        assert {path.name for path in run.iterdir()} == FILES
        assert arrays(run) == arrays(here / "other")


def test_a_config_of_something_else_is_never_overwritten(pictures, here, capsys):
    (here / "app").mkdir()
    (here / "app" / "config.json").write_text("{}")
    assert nbnet("train", "--data", pictures, "--out", "app", *TINY) == 2
    assert one_line_error(capsys).startswith("--out app exists already and is not empty: choose another folder")
    assert (here / "app" / "config.json").read_text() == "{}"


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
