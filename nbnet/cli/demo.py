"""nbnet demo: run the demonstrations, write their pictures and figures, and one page with all of them."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import demos, storage
from nbnet.cli import page
from nbnet.demos import DEMOS, Result, Settings
from nbnet.errors import ArgumentError, DataError
from nbnet.runtime.backend import get_backend
from nbnet.runtime.processors import processors
from nbnet.version import __version__

HELP = "Run the tutorials' experiments: pictures, and figures over several seeds."
EPILOG = """examples:
  nbnet demo                           list the demonstrations
  nbnet demo deep-tanh                 minutes: pictures, GIF and results.json in demos/deep-tanh
  nbnet demo --all --quick             short versions of all, on one page: demos/index.html
  nbnet demo cifar-cnn --data cifar10  on other data

Files of an earlier run in the same folder are replaced."""

RESULTS, PAGE = "results.json", "index.html"
LEAD = (
    f"Small experiments, run over several seeds with nbnet {__version__}. Lines are medians; shades and ranges in brackets reach from the "
    "least to the greatest seed. Every sentence is computed from the run that drew the pictures below it."
)
FOOTER = "The pictures, and the figures as results.json, are also in the folders beside this page, one for each demonstration."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"one of {', '.join(DEMOS)}; none lists them")
    parser.add_argument("--all", action="store_true", help=f"run all, and write one page with everything: {PAGE}")
    parser.add_argument("--out", metavar="DIR", default="demos", help="folder with a sub-folder per demo (default: demos)")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: the demo's own; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: fewer steps, fewer seeds")
    parser.add_argument("--backend", metavar="NAME", help="parallel, serial, numpy or cuda (default: the demo's own)")
    parser.add_argument(
        "--data", metavar="NAME|PATH", help="images for cifar-cnn: the name of a data set, or a folder (default: the embedded digits)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the data set's files, instead of a download")


def run(options: argparse.Namespace) -> int:
    """The command."""
    if options.name is not None and options.all:
        raise ArgumentError(f"demo {options.name} --all: expected a name or --all, not both")
    if options.name is None and not options.all:
        _list()
        return 0
    if options.seeds is not None and options.seeds < 1:
        raise ArgumentError(f"--seeds {options.seeds}: expected a whole number, at least 1")
    if options.backend is not None:
        get_backend(options.backend)
    names = list(DEMOS) if options.all else [options.name]
    for name in names:
        demos.get(name)  # fails on an unknown name before anything runs
    out = Path(os.path.expanduser(options.out))
    done = [(name, *_run_one(name, out / name, options)) for name in names]
    if options.all:
        page.write(out / PAGE, "Batch norm and dropout, seen", LEAD, [_section(out, *each) for each in done], FOOTER)
        print(f"the page: {out / PAGE}")
    return 0


def _list() -> None:
    for name in DEMOS:
        print(f"{name:<17} {demos.get(name).TITLE}")
    print("\nnbnet demo NAME runs one, nbnet demo --all runs all; --quick takes seconds")


def _run_one(name: str, folder: Path, options: argparse.Namespace) -> tuple[Result, str]:
    """Run one, write and print its results. Returns the result and the command that reproduces it."""
    module = demos.get(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {folder}: {error.strerror or error}; choose a writable one with --out") from error
    settings = Settings(
        out=folder,
        seeds=options.seeds or (2 if options.quick else module.SEEDS),
        quick=options.quick,
        backend=options.backend or getattr(module, "BACKEND", "parallel"),
        data=options.data,
        data_dir=options.data_dir,
    )
    command = _command(name, settings)
    print(f"{module.TITLE} ({command})", flush=True)
    began = time.perf_counter()
    result = module.run(settings)
    seconds = time.perf_counter() - began
    report = {
        "demo": name,
        "title": result.title,
        "command": command,
        "settings": {"seeds": settings.seeds, "quick": settings.quick, "backend": settings.backend, "data": settings.data},
        "seconds": round(seconds, 1),
        "versions": _versions(),
        "summary": result.summary,
        "figures": result.figures,
        "pictures": [{"file": file, "caption": caption} for file, caption in result.pictures],
    }
    storage.write_json(folder / RESULTS, plain(report))
    for sentence in result.summary:
        print(f"- {sentence}")
    print(f"{folder}: {', '.join([*(file for file, _ in result.pictures), RESULTS])}, in {seconds:.1f} s\n", flush=True)
    return result, command


def _section(out: Path, name: str, result: Result, command: str) -> page.Section:
    return page.Section(name, result.title, result.summary, [(out / name / file, caption) for file, caption in result.pictures], command)


def _command(name: str, settings: Settings) -> str:
    words = ["nbnet demo", name, f"--seeds {settings.seeds}", f"--backend {settings.backend}"]
    words += ["--quick"] if settings.quick else []
    words += [f"--data {Path(settings.data).name}"] if settings.data else []
    return " ".join(words)


def _versions() -> dict[str, Any]:
    import matplotlib
    import numba

    names = {"nbnet": __version__, "python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__}
    return names | {"matplotlib": matplotlib.__version__, "threads": numba.get_num_threads(), "processors": processors()}


def plain(value: Any) -> Any:
    """The value as plain JSON types: NumPy numbers become Python numbers, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    json.dumps(value)
    return value
