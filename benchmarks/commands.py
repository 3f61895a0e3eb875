"""Figures that commands print, over several seeds: accuracies of nbnet train, and what two examples say.

python benchmarks/commands.py [NAMES] [--images FOLDER] [--seeds 5] [--out benchmarks/results/commands/results.json]

"sklearn" needs scikit-learn. "folder" and "folder-plain" need --images: CIFAR-10 as images, FOLDER/train/cat/*.jpg and so on; they take
300 training and 1,000 test images each of cats, dogs and frogs. Where --out exists, the results of other names are kept.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbnet as nb
from nbnet.cli import info
from nbnet.storage import write_json

ROOT = Path(__file__).resolve().parents[1]
CLASSES, OF_CLASS = ("cat", "dog", "frog"), {"train": 300, "test": 1000}
ACCURACY = {"accuracy, %": r"^test accuracy: ([\d.]+) %"}
PLAIN = "--augment none --label-smoothing 0 --epochs 20 --model five-conv"
OF_FIT = {"%": r"^{} +test accuracy ([\d.]+)%", "s": r"^{} .* ([\d.]+) s of processor time"}
ESTIMATORS = ("CNNClassifier, images", "CNNClassifier, table", "MLPClassifier")
# name: (the command; the values that it prints, with their patterns; whether it takes --seed)
COMMANDS = {
    "digits": ("nbnet train", ACCURACY, True),
    "folder": ("nbnet train --data FOLDER", ACCURACY, True),
    "folder-plain": (f"nbnet train --data FOLDER {PLAIN}", ACCURACY, True),
    "sklearn": (
        "OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python examples/sklearn_digits.py",
        {f"{name}, {unit}": pattern.format(name) for name in ESTIMATORS for unit, pattern in OF_FIT.items()},
        False,
    ),
    "inside-numba": ("python examples/inside_numba.py", {"loop, s": r"predictions in ([\d.]+) s"}, False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="CIFAR-10 as images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there, too")
    options = parser.parse_args()
    needing = [name for name in options.names or COMMANDS if "FOLDER" in COMMANDS[name][0]]
    if needing and options.images is None:
        parser.error(f"{' and '.join(needing)} need --images: expected CIFAR-10 as images")
    found = json.loads(options.out.read_text(encoding="utf-8"))["commands"] if options.out and options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if needing:
            copy_images(options.images, work / "images")
        for name in options.names or COMMANDS:
            command, patterns, seeded = COMMANDS[name]
            values = {key: [] for key in patterns}
            for seed in range(options.seeds) if seeded else [None]:
                text = output(command, seed, work)
                for key, pattern in patterns.items():
                    values[key].append(float(re.search(pattern, text, re.MULTILINE)[1]))
            found[name] = {"command": command, "date": str(datetime.date.today()), "values": values}
            print(name, values, flush=True)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                about = {"command": "python benchmarks/commands.py", "cpu": dict(info.facts())["cpu"], "nbnet": nb.__version__}
                write_json(options.out, about | {"commands": found})


def copy_images(source, target):
    """A few classes, in the layout that nbnet train takes."""
    for part, count in OF_CLASS.items():
        for kind in CLASSES:
            (target / part / kind).mkdir(parents=True)
            for path in sorted((source / part / kind).iterdir())[:count]:
                shutil.copy(path, target / part / kind)


def output(command, seed, work):
    """What the command prints, run in this Python."""
    words, environment = shlex.split(command.replace("FOLDER", shlex.quote(str(work / "images")))), os.environ | {"PYTHONPATH": str(ROOT)}
    while "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    words = [sys.executable, *(["-m", "nbnet"] if words[0] == "nbnet" else []), *words[1:]]
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    if seed is not None:
        words += ["--seed", str(seed), "--out", tempfile.mkdtemp(dir=work)]
    run = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{command}: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else 'failed'}")
    return run.stdout


if __name__ == "__main__":
    main()
