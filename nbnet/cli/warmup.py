"""nbnet warmup: compile the kernels of training, so that later runs start at once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from nbnet import models
from nbnet.cli import kernels
from nbnet.errors import ArgumentError
from nbnet.layers import Sequential
from nbnet.losses import SoftmaxCrossEntropy
from nbnet.optimizers import OPTIMIZERS
from nbnet.runtime.arrays import float_dtype
from nbnet.runtime.backend import get_backend
from nbnet.training.trainer import Trainer

HELP = "Compile the kernels of every model and optimiser into the cache."
EPILOG = """examples:
  nbnet warmup                       what nbnet train uses
  nbnet warmup --dtype float64
  nbnet warmup --all                 serial and parallel, float32 and float64"""

SHAPE = (25, 25, 3)  # the smallest image that every model takes: kernels are compiled for types, not for shapes


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", metavar="NAME", help="parallel or serial (default: parallel)")
    parser.add_argument("--dtype", metavar="NAME", help="float32 or float64 (default: float32)")
    parser.add_argument("--all", action="store_true", help="both backends and both dtypes")


def run(options: argparse.Namespace) -> int:
    """The command."""
    if options.all and (options.backend or options.dtype):
        raise ArgumentError("--all with --backend or --dtype: --all means both backends and both dtypes; give only --all")
    backends = ["parallel", "serial"] if options.all else [options.backend or "parallel"]
    dtypes = ["float32", "float64"] if options.all else [options.dtype or "float32"]
    for backend in backends:
        get_backend(backend)
        if backend not in ("parallel", "serial"):
            raise ArgumentError(f"--backend {backend}: has no compiled kernels to keep; expected parallel or serial")
    began = time.perf_counter()
    count = 0
    for backend in backends:
        for dtype in dtypes:
            trainers = _trainers(_build(backend, float_dtype(dtype).name))
            total = sum(map(kernels.count_steps, trainers))
            count += kernels.show(_steps(trainers, f"{backend} {dtype}"), total, backend, f"compiling kernels: {backend}, {dtype}")
    what = f"{count} kernels compiled" if count else "every kernel was already in the cache"
    print(f"{what} ({', '.join(backends)}; {', '.join(dtypes)}), {time.perf_counter() - began:.1f} s")
    return 0


def _build(backend: str, dtype: str) -> list[Sequential]:
    built = []
    for make in models.MODELS.values():
        model = make(10)
        model.build(SHAPE, backend=backend, dtype=dtype)
        built.append(model)
    return built


def _trainers(built: list[Sequential]) -> list[Trainer]:
    """Every model with one optimiser, the first one with all, and with targets and images that are changed."""
    first = built[0]
    others = [Trainer(first, optimizer=make(1e-3)) for make in OPTIMIZERS.values()]
    others.append(Trainer(first, SoftmaxCrossEntropy(label_smoothing=0.1), optimizer="adam", augment=["crop", "mixup"]))
    return [Trainer(model, optimizer="adam") for model in built] + others


def _steps(trainers: list[Trainer], title: str) -> Iterator[str]:
    for trainer in trainers:
        for name in kernels.first_step(trainer):
            yield f"{title} {name}"
