"""Running commands, here and in a process, and looking at what they leave."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from nbnet import cli, storage

TINY = ["--size", "8", "--backend", "serial", "--epochs", "3", "--batch-size", "8", "--lr", "0.02"]
PICTURES = ("curves.png", "confusion.png", "mistakes.png", "augmented.png")
FILES = {"config.json", "model.safetensors", "history.json", "report.html", *PICTURES}


def picture(rng, name):
    x = rng.integers(0, 90, (8, 8), dtype=np.uint8)
    x[{"left": np.s_[:, :4], "right": np.s_[:, 4:], "top": np.s_[:4]}[name]] += 150
    return x


def process(*words, **environment):
    """A real process, ready to start: its arguments for subprocess."""
    paths = [str(Path(cli.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "args": [sys.executable, "-m", "nbnet", *map(str, words)],
        "env": os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
    }


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def nbnet(*words):
    return cli.main([str(word) for word in words])


def arrays(run):
    """All that a run goes on with, as bytes."""
    values, metadata = storage.read(run / "model.safetensors")
    state = json.loads(metadata["run"])
    for times in (state["history"], state["position"]):
        times.pop("seconds", None)
    return {name: value.tobytes() for name, value in values.items()}, state


def one_line_error(capsys, code=2):
    """The line on stderr, without its start."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("nbnet: error: ")
    return err.removeprefix("nbnet: error: ").strip()
