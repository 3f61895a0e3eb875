"""Every workload: a kernel or a training step of one size, with its arrays and its cost. Imports NumPy only."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nbnet.bench import counts, networks
from nbnet.bench.counts import Cost

RATE = 0.5  # of dropout as a kernel

# Allowed difference from the reference, relative to the largest value. In float32 some peers add up 131,072 rows one by one, which
# puts gamma's gradient off by 2.3e-4.
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}
# Relative, for the losses of the first steps. The float64 limit is Keras's: its lr is float32, its Adam adds eps in another place.
LOSS_TOLERANCE = {"float32": 1e-3, "float64": 1e-5}
RANDOM_LOSS = 0.4  # the same for the first step of a network with dropout: other masks give other losses

OPS = {
    "five-conv": "a training step of five-conv",
    "mnist-cnn": "a training step of the MNIST CNN",
    "digits-cnn": "a training step of the digits CNN",
    "mlp": "a training step of the MLP, float64",
    "mobile": "a training step of mobile, of depthwise separable convolutions",
    "conv2d": "3x3 convolution: forward, backward to the input, backward to the weights",
    "depthwise": "3x3 convolution of each channel by itself, forward and backward",
    "groups": "3x3 convolution in four groups, forward and backward",
    "conv1d": "convolution of sequences, kernel 9, forward and backward",
    "batchnorm": "batch norm and ReLU, forward and backward",
    "activation": "an activation, forward and backward",
    "dropout": "dropout, forward and backward",
    "dense": "dense, forward and backward",
    "max-pool": "2x2 max pool, forward and backward",
    "softmax": "softmax cross-entropy and its gradient",
    "adam": "a step of Adam",
}
STEPS = tuple(networks.NETWORKS)
CONVOLUTIONS = {  # besides conv2d, whose rows are of one direction: the kernel's height and width, and the groups
    "depthwise": ((3, 3), None),  # as many as channels
    "groups": ((3, 3), 4),
    "conv1d": ((1, 9), 1),
}
OF_TORCH_ALONE = (*CONVOLUTIONS, "activation", "mobile")  # that the other frameworks do not take part in
ACTIVATIONS = ("gelu", "silu", "mish", "elu", "softplus", "hardswish")
RESULTS = {  # of a kernel, in this order
    "forward": ("y",),
    "backward_data": ("dx",),
    "backward_weights": ("dweight",),
    "depthwise": ("y", "dx", "dweight"),
    "groups": ("y", "dx", "dweight"),
    "conv1d": ("y", "dx", "dweight"),
    "batchnorm": ("y", "dx", "dgamma", "dbeta"),
    "activation": ("y", "dx"),
    "dropout": ("y", "dx"),
    "dense": ("y", "dx", "dweight", "dbias"),
    "max-pool": ("y", "dx"),
    "softmax": ("loss", "dlogits"),
    "adam": ("value",),
}
FORMS = {  # of --shapes, by operation
    "conv2d": "NxHxWxC-FILTERS",
    "depthwise": "NxHxWxC/STRIDE",
    "groups": "NxHxWxC-FILTERS",
    "conv1d": "NxLxC-FILTERS",
    "batchnorm": "NxHxWxC",
    "activation": "NxHxWxC",
    "dropout": "NxHxWxC",
    "max-pool": "NxHxWxC",
    "dense": "ROWSxINPUTS-OUTPUTS",
    "softmax": "ROWSxCLASSES",
    "adam": "PARAMETERS",
}


@dataclass(frozen=True)
class Workload:
    """One thing to measure. shape: of the input, the batch first. outputs: filters or units; of depthwise the stride. sweep: only for the
    chart of cost against size."""

    op: str
    shape: tuple[int, ...]
    outputs: int = 0
    part: str = ""  # of conv2d: forward, backward_data, backward_weights; of an activation its name
    sweep: bool = False

    @property
    def is_step(self) -> bool:
        return self.op in STEPS

    @property
    def dtype(self) -> str:
        return networks.NETWORKS[self.op].dtype if self.is_step else "float32"

    @property
    def size(self) -> str:
        """The shape as it is written: "128x32x32x64-64", with a stride "128x32x32x64/2", for a step "batch 128"."""
        if self.is_step:
            return f"batch {self.shape[0]:,}"
        before = "/" if self.op == "depthwise" else "-"
        return "x".join(map(str, self.shape)) + (f"{before}{self.outputs}" if self.outputs else "")

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.op, self.part, self.size)))

    @property
    def costs(self) -> list[Cost]:
        """The costs of its parts; each is limited by arithmetic or by memory."""
        itemsize = np.dtype(self.dtype).itemsize
        if self.is_step:
            return networks.costs(networks.NETWORKS[self.op], self.shape[0])
        if self.op == "conv2d":
            return [counts.conv2d(self.shape, self.outputs, self.part, itemsize)]
        if self.op in CONVOLUTIONS:
            convolution = self.convolution
            return counts.convolution(convolution.image, convolution.weight, convolution.stride, itemsize)
        if self.op == "dense":
            return counts.dense(self.shape, self.outputs, itemsize)
        if self.op == "max-pool":
            return [counts.max_pool(self.shape, 2, itemsize)]
        if self.op == "adam":
            return [counts.adam(self.shape[0], itemsize)]
        kinds: dict[str, Any] = {
            "batchnorm": counts.batchnorm,
            "dropout": counts.elementwise,
            "activation": counts.activation,
            "softmax": counts.softmax,
        }
        return [kinds[self.op](self.shape, itemsize)]

    @property
    def convolution(self) -> Convolution:
        """Of the operations in CONVOLUTIONS."""
        kernel, groups = CONVOLUTIONS[self.op]
        image = self.shape if len(self.shape) == 4 else (self.shape[0], 1, *self.shape[1:])
        stride, outputs = (self.outputs, image[3]) if groups is None else (1, self.outputs)
        groups = groups or image[3]
        return Convolution(image, (*kernel, image[3] // groups, outputs), stride, groups)

    @property
    def flops(self) -> float:
        return sum(cost.flops for cost in self.costs)

    @property
    def bytes(self) -> float:
        return sum(cost.bytes for cost in self.costs)

    def floor(self, flops: float, bandwidth: float) -> float:
        """The least time in seconds on a machine with these rates per second: each part at the rate that limits it."""
        return sum(max(cost.flops / flops, cost.bytes / bandwidth) for cost in self.costs)


class Convolution(NamedTuple):
    """A convolution with padding that keeps the size, or divides it by the stride."""

    image: tuple[int, ...]  # (N, H, W, I); H is 1 for sequences
    weight: tuple[int, ...]  # (KH, KW, I / groups, O)
    stride: int
    groups: int

    @property
    def padding(self) -> tuple[int, int]:
        """PyTorch's way: pixels on both sides of each axis."""
        return self.weight[0] // 2, self.weight[1] // 2


