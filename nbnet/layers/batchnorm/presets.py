"""What other frameworks mean by batch norm, as options of ours."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # torch.nn.BatchNorm2d: its momentum 0.1 is the weight of the new value
    "pytorch": {"decay": 0.9, "eps": 1e-5, "unbiased": True},
    # keras.layers.BatchNormalization: its momentum 0.99 is the weight of the old value
    "keras": {"decay": 0.99, "eps": 1e-3, "unbiased": False},
    # tf.contrib.layers.batch_norm, tf_slim.batch_norm, not fused
    "tf_contrib": {"decay": 0.999, "eps": 1e-3, "unbiased": False, "scale": False},
    # flax.linen.BatchNorm
    "flax": {"decay": 0.99, "eps": 1e-5, "unbiased": False},
    # CS231n assignment 2: the running variance starts at 0
    "cs231n": {"decay": 0.9, "eps": 1e-5, "unbiased": False, "initial_var": 0.0},
    # a PyTorch-from-scratch tutorial: averages the deviation, and torch.var divides by n - 1
    "sigma": {"decay": 0.9, "eps": 1e-6, "unbiased": True, "unbiased_batch": True, "track": "deviation"},
}
