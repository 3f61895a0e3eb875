"""nbnet export: write the model of a trained run as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from nbnet import onnx
from nbnet.cli.predict import trained
from nbnet.onnx.export import LAYOUTS

HELP = "Write the model of a trained run as an ONNX file."
EPILOG = """examples:
  nbnet export runs/digits-digits-1 digits.onnx
  nbnet export runs/photos-resnet9-1 photos.onnx --layout NCHW --fold    for programs that were made for PyTorch
  nbnet predict digits.onnx digit.png

The file takes floats, pixels divided by 255, any number of images at once, and gives a number for each class, whose softmax are the
probabilities. What a model standardises itself is in the graph, the names of the classes are in the metadata. It needs the package onnx:
pip install 'nbnet[onnx]'."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a folder that nbnet train wrote")
    parser.add_argument("file", metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--layout", choices=LAYOUTS, default="NHWC", help="of the images, NHWC (default) or NCHW")
    parser.add_argument("--fold", action="store_true", help="make batch norms part of the weights before them")


def run(options: argparse.Namespace) -> int:
    """The command."""
    model, class_names = trained(Path(options.run), "numpy")
    onnx.export(model, options.file, input_layout=options.layout, fold_batch_norm=options.fold, class_names=class_names)
    print(f"wrote {options.file}: {Path(options.file).stat().st_size:,} bytes, {len(class_names)} classes")
    return 0