def inputs(workload: Workload) -> dict[str, np.ndarray]:
    """A kernel's input arrays, the same in every process."""
    rng = np.random.default_rng(zlib.crc32(workload.name.encode()))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    shape, outputs = workload.shape, workload.outputs
    if workload.op == "conv2d":
        dy = (*shape[:-1], outputs)
        x, weight = normal(*shape), normal(3, 3, shape[-1], outputs) * np.float32((9 * shape[-1]) ** -0.5)
        return {"x": x, "weight": weight, "dy": normal(*dy) if workload.part != "forward" else np.zeros(0, np.float32)}
    if workload.op in CONVOLUTIONS:
        image, size, stride, _ = workload.convolution
        weight = normal(*size) * np.float32(np.prod(size[:3]) ** -0.5)
        pixels = (-(-n // stride) for n in image[1:3])
        return {"x": normal(*image), "weight": weight, "dy": normal(image[0], *pixels, size[3])}
    if workload.op == "dense":
        weight = normal(shape[1], outputs) * np.float32(shape[1] ** -0.5)
        return {"x": normal(*shape), "weight": weight, "bias": normal(outputs), "dy": normal(shape[0], outputs)}
    if workload.op == "max-pool":
        return {"x": normal(*shape), "dy": normal(shape[0], shape[1] // 2, shape[2] // 2, shape[3])}
    if workload.op == "softmax":
        return {"logits": normal(*shape) * 3, "labels": rng.integers(0, shape[1], shape[0])}
    if workload.op == "adam":
        return {"value": normal(*shape), "grad": normal(*shape)}
    arrays = {"x": normal(*shape), "dy": normal(*shape)}
    if workload.op == "batchnorm":
        arrays |= {"gamma": 1 + 0.1 * normal(shape[-1]), "beta": 0.1 * normal(shape[-1])}
        _keep_off_the_kink(arrays["x"].reshape(-1, shape[-1]), arrays["gamma"], arrays["beta"])
    return arrays


def _keep_off_the_kink(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> None:
    """Move elements that the batch norm would put within rounding of the ReLU's kink: one such element of eight million changes a
    channel's sum by more than the tolerance."""
    kink = x.mean(axis=0, dtype=np.float64) - beta * x.std(axis=0, dtype=np.float64) / gamma
    x[np.abs(x - kink.astype(np.float32)) < 1e-5] += np.float32(1e-4)


# ------------------------------------------------------------------------------------------------------- the list


def _convolutions(sizes: list[tuple[int, int, int]], batch: int) -> list[Workload]:
    parts = ("forward", "backward_data", "backward_weights")
    return [Workload("conv2d", (batch, size, size, i), o, part) for i, o, size in sizes for part in parts]


def standard(quick: bool = False) -> list[Workload]:
    """The workloads of a run; a quick run has fewer and smaller ones."""
    if quick:
        return [
            *(Workload(op, (rows,)) for op, rows in (("five-conv", 32), ("mnist-cnn", 64), ("digits-cnn", 64), ("mlp", 1000))),
            *_convolutions([(3, 64, 32), (64, 64, 16)], 32),
            Workload("depthwise", (32, 16, 16, 128), 1),
            *(Workload(op, (128, 16, 16, 64)) for op in ("batchnorm", "dropout", "max-pool")),
            Workload("dense", (64, 3136), 128),
            Workload("softmax", (128, 10)),
            Workload("adam", (100_000,)),
            *(Workload("batchnorm", (n, 16, 16, 64), sweep=True) for n in (2, 16)),
        ]
    image = (128, 32, 32, 64)
    return [
        *(Workload("five-conv", (rows,)) for rows in (128, 32)),
        *(Workload(op, (rows,)) for op, rows in (("mnist-cnn", 64), ("digits-cnn", 64), ("mlp", 1000))),
        Workload("mobile", (64,)),
        *_convolutions([(3, 64, 32), (64, 64, 32), (64, 64, 16), (64, 64, 8), (128, 128, 8)], 128),
        *(Workload("depthwise", shape, stride) for shape in (image, (128, 16, 16, 128)) for stride in (1, 2)),
        *(Workload("groups", shape, shape[3]) for shape in (image, (128, 16, 16, 128))),
        Workload("conv1d", (128, 1024, 64), 64),
        *(Workload("activation", image, part=name) for name in ACTIVATIONS),
        *(Workload(op, image) for op in ("batchnorm", "dropout", "max-pool")),
        Workload("dense", (64, 3136), 128),
        *(Workload("softmax", shape) for shape in ((128, 10), (4096, 100))),
        Workload("adam", (1_000_000,)),
        Workload("five-conv", (8,), sweep=True),
        *(Workload("digits-cnn", (rows,), sweep=True) for rows in (4, 512)),
        *(Workload("conv2d", (n, 16, 16, 64), 64, "forward", sweep=True) for n in (1, 16)),
        *(Workload(op, (n, 32, 32, 64), sweep=True) for op in ("batchnorm", "dropout") for n in (1, 16)),
    ]


def of_shape(op: str, text: str) -> list[Workload] | None:
    """The workloads of an operation in a shape given as text, or None where the text does not fit the operation."""
    if op not in FORMS:
        return None
    pattern = re.sub("[A-Z]+", r"([1-9]\\d{0,8})", FORMS[op])
    match = re.fullmatch(pattern, text)
    if match is None:
        return None
    *shape, last = (int(number) for number in match.groups())
    if op == "conv2d":
        return [Workload(op, tuple(shape), last, part) for part in ("forward", "backward_data", "backward_weights")]
    if op == "activation":
        return [Workload(op, (*shape, last), part=name) for name in ACTIVATIONS]
    return [Workload(op, tuple(shape), last) if op == "dense" or op in CONVOLUTIONS else Workload(op, (*shape, last))]
