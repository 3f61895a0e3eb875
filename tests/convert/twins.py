"""What the tests of conversions share."""

from pathlib import Path

import numpy as np

import nbnet as nb

GOLDEN = Path(__file__).parents[1] / "golden" / "convert"


def built(layers, shape, **options):
    model = nb.Sequential(layers)
    model.build(shape, **{"backend": "serial", "seed": 1} | options)
    return model


def of_torch(**options):
    """The network of golden/convert/torch.safetensors."""
    layers = [
        nb.Conv2D(4, 3, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.MaxPool2D(2),
        nb.DepthwiseConv2D(3, multiplier=2),
        nb.PReLU(per_channel=True),
        nb.Conv2D(6, 3, groups=2),
        nb.Flatten(),
        nb.Dense(5),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.Dense(3),
    ]
    return built(layers, (8, 6, 1), **options)


def of_keras(**options):
    """That of the files of Keras."""
    layers = [
        nb.Conv2D(4, 3, stride=2, use_bias=False).named("stem"),
        nb.BatchNorm.preset("keras", **options),
        nb.SeparableConv2D(6, 3),
        nb.ReLU(),
        nb.ConvTranspose2D(2, 3, stride=2, use_bias=False),
        nb.Flatten(),
        nb.Dense(3).named("head"),
    ]
    return built(layers, (8, 6, 1))


def everything(model):
    """All bits of a model, and what it is."""
    return {name: np.array(array).tobytes() for name, array in model.state().items()}, repr(model)
