"""A siamese network: learns features in which digits of one kind are near, from triplets with the hardest negatives of the batch.

The network is run once for a batch; anchors, positives and negatives are rows of its features, to which the gradients are added.
"""

import numpy as np

import nbnet as nb

rng = np.random.default_rng(0)
(images, labels), (held_out, held_out_labels), _ = nb.datasets.load("digits")
loss = nb.losses.Triplet(margin=0.5)

layers = [nb.Conv2D(16, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Conv2D(32, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)]
model = nb.Sequential([*layers, nb.Flatten(), nb.Dense(16)])
model.build((8, 8, 1), seed=0)
optimizer = nb.Adam(2e-3)


def distances(a, b):
    """Between the rows of a and those of b."""
    squares = (a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0))


def accuracy(features, kept=1):
    """Of held-out digits, named by the nearest of `kept` known digits of each kind: the mean of 20 choices of these."""
    known, unknown = features(images), features(held_out)
    found = []
    for trial in range(20):
        order = np.random.default_rng(trial).permutation(len(images))
        rows = np.concatenate([order[labels[order] == kind][:kept] for kind in range(10)])
        nearest = distances(unknown, known[rows]).argmin(axis=1)
        found.append((labels[rows][nearest] == held_out_labels).mean())
    return np.mean(found)


def triplets(features, kinds):
    """For each row, one of its kind and the nearest of another one."""
    far = distances(features, features)
    same = kinds[:, None] == kinds
    positive = (rng.random(same.shape) * (same & ~np.eye(len(kinds), dtype=bool))).argmax(axis=1)
    return np.arange(len(kinds)), positive, np.where(same, np.inf, far).argmin(axis=1)


print(f"one known digit of each kind, pixels: accuracy {accuracy(lambda x: x.reshape(len(x), -1) / 255):.1%}")
for step in range(1, 401):
    rows = rng.integers(len(images), size=64)
    features, tape = model.forward(images[rows], train=True)
    chosen = triplets(features, labels[rows])
    found = loss(tuple(features[each] for each in chosen), np.zeros(64))
    gradient = np.zeros_like(features)
    for each, part in zip(chosen, found.gradient):
        np.add.at(gradient, each, part)
    model.backward(gradient, tape, need_dx=False)
    optimizer.step(model.params, model.backend)
    if step % 100 == 0:
        print(f"step {step}: loss {found.total / 64:.3f}, features: accuracy {accuracy(model.predict):.1%}")
