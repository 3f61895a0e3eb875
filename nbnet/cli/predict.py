"""nbnet predict: classify image files with a trained run, or a model in an ONNX file."""

from __future__ import annotations

import argparse
import os
import sys
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import onnx
from nbnet.cli import runs
from nbnet.datasets import read_images
from nbnet.errors import CheckpointError, OnnxError
from nbnet.functional import softmax_forward
from nbnet.runtime.arrays import several
from nbnet.training.views import predict_views

HELP = "Classify image files with a trained run or an ONNX file."
EPILOG = """examples:
  nbnet predict runs/digits-digits-1 digit.png
  nbnet predict runs/photos-resnet9-1 holiday/*.jpg
  nbnet predict runs/mnist-lenet-1 --invert paper.jpg    ink on white paper; MNIST and the digits are white on black
  nbnet predict digits.onnx digit.png                    an ONNX file for images, of nbnet export or another program

Images are resized and converted to grey or RGB to match the run's training images. An ONNX file gets pixels divided by 255."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a folder that nbnet train wrote, or an ONNX file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--invert", action="store_true", help="swap dark and light before classifying")
    parser.add_argument("--tta", action="store_true", help="average over mirrored and moved views (not for letters or arrows)")
    parser.add_argument("--backend", metavar="NAME", help="parallel, serial, numpy or cuda (default: the run's; for ONNX files parallel)")


def run(options: argparse.Namespace) -> int:
    """The command."""
    from rich.console import Console
    from rich.table import Table

    folder = Path(options.run)
    is_onnx = folder.suffix.lower() == ".onnx" and not folder.is_dir()
    model, class_names = _of_onnx(folder, options.backend) if is_onnx else trained(folder, options.backend)
    height, width, channels = model.input_shape
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
        runner_up = f"{class_names[second]} ({_percent(probabilities[i, second])})"
        table.add_row(image, class_names[best], _percent(probabilities[i, best]), runner_up)
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    return 0


def trained(folder: Path, backend: str | None) -> tuple[Any, list[str]]:
    """The trained model of a run, and the names of its classes.

    Raises:
        CheckpointError: the folder is no run, or its files are damaged. BackendError: unknown backend.
    """
    config = runs.read_config(folder)
    if not (folder / runs.MODEL).is_file():
        raise CheckpointError(f"{folder} has no {runs.MODEL}: train it with nbnet train")
    model = config.build(backend)
    model.load_weights(folder / runs.MODEL)
    return model, config.class_names


def _of_onnx(path: Path, backend: str | None) -> tuple[Any, list[str]]:
    """The model of an ONNX file, and the names of its classes, or their numbers.

    Raises:
        OnnxError: it is damaged, or is not for images and classes.
    """
    model = onnx.load(path, backend=backend or "parallel")
    shape: Any = model.input_shape
    if several(shape) or several(model.output_shape) or len(shape) != 3 or shape[2] not in (1, 3) or len(model.output_shape) != 1:
        raise OnnxError(f"{path} takes {shape} and gives {model.output_shape}, expected an image (H, W, 1 or 3), and classes")
    classes = model.output_shape[0]
    names = onnx.metadata(path).get("class_names", [str(i) for i in range(classes)])
    if len(names) != classes or classes < 2:
        raise OnnxError(f"{path} has {classes} outputs and the names of {len(names)} classes, expected one for each of at least 2")
    return model, names


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
