"""What augmentation costs, as a share of a training step: python benchmarks/augmentation.py [--out FILE.json]

The step is the five-conv network's, on one batch of RGB images, and takes turns with the transforms of the same batch. Medians, and in
brackets the 10th and 90th percentiles of the shares.
"""

import argparse
import datetime
import time
from pathlib import Path

import numpy as np

import nbnet as nb
from nbnet.augment.pipeline import Pipeline
from nbnet.cli import info
from nbnet.storage import write_json

LISTS = {
    "none, uint8 to float": [],
    "flip": ["flip"],
    "flip, crop": ["flip", "crop"],
    "flip, crop, cutout, normalize": ["flip", "crop", "cutout", nb.augment.Normalize([0.5] * 3, [0.25] * 3)],
    "flip, crop, color": ["flip", "crop", "color"],
    "flip, affine": ["flip", "affine"],
    "flip, affine, color": ["flip", "affine", "color"],
    "flip, crop, noise": ["flip", "crop", nb.augment.RandomNoise(0.05)],
    "flip, crop, mixup": ["flip", "crop", "mixup"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there, too")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (options.size, options.size, 3)
    x, y = rng.integers(0, 256, (options.batch, *shape), np.uint8), rng.integers(0, 10, options.batch)
    model = nb.models.five_conv()
    model.build(shape, seed=0)
    trainer, rows, images = nb.Trainer(model, optimizer="adam"), np.arange(options.batch), x.astype(np.float32) / 255
    pipelines = {name: Pipeline(nb.augment.get(transforms, shape), shape) for name, transforms in LISTS.items()}
    runs = {"step": lambda: trainer.train_batch(images, y)}
    for name, pipeline in pipelines.items():
        runs[name] = lambda pipeline=pipeline: pipeline.run(x, rows, 1, 0, model.backend, model.dtype)
    times = {name: [] for name in runs}
    for turn in range(options.rounds + 3):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
    step = np.array(times.pop("step"))
    print(f"a step of five-conv, batch {options.batch} of {options.size}x{options.size}x3: {1000 * np.median(step):.2f} ms\n")
    print("| transforms | ms | share of the step, % |\n|---|---|---|")
    rows = []
    for name, seconds in times.items():
        low, middle, high = np.percentile(100 * np.array(seconds) / step, (10, 50, 90))
        print(f"| {name} | {1000 * np.median(seconds):.3f} | {middle:.1f} ({low:.1f} to {high:.1f}) |")
        rows.append({"transforms": name, "ms": 1000 * np.median(seconds), "share": [low, middle, high]})
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"command": "python benchmarks/augmentation.py", "date": str(datetime.date.today()), "cpu": dict(info.facts())["cpu"]}
        write_json(options.out, about | {"step_ms": 1000 * np.median(step), "rows": rows})


if __name__ == "__main__":
    main()
