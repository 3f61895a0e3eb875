"""nbnet predict: classify image files with a trained run."""

from __future__ import annotations

import argparse
import os
import sys
from glob import glob
from pathlib import Path

import numpy as np

from nbnet.cli import runs
from nbnet.datasets import read_images
from nbnet.errors import CheckpointError
from nbnet.functional import softmax_forward
from nbnet.training.views import predict_views

HELP = "Classify image files with a trained run."
EPILOG = """examples:
  nbnet predict runs/digits-digits-1 digit.png
  nbnet predict runs/photos-resnet9-1 holiday/*.jpg
  nbnet predict runs/mnist-lenet-1 --invert paper.jpg    ink on white paper; MNIST and the digits are white on black

Images are resized and converted to grey or RGB to match the run's training images."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a folder that nbnet train wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--invert", action="store_true", help="swap dark and light before classifying")
    parser.add_argument("--tta", action="store_true", help="average over mirrored and moved views (not for letters or arrows)")
    parser.add_argument("--backend", metavar="NAME", help="parallel, serial, numpy or cuda (default: the run's)")


def run(options: argparse.Namespace) -> int:
    """The command."""
    from rich.console import Console
    from rich.table import Table

    folder = Path(options.run)
    config = runs.read_config(folder)
    if not (folder / runs.MODEL).is_file():
        raise CheckpointError(f"{folder} has no {runs.MODEL}: train it with nbnet train")
    model = config.build(options.backend)
    model.load_weights(folder / runs.MODEL)
    height, width, channels = config.image_shape
    # Windows' shells leave *.jpg to the program; a file whose name only looks like a pattern is that file
    images = [name for word in options.images for name in ([word] if os.path.exists(word) else sorted(glob(word)) or [word])]
    x = read_images(images, (height, width), channels)
    x = 255 - x if options.invert else x
    if options.tta:
        probabilities, _ = softmax_forward(predict_views(model, x), backend=model.backend)
    else:
        probabilities = model.predict_proba(x)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    table.add_column("runner-up")
    for i, image in enumerate(images):
        best, second = order[i, :2]
        runner_up = f"{config.class_names[second]} ({_percent(probabilities[i, second])})"
        table.add_row(image, config.class_names[best], _percent(probabilities[i, best]), runner_up)
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    return 0


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
