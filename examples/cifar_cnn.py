"""Train a small CNN on CIFAR-10 (or a part of it, or your folder) without batch norm, with it, and with dropout too.

python cifar_cnn.py                      the digits that come with nbnet, seconds
python cifar_cnn.py cifar10              CIFAR-10: downloaded once, half an hour or so
python cifar_cnn.py cifar10 some/folder  CIFAR-10 from files that you have
"""

import sys

import nbnet as nb

if sys.argv[1:]:
    (x, y), (x_test, y_test), names = nb.datasets.open_data(*sys.argv[1:3])
    epochs = 10
else:
    (x, y), (x_test, y_test), names = nb.datasets.load("digits")
    epochs = 8


def network(batch_norm, dropout):
    """Five 3x3 convolutions; the channels of the last one, averaged over the picture, are the scores of the classes."""
    layers = []
    for place, filters in enumerate((64, 64, 32, 16, len(names))):
        layers.append(nb.Conv2D(filters, 3, use_bias=not batch_norm))  # batch norm has its own bias, beta
        if batch_norm:
            layers.append(nb.BatchNorm(decay=0.9))
        layers.append(nb.ReLU())
        if place < 3:
            layers.append(nb.MaxPool2D(2))
            if dropout:
                layers.append(nb.Dropout(dropout))
    return nb.Sequential([*layers, nb.GlobalAvgPool2D()])


for name, batch_norm, dropout in (("plain", False, 0), ("batch norm", True, 0), ("batch norm and dropout", True, 0.25)):
    model = network(batch_norm, dropout)
    model.build(x.shape[1:], seed=0)
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3))
    history = trainer.fit((x, y), epochs=epochs, batch_size=64, validation=(x_test, y_test))
    speed = len(x) / min(history["seconds"])
    print(f"{name:>22}: test accuracy {history['val_accuracy'][-1]:.1%}, loss {history['val_loss'][-1]:.3f}, {speed:,.0f} images/s")
