"""Operations on plain arrays, with no layer: checked calls of the kernels, forward and backward side by side.

Every forward returns `(y, saved)`; its backward takes the cotangent dy and that `saved`, a small named tuple, and computes
on the same backend. `backend` is a name ("numpy", "serial", "parallel", "cuda") or a Backend. Arrays are float32 or float64; images
are NHWC. A backward that gives parameter gradients takes optional arrays to write them into (`dweight=`, ...).
"""

from nbnet.functional.batchnorm import (
    Correction,
    Sums,
    batch_norm_apply,
    batch_norm_backward,
    batch_norm_backward_apply,
    batch_norm_backward_reduce,
    batch_norm_forward,
    batch_norm_parameter_gradients,
    batch_normalization,
)
from nbnet.functional.conv2d import conv2d_backward, conv2d_forward
from nbnet.functional.conv_transpose import conv_transpose2d_backward, conv_transpose2d_forward
from nbnet.functional.dense import dense_backward, dense_forward
from nbnet.functional.dropout import dropout_backward, dropout_forward
from nbnet.functional.groupnorm import (
    group_norm_backward,
    group_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
    rms_norm_backward,
    rms_norm_forward,
)
from nbnet.functional.moments import Stats, batch_norm_stats, merge_stats, moments
from nbnet.functional.pool import avg_pool2d_backward, avg_pool2d_forward, max_pool2d_backward, max_pool2d_forward
from nbnet.functional.resample import (
    Taps,
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool2d_forward,
    pad2d_backward,
    pad2d_forward,
    resample_backward,
    resample_forward,
    upsample2d_backward,
    upsample2d_forward,
)

__all__ = [
    "Correction",
    "Stats",
    "Sums",
    "Taps",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm_apply",
    "batch_norm_backward",
    "batch_norm_backward_apply",
    "batch_norm_backward_reduce",
    "batch_norm_forward",
    "batch_norm_parameter_gradients",
    "batch_norm_stats",
    "batch_normalization",
    "conv2d_backward",
    "conv2d_forward",
    "conv_transpose2d_backward",
    "conv_transpose2d_forward",
    "dense_backward",
    "dense_forward",
    "dropout_backward",
    "dropout_forward",
    "group_norm_backward",
    "group_norm_forward",
    "layer_norm_backward",
    "layer_norm_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "merge_stats",
    "moments",
    "pad2d_backward",
    "pad2d_forward",
    "resample_backward",
    "resample_forward",
    "rms_norm_backward",
    "rms_norm_forward",
    "upsample2d_backward",
    "upsample2d_forward",
]
