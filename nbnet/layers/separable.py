"""Depthwise separable convolution layer."""

from __future__ import annotations

from typing import Any

from nbnet.layers.conv2d import Conv2D, DepthwiseConv2D, Size
from nbnet.layers.sequential import Sequential


class SeparableConv2D(Sequential):
    """A DepthwiseConv2D, then a Conv2D of one pixel that mixes the channels   (Sifre 2014; Howard et al. 2017)

    To normalise between the two, write them as two layers: [DepthwiseConv2D(3), BatchNorm(), ReLU(), Conv2D(filters, 1)].

    Args:
        filters: number of output channels.
        kernel_size, stride, padding, dilation, multiplier: of the depthwise convolution, which has no bias.
        use_bias, weight_initializer, bias_initializer: as in Conv2D; the bias is that of the second convolution.
    Params: those of its two layers, "0.depthwiseconv2d.weight", "1.conv2d.weight", "1.conv2d.bias".
    """

    replayable = True

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Any = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        *,
        multiplier: int = 1,
        dilation: Size = 1,
    ):
        options = {"weight_initializer": weight_initializer, "multiplier": multiplier, "dilation": dilation}
        depthwise = DepthwiseConv2D(kernel_size, stride, padding, use_bias=False, **options)
        pointwise = Conv2D(filters, 1, use_bias=use_bias, weight_initializer=weight_initializer, bias_initializer=bias_initializer)
        super().__init__([depthwise, pointwise])
