"""Train on a folder of your own images, one sub-folder per class: python own_images.py FOLDER

Without a folder it draws one first: 120 pictures of discs, squares and stripes in my_images/.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import nbnet as nb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, help="FOLDER/CLASS/IMAGE")
parser.add_argument("--size", type=int, default=24, help="pixels that images are resized to")
parser.add_argument("--epochs", type=int, default=12)
options = parser.parse_args()


def draw(kind, rng):
    """A picture of 32x32 pixels: the shape in one colour at a random position on noise."""
    rows, columns = np.mgrid[:32, :32]
    (row, column), radius = rng.integers(11, 21, 2), rng.integers(6, 10)
    shape = {
        "disc": np.hypot(rows - row, columns - column) < radius,
        "square": np.maximum(abs(rows - row), abs(columns - column)) < radius,
        "stripes": (rows + rng.integers(8)) % 8 < 4,
    }[kind]
    picture = rng.normal(90, 25, (32, 32, 3)) + shape[..., None] * rng.uniform(40, 120, 3)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


if options.folder is None:
    options.folder = Path("my_images")
    rng = np.random.default_rng(0)
    for kind in ("disc", "square", "stripes"):
        (options.folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(40):
            draw(kind, rng).save(options.folder / kind / f"{i}.png")

(x, y), (x_test, y_test), names = nb.datasets.from_folder(options.folder, size=options.size)
print(f"{len(x)} images to train on, {len(x_test)} to test; classes: {', '.join(names)}")

layers = []
for filters in (16, 32):
    layers += [nb.Conv2D(filters, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)]
model = nb.Sequential([*layers, nb.GlobalAvgPool2D(), nb.Dropout(0.1), nb.Dense(len(names))])
model.build(x.shape[1:], seed=0)

trainer = nb.Trainer(model, optimizer=nb.Adam(0.01), schedule="one_cycle")
trainer.fit((x, y), epochs=options.epochs, batch_size=16, validation=(x_test, y_test))
print(f"test accuracy {trainer.evaluate(x_test, y_test)['accuracy']:.1%}")
model.save_weights("my_images.safetensors")

for i, scores in enumerate(model.predict(x_test[:3])):
    print(f"test image {i}: a {names[y_test[i]]}, and the model says {names[scores.argmax()]}")
