"""nbnet train on the data sets that are downloaded: the defaults, with files from --data-dir."""

import numpy as np
import pytest
from datasets.samples import CIFAR, CIFAR_100, SVHN, emnist, idx_bytes, write

from nbnet.cli import settings

ROWS = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)


def of_28(files):
    """The same files with images of 28x28 pixels."""
    return {name: idx_bytes(ROWS) if "images" in name else idx_bytes([1, 2, 3, 4]) for name in files}


MNIST = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.mark.parametrize(
    ("name", "files", "classes", "model", "augment", "epochs", "lr", "batch_size"),
    [
        ("mnist", of_28(MNIST), 10, "lenet", [], 5, 0.003, 32),
        ("kmnist", of_28(MNIST), 10, "lenet", ["crop"], 5, 0.003, 32),
        ("emnist", of_28(emnist("balanced")), 47, "lenet", ["crop"], 5, 0.003, 64),
        ("emnist-letters", of_28(emnist("letters")), 26, "lenet", ["crop"], 5, 0.003, 64),
        ("cifar10", CIFAR, 10, "resnet9", ["flip", "crop"], 10, 0.01, 64),
        ("cifar100", CIFAR_100, 100, "resnet9", ["flip", "crop"], 20, 0.01, 64),
        ("svhn", SVHN, 10, "resnet9", ["crop"], 10, 0.01, 64),
    ],
)
def test_defaults(tmp_path, name, files, classes, model, augment, epochs, lr, batch_size):
    config, (train, _, class_names) = settings.new({"data": name, "data_dir": str(write(tmp_path, files))})
    assert (config.data, config.data_dir, len(class_names)) == (name, str(tmp_path), classes)
    assert (config.model, config.augment, config.epochs, config.lr, config.batch_size) == (model, augment, epochs, lr, batch_size)
    assert tuple(config.image_shape) == train[0].shape[1:]
