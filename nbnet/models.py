"""Ready-made networks: functions that return an unbuilt Sequential. MODELS are those that classify images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbnet import initializers
from nbnet.errors import ArgumentError, unknown
from nbnet.layers import (
    BatchNorm,
    Concat,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    Identity,
    Layer,
    MaxPool1D,
    MaxPool2D,
    Multiply,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    UpSample2D,
)


def digits(classes: int = 10) -> Sequential:
    """For tiny images, from 4x4: 3x3 convolutions with 16 and 32 filters, dropout, dense."""
    return Sequential(
        [
            *_conv(16),
            MaxPool2D(2),
            *_conv(32),
            MaxPool2D(2),
            Flatten(),
            Dropout(0.25),
            Dense(classes),
        ]
    )


def lenet(classes: int = 10) -> Sequential:
    """For small grey images such as 28x28: 3x3 convolutions with 32 and 64 filters, dense 128, dropout, dense.

    The layout of LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998), with ReLU, batch normalisation and dropout.
    """
    return Sequential(
        [
            *_conv(32),
            MaxPool2D(2),
            *_conv(64),
            MaxPool2D(2),
            Flatten(),
            Dense(128),
            ReLU(),
            Dropout(0.25),
            Dense(classes),
        ]
    )


def five_conv(classes: int = 10) -> Sequential:
    """For colour images from 8x8, such as 32x32: 3x3 convolutions 64-64-32-16-classes, average pool to 1x1, no dense layer."""
    return Sequential(
        [
            *_conv(64),
            MaxPool2D(2),
            *_conv(64),
            MaxPool2D(2),
            *_conv(32),
            MaxPool2D(2),
            *_conv(16),
            *_conv(classes),
            GlobalAvgPool2D(),
        ]
    )


def resnet9(classes: int = 10, width: int = 16) -> Sequential:
    """A small residual network for images from 8x8: eight 3x3 convolutions, two residual blocks, dense.

    The layout of the ResNet-9 of the DAWNBench competition (Page 2018), with a quarter of its channels, to train on a few cores.

    Args:
        width: filters of the first convolution; the later ones have 2, 4 and 8 times as many.
    """
    return Sequential(
        [
            *_conv(width),
            *_conv(2 * width),
            MaxPool2D(2),
            Residual([*_conv(2 * width), *_conv(2 * width)]),
            *_conv(4 * width),
            MaxPool2D(2),
            *_conv(8 * width),
            MaxPool2D(2),
            Residual([*_conv(8 * width), *_conv(8 * width)]),
            GlobalAvgPool2D(),
            Dense(classes),
        ]
    )


def se_resnet(classes: int = 10, width: int = 16) -> Sequential:
    """A residual network with squeeze and excitation for images from 4x4: three blocks of two 3x3 convolutions, whose channels are
    weighted by what the whole image holds   (Hu, Shen and Sun 2018).

    Args:
        width: filters of the first block; the others have 2 and 4 times as many.
    """

    def block(filters: int, stride: int) -> list[Layer]:
        gate = [GlobalAvgPool2D(), Dense(max(1, filters // 4)), ReLU(), Dense(filters), Sigmoid()]
        first = [Conv2D(filters, 3, stride=stride, use_bias=False), BatchNorm(), ReLU()]
        body = [*first, Conv2D(filters, 3, use_bias=False), BatchNorm(), Multiply([Identity(), gate])]
        shortcut = None if stride == 1 else [Conv2D(filters, 1, stride=stride, use_bias=False), BatchNorm()]
        return [Residual(body, shortcut), ReLU()]

    blocks = [*block(width, 1), *block(2 * width, 2), *block(4 * width, 2)]
    return Sequential([*_conv(width), *blocks, GlobalAvgPool2D(), Dense(classes)])


def siamese(classes: int = 2, features: int = 32) -> Sequential:
    """For pairs of images from 4x4, x = (a, b): whether both show the same class (1) or not (0)   (Bromley et al. 1993).

    One trunk computes features of each image, and a dense layer weighs their products.

    Args:
        features: of an image, which `model.layers[0].branches[0]` gives.
    """
    trunk = Sequential([*_conv(16), MaxPool2D(2), *_conv(32), MaxPool2D(2), Flatten(), Dense(features), Tanh()])
    return Sequential([Parallel([trunk, trunk]), Multiply(), Dense(classes)])


def mobile(classes: int = 10, width: int = 16) -> Sequential:
    """Depthwise separable convolutions for images from 4x4: five blocks of a 3x3 convolution of each channel and a 1x1 convolution.

    The blocks of MobileNet (Howard et al. 2017), fewer and narrower.

    Args:
        width: filters of the first convolution; the last block has 8 times as many.
    """

    def block(filters: int, stride: int) -> list[Layer]:
        each = [DepthwiseConv2D(3, stride=stride, use_bias=False), BatchNorm(), ReLU()]
        return [*each, Conv2D(filters, 1, use_bias=False), BatchNorm(), ReLU()]

    sizes = [(2 * width, 1), (4 * width, 2), (4 * width, 1), (8 * width, 2), (8 * width, 1)]
    blocks = [layer for filters, stride in sizes for layer in block(filters, stride)]
    return Sequential([*_conv(width), *blocks, GlobalAvgPool2D(), Dropout(0.1), Dense(classes)])


def keyword(classes: int = 10, width: int = 32) -> Sequential:
    """For sequences (L, C) of at least 4 steps, such as the bands of a sound or the readings of sensors: three 1-D convolutions, dense.

    Args:
        width: filters of the first convolution; the others have twice as many.
    """

    def block(filters: int, size: int) -> list[Layer]:
        return [Conv1D(filters, size, use_bias=False), BatchNorm(), ReLU()]

    blocks = [*block(width, 5), MaxPool1D(2), *block(2 * width, 5), MaxPool1D(2), *block(2 * width, 3)]
    return Sequential([*blocks, GlobalAvgPool1D(), Dropout(0.25), Dense(classes)])


def autoencoder(channels: int = 1, features: int = 8) -> Sequential:
    """For images with sides of multiples of 4: makes (H / 4, W / 4, features) of an image, and the image of that, from 0 to 1.

    Train it by "mean_squared_error" with the images themselves as targets, divided by 255; `model.trunk(until="code")` gives the features.

    Args:
        channels: of the images.
    """
    encoder = [*_conv(16, 2), *_conv(32, 2), Conv2D(features, 1).named("code")]
    decoder = [ConvTranspose2D(32, 3, stride=2), ReLU(), ConvTranspose2D(16, 3, stride=2), ReLU()]
    return Sequential([*encoder, *decoder, Conv2D(channels, 3), Sigmoid()])


def unet_small(channels: int = 1, width: int = 8) -> Sequential:
    """For images with sides of multiples of 4, which become images of the same size from 0 to 1: a mask, or the image without noise.

    Two levels of a U-Net (Ronneberger, Fischer and Brox 2015). Train it by "mean_squared_error".

    Args:
        channels: of the results. width: filters at full size.
    """
    bottom = [MaxPool2D(2), *_conv(4 * width), UpSample2D(2)]
    middle = [MaxPool2D(2), *_conv(2 * width), Concat([Identity(), bottom]), *_conv(2 * width), UpSample2D(2)]
    return Sequential([*_conv(width), Concat([Identity(), middle]), *_conv(width), Conv2D(channels, 1), Sigmoid()])


def airbench(classes: int = 10, widths: Sequence[int] = (64, 256, 256), activation: str = "gelu") -> Sequential:
    """For RGB images of 32x32 pixels (from 25x25): the network of "94% on CIFAR-10 in 3.29 seconds" (Jordan 2024).

    Pixels are standardised, patches of 2x2 whitened. Each of three blocks has two 3x3 convolutions, the first of which is pooled.
    nb.recipes.airbench makes its trainer.

    Args:
        widths: filters of the blocks. activation: "gelu", as in the paper, or another name, such as "relu".
    """

    def norm() -> BatchNorm:
        return BatchNorm(decay=0.6, scale=False, activation=activation)

    def conv(filters: int) -> Conv2D:
        return Conv2D(filters, 3, use_bias=False, weight_initializer=initializers.passing())

    standardize = BatchNorm(center=False, scale=False).named("standardize")
    whiten = Conv2D(24, 2, padding="valid", activation=activation).named("whiten")  # of RGB
    blocks = [layer for width in widths for layer in (conv(width), MaxPool2D(2), norm(), conv(width), norm())]
    head = Dense(classes, use_bias=False, weight_initializer=initializers.normal(0.004)).named("head")
    return Sequential([standardize, whiten, *blocks, MaxPool2D(3), Flatten(), head])


def _conv(filters: int, stride: int = 1) -> list[Layer]:
    """A 3x3 convolution, batch normalisation (whose beta is the bias) and ReLU."""
    return [Conv2D(filters, 3, stride=stride, use_bias=False), BatchNorm(), ReLU()]


MODELS: dict[str, Callable[[int], Sequential]] = {
    "digits": digits,
    "lenet": lenet,
    "five-conv": five_conv,
    "resnet9": resnet9,
    "se-resnet": se_resnet,
    "mobile": mobile,
    "airbench": airbench,
}


def get(name: str) -> Callable[[int], Sequential]:
    """The function of this name in MODELS.

    Raises:
        ArgumentError: unknown name; the message suggests the nearest one.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise ArgumentError(unknown("model", name, MODELS))
    return MODELS[name]


def choose(name: str, image_shape: tuple[int, int, int]) -> str:
    """The name itself, or for "auto" a model for images (H, W, C): digits for tiny ones, lenet for small grey ones, else resnet9.

    Raises:
        ArgumentError: the name is neither "auto" nor in MODELS.
    """
    if name != "auto":
        if not isinstance(name, str) or name not in MODELS:
            raise ArgumentError(unknown("model", name, ["auto", *MODELS]))
        return name
    height, width, channels = image_shape
    if min(height, width) < 16:
        return "digits"
    return "lenet" if channels == 1 and height * width <= 40 * 40 else "resnet9"
