"""The airbench recipe in nbnet and in PyTorch, taking turns: accuracy, seconds and memory of each run.

python benchmarks/airbench.py --data cifar10 --epochs 3 --seeds 5 --out results.json
python benchmarks/airbench.py --data cifar10 --epochs 3 --seeds 3 --out results.json --without flip  # a part of the recipe, in nbnet

Each run has a process of its own, with as many threads as there are processors. PyTorch's malloc keeps freed memory, which makes it faster.
Runs that are in the file already are not repeated, so that a comparison of hours can be stopped and continued; the table is of all of them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import nbnet as nb
from nbnet.bench.peers.torch_kept import ENVIRONMENT
from nbnet.runtime.processors import processors
from nbnet.storage import write_json

NAMES = ("nbnet", "torch")
PARTS = ("flip", "translation", "smoothing", "whitening", "lookahead", "bias scale")


def run(name, data, epochs, seed, activation, without):
    """One run, in this process: test accuracy without and with test-time augmentation, seconds of training, and peak memory in MiB."""
    data = nb.datasets.open_data(data)
    if name == "torch":
        from airbench_torch import train

        found = train(data, epochs, seed, activation)
    else:
        found = _train(data, epochs, seed, activation, without)
    return [float(number) for number in found] + [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]


def _train(data, epochs, seed, activation, without):
    (x, y), (x_test, y_test), names = data
    trainer = _trainer(x, names, seed, activation, without)
    trainer.fit((x[:512], y[:512]), epochs=1, batch_size=256, progress=False)  # compiles kernels, or loads them
    del trainer  # its memory is not part of what is measured
    trainer = _trainer(x, names, seed, activation, without)
    model = trainer.model
    trainer.fit((x, y), epochs=epochs, batch_size=256, progress=False)
    plain, views = ((said.argmax(axis=1) == y_test).mean() for said in (model.predict(x_test), nb.predict_views(model, x_test)))
    return plain, views, sum(trainer.history["seconds"])


def _trainer(x, names, seed, activation, without):
    """The recipe's trainer, without one of its PARTS or with all (None)."""
    model = nb.models.airbench(len(names), activation=activation)
    model.build(x.shape[1:], seed=seed)
    filters = model["whiten"].params["weight"]
    drawn = filters.value.copy()
    trainer = nb.recipes.airbench(model, x, seed=seed)
    flip, translation = trainer.augment
    if without == "flip":
        trainer.augment = (translation,)
    elif without == "translation":
        trainer.augment = (flip,)
    elif without == "smoothing":
        trainer.loss = nb.losses.SoftmaxCrossEntropy()
    elif without == "whitening":
        filters.value[...], filters.trainable = drawn, True
    elif without == "lookahead":
        trainer.average = None
    elif without == "bias scale":
        sgd = trainer.optimizer
        options = {"momentum": sgd.momentum, "nesterov": True, "weight_decay": sgd.weight_decay}
        trainer.optimizer = nb.SGD(sgd.lr, **options, groups={"head": sgd.groups["head"]})
    return trainer


def compare(options):
    path, data = Path(options.out), Path(options.data).name
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    environment = os.environ | {name: value.format(threads=processors()) for name, value in ENVIRONMENT.items()}
    for seed in range(options.first, options.first + options.seeds):
        for name in ("nbnet",) if options.without else NAMES if seed % 2 == 0 else NAMES[::-1]:
            case = {"data": data, "name": name, "without": options.without, "epochs": options.epochs}
            case |= {"activation": options.activation, "seed": seed}
            if any(case.items() <= one.items() for one in found):
                continue
            words = [sys.executable, __file__, "--one", name, "--data", options.data, "--epochs", str(options.epochs)]
            words += ["--first", str(seed), "--activation", options.activation]
            words += ["--without", options.without] if options.without else []
            done = subprocess.run(words, env=environment if name == "torch" else None, stdout=subprocess.PIPE, text=True, check=True)
            plain, views, seconds, memory = json.loads(done.stdout.splitlines()[-1])
            found.append(case | {"accuracy": plain, "views": views, "seconds": seconds, "MiB": memory})
            write_json(path, found)
            print(found[-1], flush=True)
    for line in table(found):
        print(line)


def table(found):
    """Markdown: means and the spread of the seeds."""
    columns = (
        "data",
        "epochs",
        "activation",
        "framework",
        "without",
        "seeds",
        "test accuracy, %",
        "averaged over views, %",
        "seconds",
        "peak memory, MiB",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    keys = ("data", "epochs", "activation", "name", "without")
    for case in sorted({tuple(one[key] or "" for key in keys) for one in found}):
        of = [one for one in found if tuple(one[key] or "" for key in keys) == case]
        accuracy, views = (_spread([100 * one[kind] for one in of]) for kind in ("accuracy", "views"))
        seconds, memory = (statistics.median(one[kind] for one in of) for kind in ("seconds", "MiB"))
        yield f"| {' | '.join(map(str, case))} | {len(of)} | {accuracy} | {views} | {seconds:.0f} | {memory:.0f} |"


def _spread(values):
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="cifar10, or a folder of images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--activation", default="gelu", choices=["gelu", "relu"])
    parser.add_argument("--without", choices=PARTS, help="a part of the recipe to leave out, in nbnet")
    parser.add_argument("--out", default="airbench.json", help="the file of all runs")
    parser.add_argument("--one", choices=NAMES, help="run the first seed of this framework, and print its figures")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.data, options.epochs, options.first, options.activation, options.without)))
    else:
        compare(options)
