"""Where does a network look? The gradient of a digit's score with respect to the pixels. python saliency.py [FOLDER]"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import nbnet as nb

SIZE = 20
rng = np.random.default_rng(0)


def scattered(images):
    """Each digit of 8x8 pixels somewhere in a larger, noisy picture: (N, 20, 20, 1), and where it is, as bool."""
    canvas = rng.uniform(0, 0.2, (len(images), SIZE, SIZE, 1)).astype("float32")
    inside = np.zeros(canvas.shape, bool)
    for picture, place, image, corner in zip(canvas, inside, images, rng.integers(SIZE - 7, size=(len(images), 2))):
        window = tuple(slice(start, start + 8) for start in corner)
        picture[window] += image / np.float32(255)
        place[window] = image > 64
    return canvas, inside


(digits, y), (test_digits, y_test), _ = nb.datasets.load("digits")
x, _ = scattered(np.concatenate([digits, digits]))
x_test, inside = scattered(test_digits)
layers = []
for filters in (16, 32, 64):
    layers += [nb.Conv2D(filters, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)]
model = nb.Sequential([*layers[:-1], nb.GlobalMaxPool2D(), nb.Dense(10)])
model.build((SIZE, SIZE, 1), seed=0)
trainer = nb.Trainer(model, optimizer=nb.Adam(1e-2), schedule="one_cycle")
trainer.fit((x, np.concatenate([y, y])), epochs=6, progress=False)
print(f"test accuracy {trainer.evaluate(x_test, y_test)['accuracy']:.1%}")

nb.freeze(model)  # batch norm uses its moving statistics, as in predict; so each picture has a gradient of its own
scores, tape = model.forward(x_test, train=True)
gradient = np.abs(model.backward(np.eye(10, dtype="float32")[y_test], tape))
on, off = gradient[inside].mean(), gradient[~inside].mean()
print(f"the mean gradient of a digit's pixels is {on / off:.1f} times that of the background")
larger = [picture[place].mean() > picture[~place].mean() for picture, place in zip(gradient, inside)]
print(f"larger on the digit in {np.mean(larger):.1%} of the test pictures")

figure = Figure(figsize=(9, 3), layout="constrained")
for column, axes in enumerate(figure.subplots(2, 8).T):
    axes[0].imshow(x_test[column, ..., 0], cmap="gray_r")
    axes[1].imshow(gradient[column, ..., 0], cmap="magma")
    for each in axes:
        each.set_axis_off()
figure.savefig(Path(*sys.argv[1:2]) / "saliency.png", dpi=120)
